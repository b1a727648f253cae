package node_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	smallSegment = 64 << 10
	keptBytes    = 2 * smallSegment
)

// retaining is a cluster whose topics do not keep everything.
type retaining struct {
	*nodetest.Cluster
	t   *testing.T
	k   *client.Client
	p   *client.Producer
	ctx context.Context
}

func (r *retaining) create(topic string, configs map[string]string) {
	r.t.Helper()
	if err := r.k.Admin().CreateTopic(r.ctx, client.TopicSpec{Name: topic, Partitions: 1, ReplicationFactor: 3, Configs: configs}); err != nil {
		r.t.Fatal(err)
	}
}

func (r *retaining) alter(topic, key, value string) {
	r.t.Helper()
	if _, err := r.k.Admin().AlterConfig(r.ctx, topic, map[string]string{key: value}, nil); err != nil {
		r.t.Fatal(err)
	}
}

func (r *retaining) produce(topic string, records, size int) {
	r.t.Helper()
	for range records {
		if _, err := r.p.ProduceSync(r.ctx, client.Record{Topic: topic, Value: make([]byte, size)}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// all tells whether something holds of the replicas of a topic on all nodes that run.
func (r *retaining) all(topic string, holds func(o node.Options, p *partition.Partition) bool) bool {
	for _, n := range r.Nodes {
		if n.Node == nil {
			continue
		}
		if p := n.Partition(topic); p == nil || !holds(n.Options, p) {
			return false
		}
	}
	return true
}

func (r *retaining) awaitStart(topic string, want id.Offset) {
	r.t.Helper()
	nodetest.Eventually(r.t, "another log start of "+topic, func() bool {
		return r.all(topic, func(_ node.Options, p *partition.Partition) bool { return p.LogStart() == want })
	})
}

// awaitSmall waits until each replica of the topic has what it keeps, and two segments, at most: in its log and in its files.
func (r *retaining) awaitSmall(topic string) {
	r.t.Helper()
	nodetest.Eventually(r.t, "small logs of "+topic, func() bool {
		return r.all(topic, func(o node.Options, p *partition.Partition) bool {
			var bytes int64
			for _, s := range p.Log().Segments() {
				bytes += s.Bytes
			}
			return bytes <= keptBytes+2*smallSegment && onDisk(r.t, o, topic) <= keptBytes+2*smallSegment && p.Log().StartOffset() > 0
		})
	})
}

// onDisk is how many bytes the replicas of a topic have in .log files of a node.
func onDisk(t *testing.T, o node.Options, topic string) (sum int64) {
	err := filepath.WalkDir(filepath.Join(o.DataDir, "logs"), func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it goes in this very moment
		}
		if err != nil || filepath.Ext(path) != ".log" || !strings.HasPrefix(filepath.Base(filepath.Dir(path)), topic+"-0.") {
			return err
		}
		if info, err := os.Stat(path); err == nil {
			sum += info.Size()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// TestRetention: what goes by size and by time goes on all nodes, those who read below are told where to begin, and a replica that was away
// meanwhile follows from where its leader's log begins.
func TestRetention(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 3)
	k, err := client.New(client.Options{Servers: c.Servers()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = k.Close() }()
	r := &retaining{Cluster: c, t: t, k: k, ctx: c.Context()}
	if r.p, err = k.NewProducer(client.ProducerOptions{}); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.p.Close(context.Background()) }()

	r.bySize()
	r.byTime()
	r.rolls()
	r.refusesTimestamps()
	r.away()
}

func (r *retaining) bySize() {
	t, tp := r.t, client.TopicPartition{Topic: "sized"}
	r.create("sized", map[string]string{"segment.bytes": "65536", "retention.bytes": "131072"})
	r.produce("sized", 60, 20_000)
	r.awaitSmall("sized")
	offsets, err := r.k.Admin().Offsets(r.ctx, "sized")
	if err != nil {
		t.Fatal(err)
	}
	start := offsets[0].Start
	if start == 0 || offsets[0].End != 60 {
		t.Fatalf("offsets: %+v", offsets)
	}
	r.awaitStart("sized", id.Offset(start))

	consumer, err := r.k.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = consumer.Close() }()
	if err := consumer.Assign(tp, start-1); err != nil {
		t.Fatal(err)
	}
	var outside *client.OutOfRangeError
	if _, err := consumer.Poll(r.ctx); !errors.As(err, &outside) || outside.Start != start || outside.End != 60 {
		t.Errorf("below the start: %v, want one that says that the log begins at %d", err, start)
	}
	resetting, err := r.k.NewConsumer(client.ConsumerOptions{OnOutOfRange: client.ResetEarliest})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resetting.Close() }()
	if err := resetting.Assign(tp, 1); err != nil {
		t.Fatal(err)
	}
	for next := start; next < 60; {
		f, err := resetting.Poll(r.ctx)
		if err != nil {
			t.Fatal(err)
		}
		for m, err := range f.Records() {
			if err != nil || m.Offset != next {
				t.Fatalf("offset %d, want %d: %v", m.Offset, next, err)
			}
			next++
		}
	}
	moves, failed := 0, 0
	for _, n := range r.Nodes {
		moves += metric(t, n, `log_start_moves_total{reason="size"}`)
		failed += metric(t, n, "log_start_failures_total")
		if metric(t, n, "wal_trimmed_bytes_total") < smallSegment/2 || metric(t, n, "log_bytes") == 0 {
			t.Error("a node has not counted what went, or what there is")
		}
	}
	if moves == 0 || failed > 0 {
		t.Errorf("%d moves, %d failures", moves, failed)
	}
}

// byTime: the one segment that there is goes when its topic wants it to, and the topic takes records again.
func (r *retaining) byTime() {
	r.create("quiet", map[string]string{"retention.ms": "-1"})
	r.produce("quiet", 3, 10)
	r.alter("quiet", "retention.ms", "100")
	r.awaitStart("quiet", 3)
	r.produce("quiet", 2, 10)
	r.awaitStart("quiet", 5)
	nodetest.Eventually(r.t, "the segments to go", func() bool {
		return r.all("quiet", func(_ node.Options, p *partition.Partition) bool { return p.Log().StartOffset() == 5 })
	})
}

// rolls: each replica begins another segment by itself.
func (r *retaining) rolls() {
	r.create("timed", map[string]string{"segment.ms": "100"})
	nodetest.Eventually(r.t, "three segments", func() bool {
		r.produce("timed", 1, 10)
		return r.all("timed", func(_ node.Options, p *partition.Partition) bool { return len(p.Log().Segments()) >= 3 })
	})
}

// refusesTimestamps on either side, and the records beside them are written.
func (r *retaining) refusesTimestamps() {
	t, now := r.t, time.Now()
	r.create("dated", map[string]string{"message.timestamp.after.max.ms": "60000", "message.timestamp.before.max.ms": "600000"})
	outcomes := make(chan error, 3)
	ages := []time.Duration{time.Hour, 0, -time.Hour}
	for _, age := range ages {
		record := client.Record{Topic: "dated", Value: []byte("v"), Timestamp: now.Add(-age).UnixMilli()}
		if err := r.p.Produce(r.ctx, record, func(a client.Ack) { outcomes <- a.Err }); err != nil {
			t.Fatal(err)
		}
	}
	for _, age := range ages {
		err := <-outcomes
		if age == 0 && err != nil || age != 0 && !errors.Is(err, client.ErrInvalidRecord) {
			t.Errorf("%v old: %v", age, err)
		}
	}
	r.alter("dated", "message.timestamp.before.max.ms", "7200000")
	nodetest.Eventually(t, "an hour to be young enough", func() bool {
		_, err := r.p.ProduceSync(r.ctx, client.Record{Topic: "dated", Value: []byte("v"), Timestamp: now.Add(-time.Hour).UnixMilli()})
		return err == nil
	})
}

// away: a node that was down while the log start passed the end of its log gets a snapshot, and has the same bytes then.
func (r *retaining) away() {
	t := r.t
	status, err := r.k.Admin().PartitionStatus(r.ctx, client.TopicPartition{Topic: "sized"})
	if err != nil {
		t.Fatal(err)
	}
	away := int(status.Leader) % 3 // the index of the node after the leader
	end := r.Nodes[away].Partition("sized").Log().NextOffset()
	r.StopNode(away)
	r.produce("sized", 60, 20_000)
	nodetest.Eventually(t, "a log that begins behind the end of the other", func() bool {
		return r.all("sized", func(_ node.Options, p *partition.Partition) bool { return p.Log().StartOffset() > end })
	})
	r.StartNode(away)
	r.AwaitReady(away)
	r.produce("sized", 10, 1000)
	read := func(p *partition.Partition) (start, hw id.Offset, data []byte) {
		start, hw = p.LogStart(), p.HighWatermark()
		for at := start; at < hw; {
			batches, _, err := p.Read(nil, at, partition.ToHighWatermark, 1<<20)
			if err != nil || len(batches) == 0 {
				return start, hw, nil
			}
			if at, err = partition.NextOffset(batches); err != nil {
				t.Fatal(err)
			}
			data = append(data, batches...)
		}
		return start, hw, data
	}
	nodetest.Eventually(t, "the same records everywhere", func() bool {
		start, hw, want := read(r.Nodes[int(status.Leader)-1].Partition("sized"))
		return hw == 130 && len(want) > 0 && r.all("sized", func(_ node.Options, p *partition.Partition) bool {
			s, h, got := read(p)
			return s == start && h == hw && bytes.Equal(got, want)
		})
	})
	r.awaitSmall("sized")
}
