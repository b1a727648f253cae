package raftgroup

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup/command"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Propose takes a batch into the group's log, or says why not: see Proposal.
func (g *Group) Propose(p *Proposal) {
	g.propose(p)
	g.w.nudge()
}

// propose leaves a batch in the inbox.
func (g *Group) propose(p *Proposal) {
	p.Result = Result{Offset: id.NoOffset}
	p.group = g
	if l := g.lead.Load(); l.Role != Leader {
		if g.failed.Load() {
			p.fail(ErrClosed)
		} else {
			p.fail(&NotLeaderError{Leader: l.Node})
		}
		return
	}
	// Whoever is alone is let in, whatever it weighs.
	size := int64(len(p.payload()))
	group, host := g.pendingBytes.Add(size), g.h.pendingBytes.Add(size)
	p.counted = size
	if group > g.h.o.MaxGroupBytes && group > size || host > g.h.o.MaxHostBytes && host > size {
		p.fail(ErrOverloaded)
		return
	}
	if !g.w.in.propose(p) {
		p.fail(ErrClosed)
	}
}

// fail ends a proposal that was not proposed.
func (p *Proposal) fail(err error) {
	g := p.group
	if p.counted > 0 {
		g.pendingBytes.Add(-p.counted)
		g.h.pendingBytes.Add(-p.counted)
		p.counted = 0
	}
	g.w.n.refused.Add(1)
	p.Result.Err = err
	p.Done(p)
}

// enqueue takes a proposal on the worker.
func (g *Group) enqueue(p *Proposal) {
	if g.closed || g.broken != nil {
		p.fail(ErrClosed)
		return
	}
	g.pending = append(g.pending, p)
	g.touch()
}

func (g *Group) failPending(err error) {
	for i, p := range g.pending {
		g.pending[i] = nil
		p.fail(err)
	}
	g.pending = g.pending[:0]
}

// proposer is a worker's memory for proposing. Raft clones what it is given, so it is used again for each message.
type proposer struct {
	message raftpb.Message
	slab    []raftpb.Entry
	entries []*raftpb.Entry
	batch   []*Proposal // those of the message
}

// add adds an entry for a proposal.
func (pr *proposer) add(p *Proposal) {
	if n := len(pr.entries); n < len(pr.slab) {
		pr.entries = append(pr.entries, &pr.slab[n])
	} else {
		pr.entries = append(pr.entries, &raftpb.Entry{Data: handle})
	}
	pr.batch = append(pr.batch, p)
}

func (pr *proposer) reset() {
	clear(pr.entries)
	clear(pr.batch)
	pr.entries, pr.batch = pr.entries[:0], pr.batch[:0]
	if pr.slab == nil {
		pr.slab = make([]raftpb.Entry, 256)
		for i := range pr.slab {
			pr.slab[i].Data = handle
		}
		pr.message.Type = raftpb.MsgProp.Enum()
	}
}

// canPropose tells whether the index that a proposal gets is known: the replica leads in the term that it has told everybody of, and
// nothing is pending in Raft. A pending Ready may hold entries that Raft appended of its own: a leader's first one, the one that leaves a
// joint configuration, an empty one in place of a change that it refuses. Nobody is told of these, and there may be others in a later Raft:
// so any Ready is taken first, and what waits is proposed in the next round of the same turn.
func (g *Group) canPropose() bool {
	if g.role != Leader || g.rn.HasReady() {
		return false
	}
	st := g.rn.BasicStatus()
	return st.RaftState == raft.StateLeader && id.Term(st.GetTerm()) == g.term && st.LeadTransferee == 0
}

