package raftgroup

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// queueAppend turns a MsgStorageAppend into an append of the turn's submission. Every one is submitted, also without entries:
// its responses must wait for all earlier ones of the group, since an acknowledgement may be for an entry that is still being
// written. (A duplicate MsgApp yields an empty append with just that.) The exception is one with neither entries nor a vote nor responses.
func (g *group) queueAppend(m *raftpb.Message) {
	vote := wal.HardState{Term: id.Term(m.GetTerm()), Vote: id.Replica(m.GetVote())}
	voted := m.Term != nil && vote != g.voted
	if !voted && len(m.GetEntries()) == 0 && len(m.GetResponses()) == 0 {
		return // only the commit index moved: the log hears of it by SetCommit, and stores it along with what comes next
	}
	j := g.turn.job()
	j.group = g
	// What a follower stores is news for its leader alone, who is answered when the store is done: see round.stored.
	j.lazy = !voted && g.role == Follower
	a := &j.append
	a.Log, _ = g.log.(*wal.Log)
	a.Owner, a.Done = j, g.env.stored
	if g.anew != nil {
		a.Reset, g.anew, g.unsettled = g.anew, nil, false
		j.lazy = false // nothing is applied before it is done
	}
	for _, e := range m.GetEntries() {
		a.Entries = append(a.Entries, wal.Entry{
			Index: id.Index(e.GetIndex()), Term: id.Term(e.GetTerm()), Kind: walKind(e), Data: e.GetData(),
		})
		j.last, j.term = id.Index(e.GetIndex()), id.Term(e.GetTerm())
	}
	g.planRolls(a)
	if n := len(a.Entries); n > 0 {
		j.entries, j.first = m.GetEntries(), a.Entries[0].Index
		a.Loan = wal.NewLoan()
	}
	if m.Term != nil {
		g.voted = vote
		j.hardState = wal.HardState{Term: vote.Term, Vote: vote.Vote, Commit: id.Index(m.GetCommit())}
		a.HardState = &j.hardState
	}
	for _, r := range m.GetResponses() {
		if off.respondImmediately && len(m.GetEntries()) == 0 && id.Replica(r.GetTo()) != g.replica {
			g.send(r, nil)
			continue
		}
		j.responses = append(j.responses, r)
	}
	g.inFlight++
	g.turn.submit = append(g.turn.submit, a)
}

// appended is the worker's side of it: responses to the replica itself, in order, and answers to those who wait for the
// leader's own write.
func (g *group) appended(j *appendJob) {
	g.inFlight--
	if g.closed {
		if g.inFlight == 0 {
			g.turn.draining.Add(-1)
			close(g.idle)
		}
		return
	}
	if g.broken == nil {
		for _, m := range j.responses {
			if id.Replica(m.GetTo()) == g.replica {
				_ = g.step(m) // after the replica was removed from the group Raft does not know it any more
				if g.broken == nil {
					g.turn.held = g.loans.end(g.stableTo(m), g.turn.held)
				}
			}
		}
		if j.last > 0 && g.role == Leader && g.term == j.term {
			for w, ok := g.onLocal.PopTo(j.last); ok; w, ok = g.onLocal.PopTo(j.last) {
				g.finish(w, g.matches(w))
			}
		}
		g.touch()
	}
	g.turn.recycle(j)
}

// job returns a fresh append job.
func (t *turn) job() *appendJob {
	n := len(t.jobs)
	if n == 0 {
		return new(appendJob)
	}
	j := t.jobs[n-1]
	t.jobs = t.jobs[:n-1]
	return j
}

// maxFreeJobs bounds what is kept of a burst.
const maxFreeJobs = 1024

func (t *turn) recycle(j *appendJob) {
	if len(t.jobs) >= maxFreeJobs {
		return
	}
	a := &j.append // which keeps what the store planned in, to plan in again
	clear(a.Entries)
	a.Entries, a.HardState, a.Log, a.Loan, a.Reset = a.Entries[:0], nil, nil, nil, nil
	clear(j.responses)
	j.responses, j.group, j.first, j.last, j.term, j.lazy = j.responses[:0], nil, 0, 0, 0, false
	t.jobs = append(t.jobs, j)
}

// submitted has Raft refer to the log's memory from now on: see loans.
func (g *group) submitted(j *appendJob) {
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

// loanFor returns the loan of m's entries, or nil.
func (g *group) loanFor(m *raftpb.Message) Loan {
	if g.role != Leader || id.Term(m.GetTerm()) != g.term {
		return nil // of a term that is over: what the log has at these indexes now may be other entries
	}
	return g.loans.of(m)
}

// stableTo is what of Raft's entries is stable after it was shown response, 0 if that says nothing. It mirrors Raft's own rule
// (unstable.stableTo): the response is of this term, and the entry that it names still is the one in the log. Between the log and
// what Raft has there is no difference here: responses of the store are stepped before anything that adds entries, see worker.takeTurn.
func (g *group) stableTo(response *raftpb.Message) id.Index {
	i := id.Index(response.GetIndex())
	if response.GetType() != raftpb.MsgStorageAppendResp || i == 0 || response.GetTerm() != g.rn.BasicStatus().GetTerm() {
		return 0
	}
	if t, ok := g.log.Term(i); !ok || t != id.Term(response.GetLogTerm()) {
		return 0
	}
	return i
}

// planRolls asks the machine which commands begin a segment.
func (g *group) planRolls(a *wal.Append) {
	for i := range a.Entries {
		if e := &a.Entries[i]; e.Kind == wal.KindCommand {
			e.Roll = g.machine.Rolls(e.Data, g.offsetBefore(a, i))
		}
	}
}

// offsetBefore is where the log ends before an entry of an append.
func (g *group) offsetBefore(a *wal.Append, i int) id.Offset {
	for k := i - 1; k >= 0; k-- {
		if a.Entries[k].Kind == wal.KindBatch {
			return batch.Batch(a.Entries[k].Data).NextOffset()
		}
	}
	if a.Reset != nil {
		return a.Reset.Start.Offset
	}
	return g.log.OffsetAt(a.Entries[0].Index)
}
