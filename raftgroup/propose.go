package raftgroup

import (
	"go.etcd.io/raft/v3"

	"github.com/quorumlog/quorumlog/raftgroup/command"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// enqueue takes a proposal on the worker.
func (g *group) enqueue(p *Proposal) {
	if g.closed || g.broken != nil {
		g.turnAway(p, ErrClosed)
		return
	}
	g.pending = append(g.pending, p)
	g.touch()
}

// canPropose tells whether the index that a proposal gets is known: the replica leads in the term that it has told everybody of, and
// nothing is pending in Raft. A pending Ready may hold entries that Raft appended of its own: a leader's first one, the one that leaves a
// joint configuration, an empty one in place of a change that it refuses. Nobody is told of these, and there may be others in a later Raft:
// so any Ready is taken first, and what waits is proposed in the next round of the same turn.
func (g *group) canPropose() bool {
	if g.role != Leader || g.rn.HasReady() {
		return false
	}
	st := g.rn.BasicStatus()
	return st.RaftState == raft.StateLeader && id.Term(st.GetTerm()) == g.term && st.LeadTransferee == 0
}

// proposePending proposes what waits: all of it, in messages of up to MaxMessageBytes. A larger one would be sent to the
// followers in several, of which Raft sends all but the first after an acknowledgement.
func (g *group) proposePending() {
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
	pr := &g.turn.proposer
	bytes, taken := 0, 0
	for i, p := range g.pending {
		if g.turn.budget <= 0 {
			g.turn.waiting = append(g.turn.waiting, g)
			break
		}
		size := len(p.payload())
		g.turn.budget -= size
		g.pending[i] = nil
		taken++
		if err := g.admissible(p); err != nil {
			g.turnAway(p, err)
			continue
		}
		if bytes > 0 && bytes+size > g.env.o.MaxMessageBytes {
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
func (g *group) admissible(p *Proposal) error {
	if !g.majority {
		return ErrNotEnoughReplicas
	}
	if p.Command == nil && g.noSpace() {
		return ErrNoSpace
	}
	if p.Acks == AcksAll && g.inSync < g.minInSync {
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
func (g *group) admit(pr *proposer, p *Proposal) bool {
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
		g.turnAway(p, a.err)
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
func (g *group) nextIndex(pr *proposer) id.Index {
	if n := len(pr.batch); n > 0 {
		return pr.batch[n-1].Result.Index + 1
	}
	if g.admitted > 0 {
		return g.charges.Last() + 1
	}
	return g.last + 1
}

func (g *group) leoAfter(pr *proposer) id.Offset {
	if n := len(pr.batch); n > 0 {
		return pr.batch[n-1].next()
	}
	if g.admitted > 0 {
		return g.admittedLEO
	}
	return g.leo
}

// stepProposals gives the message to Raft, which takes all of it or nothing.
func (g *group) stepProposals(pr *proposer, bytes int) {
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
			g.turnAway(p, ErrProposalDropped)
		}
		pr.reset()
		return
	}
	g.turn.n.proposals.Add(uint64(len(pr.batch)))
	g.turn.n.proposalSteps.Add(1)
	g.turn.n.proposedBytes.Add(uint64(bytes))
	if g.admitted == 0 {
		g.admitted = first
	}
	g.admittedLEO = last.next()
	g.charges.Add(last.Result.Index, int64(bytes))
	g.fresh = append(g.fresh, pr.batch...)
	for _, p := range pr.batch {
		p.counted = 0 // the charge's from now on
		g.wait(p)
	}
	pr.reset()
}
