package raftgroup

import (
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// A replica whose machine cannot follow the log over an entry is halted: see Machine.Apply. Its log is as good as any: the entry is
// committed, whoever can make something of it or not. So it goes on following, acknowledging and voting, or a cluster of which a part runs
// an older release would lose its majority to the first new command. Nothing further is shown to the machine, and no cut is taken: one with
// the index of an entry behind, or with the state before and the membership behind, would hide the entry from the release that knows it.
//
// Membership is Raft's, not the machine's, and goes on: a replica that votes and leads by the members of some time ago would count wrong
// majorities. Hence two indexes: handled, which Raft goes by, and applied, up to which the machine's state is good.
//
// A halted replica should not lead, since whoever proposes wants to know what became of it, and the machine decides what is admitted. It
// declines leaderships, campaigns behind all others, and hands over what it has. Where all replicas are halted, one leads nevertheless:
// what is committed can be read, and learners of a newer release get what they are behind. It takes no proposals.

// show has the machine apply an entry.
func (g *group) show(e *raftpb.Entry, index id.Index, term id.Term, kind wal.EntryKind) {
	value, err := g.machine.Apply(index, term, kind, e.GetData())
	if err != nil {
		g.halt(index, err)
		return
	}
	g.applied = index
	g.turn.n.applied.Add(1)
	for w, ok := g.onApply.PopTo(index); ok; w, ok = g.onApply.PopTo(index) {
		w.Who.Result.Value = value
		g.finish(w, w.Index == index && w.Term == term)
	}
}

// halt ends the applying. Who waits for it learns that the outcome is unknown here; who waits for commit goes on waiting.
func (g *group) halt(at id.Index, cause error) {
	g.halted = &HaltedError{Group: g.id, Replica: g.replica, Index: at, Cause: cause}
	g.stands(Halted, g.halted)
	g.turn.n.halted.Add(1)
	g.yieldAt = time.Time{}
	g.env.o.Logger.Error("replica halted: it follows and votes, and applies nothing further",
		"group", uint64(g.id), "replica", uint64(g.replica), "index", uint64(at), "error", cause)
	g.onApply.Cut(0, func(w waiter) {
		w.Who.Result.Err = g.halted
		w.Who.Done(w.Who)
	})
}

// resume ends that: the machine has got a state beyond the entry.
func (g *group) resume() {
	if g.halted == nil {
		return
	}
	g.halted = nil
	g.stands(Working, nil)
	g.turn.n.halted.Add(-1)
	g.env.o.Logger.Info("replica applies again, with the state of its leader", "group", uint64(g.id), "replica", uint64(g.replica))
}
