package main

import (
	"bytes"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

// launchLimited starts the program with a limit of open files, as a shell's ulimit -n sets it.
func launchLimited(t *testing.T, files int, args ...string) *daemon {
	t.Helper()
	limited := fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, files)
	return start(t, exec.Command("/bin/sh", append([]string{"-c", limited, buildBinary(t)}, args...)...))
}

// produceLarge produces one record of n bytes to each partition, whose key is the partition, and waits until all are acknowledged.
func produceLarge(t *testing.T, c *client.Client, topic string, partitions, n int) {
	t.Helper()
	ctx := testContext(t)
	p, err := c.NewProducer(client.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var failed atomic.Pointer[error]
	for i := range partitions {
		value := bytes.Repeat([]byte(fmt.Sprintf("%08d", i)), n/8)
		record := client.Record{Topic: topic, Partition: client.At(id.Partition(i)), Key: []byte(fmt.Sprint(i)), Value: value}
		err := p.Produce(ctx, record, func(a client.Ack) {
			if a.Err != nil {
				failed.Store(&a.Err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(p.Flush(ctx), p.Close(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := failed.Load(); err != nil {
		t.Fatal(*err)
	}
}

// TestMorePartitionsThanFiles runs a node that may have 256 files open with 400 partitions, each of which has its own files.
func TestMorePartitionsThanFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	const limit, partitions = 256, 400
	args := founderArgs(t, t.TempDir(), 1)
	d := launchLimited(t, limit, args...)
	port, _, _ := d.ports()
	c := newClient(t, port)
	makeTopic(t, c, client.TopicSpec{Name: "many", Partitions: partitions, ReplicationFactor: 1})
	for range 2 {
		produceLarge(t, c, "many", partitions, 56<<10) // so much of each that it goes to its segment at once
	}
	d.terminate()

	d = launchLimited(t, limit, args...)
	port, _, _ = d.ports()
	c = newClient(t, port)
	ends, err := c.Admin().Offsets(testContext(t), "many")
	if err != nil || len(ends) != partitions {
		t.Fatalf("%d partitions, %v", len(ends), err)
	}
	consumer, err := c.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	for _, r := range ends {
		if err := consumer.Assign(r.TopicPartition, client.Beginning); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(map[string]int)
	for total := 0; total < 2*partitions; {
		fetch, err := consumer.Poll(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for m, err := range fetch.Records() {
			if err != nil {
				t.Fatal(err)
			}
			seen[string(m.Key)]++
			total++
		}
	}
	for i := range partitions {
		if n := seen[fmt.Sprint(i)]; n != 2 {
			t.Errorf("partition %d has %d records", i, n)
		}
	}
	lines := d.errout.lines("the limit of open files is low")
	if len(lines) != 1 || !strings.Contains(lines[0], "limit=256 replicas=401") || !strings.Contains(lines[0], "ulimit -n") {
		t.Errorf("it starts with %q", lines)
	}
	if lines := d.errout.lines("too many open files"); len(lines) > 0 {
		t.Errorf("it says %q", lines)
	}
	d.terminate()
}

// TestTooFewFiles: a limit with which nothing works is refused at once.
func TestTooFewFiles(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	d := launchLimited(t, 100, founderArgs(t, t.TempDir(), 1)...)
	if code := d.code(); code != 1 || !strings.Contains(d.lastWords(), "100 files") || !strings.Contains(d.lastWords(), "LimitNOFILE") {
		t.Errorf("it exits with %d: %s", code, d.lastWords())
	}
}

// TestSegmentSize: --segment-mb is for topics that have no segment.bytes, and segment.bytes counts from when it is set.
func TestSegmentSize(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	dir := t.TempDir()
	d := launch(t, founderArgs(t, dir, 1, "--segment-mb", "1")...)
	port, _, _ := d.ports()
	c := newClient(t, port)
	for topic, configs := range map[string]map[string]string{"default": nil, "own": {"segment.bytes": "100000"}, "changed": nil} {
		makeTopic(t, c, client.TopicSpec{Name: topic, Partitions: 1, ReplicationFactor: 1, Configs: configs})
	}
	for range 12 {
		produceLarge(t, c, "default", 1, 200_000)
		produceLarge(t, c, "own", 1, 60_000)
	}
	for range 4 {
		produceLarge(t, c, "changed", 1, 60_000)
	}
	if _, err := c.Admin().AlterConfig(testContext(t), "changed", map[string]string{"segment.bytes": "100000"}, nil); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		produceLarge(t, c, "changed", 1, 60_000)
	}
	d.terminate()
	for topic, want := range map[string]int{"default": 3, "own": 12, "changed": 5} {
		files, err := filepath.Glob(filepath.Join(dir, "node-1", "logs", topic+"-0.*", "*.log"))
		if err != nil || len(files) != want {
			t.Errorf("%s has the segments %q, %v; want %d", topic, files, err, want)
		}
	}
}
