package node_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// rotCluster is a cluster with one partition, which has so many records of so many bytes, each a batch of its own.
type rotCluster struct {
	*nodetest.Cluster
	t       *testing.T
	records int
}

func newRotCluster(t *testing.T, replicas int, settings ...nodetest.Setting) *rotCluster {
	c := &rotCluster{Cluster: nodetest.Start(t, 3, settings...), t: t}
	if _, err := c.Admin(0).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: "t", Partitions: 1, ReplicationFactor: int32(replicas)}); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *rotCluster) client() *client.Client {
	c.t.Helper()
	cl, err := client.New(client.Options{Servers: c.Servers()})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

func (c *rotCluster) produce(n, size int) {
	c.t.Helper()
	p, err := c.client().NewProducer(client.ProducerOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	for range n {
		if err := p.Produce(c.Context(), client.Record{Topic: "t", Value: make([]byte, size)}, func(a client.Ack) {
			if a.Err != nil {
				c.t.Error(a.Err)
			}
		}); err != nil {
			c.t.Fatal(err)
		}
		if err := p.Flush(c.Context()); err != nil {
			c.t.Fatal(err)
		}
	}
	c.records += n
	if err := p.Close(c.Context()); err != nil {
		c.t.Fatal(err)
	}
}

// consume reads all records.
func (c *rotCluster) consume() {
	c.t.Helper()
	k, err := c.client().NewConsumer(client.ConsumerOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = k.Close() }()
	if err := k.Assign(id.TopicPartition{Topic: "t", Partition: 0}, client.Beginning); err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for got := id.Offset(0); got < id.Offset(c.records); {
		fetch, err := k.Poll(ctx)
		if err != nil {
			c.t.Fatalf("%v; offset %d of %d", err, got, c.records)
		}
		for r := range fetch.Records() {
			if r.Offset != got {
				c.t.Fatalf("offset %d after %d", r.Offset, got)
			}
			got = r.Offset + 1
		}
	}
}

// restart stops the nodes and starts them again, so that what is read is read from the disk.
func (c *rotCluster) restart(nodes ...int) {
	c.t.Helper()
	for _, i := range nodes {
		c.StopNode(i)
	}
	for _, i := range nodes {
		c.StartNode(i)
	}
}

func (c *rotCluster) status(i int) *pb.PartitionStatusResponse {
	s, err := c.Admin(i).PartitionStatus(c.Context(), &pb.PartitionStatusRequest{Topic: "t"})
	if err != nil {
		return nil
	}
	return s
}

// leader waits for a leader that has its voters in sync, and returns its position.
func (c *rotCluster) leader(inSync int, among ...int) int {
	c.t.Helper()
	at := -1
	nodetest.Eventually(c.t, "a leader", func() bool {
		for _, i := range among {
			if s := c.status(i); s.GetRole() == "leader" && len(s.GetIsr()) >= inSync {
				at = i
				return true
			}
		}
		return false
	})
	return at
}

// files are those of a replica with a suffix.
func (c *rotCluster) files(i int, suffix string) []string {
	c.t.Helper()
	names, err := filepath.Glob(filepath.Join(c.Nodes[i].Options.DataDir, "logs", "t-0*", "*"+suffix))
	if err != nil || len(names) == 0 {
		c.t.Fatalf("files of the partition on node %d: %v, %v", i+1, names, err)
	}
	return names
}

func (c *rotCluster) flip(name string, at int64) {
	c.t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		c.t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b, at); err != nil {
		c.t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		c.t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		c.t.Fatal(err)
	}
}

// refused waits until node i refuses its replica, and says so.
func (c *rotCluster) refused(i int) {
	c.t.Helper()
	nodetest.Eventually(c.t, "the replica to be refused", func() bool {
		s, err := c.Admin(i).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
		if err != nil {
			return false
		}
		for _, n := range s.GetNodes() {
			if n.GetNode().GetId() == int32(i+1) && n.GetRefusedReplicas() == 1 {
				if s.GetUnderReplicated() == 0 {
					c.t.Errorf("nothing is under-replicated: %v", s)
				}
				_, err := c.Admin(i).PartitionStatus(c.Context(), &pb.PartitionStatusRequest{Topic: "t"})
				return err != nil && strings.Contains(err.Error(), "is refused, for good")
			}
		}
		return false
	})
}

// TestLeaderWithRot has a bit flip in what a leader keeps of a partition, in a batch and in the index. The consumer that meets it reads
// on at another leader; the replica is refused, also after a restart; and producing goes on.
func TestLeaderWithRot(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{".log", ".index"} {
		t.Run(suffix, func(t *testing.T) {
			c := newRotCluster(t, 3)
			if suffix == ".log" {
				c.produce(60, 100<<10)
			} else {
				c.produce(400, 200) // whole blocks of rows
			}
			c.restart(0, 1, 2)
			at := c.leader(3, 0, 1, 2)
			rotten := ""
			for _, name := range c.files(at, suffix) {
				if info, err := os.Stat(name); err == nil && info.Size() > 2*4096 {
					rotten = name
				}
			}
			if rotten == "" {
				t.Fatal("there is no file with enough in it")
			}
			if suffix == ".log" {
				c.flip(rotten, 2<<20)
			} else {
				c.flip(rotten, 4096+16*64+8)
			}
			c.consume()
			c.refused(at)
			begin := time.Now() // a leader keeps one that is silent in sync for half a minute
			lead := c.leader(0, (at+1)%3, (at+2)%3)
			nodetest.Eventually(t, "its leader to miss it", func() bool {
				s, err := c.Admin(lead).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
				return err == nil && s.GetNodes()[lead].GetUnderReplicated() == 1
			})
			if d := time.Since(begin); d > 15*time.Second {
				t.Errorf("it took %v to count it as under-replicated", d)
			}
			c.produce(3, 1000)
			c.consume()
			c.restart(at)
			c.AwaitReady(at)
			c.refused(at)
			c.produce(3, 1000)
		})
	}
}

// TestTwoReplicasWithRot has the same record rot in two of three replicas, one after the other. The first is taken out; the second gives
// up leading and is not given it again, but has to vote and follow: without it nobody could be elected, for ever.
func TestTwoReplicasWithRot(t *testing.T) {
	t.Parallel()
	c := newRotCluster(t, 3)
	c.produce(60, 100<<10)
	c.restart(0, 1, 2)
	first := c.leader(3, 0, 1, 2)
	second, third := (first+1)%3, (first+2)%3
	c.flip(c.files(first, ".log")[0], 2<<20)
	c.consume()
	c.refused(first)
	c.flip(c.files(second, ".log")[0], 2<<20)
	nodetest.Eventually(t, "the second to lead", func() bool {
		_, err := c.Admin(third).TransferLeader(c.Context(), &pb.TransferLeaderRequest{Topic: "t", To: int32(second + 1)})
		return err == nil && c.status(second).GetRole() == "leader"
	})
	c.consume() // meets the rot, and goes on elsewhere
	nodetest.Eventually(t, "the second to be condemned", func() bool { return c.status(second).GetCondemned() && c.status(third).GetRole() == "leader" })
	_, _ = c.Admin(third).TransferLeader(c.Context(), &pb.TransferLeaderRequest{Topic: "t", To: int32(second + 1)})
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(5 * time.Second); time.Now().Before(end); <-tick.C { // more than two looks at condemned replicas
		if s := c.status(second); s == nil || s.GetRole() == "leader" {
			t.Fatalf("the second one: %v", s)
		}
	}
	c.produce(3, 1000)
	c.consume()
}

// TestFollowerNeedsWhatRotted has a follower lag behind a leader whose disk has lost what it needs: the third replica serves it.
func TestFollowerNeedsWhatRotted(t *testing.T) {
	t.Parallel()
	c := newRotCluster(t, 3)
	c.produce(10, 1000)
	lead := c.leader(3, 0, 1, 2)
	behind, others := (lead+1)%3, []int{lead, (lead + 2) % 3}
	c.StopNode(behind)
	c.produce(60, 100<<10)
	c.restart(others...)
	at := c.leader(2, others...)
	c.flip(c.files(at, ".log")[0], 2<<20)
	c.StartNode(behind)
	nodetest.Eventually(t, "the follower to catch up", func() bool { return c.status(behind).GetHighWatermark() >= int64(c.records) })
	c.refused(at)
	c.consume()
	if _, err := c.Admin(behind).DeleteTopic(c.Context(), &pb.DeleteTopicRequest{Name: "t"}); err != nil {
		t.Fatal(err)
	}
	nodetest.Eventually(t, "the refused replica to be gone with its topic", func() bool {
		s, err := c.Admin(at).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
		return err == nil && s.GetNodes()[at].GetRefusedReplicas() == 0 && s.GetNodes()[at].GetReplicas() == 0
	})
}

// TestOnlyReplicaWithRot has the only replica of a partition rot: it goes on with what it can read.
func TestOnlyReplicaWithRot(t *testing.T) {
	c := newRotCluster(t, 1)
	c.produce(60, 100<<10)
	c.restart(0, 1, 2)
	at := c.leader(1, 0, 1, 2)
	c.flip(c.files(at, ".log")[0], 2<<20)
	k, err := c.client().NewConsumer(client.ConsumerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = k.Close() }()
	if err := k.Assign(id.TopicPartition{Topic: "t", Partition: 0}, client.Beginning); err != nil {
		t.Fatal(err)
	}
	for got := id.Offset(0); got < 20; { // what stands before the rot
		fetch, err := k.Poll(c.Context())
		if err != nil {
			t.Fatal(err)
		}
		for r := range fetch.Records() {
			got = r.Offset + 1
		}
	}
	nodetest.Eventually(t, "the rot to be said", func() bool { return strings.Contains(c.Log(), "it keeps leading and serves what it can read") })
	c.produce(3, 1000)
	if s := c.status(at); s.GetRole() != "leader" {
		t.Errorf("the only replica is %v", s)
	}
}

// TestViewThatCannotBeRestored gives a replica a state that is none: it is refused, and the node is ready.
func TestViewThatCannotBeRestored(t *testing.T) {
	c := newRotCluster(t, 3)
	c.produce(10, 1000)
	c.StopNode(1)
	changeView(t, c.Nodes[1], func([]byte) []byte { return []byte("no view") })
	c.StartNode(1)
	c.AwaitReady(1)
	c.refused(1)
	c.produce(10, 1000)
	c.consume()
}

// TestDamagedRecordsEndTheStart flips a bit in Pebble's newest log: the node says what to do, and does not start.
func TestDamagedRecordsEndTheStart(t *testing.T) {
	c := nodetest.Start(t, 1)
	c.StopNode(0)
	names, err := filepath.Glob(filepath.Join(c.Nodes[0].Options.DataDir, "meta", "*.log"))
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	newest := names[len(names)-1]
	info, err := os.Stat(newest)
	if err != nil {
		t.Fatal(err)
	}
	(&rotCluster{Cluster: c, t: t}).flip(newest, info.Size()-40)
	err = c.TryNode(0)
	if err == nil || !strings.Contains(err.Error(), "empty data directory and an unused node id") {
		t.Errorf("the start ended with: %v", err)
	}
}
