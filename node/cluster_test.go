package node_test

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal"
)

// TestClusterGrowsAndSurvivesItsFounder is the life of the metadata: one voter, then three; the founder goes, topics can still be
// created; it comes back and knows of them.
func TestClusterGrowsAndSurvivesItsFounder(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 3)
	nodetest.Eventually(t, "three voters", func() bool {
		status, err := c.Admin(0).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
		return err == nil && slices.Equal(status.GetMetadata().GetVoters(), []int32{1, 2, 3})
	})
	created, err := c.Admin(1).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: "before", Partitions: 4, ReplicationFactor: -1})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range created.GetTopic().GetPartitions() {
		if p.GetLeader() < 1 || len(p.GetReplicas()) != 3 {
			t.Errorf("partition %d: leader %d, replicas %v", p.GetPartition(), p.GetLeader(), p.GetReplicas())
		}
	}
	c.StopNode(0)
	if _, err := c.Admin(2).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: "after", Partitions: 2, ReplicationFactor: 2}); err != nil {
		t.Fatalf("no topic without the founder: %v", err)
	}
	if _, err := c.Admin(1).DeleteTopic(c.Context(), &pb.DeleteTopicRequest{Name: "before"}); err != nil {
		t.Fatal(err)
	}
	c.StartNode(0)
	c.AwaitReady(0)
	nodetest.Eventually(t, "the founder to catch up", func() bool {
		m, err := c.Admin(0).Metadata(c.Context(), &pb.MetadataRequest{})
		return err == nil && len(m.GetTopics()) == 1 && m.GetTopics()[0].GetName() == "after"
	})
}