// proposePending proposes what waits: all of it, in messages of up to MaxMessageBytes. A larger one would be sent to the
// followers in several, of which Raft sends all but the first after an acknowledgement.
func (g *Group) proposePending() {
	if g.change != nil && !g.change.proposed && g.canPropose() {
		g.proposeChange()
	}
	if len(g.pending) == 0 {
		return
	}
	if g.role != Leader {
		g.failPending(&NotLeaderError{Leader: g.nodeOf(g.leader)})
		return
	}
	if g.halted != nil {
		g.failPending(g.halted)
		return
	}
	if !g.canPropose() {
		return // after the next Ready, or when the transfer ends
	}
	pr := &g.w.proposer
	bytes, taken := 0, 0
	for i, p := range g.pending {
		if g.w.budget <= 0 {
			g.w.waiting = append(g.w.waiting, g)
			break
		}
		size := len(p.payload())
		g.w.budget -= size
		g.pending[i] = nil
		taken++
		if err := g.admissible(p); err != nil {
			p.fail(err)
			continue
		}
		if bytes > 0 && bytes+size > g.h.o.MaxMessageBytes {
			g.stepProposals(pr, bytes)
			bytes = 0
		}
		if g.admit(pr, p) {
			bytes += size
		}
	}
	rest := copy(g.pending, g.pending[taken:])
	clear(g.pending[rest:])
	g.pending = g.pending[:rest]
	if bytes > 0 {
		g.stepProposals(pr, bytes)
	}
}

// admissible tells whether enough replicas take part, and p can be told from other entries.
func (g *Group) admissible(p *Proposal) error {
	if !g.majority || p.Acks == AcksAll && g.inSync < g.minInSync {
		return ErrNotEnoughReplicas
	}
	if p.Command != nil {
		_, err := command.Parse(p.Command)
		return err
	}
	if len(p.Batch) < batch.HeaderSize {
		return batch.ErrInvalid
	}
	return nil
}

// admit stamps a batch, asks the machine and adds it to the message; a command needs neither. False: it was answered otherwise.
func (g *Group) admit(pr *proposer, p *Proposal) bool {
	if len(pr.batch) == 0 {
		pr.reset()
	}
	index, offset := g.nextIndex(pr), g.leoAfter(pr)
	if p.Command != nil {
		p.Result = Result{Offset: offset, Index: index, Term: g.term}
		pr.add(p)
		return true
	}
	p.Batch.Stamp(offset, id.EpochOf(g.term))
	a := g.machine.Admit(index, g.term, p.Batch)
	switch a.verdict {
	case refuse:
		p.fail(a.err)
		return false
	case duplicate:
		g.waitForDuplicate(p, a)
		return false
	}
	p.Result = Result{Offset: offset, Index: index, Term: g.term}
	pr.add(p)
	return true
}

// nextIndex is the index of the next entry: after the log, the messages stepped since the last Ready, and the one being put
// together.
func (g *Group) nextIndex(pr *proposer) id.Index {
	if n := len(pr.batch); n > 0 {
		return pr.batch[n-1].Result.Index + 1
	}
	if g.admitted > 0 {
		return g.charges[len(g.charges)-1].last + 1
	}
	return g.last + 1
}

func (g *Group) leoAfter(pr *proposer) id.Offset {
	if n := len(pr.batch); n > 0 {
		return pr.batch[n-1].next()
	}
	if g.admitted > 0 {
		return g.admittedLEO
	}
	return g.leo
}

// stepProposals gives the message to Raft, which takes all of it or nothing.
func (g *Group) stepProposals(pr *proposer, bytes int) {
	first := pr.batch[0].Result.Index
	last := pr.batch[len(pr.batch)-1]
	pr.message.Entries = pr.entries
	err := g.step(&pr.message)
	pr.message.Entries = nil
	if err == nil && g.broken != nil {
		err = g.broken
	}
	if err != nil {
		g.machine.Truncate(first)
		g.endWaiting(first, ErrProposalDropped) // retries that began to wait for one of these
		for _, p := range pr.batch {
			p.Result = Result{Offset: id.NoOffset}
			p.fail(ErrProposalDropped)
		}
		pr.reset()
		return
	}
	g.w.n.proposals.Add(uint64(len(pr.batch)))
	g.w.n.proposalSteps.Add(1)
	g.w.n.proposedBytes.Add(uint64(bytes))
	if g.admitted == 0 {
		g.admitted = first
	}
	g.admittedLEO = last.next()
	g.charges = append(g.charges, charge{last: last.Result.Index, bytes: int64(bytes)})
	g.fresh = append(g.fresh, pr.batch...)
	for _, p := range pr.batch {
		p.counted = 0 // the charge's from now on
		g.wait(p)
	}
	pr.reset()
}

