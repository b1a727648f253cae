package node_test

import (
	"strings"
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestReplicaThatLostEntries: a follower hears from its leader, again and again, that it has stored more than it has. Its node says that the
// replica is refused, at once and after a restart, and the others go on.
func TestReplicaThatLostEntries(t *testing.T) {
	t.Parallel()
	c := newRotCluster(t, 3, nodetest.WithNetwork())
	c.produce(3, 100)
	lead := c.leader(3, 0, 1, 2)
	s := c.status(lead)
	at := (lead + 1) % 3
	var own, leader uint64
	for _, m := range s.GetMembers() {
		switch m.GetNode() {
		case int32(at + 1):
			own = m.GetReplica()
		case int32(lead + 1):
			leader = m.GetReplica()
		}
	}
	c.Isolate(at) // what the leader really says would contradict
	nodetest.Eventually(t, "the accusation to be believed", func() bool {
		c.Nodes[at].Inject(id.Node(lead+1), id.Group(s.GetGroup()), &raftpb.Message{
			Type: raftpb.MsgHeartbeat.Enum(), From: &leader, To: &own, Term: new(uint64(s.GetEpoch())), Commit: new(s.GetCommit() + 5),
		})
		_, err := c.Admin(at).PartitionStatus(c.Context(), &pb.PartitionStatusRequest{Topic: "t"})
		return err != nil && strings.Contains(err.Error(), "is refused, for good")
	})
	c.Heal()
	c.refused(at)
	c.produce(3, 100)
	c.restart(at)
	c.AwaitReady(at)
	c.refused(at)
	c.produce(3, 100)
	c.consume()
}
