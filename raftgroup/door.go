package raftgroup

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup/door"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// shuts tells whether a MsgApp has to stay outside: this is the door at which a follower's store is asked for room. What is dropped here is
// lost on the way as far as Raft can tell, and comes again. Entries without batches always pass, they weigh nothing: a new leader's first
// entry has to commit before anybody reads. Where the store is behind, each group has room for one message, or those that wait in the
// caches of all groups would keep out the entry that commits them.
func (g *group) shuts(m *raftpb.Message) bool {
	p := g.env.o.Store.Pressure()
	if p == wal.PressureNone && g.turn.condition != Stalled {
		return false
	}
	if batchBytes(m) == 0 {
		return false
	}
	if p == wal.PressureNoSpace && !g.vital {
		return !g.trim(m)
	}
	if g.inFlight > 0 || g.takes {
		g.turn.n.droppedBehind.Add(1)
		return true
	}
	g.takes = true
	return false
}

// trim cuts a MsgApp down to the entries that a store without space takes, and tells whether any are left. Raft acknowledges what it is
// shown; the rest comes again.
func (g *group) trim(m *raftpb.Message) bool {
	entries := m.GetEntries()
	var cut door.Cut
	for _, e := range entries {
		if !cut.Add(g.weigh(e, m.GetTerm()), len(e.GetData())) {
			break
		}
	}
	keep := cut.Take(&g.env.disk.allowance)
	if keep < len(entries) {
		g.turn.n.droppedNoSpace.Add(1)
		m.Entries = entries[:keep:keep]
	}
	return keep > 0
}

// weigh says what an entry that the leader of a term sends takes of the space.
func (g *group) weigh(e *raftpb.Entry, term uint64) door.Entry {
	switch {
	case walKind(e) != wal.KindBatch || g.has(e):
		return door.Free
	case e.GetTerm() < term:
		return door.Earlier
	}
	return door.Own
}

// has tells whether the log has this very entry.
func (g *group) has(e *raftpb.Entry) bool {
	t, ok := g.log.Term(id.Index(e.GetIndex()))
	return ok && t == id.Term(e.GetTerm())
}

// holdsBack tells whether a MsgApp is not sent, because the disk of whom it is for would not take it.
func (g *group) holdsBack(m *raftpb.Message) bool {
	if len(g.turn.conditions) == 0 || g.vital {
		return false
	}
	p := g.turn.conditions[g.nodeOf(id.Replica(m.GetTo()))]
	if p == nil {
		return false
	}
	bytes := batchBytes(m)
	if bytes == 0 || p.condition == Full && !g.confirmed() {
		return false
	}
	if p.condition == Stalled && p.trickle.Spend(g.turn.now, bytes) {
		return false
	}
	g.turn.n.heldBack.Add(1)
	return true
}

// confirmed tells whether the leader has committed an entry of its own term.
func (g *group) confirmed() bool {
	t, ok := g.log.Term(g.commit)
	return ok && t == g.term
}
