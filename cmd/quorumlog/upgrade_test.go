package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/placement"
)

// The feature levels that the releases of the test know: the one before this knows one less, the one after this one more. What the level
// between them brought, and what is made up, is all new to the older one.
const (
	oldLevel  = int(placement.SupportedLevel) - 1
	nextLevel = int(placement.SupportedLevel) + 1
)

// upgrade is a cluster of three processes whose release changes from start to start, under load.
type upgrade struct {
	*chaosRun
	dir       string
	old, next string // executables of the release before this one, and of the one after it
	link      string // what is started
}

// startUpgrade builds the older release, and starts three nodes of it while it builds the newer one.
func startUpgrade(ctx context.Context, t *testing.T) *upgrade {
	t.Helper()
	u := &upgrade{dir: t.TempDir()}
	u.old, u.next, u.link = filepath.Join(u.dir, "before"), filepath.Join(u.dir, "next"), filepath.Join(u.dir, "quorumlog")
	build := func(tag, to string) error {
		out, err := exec.CommandContext(ctx, "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-tags", tag, "-o", to, ".").CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	}
	if err := build("quorumlog_before", u.old); err != nil {
		t.Fatal(err)
	}
	built := make(chan error, 1)
	go func() { built <- build("quorumlog_next", u.next) }()
	u.release(t, u.old)
	cluster, err := bench.StartCluster(ctx, bench.ClusterOptions{Binary: u.link, Dir: u.dir, Nodes: 3})
	if err != nil {
		t.Fatal(err, <-built)
	}
	t.Cleanup(func() { _ = cluster.Close() })
	u.chaosRun = &chaosRun{t: t, client: newClient(t, cluster.Servers()...), cluster: cluster, ledger: bench.NewLedger(1 << 20), pace: 10 * time.Millisecond, bulk: 500}
	u.createTopic(ctx)
	if err := <-built; err != nil {
		t.Fatal(err)
	}
	return u
}

// release chooses what the next starts are starts of.
func (u *upgrade) release(t *testing.T, binary string) {
	t.Helper()
	if err := errors.Join(os.Symlink(binary, u.link+".new"), os.Rename(u.link+".new", u.link)); err != nil {
		t.Fatal(err)
	}
}

// roll stops a node and starts it as that release. It waits until all nodes are well and records flow.
func (u *upgrade) roll(ctx context.Context, node int, binary string) {
	u.t.Helper()
	n := u.cluster.Nodes()[node]
	if err := n.Terminate(ctx); err != nil {
		u.t.Errorf("node %d: %v", n.ID, err)
	}
	u.release(u.t, binary)
	if err := n.Start(ctx); err != nil {
		u.t.Fatal(err)
	}
	u.well(ctx)
}

func (u *upgrade) well(ctx context.Context) {
	u.t.Helper()
	eventually(u.t, "three nodes to be ready", func() bool {
		s, err := u.client.Admin().ClusterStatus(ctx)
		return err == nil && len(s.Nodes) == 3 && s.UnderReplicated == 0 && s.Leaderless == 0 &&
			!slices.ContainsFunc(s.Nodes, func(n client.NodeStatus) bool { return n.State != "ready" })
	})
	if !u.awaitAcks(ctx, 100) {
		u.t.Fatal("records do not flow")
	}
}

// cli runs a command of the program against the cluster, as the release that is not the oldest.
func (u *upgrade) cli(args ...string) (string, error) {
	command := exec.Command(u.next, append(args, "--servers", strings.Join(u.cluster.Servers(), ","))...)
	out, err := command.CombinedOutput()
	return string(out), err
}

func (u *upgrade) must(args ...string) string {
	u.t.Helper()
	out, err := u.cli(args...)
	if err != nil {
		u.t.Fatalf("%v: %v: %s", args, err, out)
	}
	return out
}

func (u *upgrade) refused(want string, args ...string) {
	u.t.Helper()
	if out, err := u.cli(args...); err == nil || !strings.Contains(out, want) {
		u.t.Errorf("%v: got %v, %s\nwant %s", args, err, out, want)
	}
}

// change has the metadata change, in all ways that both releases know.
func (u *upgrade) change(step int) {
	u.t.Helper()
	u.must("topic", "config", chaosTopic, fmt.Sprintf("retention.ms=%d", 1_000_000_000+step))
	name := fmt.Sprint("step-", step)
	u.must("topic", "create", name, "--replication-factor", "3")
	if step%2 == 0 {
		u.must("topic", "delete", name)
	}
}

