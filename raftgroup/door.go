package raftgroup

import (
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// A stalled follower is sent no more than stalledBytes with each stalledEvery by each worker: a disk that is slow takes part as far as
	// it can, and one that hangs is not sent the same again and again, a message a group with each heartbeat.
	stalledBytes = 4 * mib
	stalledEvery = time.Second
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
// Batches of an earlier term are what its leader needs to commit its first entry, if none of those which it can reach has more space than
// this one: without them nobody can read until there is space. A leader that has done so does not send them. Its own batches stand behind
// that entry, perhaps in the same message, so the message is cut rather than dropped. What the log has already takes no space.
func (g *group) trim(m *raftpb.Message) bool {
	entries := m.GetEntries()
	keep, weightless, bytes := 0, 0, int64(0)
	for _, e := range entries {
		if walKind(e) == wal.KindBatch && !g.has(e) {
			if e.GetTerm() >= m.GetTerm() {
				break
			}
			bytes += int64(len(e.GetData()))
		}
		keep++
		if bytes == 0 {
			weightless = keep
		}
	}
	if bytes > 0 && !g.env.disk.allowance.take(bytes) {
		keep = weightless
	}
	if keep < len(entries) {
		g.turn.n.droppedNoSpace.Add(1)
		m.Entries = entries[:keep:keep]
	}
	return keep > 0
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
	if p.condition == Stalled {
		if g.turn.now.Sub(p.since) >= stalledEvery {
			p.since, p.budget = g.turn.now, stalledBytes
		}
		if p.budget > 0 {
			p.budget -= bytes
			return false
		}
	}
	g.turn.n.heldBack.Add(1)
	return true
}

// confirmed tells whether the leader has committed an entry of its own term.
func (g *group) confirmed() bool {
	t, ok := g.log.Term(g.commit)
	return ok && t == g.term
}
