package main

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/rpctest"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// newClient returns a client that is closed with the test.
func newClient(t *testing.T, servers ...string) *client.Client {
	t.Helper()
	c, err := client.New(client.Options{Servers: servers})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// makeTopic creates a topic as soon as enough nodes are there.
func makeTopic(t *testing.T, c *client.Client, spec client.TopicSpec) {
	t.Helper()
	var err error
	eventually(t, "topic "+spec.Name, func() bool {
		err = c.Admin().CreateTopic(testContext(t), spec)
		return err == nil || !notEnoughBrokers(err)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// produceNumbers produces the numbers from..to, to any partition, and waits until all are acknowledged.
func produceNumbers(t *testing.T, c *client.Client, topic string, from, to int) {
	t.Helper()
	ctx := testContext(t)
	p, err := c.NewProducer(client.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var failed atomic.Pointer[error]
	for n := from; n < to; n++ {
		key := strconv.AppendInt(nil, int64(n), 10)
		if err := p.Produce(ctx, client.Record{Topic: topic, Key: key, Value: key}, func(a client.Ack) {
			if a.Err != nil {
				failed.Store(&a.Err)
			}
		}); err != nil {
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

// readNumbers reads a topic to its end and checks that it has the numbers 0..n once each.
func readNumbers(t *testing.T, c *client.Client, topic string, n int) {
	t.Helper()
	ctx := testContext(t)
	consumer, err := c.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer consumer.Close()
	ends, err := c.Admin().Offsets(ctx, topic)
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, r := range ends {
		total += int(r.End)
		if err := consumer.Assign(r.TopicPartition, client.Beginning); err != nil {
			t.Fatal(err)
		}
	}
	seen := make(map[string]int)
	for total > 0 {
		fetch, err := consumer.Poll(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for m, err := range fetch.Records() {
			if err != nil {
				t.Fatal(err)
			}
			seen[string(m.Key)]++
			total--
		}
	}
	for i := range n {
		if times := seen[strconv.Itoa(i)]; times != 1 {
			t.Fatalf("record %d is there %d times", i, times)
		}
	}
	if len(seen) != n {
		t.Fatalf("%d different records, produced were %d", len(seen), n)
	}
}

// heartbeat produces a small record to each partition all the time and notes how long each went without an acknowledgement.
type heartbeat struct {
	mu      sync.Mutex
	last    map[id.Partition]time.Time
	longest time.Duration
	where   id.Partition
	failed  error
}

func (h *heartbeat) acked(a client.Ack) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if a.Err != nil {
		h.failed = a.Err
		return
	}
	now := time.Now()
	if last, ok := h.last[a.Partition]; ok && now.Sub(last) > h.longest {
		h.longest, h.where = now.Sub(last), a.Partition
	}
	h.last[a.Partition] = now
}

// take returns the longest pause since the last call.
func (h *heartbeat) take() (time.Duration, id.Partition) {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer func() { h.longest = 0 }()
	return h.longest, h.where
}

func (h *heartbeat) run(ctx context.Context, c *client.Client, topic string, partitions int, stop <-chan struct{}) error {
	p, err := c.NewProducer(client.ProducerOptions{DeliveryTimeout: patience})
	if err != nil {
		return err
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return errors.Join(p.Close(ctx), h.failed)
		case <-tick.C:
		}
		for i := range partitions {
			if err := p.Produce(ctx, client.Record{Topic: topic, Partition: client.At(id.Partition(i)), Value: []byte("beat")}, h.acked); err != nil {
				return err
			}
		}
	}
}

// TestTerminate stops each node of a cluster once, as an operator does for an upgrade, while records flow to all partitions: its
// leaderships are handed over, so that nobody waits for long, and it exits with 0.
func TestTerminate(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	ctx := testContext(t)
	cluster, err := bench.StartCluster(ctx, bench.ClusterOptions{Binary: buildBinary(t), Dir: t.TempDir(), Nodes: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	c := newClient(t, cluster.Servers()...)
	const partitions = 12
	makeTopic(t, c, client.TopicSpec{Name: "beats", Partitions: partitions, ReplicationFactor: 3, Configs: map[string]string{"min.insync.replicas": "2"}})
	h := &heartbeat{last: make(map[id.Partition]time.Time)}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- h.run(ctx, c, "beats", partitions, stop) }()
	ready := func() bool {
		status, err := c.Admin().ClusterStatus(ctx)
		if err != nil || len(status.Nodes) != 3 || status.UnderReplicated > 0 || status.Leaderless > 0 {
			return false
		}
		return !slices.ContainsFunc(status.Nodes, func(n client.NodeStatus) bool { return n.State != "ready" })
	}
	for _, n := range cluster.Nodes() {
		eventually(t, "a whole cluster", ready)
		h.take()
		begin := time.Now()
		if err := n.Terminate(ctx); err != nil {
			t.Errorf("node %d: %v", n.ID, err)
		}
		took := time.Since(begin)
		beats := time.Now()
		eventually(t, "acknowledgements on all partitions", func() bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			for _, last := range h.last {
				if !last.After(beats) {
					return false
				}
			}
			return true
		})
		pause, where := h.take()
		t.Logf("node %d stopped in %v; the longest pause was %v, on partition %d", n.ID, took.Round(time.Millisecond), pause.Round(time.Millisecond), where)
		if pause > 1500*time.Millisecond { // about 0.1 s on a machine that has nothing else to do
			t.Errorf("partition %d took no records for %v while node %d stopped", where, pause, n.ID)
		}
		if err := n.Start(ctx); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("producing: %v", err)
	}
}

// TestAnyOrder starts the joiners first and the founder last, as the README has it. They say what they wait for, in a line, and then serve.
// After that all of them are stopped at once and started again, and killed at once and started again: nothing is missing.
func TestAnyOrder(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	dir := t.TempDir()
	at := make([]string, 6)
	for i := range at {
		at[i] = rpctest.FreeAddress()
	}
	anyHost := make([]string, len(at))
	for i, a := range at { // listen everywhere and be known by a name, as on three hosts
		_, port, _ := net.SplitHostPort(a)
		anyHost[i], at[i] = "0.0.0.0:"+port, "localhost:"+port
	}
	args := func(n int) []string {
		seeds := slices.Delete(slices.Clone(at[3:]), n-1, n)
		list := []string{
			"node", "--node-id", strconv.Itoa(n), "--data-dir", filepath.Join(dir, strconv.Itoa(n)), "--cluster-name", "any-order",
			"--rpc-address", anyHost[n-1], "--advertised-address", at[n-1], "--gossip-address", anyHost[3+n-1], "--join", strings.Join(seeds, ","),
			"--allow-plaintext",
		}
		if n == 1 {
			list = append(list, "--bootstrap")
		}
		return list
	}
	lost := launch(t, nodeArgs(dir, 9, "--join", "127.0.0.1:1")...)
	eventually(t, "word of what it waits for", func() bool { return len(lost.errout.lines("waiting for")) > 0 })
	lost.terminate()
	nodes := []*daemon{launch(t, args(3)...), launch(t, args(2)...)}
	for _, d := range nodes {
		eventually(t, "word of what it waits for", func() bool { return len(d.errout.lines("waiting for")) > 0 })
		if lines := d.errout.lines("waiting for"); len(lines) != 1 || !strings.Contains(lines[0], "any-order") || !strings.Contains(lines[0], at[3]) {
			t.Errorf("it waits with %q", lines)
		}
		if len(d.out.lines("serves")) > 0 {
			t.Error("it says that it serves")
		}
	}
	nodes = append(nodes, launch(t, args(1)...))
	for _, d := range nodes {
		d.serves(1)
	}
	c := newClient(t, at[:3]...)
	makeTopic(t, c, client.TopicSpec{Name: "numbers", Partitions: 3, ReplicationFactor: 3})
	const batch = 2000
	produceNumbers(t, c, "numbers", 0, batch)
	for round, stop := range []func(*daemon){(*daemon).terminate, (*daemon).kill} {
		var stopping sync.WaitGroup
		begin := time.Now()
		for _, d := range nodes {
			stopping.Go(func() { stop(d) })
		}
		stopping.Wait()
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("the nodes stopped after %v", took)
		} else {
			t.Logf("the nodes stopped after %v", took)
		}
		nodes = []*daemon{launch(t, args(3)...), launch(t, args(1)...), launch(t, args(2)...)}
		for _, d := range nodes {
			d.serves(1)
		}
		begin = time.Now()
		produceNumbers(t, c, "numbers", batch*(round+1), batch*(round+2))
		t.Logf("%d records acknowledged %v after the restart", batch, time.Since(begin).Round(time.Millisecond))
		readNumbers(t, c, "numbers", batch*(round+2))
	}
}

// refused runs the program to its end and checks that it fails with one sentence that has all of want.
func refused(t *testing.T, args []string, want ...string) {
	t.Helper()
	d := launch(t, args...)
	if code := d.code(); code != 1 {
		t.Errorf("%v exits with %d", args, code)
	}
	said := d.lastWords()
	for _, w := range want {
		if !strings.Contains(said, w) {
			t.Errorf("%v: %q does not say %q", args[3:], said, w)
		}
	}
	for _, bad := range []string{"goroutine ", "Usage:", "panic", "\t"} {
		if all := d.errout.String() + d.out.String(); strings.Contains(all, bad) {
			t.Errorf("%v: it prints %q:\n%s", args, bad, all)
		}
	}
	t.Log(said)
}

// TestRefusedStarts are the mistakes of operators. Each ends with exit code 1 and a sentence that names what was found, what was expected, and the fix.
func TestRefusedStarts(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	dir := t.TempDir()
	cluster := "test-" + filepath.Base(dir)
	elsewhere := func(name string) string { return filepath.Join(dir, name) }
	first := launch(t, founderArgs(t, dir, 1)...)
	port, _, _ := first.ports()
	makeTopic(t, newClient(t, port), client.TopicSpec{Name: "t", Partitions: 1, ReplicationFactor: 1})
	first.terminate()
	copied := elsewhere("copied") // while the node was stopped: both starts have the same number
	if err := os.CopyFS(copied, os.DirFS(elsewhere("node-1"))); err != nil {
		t.Fatal(err)
	}
	first = launch(t, nodeArgs(dir, 1, "--metrics", "127.0.0.1:0")...)
	port, gossip, metrics := first.ports()
	identity, err := os.ReadFile(filepath.Join(elsewhere("node-1"), "meta.properties"))
	if err != nil {
		t.Fatal(err)
	}
	text, _, _ := strings.Cut(string(identity), "checksum=")
	// put writes an identity with a checksum of its own, to both of its places.
	put := func(path, text string) error {
		text = fmt.Sprintf("%schecksum=%08x\n", text, crc32.Checksum([]byte(text), crc32.MakeTable(crc32.Castagnoli)))
		return errors.Join(os.WriteFile(filepath.Join(path, "meta.properties"), []byte(text), 0o644),
			os.WriteFile(filepath.Join(path, "meta.properties.copy"), []byte(text), 0o644))
	}
	edited := func(name string, edit func(string) string) string {
		path := elsewhere(name)
		if err := errors.Join(os.Mkdir(path, 0o755), put(path, edit(text))); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// whole has the storage that belongs to the identity, too.
	whole := func(name string, edit func(string) string) string {
		path := elsewhere(name)
		if err := errors.Join(os.CopyFS(path, os.DirFS(copied)), put(path, edit(text))); err != nil {
			t.Fatal(err)
		}
		return path
	}
	replace := func(old, with string) func(string) string {
		return func(s string) string {
			if !strings.Contains(s, old) {
				t.Errorf("no %q in %q", old, s)
			}
			return strings.ReplaceAll(s, old, with)
		}
	}
	unchanged := func(s string) string { return s }
	clusterID := value(text, "cluster.id")
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = busy.Close() }) // not at the end of this function: that comes before the subtests
	busyUDP, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = busyUDP.Close() })
	config := func(text string) string {
		path := filepath.Join(t.TempDir(), "node.yaml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const clusterOfAnotherID = "cluster of another id"
	for _, test := range []struct {
		name string
		args []string
		want []string
	}{
		{"rpc port in use", nodeArgs(dir, 2, "--join", gossip, "--rpc-address", port), []string{port, "in use", "--rpc-address"}},
		{"gossip port in use", nodeArgs(dir, 3, "--join", gossip, "--gossip-address", busy.Addr().String()), []string{busy.Addr().String(), "in use", "--gossip-address"}},
		{"gossip port in use for UDP", nodeArgs(dir, 4, "--join", gossip, "--gossip-address", busyUDP.LocalAddr().String()), []string{busyUDP.LocalAddr().String(), "in use", "--gossip-address"}},
		{"metrics port in use", nodeArgs(dir, 5, "--join", gossip, "--metrics", metrics), []string{metrics, "in use", "--metrics"}},
		{"data directory in use", nodeArgs(dir, 1, "--join", gossip), []string{elsewhere("node-1"), "in use by process " + strconv.Itoa(first.command.Process.Pid), "--data-dir"}},
		{"cloned node id", nodeArgs(dir, 1, "--data-dir", elsewhere("clone"), "--join", gossip), []string{"node id 1", "node id", "store"}},
		{"copied data directory", nodeArgs(dir, 1, "--data-dir", copied, "--join", gossip), []string{"quorumlog: node id 1 is in use twice", "copy", port}},
		{"data directory copied while it was in use", nodeArgs(dir, 1, "--data-dir", whole("later", unchanged), "--join", gossip), []string{"quorumlog: node id 1 is in use twice", "copy", port}},
		{"format of the future", nodeArgs(dir, 1, "--data-dir", edited("future", replace("version=2", "version=99"))), []string{"format 99", "format 2", "release"}},
		{"damaged identity", nodeArgs(dir, 1, "--data-dir", edited("damaged", replace("version=2\n", ""))), []string{"meta.properties", "version"}},
		{"directory written without syncs", nodeArgs(dir, 1, "--data-dir", edited("unsynced", func(s string) string { return s + "storage=unsynced\n" })),
			[]string{"unsynced", "--unsafe-no-fsync", "unused node id"}},
		{"directory of another node", nodeArgs(dir, 6, "--data-dir", edited("other", unchanged)), []string{"node 1", "node 6", "--node-id 1"}},
		{"directory of a cluster of another name", nodeArgs(dir, 1, "--data-dir", edited("named", unchanged), "--cluster-name", "another"), []string{`"another"`, `"` + cluster + `"`, "--cluster-name " + cluster}},
		{"cluster of another name", nodeArgs(dir, 7, "--cluster-name", "another", "--join", gossip), []string{`"another"`, `"` + cluster + `"`, "cluster name"}},
		{clusterOfAnotherID, nodeArgs(dir, 8, "--data-dir", whole("id", func(s string) string {
			return replace("node.id=1", "node.id=8")(replace(clusterID, "AAAAAAAAAAAAAAAAAAAAAA")(s))
		}), "--join", gossip), []string{clusterID, "AAAAAAAAAAAAAAAAAAAAAA", "--join", "empty data directory"}},
		{"foundation over a lost disk", nodeArgs(dir, 1, "--data-dir", elsewhere("wiped"), "--bootstrap", "--join", gossip), []string{"node id 1", "store"}},
		{"foundation without others", nodeArgs(dir, 9, "--bootstrap"), []string{"--bootstrap", "--join", "quorumlog format --node-id 9"}},
		{"second format", append([]string{"format"}, nodeArgs(dir, 1, "--data-dir", copied)[1:]...), []string{"belongs to a cluster already", clusterID}},
		{"advertised port 0", nodeArgs(dir, 20, "--join", gossip, "--advertised-address", "127.0.0.1:0"), []string{"--advertised-address", "127.0.0.1:0"}},
		{"advertised port that is none", nodeArgs(dir, 21, "--join", gossip, "--advertised-address", "127.0.0.1:99999"), []string{"--advertised-address", "99999"}},
		{"advertised text", nodeArgs(dir, 22, "--join", gossip, "--advertised-address", "abc"), []string{"--advertised-address", "host:port"}},
		{"advertised wildcard", nodeArgs(dir, 23, "--join", gossip, "--advertised-address", "[::]:9192"), []string{"--advertised-address", "[::]:9192"}},
		{"join without host", nodeArgs(dir, 24, "--join", ":7946"), []string{"--join", ":7946"}},
		{"no cluster", nodeArgs(dir, 10), []string{"--bootstrap", "--join"}},
		{"no node id", []string{"node", "--data-dir", elsewhere("none"), "--bootstrap"}, []string{"--node-id"}},
		{"no data directory", []string{"node", "--node-id", "1", "--bootstrap"}, []string{"--data-dir"}},
		{"data directory that is a file", nodeArgs(dir, 1, "--bootstrap", "--data-dir", filepath.Join(copied, "meta.properties")), []string{"meta.properties", "not a directory"}},
		{"address without port", nodeArgs(dir, 11, "--bootstrap", "--rpc-address", "127.0.0.1"), []string{"127.0.0.1", "host:port"}},
		{"address of nobody", nodeArgs(dir, 12, "--bootstrap", "--rpc-address", "0.0.0.0:0"), []string{"0.0.0.0:0", "--advertised-address"}},
		{"address of another host", nodeArgs(dir, 13, "--bootstrap", "--rpc-address", "203.0.113.7:9192", "--allow-plaintext"), []string{"203.0.113.7:9192", "cannot"}},
		{"open to others", nodeArgs(dir, 13, "--bootstrap", "--rpc-address", "203.0.113.7:9192"), []string{"203.0.113.7:9192", "--tls-cert", "--allow-plaintext"}},
		{"negative size", nodeArgs(dir, 14, "--bootstrap", "--reserve-mb", "-1"), []string{"--reserve-mb -1"}},
		{"unknown key", []string{"node", "--config", config("node-id: 1\ndata-dirs: x\n")}, []string{"line 2", `"data-dirs"`, `"data-dir"`}},
		{"key of a list", []string{"node", "--config", config("- node-id\n")}, []string{"line 1", "node-id: 1"}},
		{"key without value", []string{"node", "--config", config("node-id: 1\ndata-dir:\n")}, []string{"line 2", "data-dir", "no value"}},
		{"value of the wrong kind", []string{"node", "--config", config("node-id: one\n")}, []string{"line 1", "node-id", `invalid value "one"`}},
		{"neither true nor false", []string{"node", "--config", config("unsafe-no-fsync: perhaps\n")}, []string{"line 1", "unsafe-no-fsync", "perhaps"}},
		{"key twice", []string{"node", "--config", config("node-id: 1\nnode-id: 2\n")}, []string{"line 2", "node-id"}},
		{"no YAML", []string{"node", "--config", config("node-id: [\n")}, []string{"YAML", "line"}},
		{"no file", []string{"node", "--config", elsewhere("none.yaml")}, []string{"none.yaml", "no such file"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.name != clusterOfAnotherID { // what it is told must not be mixed with what gossip says of the clones
				t.Parallel()
			}
			refused(t, test.args, test.want...)
		})
	}
	t.Cleanup(func() { // after all of them, which ran while the first node served
		if !first.alive() {
			t.Errorf("the first node is gone: %s", first.lastWords())
		}
	})
}

// value reads one line of a properties file.
func value(properties, key string) string {
	for line := range strings.Lines(properties) {
		if v, ok := strings.CutPrefix(line, key+"="); ok {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// TestConfigFile starts a node from a file that has every flag.
func TestConfigFile(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	dir := t.TempDir()
	values := map[string]string{
		"node-id": "4", "data-dir": fmt.Sprintf("[%q, %q]", filepath.Join(dir, "data"), filepath.Join(dir, "more, data")), "cluster-name": "from-a-file", "rpc-address": "127.0.0.1:0", "advertised-address": "localhost:9",
		"kafka-address": "127.0.0.1:0", "kafka-advertised-address": "localhost:8", "gossip-address": "localhost:0",
		"metrics": "127.0.0.1:0", "join": "[127.0.0.1:1, '127.0.0.1:2']", "bootstrap": "true", "rack": "1.10", "log-level": "warn", "log-format": "json", "disk-io": "buffered", "unsafe-no-fsync": "true",
		"cache-mb": "64", "checkpoint-mb": "16", "reserve-mb": "32", "segment-mb": "8", "scrub.rate": "1048576",
		"max-produce-mb": "100", "max-connections-per-ip": "-1", "tls-client-auth": "requested", "allow-plaintext": "false",
		"authorizer": "acl", "super-users": "'User:CN=admin'", "allow-everyone-if-no-acl-found": "true",
		"allow-missing-data-dirs": "true",
	}
	certs := filepath.Join(dir, "certs")
	for _, words := range [][]string{
		{"ca"}, {"node", "--cluster-name", "from-a-file", "--node-id", "4", "127.0.0.1"}, {"gossip-key"},
	} {
		if code, _, errs := commandLine(t, append(append([]string{"cert"}, words...), "--dir", certs)...); code != 0 {
			t.Fatal(errs)
		}
	}
	for flag, name := range map[string]string{"tls-ca": "ca.crt", "tls-cert": "node-4.crt", "tls-key": "node-4.key", "gossip-key-file": "gossip.key"} {
		values[flag] = filepath.Join(certs, name)
	}
	var text strings.Builder
	for key, v := range values {
		fmt.Fprintf(&text, "%s: %s\n", key, v)
	}
	for line := range strings.Lines(text.String()) {
		if key, _, _ := strings.Cut(line, ":"); newNodeCommand().Flags().Lookup(key) == nil {
			t.Errorf("there is no flag %q", key)
		}
	}
	for _, name := range flagNames() {
		if _, ok := values[name]; !ok {
			t.Errorf("the file does not have %q", name)
		}
	}
	path := filepath.Join(dir, "node.yaml")
	if err := os.WriteFile(path, []byte("# a node\n"+text.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	format := launch(t, "format", "--config", path) // the nodes of --join are not there to be asked
	if code := format.code(); code != 0 || len(format.out.lines("node 4 founds cluster from-a-file")) != 1 {
		t.Fatalf("format exits with %d and says %q, %q", code, format.out.String(), format.errout.String())
	}
	for _, name := range []string{"data", "more, data"} {
		if _, err := os.Stat(filepath.Join(dir, name, "meta.properties")); err != nil {
			t.Error(err)
		}
	}
	d := launch(t, "node", "--config", path, "--advertised-address", "127.0.0.1:9193")
	port, _, metrics := d.ports()
	if line := d.out.lines("serves")[0]; !strings.Contains(line, "node 4 ") || !strings.Contains(line, "advertised 127.0.0.1:9193") || metrics == "" {
		t.Errorf("it serves as %q", line)
	}
	secure, err := client.New(client.Options{Servers: []string{port}, TLSFiles: client.TLSFiles{CA: filepath.Join(certs, "ca.crt")}})
	if err != nil {
		t.Fatal(err)
	}
	defer secure.Close()
	eventually(t, "the node's description", func() bool {
		m, err := secure.Admin().Metadata(testContext(t))
		return err == nil && len(m.Nodes) == 1 && m.Nodes[0].Rack == "1.10" && m.Nodes[0].Address == "127.0.0.1:9193"
	})
	d.terminate()
	if lines := d.errout.lines("unsafe-no-fsync"); len(lines) != 1 || !strings.Contains(lines[0], `"WARN"`) {
		t.Errorf("it warns with %q", lines)
	}
	if lines := d.errout.lines(""); slices.ContainsFunc(lines, func(l string) bool { return !strings.HasPrefix(l, "{") }) {
		t.Errorf("the log is not JSON: %q", lines)
	}
}

// flagNames lists the node command's flags that a file may set.
func flagNames() []string {
	var names []string
	command := newNodeCommand()
	for line := range strings.Lines(command.Flags().FlagUsages()) {
		if _, rest, ok := strings.Cut(line, "--"); ok {
			if name, _, _ := strings.Cut(rest, " "); name != "config" {
				names = append(names, strings.TrimSpace(name))
			}
		}
	}
	return names
}

// TestReserve starts a node on a disk that has less free space than its reserve: records are refused for now, everything else works.
func TestReserve(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	ctx := testContext(t)
	dir := t.TempDir()
	args := founderArgs(t, dir, 1)
	d := launch(t, args...)
	port, _, _ := d.ports()
	c := newClient(t, port)
	makeTopic(t, c, client.TopicSpec{Name: "t", Partitions: 1, ReplicationFactor: 1})
	produceNumbers(t, c, "t", 0, 100)
	makeTopic(t, c, client.TopicSpec{Name: "more", Partitions: 3, ReplicationFactor: 1})
	d.terminate()

	d = launch(t, append(args, "--reserve-mb", strconv.Itoa(1<<25))...) // 32 TiB
	port, _, _ = d.ports()
	c = newClient(t, port)
	readNumbers(t, c, "t", 100)
	eventually(t, "the node to notice", func() bool {
		status, err := c.Admin().ClusterStatus(ctx)
		return err == nil && len(status.Nodes) == 1 && !status.Nodes[0].AcceptsProduce
	})
	p, err := c.NewProducer(client.ProducerOptions{DeliveryTimeout: 500 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	acked := make(chan client.Ack, 1)
	if err := p.Produce(ctx, client.Record{Topic: "t", Value: []byte("one too many")}, func(a client.Ack) { acked <- a }); err != nil {
		t.Fatal(err)
	}
	if a := <-acked; a.Err == nil {
		t.Error("the record was taken")
	} else if !strings.Contains(a.Err.Error(), "MiB more are needed") {
		t.Errorf("the record failed with %v", a.Err)
	}
	_ = p.Close(ctx)
	if code := produceRaw(t, port, c, "t"); code != kerr.StorageError || !code.Retriable() {
		t.Errorf("the node answers %v", code)
	}
	if _, err := c.Admin().AlterConfig(ctx, "t", map[string]string{"max.message.bytes": "2000"}, nil); err != nil {
		t.Error(err)
	}
	if err := c.Admin().DeleteTopic(ctx, "more"); err != nil {
		t.Error(err)
	}
	status, err := c.Admin().ClusterStatus(ctx)
	if err != nil || len(status.Nodes) != 1 || status.Nodes[0].AcceptsProduce || status.Nodes[0].State != "disk full" || status.Nodes[0].Leaders < 1 {
		t.Errorf("%+v, %v", status, err)
	}
	d.terminate()
	d = launch(t, args...)
	port, _, _ = d.ports()
	c = newClient(t, port)
	produceNumbers(t, c, "t", 100, 200)
	readNumbers(t, c, "t", 200)
}

// produceRaw sends one batch and returns the code of the answer.
func produceRaw(t *testing.T, port string, c *client.Client, topic string) kerr.Code {
	t.Helper()
	m, err := c.Admin().Metadata(testContext(t), topic)
	if err != nil || len(m.Topics) != 1 {
		t.Fatal(err)
	}
	stream, err := new(rpc.Dialer).DialProduce(testContext(t), port)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	codes := make(chan kerr.Code, 1)
	go func() { _ = stream.Recv(func(r rpc.ProduceResponse) { codes <- r.Code }) }()
	request := rpc.ProduceRequest{Correlation: 1, Topic: m.Topics[0].ID, Acks: rpc.AcksAll, Timeout: time.Second, Batch: oneRecord(t)}
	if err := errors.Join(stream.Send(request), stream.Flush()); err != nil {
		t.Fatal(err)
	}
	select {
	case code := <-codes:
		return code
	case <-testContext(t).Done():
		t.Fatal("no answer")
		return 0
	}
}

// TestDev runs a cluster in one process, stops it and starts it again.
func TestDev(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	dir := t.TempDir()
	args := []string{"dev", "--nodes", "3", "--data-dir", dir, "--first-port", strconv.Itoa(freeRun(t, 3))}
	d := launch(t, args...)
	d.serves(3)
	port, _, _ := d.ports()
	c := newClient(t, port)
	makeTopic(t, c, client.TopicSpec{Name: "numbers", Partitions: 3, ReplicationFactor: 3})
	produceNumbers(t, c, "numbers", 0, 1000)
	d.terminate()
	d = launch(t, args...)
	d.serves(3)
	produceNumbers(t, c, "numbers", 1000, 2000)
	readNumbers(t, c, "numbers", 2000)
	d.kill()
	d = launch(t, args...)
	d.serves(3)
	readNumbers(t, c, "numbers", 2000)
	if err := d.command.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := d.code(); code != 0 {
		t.Errorf("interrupted, it exits with %d: %s", code, d.lastWords())
	}
}

// freeRun returns the first of n ports in a row that are free, as are those that dev uses for gossip, 1000 above.
func freeRun(t *testing.T, n int) int {
	t.Helper()
	for first := 20000 + os.Getpid()%1000*10; first < 31000; first += 10 {
		free := true
		for _, port := range []int{first, first + 1000} {
			for i := range n {
				l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port+i))
				if err != nil {
					free = false
					continue
				}
				_ = l.Close()
			}
		}
		if free {
			return first
		}
	}
	t.Fatal("no free ports in a row")
	return 0
}

// oneRecord is a batch without a producer id.
func oneRecord(t *testing.T) batch.Batch {
	t.Helper()
	var b batch.Builder
	b.Append(batch.Record{Timestamp: time.Now().UnixMilli(), Value: []byte("raw")})
	one, err := b.Finish(nil, batch.Plain(batch.None))
	if err != nil {
		t.Fatal(err)
	}
	return one
}
