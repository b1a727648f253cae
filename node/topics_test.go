package node_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// TestDefaultReplicationFactor: a topic that is made by default while a node is away is refused. With fewer replicas than the cluster has
// nodes for it would stay short of one for ever.
func TestDefaultReplicationFactor(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 3)
	create := func(name string, rf int32) (*pb.CreateTopicResponse, error) {
		return c.Admin(0).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: name, Partitions: 1, ReplicationFactor: rf})
	}
	alive := func() (n int) {
		m, err := c.Admin(0).Metadata(c.Context(), &pb.MetadataRequest{NodesOnly: true})
		if err != nil {
			return -1
		}
		for _, node := range m.GetNodes() {
			if node.GetAlive() {
				n++
			}
		}
		return n
	}
	c.StopNode(2)
	nodetest.Eventually(t, "node 3 to be missed", func() bool { return alive() == 2 })
	_, err := create("t", -1)
	if kerr.CodeOf(err) != kerr.InvalidReplicationFactor || !strings.Contains(err.Error(), "3 is the default in a cluster of 3 nodes: start those that do not run") {
		t.Errorf("by default: %v", err)
	}
	if created, err := create("two", 2); err != nil || created.GetTopic().GetReplicationFactor() != 2 {
		t.Errorf("with two replicas, as asked for: %v, %v", created, err)
	}
	c.StartNode(2)
	c.AwaitReady(2)
	nodetest.Eventually(t, "node 3 to be seen", func() bool { return alive() == 3 })
	if created, err := create("t", -1); err != nil || created.GetTopic().GetReplicationFactor() != 3 {
		t.Errorf("with all nodes: %v, %v", created, err)
	}
	for _, rf := range []int32{-2, -1 << 31, 16, 1<<31 - 1} {
		if _, err := create("wrong", rf); kerr.CodeOf(err) != kerr.InvalidReplicationFactor {
			t.Errorf("with %d replicas: %v", rf, err)
		}
	}
}

// TestOnlyTheControllerDials: a node that is asked for a topic and does not lead the metadata passes the call on, and dials nobody before.
// It would take seconds for each node that is frozen, and find out what does not count.
func TestOnlyTheControllerDials(t *testing.T) {
	c := nodetest.Start(t, 3)
	asked := -1
	nodetest.Eventually(t, "a controller", func() bool {
		m, err := c.Admin(0).Metadata(c.Context(), &pb.MetadataRequest{NodesOnly: true})
		if err == nil && m.GetController() > 0 {
			asked = int(m.GetController()) % 3 // the node after it
		}
		return asked >= 0
	})
	before := c.Nodes[asked].Dialled()
	for _, validateOnly := range []bool{true, false} {
		request := &pb.CreateTopicRequest{Name: "t", Partitions: 1, ReplicationFactor: 3, ValidateOnly: validateOnly}
		if _, err := c.Admin(asked).CreateTopic(c.Context(), request); err != nil {
			t.Fatal(err)
		}
	}
	m, err := c.Admin(asked).Metadata(c.Context(), &pb.MetadataRequest{NodesOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if after := c.Nodes[asked].Dialled(); after != before && int(m.GetController()) != asked+1 {
		t.Errorf("node %d dialled %d nodes for a topic, and node %d is the controller", asked+1, after-before, m.GetController())
	}
}

// TestVoterGraceSurvivesTheLeader: when the leader of the metadata dies, the next one gives it the whole grace to come back. It knows nothing of
// when it was last heard of.
func TestVoterGraceSurvivesTheLeader(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("takes seconds")
	}
	const grace = 4 * time.Second
	c := nodetest.StartSimulated(t, 4, 1)
	for i := range c.Nodes {
		c.StopNode(i)
		c.Nodes[i].Options.Timing.VoterGrace = grace
		c.StartNode(i)
		c.AwaitReady(i)
	}
	quorum := func(i int) *pb.MetadataQuorum {
		s, err := c.Admin(i).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
		if err != nil {
			return nil
		}
		return s.GetMetadata()
	}
	nodetest.Eventually(t, "a leader of three voters", func() bool { return quorum(0).GetLeader() > 0 && len(quorum(0).GetVoters()) == 3 })
	led, leader, term := time.Now(), quorum(0).GetLeader(), quorum(0).GetTerm()
	nodetest.Eventually(t, "one leader for longer than the grace", func() bool {
		q := quorum(0)
		if q.GetLeader() != leader || q.GetTerm() != term {
			led, leader, term = time.Now(), q.GetLeader(), q.GetTerm()
		}
		return leader > 0 && time.Since(led) > grace+time.Second
	})
	killed := time.Now()
	c.CrashNode(int(leader)-1, nodetest.Kill)
	other := int(leader) % len(c.Nodes)
	nodetest.Eventually(t, "other voters", func() bool {
		v := quorum(other).GetVoters()
		return len(v) == 3 && !slices.Contains(v, leader)
	})
	if took := time.Since(killed); took < grace {
		t.Errorf("the dead leader was replaced after %v, the grace is %v", took.Round(time.Millisecond), grace)
	}
}
