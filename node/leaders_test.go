package node_test

import (
	"slices"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// heardWithin is how long news of a leader may take on a machine that has much else to do: 20 ms otherwise.
const heardWithin = 5 * time.Second

// onlooker is a cluster of four, of which one node has no replica of a partition that is looked at.
type onlooker struct {
	*nodetest.Cluster
	t         *testing.T
	partition int32
	replicas  []int // places of the nodes, the preferred one first
	looksOn   int   // the place of that node
}

func newOnlooker(t *testing.T, replicas int32) *onlooker {
	c := &onlooker{Cluster: nodetest.Start(t, 4, nodetest.WithNetwork()), t: t, partition: -1}
	created, err := c.Admin(0).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: "t", Partitions: 12, ReplicationFactor: replicas})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range created.GetTopic().GetPartitions() {
		if p.GetLeader() < 0 {
			t.Errorf("partition %d of a new topic has no leader", p.GetPartition())
		}
		// Neither of the two is the controller's node: that is to go on knowing who is there.
		if preferred := p.GetReplicas()[0]; c.partition >= 0 || preferred == 1 {
			continue
		}
		for i := 1; i < 4; i++ {
			if !slices.Contains(p.GetReplicas(), int32(i+1)) {
				c.partition, c.looksOn = p.GetPartition(), i
			}
		}
		c.replicas = nil
		for _, r := range p.GetReplicas() {
			c.replicas = append(c.replicas, int(r)-1)
		}
	}
	if c.partition < 0 {
		t.Fatal("no partition is as it should be")
	}
	return c
}

// asked is what a node says of the partition.
func (c *onlooker) asked(i int) *pb.Partition {
	m, err := c.Admin(i).Metadata(c.Context(), &pb.MetadataRequest{Topics: []string{"t"}})
	if err != nil || len(m.GetTopics()) != 1 || len(m.GetTopics()[0].GetPartitions()) != 12 {
		return &pb.Partition{Leader: int32(id.NoNode)}
	}
	return m.GetTopics()[0].GetPartitions()[c.partition]
}

func (c *onlooker) settled() bool {
	p := c.asked(c.looksOn)
	return int(p.GetLeader())-1 == c.replicas[0] && len(p.GetIsr()) == len(c.replicas)
}

// ask asks a node again and again, and returns how long that took, and how many calls the others have served meanwhile.
func (c *onlooker) ask(i, times int) (took time.Duration, served uint64) {
	count := func() (n uint64) {
		for j, other := range c.Nodes {
			if j != i && other.Node != nil {
				n += other.Calls()
			}
		}
		return n
	}
	begin, before := time.Now(), count()
	for range times {
		if _, err := c.Admin(i).Metadata(c.Context(), &pb.MetadataRequest{}); err != nil {
			c.t.Fatal(err)
		}
	}
	return time.Since(begin), count() - before
}

// TestOnlookerHears: a node without a replica knows who leads, and who is in sync, while leaders move and lanes are cut, and asks nobody.
func TestOnlookerHears(t *testing.T) {
	c := newOnlooker(t, 3)
	nodetest.Eventually(t, "the preferred leader and all in sync to be known", c.settled)
	if _, served := c.ask(c.looksOn, 200); served > 50 { // nodes call each other for other reasons, seldom
		t.Errorf("200 answers took %d calls to other nodes", served)
	}

	before := c.asked(c.looksOn)
	moved, err := c.Admin(c.looksOn).TransferLeader(c.Context(), &pb.TransferLeaderRequest{Topic: "t", Partition: c.partition, To: int32(c.replicas[1] + 1)})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	nodetest.Eventually(t, "the new leader to be known", func() bool { return c.asked(c.looksOn).GetEpoch() >= moved.GetEpoch() })
	if took := time.Since(begin); moved.GetEpoch() <= before.GetEpoch() || took > heardWithin {
		t.Errorf("a new leader in epoch %d, after %d, was known after %v", moved.GetEpoch(), before.GetEpoch(), took)
	}
	nodetest.Eventually(t, "the balancer to have moved it back", c.settled)

	// The lanes between the two are cut. The leader leads as before, and that its followers hear it is good enough.
	leader := c.replicas[0]
	c.Cut(leader, c.looksOn)
	c.Cut(c.looksOn, leader)
	hidden, heard := 0, func(p *pb.Partition) bool { return int(p.GetLeader())-1 == leader }
	nodetest.Eventually(t, "the leader to be lost to the onlooker", func() bool {
		p := c.asked(c.looksOn)
		if !heard(p) {
			hidden++
		}
		return len(p.GetIsr()) == 0
	})
	for range 50 {
		if !heard(c.asked(c.looksOn)) {
			hidden++
		}
	}
	if hidden > 0 {
		t.Errorf("%d answers did not name a leader that its followers hear", hidden)
	}
	c.Heal()
	nodetest.Eventually(t, "the leader to be heard again", c.settled)

	epoch := c.asked(c.looksOn).GetEpoch()
	c.Isolate(leader)
	follower := c.replicas[1]
	nodetest.Eventually(t, "another leader", func() bool { p := c.asked(follower); return !heard(p) && p.GetLeader() > 0 && p.GetEpoch() > epoch })
	begin = time.Now()
	nodetest.Eventually(t, "the onlooker to know", func() bool { p := c.asked(c.looksOn); return !heard(p) && p.GetLeader() > 0 && p.GetEpoch() > epoch })
	if took := time.Since(begin); took > heardWithin {
		t.Errorf("the leader after the cut was known after %v", took)
	}
	c.Heal()
	nodetest.Eventually(t, "all to be as before", c.settled)
}

// TestLeaderlessCostsNothing: whoever asks for a partition without a leader asks again and again. That costs no call to another node, and no
// turn of a worker, whatever else the node leads.
func TestLeaderlessCostsNothing(t *testing.T) {
	c := newOnlooker(t, 2)
	nodetest.Eventually(t, "the preferred leader and all in sync to be known", c.settled)
	c.StopNode(c.replicas[1])
	left := c.replicas[0]
	for _, i := range []int{c.looksOn, left} {
		nodetest.Eventually(t, "nobody to lead", func() bool { return c.asked(i).GetLeader() == int32(id.NoNode) })
		before := c.Nodes[i].Turns()
		took, served := c.ask(i, 300)
		asked := c.Nodes[i].Turns() - before
		before = c.Nodes[i].Turns()
		idle := time.Now()
		nodetest.Eventually(t, "as much time to pass", func() bool { return time.Since(idle) >= took })
		unasked := c.Nodes[i].Turns() - before
		if served > 50 {
			t.Errorf("node %d: 300 answers took %d calls to other nodes", i+1, served)
		}
		if asked > 3*unasked+150 {
			t.Errorf("node %d: 300 answers in %v took %d turns, %d are taken in that time anyway", i+1, took, asked, unasked)
		}
	}
	status, err := c.Admin(c.looksOn).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
	if err != nil || status.GetLeaderless() == 0 || status.GetLeaderUnknown() != 0 {
		t.Errorf("%d partitions without a leader, of %d that is unknown, %v", status.GetLeaderless(), status.GetLeaderUnknown(), err)
	}
}
