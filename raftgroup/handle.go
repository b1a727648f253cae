package raftgroup

import (
	"fmt"
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal"
)

// handle is what Raft is given in place of a batch. It clones what is proposed, and that copy of each batch into fresh memory would
// cost more than all else that Raft does. In the same turn the Ready has the entries, and redeem gives each its batch; Raft's own
// messages to followers share the entries with the Ready. Between the two nothing is stepped that could keep an entry out of the
// Ready and leave it in a message.
//
// Raft sees the handle's size where it counts what is in flight to a follower; Propose and the lanes count bytes.
var handle = []byte("proposal")

// isHandle tells whether data is a handle, by its size: no batch is as short.
func isHandle(data []byte) bool { return len(data) == len(handle) }

// redeem gives the entries of the proposals that were stepped since the last Ready their batches.
func (g *Group) redeem(entries []*raftpb.Entry) {
	if len(g.fresh) == 0 {
		return
	}
	for _, e := range entries {
		if i := int64(e.GetIndex()) - int64(g.fresh[0].Result.Index); i >= 0 && i < int64(len(g.fresh)) && isHandle(e.GetData()) {
			p := g.fresh[i]
			e.Data = p.payload()
			if p.Command != nil { // the log's memory has no copy that Raft could refer to: see submitted
				e.Data = slices.Clone(e.Data)
			}
		}
	}
	clear(g.fresh)
	g.fresh = g.fresh[:0]
}

// sound tells whether a MsgApp may leave: a handle must not.
func (g *Group) sound(m *raftpb.Message) bool {
	for _, e := range m.GetEntries() {
		if walKind(e) == wal.KindBatch && isHandle(e.GetData()) {
			g.breakDown(fmt.Errorf("entry %d would be sent without its batch", e.GetIndex()))
		}
	}
	return g.broken == nil
}