// wait queues a proposal for its answer.
func (g *Group) wait(p *Proposal) {
	w := waiter{index: p.Result.Index, term: p.Result.Term, p: p}
	switch {
	case p.Wait == WaitApplied:
		g.onApply.add(w)
	case p.Acks == AcksLeader:
		g.onLocal.add(w)
	case p.Acks == AcksNone:
		g.unwaiting = append(g.unwaiting, p) // its batch is still needed
	default:
		g.onCommit.add(w)
	}
}

// answerUnwaiting ends those who wait for nothing but to be proposed.
func (g *Group) answerUnwaiting() {
	for i, p := range g.unwaiting {
		g.unwaiting[i] = nil
		p.Done(p)
	}
	g.unwaiting = g.unwaiting[:0]
}

// waitForDuplicate has a retry wait for the original.
func (g *Group) waitForDuplicate(p *Proposal, a Admission) {
	g.pendingBytes.Add(-p.counted)
	g.h.pendingBytes.Add(-p.counted)
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
	w := waiter{index: a.index, term: a.term, p: p}
	if p.Wait == WaitApplied {
		g.onApply.add(w)
	} else {
		g.onCommit.add(w)
	}
}

// finish answers a waiter. Not ok: its entry is not the one that was committed.
func (g *Group) finish(w waiter, ok bool) {
	if !ok {
		w.p.Result.Err = &NotLeaderError{Leader: g.nodeOf(g.leader)}
	}
	w.p.Done(w.p)
}

// matches tells whether the log still has the waiter's entry.
func (g *Group) matches(w waiter) bool {
	t, ok := g.log.Term(w.index)
	return ok && t == w.term
}

// answer answers those who wait for commit.
func (g *Group) answer() {
	for w, ok := g.onLocal.popTo(g.commit); ok; w, ok = g.onLocal.popTo(g.commit) {
		g.finish(w, g.matches(w))
	}
	if g.onCommit.len() == 0 || g.onCommit.first().index > g.commit {
		return
	}
	to := g.acknowledged()
	for w, ok := g.onCommit.popTo(to); ok; w, ok = g.onCommit.popTo(to) {
		g.finish(w, g.matches(w))
	}
}

// endWaiting ends waiters at from and above with err, and takes back their charges; from 0 ends all.
func (g *Group) endWaiting(from id.Index, err error) {
	for _, q := range []*waiters{&g.onCommit, &g.onLocal, &g.onApply} {
		q.cut(from, func(w waiter) {
			w.p.Result.Err = err
			w.p.Done(w.p)
		})
	}
	for n := len(g.charges); n > 0 && g.charges[n-1].last >= from; n-- {
		g.discharge(g.charges[n-1].bytes)
		g.charges = g.charges[:n-1]
	}
}

// uncharge takes back the charges of what is applied. Committed would be too early: a leader whose own disk is slower than two
// followers' would pile up what it has yet to write.
func (g *Group) uncharge(applied id.Index) {
	n := 0
	for n < len(g.charges) && g.charges[n].last <= applied {
		g.discharge(g.charges[n].bytes)
		n++
	}
	if n > 0 {
		g.charges = g.charges[:copy(g.charges, g.charges[n:])]
	}
}

func (g *Group) discharge(bytes int64) {
	g.pendingBytes.Add(-bytes)
	g.h.pendingBytes.Add(-bytes)
}
