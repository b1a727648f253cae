package raftgroup

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// loan is the log's memory that Raft's unstable entries [first, last] refer to.
type loan struct {
	first, last id.Index
	data        *wal.Loan
}

// loans are those of a group, in the order of the entries. Raft keeps entries until they are stable, longer than whatever their data came
// in: a producer's batch, or the buffer that a message was received in.
//
// A loan that is held too long costs memory; one that is given back too early would have a follower store other bytes under the same index
// and term. So it lasts until the end of the turn: Raft may have put the entries into a message just before it let go of them.
type loans []loan

// of returns the loan that covers all of m's entries, or nil. There is one for entries which were just submitted, and these are nearly all
// that is ever sent.
func (l loans) of(m *raftpb.Message) Loan {
	n := len(m.GetEntries())
	if n == 0 || len(l) == 0 {
		return nil
	}
	last := &l[len(l)-1]
	if id.Index(m.GetEntries()[0].GetIndex()) < last.first || id.Index(m.GetEntries()[n-1].GetIndex()) > last.last {
		return nil
	}
	return last.data
}

// end gives back what Raft refers to no more, entries up to stable: into held, which is released at the end of the turn.
func (l *loans) end(stable id.Index, held []Loan) []Loan {
	n := 0
	for n < len(*l) && (*l)[n].last <= stable {
		held = append(held, (*l)[n].data)
		n++
	}
	if n > 0 {
		rest := copy(*l, (*l)[n:])
		clear((*l)[rest:])
		*l = (*l)[:rest]
	}
	return held
}

// cut gives back what a truncation at i replaces: into held, which is released at the end of the turn.
func (l *loans) cut(i id.Index, held []Loan) []Loan {
	n := len(*l)
	for ; n > 0 && (*l)[n-1].first >= i; n-- {
		held = append(held, (*l)[n-1].data)
	}
	*l = (*l)[:n]
	if n > 0 {
		(*l)[n-1].last = min((*l)[n-1].last, i-1)
	}
	return held
}
