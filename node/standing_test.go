package node_test

import (
	"testing"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
)

// TestReplicaThatLostEntries: a follower hears from its leader that it has stored more than it has. Its node says that the replica is
// refused, at once and after a restart, and the others go on.
func TestReplicaThatLostEntries(t *testing.T) {
	c := newRotCluster(t, 3)
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
	c.Nodes[at].Inject(id.Node(lead+1), id.Group(s.GetGroup()), &raftpb.Message{
		Type: raftpb.MsgHeartbeat.Enum(), From: &leader, To: &own, Term: new(uint64(s.GetEpoch())), Commit: new(s.GetCommit() + 5),
	})
	c.refused(at)
	c.produce(3, 100)
	c.restart(at)
	c.AwaitReady(at)
	c.refused(at)
	c.produce(3, 100)
	c.consume()
}
