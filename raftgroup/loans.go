package raftgroup

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// submitted has Raft refer to the log's memory from now on. It keeps entries until they are stable, longer than whatever their data
// came in: a producer's batch, or the buffer that a message was received in.
func (g *Group) submitted(j *appendJob) {
	for i, e := range j.entries {
		if j.append.Entries[i].Kind == wal.KindBatch && !off.keepGivenData {
			e.Data = j.append.Entries[i].Data
		}
	}
	j.entries = nil
	if j.first > 0 {
		g.loans = append(g.loans, loan{first: j.first, last: j.last, data: j.append.Loan})
	}
	g.answerUnwaiting()
}

// loan is the log's memory that Raft's unstable entries [first, last] refer to.
type loan struct {
	first, last id.Index
	data        *wal.Loan
}

// loanFor returns the loan of m's entries, nil unless one covers them all. That is so for entries which were just submitted, and
// these are nearly all that is ever sent.
func (g *Group) loanFor(m *raftpb.Message) Loan {
	n := len(m.GetEntries())
	if n == 0 || len(g.loans) == 0 {
		return nil
	}
	if g.role != Leader || id.Term(m.GetTerm()) != g.term {
		return nil // of a term that is over: what the log has at these indexes now may be other entries
	}
	l := &g.loans[len(g.loans)-1]
	if id.Index(m.GetEntries()[0].GetIndex()) < l.first || id.Index(m.GetEntries()[n-1].GetIndex()) > l.last {
		return nil
	}
	return l.data
}

// endLoans gives back what Raft refers to no more: entries up to stable. A loan that is held too long costs memory; one that is
// given back too early would have a follower store other bytes under the same index and term. So it lasts until the end of the turn:
// Raft may have put the entries into a message just before it let go of them.
func (g *Group) endLoans(stable id.Index) {
	n := 0
	for n < len(g.loans) && g.loans[n].last <= stable {
		g.w.held = append(g.w.held, g.loans[n].data)
		n++
	}
	if n > 0 {
		rest := copy(g.loans, g.loans[n:])
		clear(g.loans[rest:])
		g.loans = g.loans[:rest]
	}
}

// stableTo is what of Raft's entries is stable after it was shown response, 0 if that says nothing. It mirrors Raft's own rule
// (unstable.stableTo): the response is of this term, and the entry that it names still is the one in the log. Between the log and
// what Raft has there is no difference here: responses of the store are stepped before anything that adds entries, see worker.turn.
func (g *Group) stableTo(response *raftpb.Message) id.Index {
	i := id.Index(response.GetIndex())
	if response.GetType() != raftpb.MsgStorageAppendResp || i == 0 || response.GetTerm() != g.rn.BasicStatus().GetTerm() {
		return 0
	}
	if t, ok := g.log.Term(i); !ok || t != id.Term(response.GetLogTerm()) {
		return 0
	}
	return i
}

// cutLoans gives back what a truncation at i replaces, at the end of the turn.
func (g *Group) cutLoans(i id.Index) {
	n := len(g.loans)
	for ; n > 0 && g.loans[n-1].first >= i; n-- {
		g.w.held = append(g.w.held, g.loans[n-1].data)
		g.loans = g.loans[:n-1]
	}
	if n > 0 {
		g.loans[n-1].last = min(g.loans[n-1].last, i-1)
	}
}