// TestRefusals are the starts and calls that must fail, with words that help.
func TestRefusals(t *testing.T) {
	c := nodetest.Start(t, 1)
	t.Run("replication factor", func(t *testing.T) {
		_, err := c.Admin(0).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: "t", Partitions: 1, ReplicationFactor: 2})
		want := "Replication factor: 2 larger than available brokers: 1."
		if kerr.CodeOf(err) != kerr.InvalidReplicationFactor || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	})
	running := c.Nodes[0].Options
	dir := t.TempDir()
	tests := []struct {
		name    string
		options func() node.Options
		want    []string
	}{
		{"data directory in use", func() node.Options {
			o := nodetest.Options(dir, 1, io.Discard)
			o.DataDir = running.DataDir
			return o
		}, []string{running.DataDir, "in use"}},
		{"port in use", func() node.Options {
			o := nodetest.Options(dir, 2, io.Discard)
			o.RPCAddress = running.RPCAddress
			return o
		}, []string{running.RPCAddress, "in use"}},
		{"no cluster and nobody to ask", func() node.Options {
			return nodetest.Options(dir, 3, io.Discard)
		}, []string{"--bootstrap", "--join"}},
		{"node id of another store", func() node.Options {
			o := nodetest.Options(dir, 1, io.Discard)
			o.ClusterName, o.Join = running.ClusterName, []string{running.GossipAddress}
			return o
		}, []string{"node id 1", "node id"}},
		{"unreachable advertised address", func() node.Options {
			o := nodetest.Options(dir, 4, io.Discard)
			o.RPCAddress = "0.0.0.0:0"
			return o
		}, []string{"0.0.0.0", "--advertised-address"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			n, err := node.Start(ctx, tt.options())
			if err == nil {
				_ = n.Stop(ctx)
				t.Fatal("it started")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
	t.Run("data directory of another node", func(t *testing.T) {
		c.StopNode(0)
		o := nodetest.Options(dir, 7, io.Discard)
		o.DataDir = running.DataDir
		if _, err := node.Start(context.Background(), o); err == nil || !strings.Contains(err.Error(), "belongs to node 1, this is node 7") {
			t.Errorf("got %v", err)
		}
		c.StartNode(0)
	})
}

// TestHalfADirectoryIsRefused takes away one part of a founder's data and then the other: neither start may begin anew under the
// old identity.
func TestHalfADirectoryIsRefused(t *testing.T) {
	for _, parts := range [][]string{{"meta"}, {"meta.properties", "meta.properties.copy"}} {
		t.Run(parts[0], func(t *testing.T) {
			c := nodetest.Start(t, 1)
			o := c.Nodes[0].Options
			c.StopNode(0)
			for _, part := range parts {
				if err := os.Rename(filepath.Join(o.DataDir, part), filepath.Join(t.TempDir(), part)); err != nil {
					t.Fatal(err)
				}
			}
			n, err := node.Start(c.Context(), o)
			if err == nil {
				_ = n.Stop(c.Context())
			}
			if err == nil || !strings.Contains(err.Error(), "unused node id") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestFullDiskAtStart starts a node again and again on a disk that others have filled, after a stop and after a kill.
func TestFullDiskAtStart(t *testing.T) {
	c := nodetest.StartSimulated(t, 1, 1)
	if _, err := c.Admin(0).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: "before", Partitions: 4, ReplicationFactor: 1}); err != nil {
		t.Fatal(err)
	}
	c.StopNode(0)
	c.FillDisk(0)
	for range 3 {
		c.StartNode(0)
		c.AwaitReady(0)
		m, err := c.Admin(0).Metadata(c.Context(), &pb.MetadataRequest{})
		if err != nil || len(m.GetTopics()) != 1 {
			t.Errorf("topics %v, %v", m.GetTopics(), err)
		}
		c.StopNode(0)
		c.CrashNode(0, nodetest.Kill)
		c.FillDisk(0)
	}
}

// TestLongestNames deletes topics with the longest name there is and creates them again, with restarts in between.
func TestLongestNames(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 3)
	name := strings.Repeat("x", 249)
	for range 3 {
		if _, err := c.Admin(0).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: name, Partitions: 2, ReplicationFactor: 3}); err != nil {
			t.Fatal(err)
		}
		c.StopNode(2)
		c.StartNode(2)
		c.AwaitReady(2)
		if _, err := c.Admin(1).DeleteTopic(c.Context(), &pb.DeleteTopicRequest{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
	nodetest.Eventually(t, "the directories to be gone", func() bool {
		for _, n := range c.Nodes {
			left, err := filepath.Glob(filepath.Join(n.Options.DataDir, "logs", "x*"))
			if err != nil || len(left) > 0 {
				return false
			}
		}
		return true
	})
}

// TestWithoutFsync leads one node through the life of a directory that is written to without syncs: in order, so that even a power
// failure afterwards takes nothing, and then not in order, which is never forgiven.
func TestWithoutFsync(t *testing.T) {
	c := nodetest.StartSimulated(t, 1, 1)
	as := func(class wal.FsyncClass) { c.Nodes[0].Options.Storage.Fsync = class }
	topics := func() int {
		t.Helper()
		c.AwaitReady(0)
		m, err := c.Admin(0).Metadata(c.Context(), &pb.MetadataRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return len(m.GetTopics())
	}
	reports := func(want string) {
		t.Helper()
		s, err := c.Admin(0).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
		if err != nil || len(s.GetNodes()) != 1 || s.GetNodes()[0].GetFsyncClass() != want {
			t.Errorf("%v, %v; want the class %q", s.GetNodes(), err, want)
		}
	}
	reports(rpc.FsyncClassAll)
	c.StopNode(0)

	as(wal.FsyncNone)
	c.StartNode(0)
	c.AwaitReady(0)
	reports(rpc.FsyncClassNone)
	if _, err := c.Admin(0).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: "unsynced", Partitions: 2, ReplicationFactor: 1}); err != nil {
		t.Fatal(err)
	}
	c.StopNode(0)
	c.CrashNode(0, nodetest.PowerLoss)
	as(wal.FsyncAll)
	c.StartNode(0)
	if n := topics(); n != 1 {
		t.Errorf("%d topics after a stop in order and a power failure", n)
	}
	c.StopNode(0)

	refused := func(when string) {
		t.Helper()
		as(wal.FsyncAll)
		if err := c.TryNode(0); err == nil || !strings.Contains(err.Error(), "unused node id") {
			t.Fatalf("%s: %v", when, err)
		}
		as(wal.FsyncNone)
	}
	as(wal.FsyncNone)
	c.StartNode(0)
	c.CrashNode(0, nodetest.Kill)
	refused("after a kill")
	c.StartNode(0)
	if n := topics(); n != 1 {
		t.Errorf("%d topics after a kill", n)
	}
	c.StopNode(0)
	refused("after a kill, a start without syncs and a stop in order")
}

// TestUnknownFsyncClass has a caller pass a class that does not exist.
func TestUnknownFsyncClass(t *testing.T) {
	o := nodetest.Options(t.TempDir(), 1, io.Discard)
	o.Storage.Fsync = 7
	if err := o.Validate(); err == nil || !strings.Contains(err.Error(), "FsyncClass(7)") {
		t.Errorf("got %v", err)
	}
}

// TestStartThatFailsLeavesNoMark has a node without syncs fail for a reason of its command line: the directory is as usable as before.
func TestStartThatFailsLeavesNoMark(t *testing.T) {
	o := nodetest.Options(t.TempDir(), 1, io.Discard)
	for _, class := range []wal.FsyncClass{wal.FsyncNone, wal.FsyncAll} {
		o.Storage.Fsync = class
		if _, err := node.Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), "--bootstrap") {
			t.Errorf("class %v: %v", class, err)
		}
	}
}
