package raftgroup

import (
	"fmt"
	"time"

	"github.com/quorumlog/quorumlog/wal/id"
)

// TimeoutError ends a proposal whose Deadline has passed, and says how far it came. Nothing is taken back: what was appended may yet be
// committed, or be cut off by another leader.
type TimeoutError struct {
	Index  id.Index  // of its entry; 0: it was not appended, and never will be
	Offset id.Offset // where that begins
}

// Error implements error.
func (e *TimeoutError) Error() string {
	if e.Index == 0 {
		return "raftgroup: not appended in time, nor will it be"
	}
	return fmt.Sprintf("raftgroup: appended at offset %d and not committed in time: it may be later", e.Offset)
}

// expire ends the proposals whose time is over. It is called with each tick.
func (g *Group) expire() {
	if len(g.pending)+g.onCommit.len()+g.onLocal.len()+g.onApply.len() == 0 {
		return
	}
	now := g.w.now
	kept := g.pending[:0]
	for _, p := range g.pending {
		if !p.late(now) {
			kept = append(kept, p)
			continue
		}
		p.fail(&TimeoutError{Offset: id.NoOffset})
	}
	clear(g.pending[len(kept):])
	g.pending = kept
	for _, q := range []*waiters{&g.onCommit, &g.onLocal, &g.onApply} {
		q.remove(func(w waiter) bool {
			if !w.p.late(now) {
				return false
			}
			w.p.Result.Err = &TimeoutError{Index: w.index, Offset: w.p.Result.Offset}
			w.p.Done(w.p)
			return true
		})
	}
}

func (p *Proposal) late(now time.Time) bool { return !p.Deadline.IsZero() && !now.Before(p.Deadline) }
