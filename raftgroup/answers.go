package raftgroup

import (
	"time"

	"github.com/quorumlog/quorumlog/wal/id"
)

// turnAway ends a proposal that was not proposed. It may be called by anyone.
func (g *group) turnAway(p *Proposal, err error) {
	if p.counted > 0 {
		g.pendingBytes.Add(-p.counted)
		g.env.pendingBytes.Add(-p.counted)
		p.counted = 0
	}
	g.turn.n.refused.Add(1)
	p.Result.Err = err
	p.Done(p)
}

func (g *group) failPending(err error) {
	for i, p := range g.pending {
		g.pending[i] = nil
		g.turnAway(p, err)
	}
	g.pending = g.pending[:0]
}

// wait queues a proposal for its answer.
func (g *group) wait(p *Proposal) {
	w := waiter{Index: p.Result.Index, Term: p.Result.Term, Who: p}
	switch {
	case p.Wait == WaitApplied:
		g.onApply.Add(w)
	case p.Acks == AcksLeader:
		g.onLocal.Add(w)
	case p.Acks == AcksNone:
		g.unwaiting = append(g.unwaiting, p) // its batch is still needed
	default:
		g.onCommit.Add(w)
	}
}

// answerUnwaiting ends those who wait for nothing but to be proposed.
func (g *group) answerUnwaiting() {
	for i, p := range g.unwaiting {
		g.unwaiting[i] = nil
		p.Done(p)
	}
	g.unwaiting = g.unwaiting[:0]
}

// waitForDuplicate has a retry wait for the original.
func (g *group) waitForDuplicate(p *Proposal, a Admission) {
	g.pendingBytes.Add(-p.counted)
	g.env.pendingBytes.Add(-p.counted)
	p.counted = 0
	p.Result = Result{Offset: a.offset, Index: a.index, Term: a.term}
	done := g.applied
	if p.Wait != WaitApplied {
		// As much as the original waits for: a retry must not turn "on too few replicas" into success.
		done = g.acknowledged()
	}
	if a.index <= done {
		p.Done(p)
		return
	}
	w := waiter{Index: a.index, Term: a.term, Who: p}
	if p.Wait == WaitApplied {
		g.onApply.Add(w)
	} else {
		g.onCommit.Add(w)
	}
}

// finish answers a waiter. Not ok: its entry is not the one that was committed.
func (g *group) finish(w waiter, ok bool) {
	if !ok {
		w.Who.Result.Err = &NotLeaderError{Leader: g.nodeOf(g.leader)}
	}
	w.Who.Done(w.Who)
}

// matches tells whether the log still has the waiter's entry, or has let go of it: whoever was cut off or deposed waits no more, so that
// what the log begins after is the waiter's.
func (g *group) matches(w waiter) bool {
	t, ok := g.log.Term(w.Index)
	return ok && t == w.Term || w.Index <= g.log.Start().Index
}

// answer answers those who wait for commit.
func (g *group) answer() {
	for w, ok := g.onLocal.PopTo(g.commit); ok; w, ok = g.onLocal.PopTo(g.commit) {
		g.finish(w, g.matches(w))
	}
	if !g.onCommit.Reached(g.commit) {
		return
	}
	to := g.acknowledged()
	for w, ok := g.onCommit.PopTo(to); ok; w, ok = g.onCommit.PopTo(to) {
		g.finish(w, g.matches(w))
	}
}

// endWaiting ends waiters at from and above with err, and takes back their charges; from 0 ends all.
func (g *group) endWaiting(from id.Index, err error) {
	for _, q := range []*proposals{&g.onCommit, &g.onLocal, &g.onApply} {
		q.Cut(from, func(w waiter) {
			w.Who.Result.Err = err
			w.Who.Done(w.Who)
		})
	}
	g.discharge(g.charges.Cut(from))
}

// uncharge takes back the charges of what is applied. Committed would be too early: a leader whose own disk is slower than two
// followers' would pile up what it has yet to write.
func (g *group) uncharge(applied id.Index) { g.discharge(g.charges.Settle(applied)) }

func (g *group) discharge(bytes int64) {
	if bytes == 0 {
		return
	}
	g.pendingBytes.Add(-bytes)
	g.env.pendingBytes.Add(-bytes)
}

// expire ends the proposals whose time is over. It is called with each tick.
func (g *group) expire() {
	if len(g.pending)+g.onCommit.Len()+g.onLocal.Len()+g.onApply.Len() == 0 {
		return
	}
	now := g.turn.now
	kept := g.pending[:0]
	for _, p := range g.pending {
		if !p.late(now) {
			kept = append(kept, p)
			continue
		}
		g.turnAway(p, &TimeoutError{Offset: id.NoOffset})
	}
	clear(g.pending[len(kept):])
	g.pending = kept
	for _, q := range []*proposals{&g.onCommit, &g.onLocal, &g.onApply} {
		q.Remove(func(w waiter) bool {
			if !w.Who.late(now) {
				return false
			}
			w.Who.Result.Err = &TimeoutError{Index: w.Index, Offset: w.Who.Result.Offset}
			w.Who.Done(w.Who)
			return true
		})
	}
}

func (p *Proposal) late(now time.Time) bool { return !p.Deadline.IsZero() && !now.Before(p.Deadline) }
