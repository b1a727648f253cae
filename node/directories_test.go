package node_test

import (
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// more is the second data directory of the node of these tests, on the same simulated disk.
const more = "/more"

// logsIn lists the partitions of a topic of which node 2 has the replica in a data directory.
func logsIn(c *nodetest.Cluster, dir, topic string) []string {
	return slices.DeleteFunc(c.Nodes[1].LogsIn(dir), func(name string) bool { return !strings.HasPrefix(name, topic+"-") })
}

// A data directory that fails takes its own replicas offline, and no others; no start goes on without it, or with another in its place; a start
// with it brings the replicas back.
func TestDataDirectoryFails(t *testing.T) {
	t.Parallel()
	c := nodetest.StartSimulated(t, 3, 7, nodetest.WithOptions(func(o *node.Options) {
		if o.NodeID == 2 {
			o.MoreDataDirs = []string{more}
		}
	}))
	home := c.Nodes[1].Options.DataDir
	nodetest.Eventually(t, "the reserve of both directories", func() bool {
		a, errA := c.Disk(1).Stat(home + "/ballast")
		b, errB := c.Disk(1).Stat(more + "/ballast")
		return errA == nil && errB == nil && a.Size == b.Size
	})
	cl, err := client.New(client.Options{Servers: c.Servers()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	create := func(topic string) {
		t.Helper()
		if err := cl.Admin().CreateTopic(c.Context(), client.TopicSpec{Name: topic, Partitions: 4, ReplicationFactor: 3}); err != nil {
			t.Fatal(err)
		}
	}
	produce := func(topic string) {
		t.Helper()
		p, err := cl.NewProducer(client.ProducerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = p.Close(c.Context()) }()
		for n := range 4 {
			if _, err := p.ProduceSync(c.Context(), client.Record{Topic: topic, Partition: client.At(id.Partition(n)), Value: []byte("v")}); err != nil {
				t.Fatalf("partition %d of %s: %v", n, topic, err)
			}
		}
	}
	follows := func(topic, partition string, end int64) bool {
		n := int32(partition[len(partition)-1] - '0')
		s, err := c.Admin(1).PartitionStatus(c.Context(), &pb.PartitionStatusRequest{Topic: topic, Partition: n})
		return err == nil && s.GetLogEndOffset() >= end
	}
	trouble := func() string {
		s, err := c.Admin(1).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
		if err != nil {
			return ""
		}
		for _, n := range s.GetNodes() {
			if n.GetNode().GetId() == 2 {
				return n.GetErrorMessage()
			}
		}
		return ""
	}

	create("t")
	create("gone")
	produce("t")
	nodetest.Eventually(t, "replicas in both directories", func() bool { return len(logsIn(c, home, "t")) == 2 && len(logsIn(c, more, "t")) == 2 })
	healthy, offline := logsIn(c, home, "t"), logsIn(c, more, "t")

	var failing atomic.Bool
	failing.Store(true)
	c.Disk(1).SetHook(func(op disksim.Op) error {
		if failing.Load() && strings.HasPrefix(op.Name, more+"/") && (op.Kind == disksim.OpWrite || op.Kind == disksim.OpSync) {
			return syscall.EIO
		}
		return nil
	})
	produce("gone") // of which something is in flight for ever now
	produce("t")
	nodetest.Eventually(t, "the status to say what failed", func() bool {
		s := trouble()
		return strings.Contains(s, more+" failed") && strings.Contains(s, "4 replicas are offline")
	})
	for _, p := range healthy {
		nodetest.Eventually(t, p+" to follow", func() bool { return follows("t", p, 2) })
	}
	if node := c.Nodes[1]; len(node.Fatal()) > 0 {
		t.Errorf("the node ends: %v", <-node.Fatal())
	}
	// The node goes on deleting and creating, beside the directory that failed.
	if err := cl.Admin().DeleteTopic(c.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	create("later")
	produce("later")
	nodetest.Eventually(t, "new replicas where nothing failed", func() bool { return len(logsIn(c, home, "later")) == 4 })

	failing.Store(false)
	c.StopNode(1)
	refused := func(want string, dirs ...string) {
		t.Helper()
		o := &c.Nodes[1].Options
		o.DataDir, o.MoreDataDirs = dirs[0], dirs[1:]
		if err := c.TryNode(1); err == nil || !strings.Contains(err.Error(), want) {
			t.Fatalf("with %v: %v; want %q", dirs, err, want)
		}
		o.DataDir, o.MoreDataDirs = home, []string{more}
	}
	refused("are not there", home)
	refused("are not there", home, "/empty")
	refused("name "+home+" first", more, home)
	refused("name that one first", more)
	refused("is empty", "/empty", more)
	c.StartNode(1)
	c.AwaitReady(1)
	for _, p := range slices.Concat(healthy, offline) {
		nodetest.Eventually(t, p+" to follow again", func() bool { return follows("t", p, 2) })
	}
	nodetest.Eventually(t, "what was deleted meanwhile to go", func() bool { return len(logsIn(c, more, "gone")) == 0 })
	if got := logsIn(c, more, "t"); !slices.Equal(got, offline) {
		t.Errorf("%v are in %s, %v were", got, more, offline)
	}
	c.StopNode(1)
	c.StartNode(1) // the list stands
	c.AwaitReady(1)
}