// agree waits until each node tells the same of every topic.
func (u *upgrade) agree(want ...string) {
	u.t.Helper()
	var last []string
	eventually(u.t, "all nodes to tell the same", func() bool {
		last = nil
		for _, server := range u.cluster.Servers() {
			out, err := exec.Command(u.next, "topic", "describe", "--servers", server).CombinedOutput()
			if err != nil {
				return false
			}
			var lines []string
			for line := range strings.Lines(string(out)) {
				if strings.HasPrefix(line, "Topic: ") { // without leaders, which move
					lines = append(lines, line)
				}
			}
			last = append(last, strings.Join(lines, ""))
		}
		return len(slices.Compact(slices.Clone(last))) == 1
	})
	for _, w := range want {
		if !strings.Contains(last[0], w) {
			u.t.Errorf("%q is not in\n%s", w, last[0])
		}
	}
}

// inMetadataLog tells whether a node's metadata log, or its journal, holds the text. Records of it are not compressed.
func (u *upgrade) inMetadataLog(node int, text string) bool {
	found := false
	_ = filepath.WalkDir(u.cluster.Nodes()[node].Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && (strings.Contains(path, "__cluster_metadata") || strings.Contains(path, "journal")) {
			data, _ := os.ReadFile(path)
			found = found || bytes.Contains(data, []byte(text))
		}
		return nil
	})
	return found
}

// says waits for a node's process to print the text, in its log.
func (u *upgrade) says(node int, text string) {
	u.t.Helper()
	path := filepath.Join(u.dir, fmt.Sprintf("node-%d.log", node+1))
	eventually(u.t, fmt.Sprintf("node %d to say %q", node+1, text), func() bool {
		data, _ := os.ReadFile(path)
		return bytes.Contains(data, []byte(text))
	})
}

// short makes a topic of ten records, of which some are to be deleted.
func (u *upgrade) short(ctx context.Context) {
	u.t.Helper()
	u.must("topic", "create", "short", "--replication-factor", "3", "--partitions", "1")
	p, err := u.client.NewProducer(client.ProducerOptions{})
	if err != nil {
		u.t.Fatal(err)
	}
	for range 10 {
		if _, err := p.ProduceSync(ctx, client.Record{Topic: "short", Value: []byte("v")}); err != nil {
			u.t.Fatal(err)
		}
	}
	if err := p.Close(ctx); err != nil {
		u.t.Error(err)
	}
}

// begins checks from where on the topic has records.
func (u *upgrade) begins(ctx context.Context, want client.Offset) {
	u.t.Helper()
	if r, err := u.client.Admin().Offsets(ctx, "short"); err != nil || len(r) != 1 || r[0].Start != want || r[0].End != 10 {
		u.t.Errorf("got %v, %v, want a start of %d", r, err, want)
	}
}

// TestUpgrade upgrades three nodes one by one to a release that knows more feature levels, back and forth, while records and changes of the metadata
// flow. Only when the level is raised is what is new used, and then the old release is refused, whatever it finds on the disk.
func TestUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a program and starts processes")
	}
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience) // it compiles a program
	t.Cleanup(cancel)
	u := startUpgrade(ctx, t)
	endProducing := u.startProducing(ctx)
	u.short(ctx)
	read := make(chan error, 1)
	var consumed atomic.Int64
	reading, endReading := context.WithCancel(ctx)
	defer endReading()
	go func() { read <- u.follow(reading, &consumed) }()

	newForm := fmt.Sprintf("AlterTopicConfig/%d", nextLevel)
	steps := []struct {
		node   int
		binary string
	}{{0, u.next}, {1, u.next}, {0, u.old}, {0, u.next}, {2, u.next}}
	for i, s := range steps {
		u.roll(ctx, s.node, s.binary)
		u.change(i)
		u.refused(fmt.Sprintf("deleting records needs feature level %d, the cluster is at level %d: raise it with quorumlog cluster upgrade", placement.LogStartLevel, oldLevel),
			"topic", "delete-records", "short", "--partition", "0", "--offset", "4")
		if i == 1 {
			u.refused(fmt.Sprintf("feature level %d is not known to node 3", nextLevel), "cluster", "upgrade", "--level", fmt.Sprint(nextLevel))
			if out := u.must("cluster", "upgrade"); !strings.Contains(out, fmt.Sprintf("at feature level %d: nothing to do", oldLevel)) {
				t.Errorf("upgraded over node 3: %s", out)
			}
		}
	}
	u.agree(fmt.Sprintf("retention.ms=%d", 1_000_000_000+len(steps)-1), "Topic: step-1", "Topic: step-3")
	u.begins(ctx, 0)
	u.refused(fmt.Sprintf("topic config note needs feature level %d, the cluster is at level %d", nextLevel, oldLevel), "topic", "config", chaosTopic, "note=early")
	for i := range 3 {
		if u.inMetadataLog(i, newForm) {
			t.Errorf("node %d has a command of level %d before the level is raised", i+1, nextLevel)
		}
	}

	if out := u.must("cluster", "upgrade"); !strings.Contains(out, fmt.Sprintf("from feature level %d to %d", oldLevel, nextLevel)) {
		t.Errorf("upgraded: %s", out)
	}
	u.must("topic", "config", chaosTopic, "note=hello")
	if out := u.must("topic", "delete-records", "short", "--partition", "0", "--offset", "4"); !strings.Contains(out, "low_watermark: 4") {
		t.Errorf("deleted: %s", out)
	}
	u.agree("note=hello")
	u.well(ctx)
	if !u.inMetadataLog(0, newForm) {
		t.Error("the new command is not in the log")
	}

	u.oldIsRefused(ctx)
	u.agree("note=hello")
	u.well(ctx)
	u.begins(ctx, 4)
	endProducing()
	eventually(t, "the consumer to see what was acknowledged", func() bool { return consumed.Load() >= u.acked.Load() || len(read) > 0 })
	endReading()
	if err := <-read; err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("consuming: %v", err)
	}
	u.verify(ctx)
}

