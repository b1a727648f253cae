package raftgroup

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// send gives a message to the transport. It is called by the worker and by the store's goroutine.
func (g *group) send(m *raftpb.Message, data Loan) bool {
	node := g.nodeOf(id.Replica(m.GetTo()))
	if node == id.NoNode {
		g.turn.n.unroutable.Add(1)
		return false
	}
	g.turn.n.sent.Add(1)
	g.env.o.Transport.Send(node, g.id, m, data)
	return true
}

// sound tells whether a MsgApp may leave: a handle must not.
func (g *group) sound(m *raftpb.Message) bool {
	for _, e := range m.GetEntries() {
		if walKind(e) == wal.KindBatch && isHandle(e.GetData()) {
			g.breakDown(fmt.Errorf("entry %d would be sent without its batch", e.GetIndex()))
		}
	}
	return g.broken == nil
}
