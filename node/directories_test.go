package node_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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
	// The operator allows it: what is in the directory stays offline, and is not made anew; what is new is made beside it.
	without := func(topic string, dirs ...string) {
		t.Helper()
		o := &c.Nodes[1].Options
		o.MoreDataDirs, o.AllowMissingDataDirs = dirs, true
		c.StartNode(1)
		c.AwaitReady(1)
		nodetest.Eventually(t, "the status to say what is missing", func() bool {
			s := trouble()
			return strings.Contains(s, "missing") && strings.Contains(s, "2 replicas are offline")
		})
		create(topic)
		produce(topic)
		produce("t")
		nodetest.Eventually(t, "new replicas where nothing is missing", func() bool { return len(logsIn(c, home, topic)) == 4 })
		for _, p := range healthy {
			nodetest.Eventually(t, p+" to follow", func() bool { return follows("t", p, 2) })
		}
		c.StopNode(1)
		c.StartNode(1)
		c.AwaitReady(1)
		if got := logsIn(c, home, "t"); !slices.Equal(got, healthy) || len(logsIn(c, home, topic)) != 4 {
			t.Errorf("without %s, %v of t are in %s, and %v of %s; %v of t were", more, got, home, logsIn(c, home, topic), topic, healthy)
		}
		c.StopNode(1)
		o.MoreDataDirs, o.AllowMissingDataDirs = []string{more}, false
	}
	without("named", "/empty")
	if _, err := c.Disk(1).Stat("/empty/meta.properties"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory is used in the place of the one that is missing: %v", err)
	}
	dead := func(at string) {
		c.Disk(1).SetHook(func(op disksim.Op) error {
			if strings.HasPrefix(op.Name, more+"/"+at) {
				return syscall.EIO
			}
			return nil
		})
	}
	dead("")
	refused("--allow-missing-data-dirs", home, more)
	without("dead", more)
	dead("meta/") // it is whose it should be
	without("unreadable", more)
	c.Disk(1).SetHook(nil)
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

// What a failed data directory led is led by others long before an election timeout, and producers find them: whether a sync fails, or the
// file system turned read-only. A first directory that does takes the node along, and it says why.
func TestLeadersLeaveFailedDataDirectory(t *testing.T) {
	t.Parallel()
	const timeout = 30 * time.Second // of elections, at least
	c := nodetest.StartSimulated(t, 3, 8, nodetest.WithOptions(func(o *node.Options) {
		o.Timing.ElectionTicks, o.Timing.BalanceInterval = int(timeout/o.Timing.TickInterval), time.Hour
		if o.NodeID == 2 {
			o.MoreDataDirs = []string{more}
		}
	}))
	cl, err := client.New(client.Options{Servers: c.Servers()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	if err := cl.Admin().CreateTopic(c.Context(), client.TopicSpec{Name: "t", Partitions: 4, ReplicationFactor: 3}); err != nil {
		t.Fatal(err)
	}
	p, err := cl.NewProducer(client.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close(context.Background()) })
	produce := func(partition id.Partition) {
		t.Helper()
		if _, err := p.ProduceSync(c.Context(), client.Record{Topic: "t", Partition: client.At(partition), Value: []byte("v")}); err != nil {
			t.Fatalf("partition %d: %v", partition, err)
		}
	}
	lead := func(dir string) (led []id.Partition) {
		t.Helper()
		nodetest.Eventually(t, "replicas in both directories", func() bool { return len(logsIn(c, dir, "t")) == 2 })
		for _, name := range logsIn(c, dir, "t") {
			partition := id.Partition(name[len(name)-1] - '0')
			nodetest.Eventually(t, name+" to be led by node 2", func() bool {
				produce(partition)
				_ = cl.Admin().TransferLeader(c.Context(), client.TopicPartition{Topic: "t", Partition: partition}, 2)
				s, err := c.Admin(1).PartitionStatus(c.Context(), &pb.PartitionStatusRequest{Topic: "t", Partition: int32(partition)})
				return err == nil && s.GetLeader() == 2
			})
			led = append(led, partition)
		}
		return led
	}
	fail := func(dir string, cause syscall.Errno, kinds ...disksim.OpKind) {
		c.Disk(1).SetHook(func(op disksim.Op) error {
			if strings.HasPrefix(op.Name, dir+"/") && slices.Contains(kinds, op.Kind) {
				return cause
			}
			return nil
		})
	}
	for _, f := range []struct {
		cause syscall.Errno
		kinds []disksim.OpKind
	}{
		{syscall.EIO, []disksim.OpKind{disksim.OpSync, disksim.OpSyncDir}},
		{syscall.EROFS, []disksim.OpKind{disksim.OpCreate, disksim.OpMkdir, disksim.OpRemove, disksim.OpRename, disksim.OpWrite, disksim.OpTruncate,
			disksim.OpPreallocate, disksim.OpSync}},
	} {
		healthy, led := lead(c.Nodes[1].Options.DataDir), lead(more)
		fail(more, f.cause, f.kinds...)
		for _, partition := range led {
			begin := time.Now()
			produce(partition)
			took := time.Since(begin)
			t.Logf("%v: the producer of partition %d waited %v", f.cause, partition, took)
			if took >= timeout/2 {
				t.Errorf("%v: the producer of partition %d waited %v", f.cause, partition, took)
			}
		}
		for _, partition := range healthy {
			produce(partition)
			s, err := c.Admin(1).PartitionStatus(c.Context(), &pb.PartitionStatusRequest{Topic: "t", Partition: int32(partition)})
			if err != nil || s.GetLeader() != 2 {
				t.Errorf("%v: partition %d, which is in another directory: %v, %v", f.cause, partition, s, err)
			}
		}
		c.Disk(1).SetHook(nil)
		c.StopNode(1)
		c.StartNode(1)
		c.AwaitReady(1)
	}
	home := c.Nodes[1].Options.DataDir
	led := lead(home)
	fail(home, syscall.EROFS, disksim.OpWrite, disksim.OpSync)
	ctx, cancel := context.WithCancel(c.Context())
	var producing sync.WaitGroup
	defer producing.Wait()
	defer cancel()
	producing.Go(func() { // whether it is taken is for the others to say
		_, _ = p.ProduceSync(ctx, client.Record{Topic: "t", Partition: client.At(led[0]), Value: []byte("v")})
	})
	select {
	case err := <-c.Nodes[1].Fatal():
		if !strings.Contains(err.Error(), home) || !errors.Is(err, syscall.EROFS) {
			t.Errorf("it ends, and says: %v", err)
		}
	case <-c.Context().Done():
		t.Error("the node goes on without its first directory")
	}
	c.CrashNode(1, nodetest.Kill)
}
