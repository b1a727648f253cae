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
//
// What does not follow on the log would cost the allowance, and Raft rejects it. It is shown that without the batches, so that the leader
// goes back to where the log ends.
func (g *group) trim(m *raftpb.Message) bool {
	entries, pressed := m.GetEntries(), len(m.GetContext()) > 0
	var cut door.Cut
	for _, e := range entries {
		if !cut.Add(g.weigh(e, m.GetTerm(), pressed), len(e.GetData())) {
			break
		}
	}
	follows := g.has(id.Index(m.GetIndex()), m.GetLogTerm())
	keep := cut.Free()
	if follows {
		keep = cut.Take(&g.env.disk.allowance)
	}
	if keep < len(entries) {
		g.turn.n.droppedNoSpace.Add(1)
		m.Entries = entries[:keep:keep]
	}
	return keep > 0 || !follows
}

// weigh says what an entry that the leader of a term sends takes of the space.
//
// Batches of an earlier term are what the leader needs to commit its first entry, if none of those which it can reach has more space than
// this one: without them nobody can read until there is space. Of its own batches a leader presses those that it needs: see press.
func (g *group) weigh(e *raftpb.Entry, term uint64, pressed bool) door.Entry {
	switch {
	case walKind(e) != wal.KindBatch || g.has(id.Index(e.GetIndex()), e.GetTerm()):
		return door.Free
	case e.GetTerm() < term || pressed:
		return door.Needed
	}
	return door.Own
}

// has tells whether the log has this very entry, or had it: what is committed is the same everywhere, and before the log's start nobody knows
// terms any more.
func (g *group) has(i id.Index, term uint64) bool {
	t, ok := g.log.Term(i)
	return i <= g.commit || ok && t == id.Term(term)
}

// resetBytes is what a log that begins anew takes of the space beside its view.
const resetBytes = 64 << 10

// admits tells whether a store without space has room for a snapshot. Its view is stored before anything is freed for it, and many of them
// would use up what is kept for votes. Each frees the log that it ends, so those that are taken make room for others; whoever gets none is
// offered it again, until there is space.
func (g *group) admits(s *snapshot) bool {
	if g.vital || g.env.o.Store.Pressure() != wal.PressureNoSpace || g.env.disk.views.Take(int64(len(s.view))+resetBytes) {
		return true
	}
	g.turn.n.droppedNoSpace.Add(1)
	return false
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
	if batchBytes(m) == 0 || p.condition == Full && !g.confirmed() {
		return false
	}
	if (p.condition == Stalled || g.press(m)) && p.trickle.Spend(g.turn.now, batchBytes(m)) {
		return false
	}
	g.turn.n.heldBack.Add(1)
	if p.condition == Full {
		g.tellStart(m)
	}
	return true
}

// pressing in the Context of a MsgApp, for which Raft has no use, says that a disk without space has to take the batches too. A release that
// does not know it does not take them.
var pressing = []byte{1}

// press marks and cuts a MsgApp for a full disk, if it is needed there all the same: a command stands behind its batches, and they commit
// nowhere else. Without it a majority of full disks would stop the commands that free space, for ever: a leader takes back none of its own
// entries.
//
// A full follower beside a majority of good disks gets none: see tellStart.
//
// It is little. Who leads such a group takes no batches any more (noSpace), so that those are left that came before it knew. They go out of
// the follower's allowance, and no more of them than it has: a command behind more batches than that waits until there is space. One with no
// batch before it passes always.
func (g *group) press(m *raftpb.Message) bool {
	if g.role != Leader || id.Term(m.GetTerm()) != g.term || g.command <= g.commit || !g.isVoter(id.Replica(m.GetTo())) ||
		g.most(func(of *member) bool { return g.alive(of) && g.conditionOf(of.replica) == Good }) {
		return false
	}
	entries := m.GetEntries()
	first := id.Index(entries[0].GetIndex())
	if first > g.command {
		return false
	}
	if n := g.command - first + 1; n < id.Index(len(entries)) {
		m.Entries = entries[:n:n]
	}
	m.Context = pressing
	return true
}

// confirmed tells whether the leader has committed an entry of its own term.
func (g *group) confirmed() bool {
	t, ok := g.log.Term(g.commit)
	return ok && t == g.term
}