// follow reads the topic while it is written, and counts.
func (u *upgrade) follow(ctx context.Context, seen *atomic.Int64) error {
	consumer, err := u.client.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		return err
	}
	defer consumer.Close()
	ranges, err := u.client.Admin().Offsets(ctx, chaosTopic)
	if err != nil {
		return err
	}
	for _, r := range ranges {
		if err := consumer.Assign(r.TopicPartition, client.Beginning); err != nil {
			return err
		}
	}
	for {
		fetch, err := consumer.Poll(ctx)
		if err != nil {
			return err
		}
		for _, err := range fetch.Records() {
			if err != nil {
				return err
			}
			seen.Add(1)
		}
	}
}

// oldIsRefused starts the old release on a directory whose checkpoint is of the new level, on one where only the log has it, and on an empty one.
func (u *upgrade) oldIsRefused(ctx context.Context) {
	u.t.Helper()
	checkpointed, logged := u.cluster.Nodes()[1], u.cluster.Nodes()[2]
	if err := checkpointed.Terminate(ctx); err != nil {
		u.t.Error(err)
	}
	u.release(u.t, u.old)
	words := fmt.Sprintf("(feature level %d; it knows levels up to %d): upgrade this node", nextLevel, oldLevel)
	if err := checkpointed.Start(ctx); err == nil || !strings.Contains(err.Error(), "this release does not know ") || !strings.Contains(err.Error(), words) ||
		strings.Contains(err.Error(), "empty data directory") {
		u.t.Errorf("the old release on a checkpoint of the new level: %v", err)
		_ = checkpointed.Kill()
	}
	u.release(u.t, u.next)
	if err := checkpointed.Start(ctx); err != nil {
		u.t.Fatal(err)
	}
	u.well(ctx)

	if err := logged.Kill(); err != nil {
		u.t.Error(err)
	}
	u.release(u.t, u.old)
	if err := logged.Start(ctx); err == nil { // it serves for a moment, until it has read its log
		u.says(2, "quorumlog: node 3 stopped: metadata log, entry ")
	}
	u.says(2, words)
	_ = logged.Kill() // it has ended

	stranger := start(u.t, exec.Command(u.old, nodeArgs(u.dir, 4, "--join", u.cluster.Nodes()[0].Gossip, "--cluster-name", "bench-"+filepath.Base(u.dir))...))
	last := fmt.Sprintf("node 4 is refused: its release (0.1.0) knows feature levels up to %d, the cluster is at level %d: upgrade the node", oldLevel, nextLevel)
	if code := stranger.code(); code != 1 || !strings.Contains(stranger.lastWords(), last) {
		u.t.Errorf("an old node that is new in the cluster: exit %d: %s", code, stranger.lastWords())
	}
	u.release(u.t, u.next)
	if err := logged.Start(ctx); err != nil {
		u.t.Fatal(err)
	}
}
