package raftgroup

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// rules switches rules off in tests that show what each is for.
type rules struct {
	answerBeforeCut    bool // commit index and answers before the cut at the first new entry
	respondImmediately bool // responses of an append without entries do not wait for earlier appends
	keepGivenData      bool // Raft's entries go on referring to what they came with
}

var off rules

// handleReady works one Ready off. The order matters:
//
//  1. cut at the first new entry: what was there is gone, and who waits for it fails
//  2. role and term
//  3. note the new entries
//  4. messages to others; the append is queued for submission
//  5. commit index, high watermark, answers
//  6. apply
//
// A deposed leader may get one Ready with a new entry 12 and commit index 12: step 5 before step 1 would acknowledge the
// entry 12 that it once proposed.
//
// 5 and 6 come before the submission, so that nobody waits for the copying that it does. What of the commit index covers
// entries of this very Ready has to wait until the log has them: see commitSubmitted.
func (g *Group) handleReady(rd *raft.Ready) {
	commit := id.Index(rd.HardState.GetCommit())
	if off.answerBeforeCut && commit > 0 {
		g.commitTo(min(commit, g.last))
	}
	firstNew := g.last + 1
	if len(rd.Entries) > 0 {
		firstNew = id.Index(rd.Entries[0].GetIndex())
		if !g.cutAt(firstNew) {
			return
		}
	}
	g.roleAndTerm(rd)
	if !g.noteEntries(rd.Entries) {
		return
	}
	apply := g.dispatch(rd.Messages)
	if commit > 0 {
		g.commitTo(min(commit, firstNew-1))
		if commit >= firstNew {
			g.committing = commit
			g.w.after = append(g.w.after, g)
		}
	}
	if apply != nil {
		g.apply(apply)
	}
	for _, rs := range rd.ReadStates {
		g.readState(rs)
	}
	if g.minInSync > 1 && g.onCommit.len() > 0 {
		g.answer()
	}
}

// cutAt removes what the log has at i and above, if it has anything there.
func (g *Group) cutAt(i id.Index) bool {
	if i > g.last+1 || i <= g.commit {
		g.breakDown(fmt.Errorf("new entries begin at %d; the log ends at %d and is committed up to %d", i, g.last, g.commit))
		return false
	}
	if i == g.last+1 {
		return true
	}
	g.machine.Truncate(i)
	g.endWaiting(i, &NotLeaderError{Leader: g.nodeOf(g.leader)})
	g.cutLoans(i)
	g.leo = g.log.OffsetAt(i)
	g.last = i - 1
	return true
}

// roleAndTerm publishes what changed of leader, role and term.
func (g *Group) roleAndTerm(rd *raft.Ready) {
	change := LeaderChange{Term: g.term, Leader: g.leader, Role: g.role}
	if rd.SoftState != nil {
		change.Leader, change.Role = id.Replica(rd.SoftState.Lead), roleOf(rd.SoftState.RaftState)
	}
	if t := rd.HardState.GetTerm(); t > 0 {
		change.Term = id.Term(t)
	}
	if change.Leader == g.leader && change.Role == g.role && change.Term == g.term {
		return
	}
	change.Node = g.nodeOf(change.Leader)
	g.setLeader(change)
}

func (g *Group) setLeader(l LeaderChange) {
	led, leads := g.role == Leader, l.Role == Leader
	g.w.n.leaderChanges.Add(1)
	g.term, g.role, g.leader = l.Term, l.Role, l.Leader
	if l.Leader != id.NoReplica {
		g.hurry.active = false
	}
	if led && !leads {
		g.w.n.leading.Add(-1)
		err := &NotLeaderError{Leader: l.Node}
		if g.transfer != nil && l.Node == id.NoNode {
			err.Leader = g.nodeOf(g.transfer.to) // which is about to lead
		}
		g.endWaiting(0, err)
		g.failPending(err)
	}
	if leads && !led {
		g.w.n.leading.Add(1)
		g.becameLeader()
	}
	g.lead.Store(&l)
	g.requestsSeeLeader(l)
	g.machine.Leader(l)
}

// noteEntries tells the machine of new entries, and checks that their offsets go on where the log ends: a replica whose log
// differs from its leader's must not add to it.
func (g *Group) noteEntries(entries []*raftpb.Entry) bool {
	g.unready = false
	for _, e := range entries {
		index := id.Index(e.GetIndex())
		if index != g.last+1 {
			g.breakDown(fmt.Errorf("entry %d follows entry %d", index, g.last))
			return false
		}
		if walKind(e) == wal.KindBatch {
			b := batch.Batch(e.GetData())
			if isHandle(b) {
				g.breakDown(fmt.Errorf("entry %d came without its batch", index))
				return false
			}
			if b.BaseOffset() != g.leo {
				g.breakDown(fmt.Errorf("entry %d begins at offset %d, but the log ends at %d", index, b.BaseOffset(), g.leo))
				return false
			}
			g.leo = b.NextOffset()
			if g.admitted == 0 || index < g.admitted {
				g.machine.Append(index, id.Term(e.GetTerm()), b)
			}
		}
		g.last = index
	}
	g.admitted = 0
	return true
}

// dispatch sends messages on their way, queues the append and returns what is to be applied. MsgApps leave after the submission:
// their entries are in the log's memory then, from which they can be sent without a copy.
func (g *Group) dispatch(messages []*raftpb.Message) (apply *raftpb.Message) {
	for _, m := range messages {
		switch m.GetTo() {
		case raft.LocalAppendThread:
			g.queueAppend(m)
			continue
		case raft.LocalApplyThread:
			apply = m
			continue
		}
		switch {
		case m.GetType() == raftpb.MsgApp && len(m.GetEntries()) == 0:
			g.postpone(m)
		case m.GetType() == raftpb.MsgApp:
			g.overtake(m)
			g.w.posts = append(g.w.posts, post{g, m})
		default:
			if g.send(m, nil) {
				g.w.sent = true
			}
		}
	}
	return apply
}

// send gives a message to the transport. It is called by the worker and by the store's goroutine.
func (g *Group) send(m *raftpb.Message, data Loan) bool {
	node := g.nodeOf(id.Replica(m.GetTo()))
	if node == id.NoNode {
		g.w.n.unroutable.Add(1)
		return false
	}
	g.w.n.sent.Add(1)
	g.h.o.Transport.Send(node, g.id, m, data)
	return true
}

// queueAppend turns a MsgStorageAppend into an append of the turn's submission. Every one is submitted, also without entries:
// its responses must wait for all earlier ones of the group, since an acknowledgement may be for an entry that is still being
// written. (A duplicate MsgApp yields an empty append with just that.) The exception is one with neither entries nor a vote nor responses.
func (g *Group) queueAppend(m *raftpb.Message) {
	vote := wal.HardState{Term: id.Term(m.GetTerm()), Vote: id.Replica(m.GetVote())}
	voted := m.Term != nil && vote != g.voted
	if !voted && len(m.GetEntries()) == 0 && len(m.GetResponses()) == 0 {
		return // only the commit index moved: the log hears of it by SetCommit, and stores it along with what comes next
	}
	j := g.w.job()
	j.group = g
	// What a follower stores is news for its leader alone, who is answered by appendDone.
	j.lazy = !voted && g.role == Follower
	a := &j.append
	a.Log, _ = g.log.(*wal.Log)
	a.Owner, a.Done = j, appendDone
	for _, e := range m.GetEntries() {
		a.Entries = append(a.Entries, wal.Entry{
			Index: id.Index(e.GetIndex()), Term: id.Term(e.GetTerm()), Kind: walKind(e), Data: e.GetData(),
		})
		j.last, j.term = id.Index(e.GetIndex()), id.Term(e.GetTerm())
	}
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
	g.w.submit = append(g.w.submit, a)
}

// appendDone runs on the store's goroutine: a, and all that was submitted for its group before, is durable. Responses for
// others leave when the store is done with the round.
func appendDone(a *wal.Append) {
	j := a.Owner.(*appendJob)
	g := j.group
	for _, m := range j.responses {
		if id.Replica(m.GetTo()) != g.replica && !g.failed.Load() && g.send(m, nil) {
			g.h.answered.sent = true
		}
	}
	done := &g.h.answered.jobs[g.w.number]
	done.jobs = append(done.jobs, j)
	done.urgent = done.urgent || !j.lazy || j.first > 0 && j.first <= g.Commit() // what is committed and stored is applied
}

// answered is what a commit round of the store has completed so far: its goroutine's alone.
type answered struct {
	sent bool        // responses went to the transport
	jobs []completed // by worker
}

type completed struct {
	jobs   []*appendJob
	urgent bool // not all of them are lazy
}

// roundDone runs on the store's goroutine, after appendDone for all appends of a round: one flush, and one turn of each worker that has
// to know at once. A store at leisure lends its goroutine for that.
func (h *Host) roundDone(pace wal.Pace) {
	if h.answered.sent {
		h.answered.sent = false
		h.o.Transport.Flush()
	}
	for i, w := range h.workers {
		done := &h.answered.jobs[i]
		if len(done.jobs) == 0 {
			continue
		}
		w.in.completed(done.jobs)
		clear(done.jobs)
		urgent := done.urgent
		done.jobs, done.urgent = done.jobs[:0], false
		switch {
		case !urgent && w.draining.Load() == 0: // there is another turn soon, with the next tick at the latest
		case pace == wal.PaceLeisurely:
			w.visit()
		default:
			w.nudge()
		}
	}
}

// appended is the worker's side of it: responses to the replica itself, in order, and answers to those who wait for the
// leader's own write.
func (g *Group) appended(j *appendJob) {
	g.inFlight--
	if g.closed {
		if g.inFlight == 0 {
			g.w.draining.Add(-1)
			close(g.idle)
		}
		return
	}
	if g.broken == nil {
		for _, m := range j.responses {
			if id.Replica(m.GetTo()) == g.replica {
				_ = g.step(m) // after the replica was removed from the group Raft does not know it any more
				if g.broken == nil {
					g.endLoans(g.stableTo(m))
				}
			}
		}
		if j.last > 0 && g.role == Leader && g.term == j.term {
			for w, ok := g.onLocal.popTo(j.last); ok; w, ok = g.onLocal.popTo(j.last) {
				g.finish(w, g.matches(w))
			}
		}
		g.touch()
	}
	g.w.recycle(j)
}

// commitSubmitted moves the commit index over entries that were just submitted.
func (g *Group) commitSubmitted() {
	if c := g.committing; c > 0 && !g.closed && !g.failed.Load() {
		g.committing = 0
		g.commitTo(c)
	}
}

// commitTo moves commit index and high watermark and answers.
func (g *Group) commitTo(i id.Index) {
	if i <= g.commit {
		return
	}
	g.w.n.committed.Add(uint64(i - g.commit))
	g.commit = i
	g.log.SetCommit(i)
	hw := g.log.OffsetAt(i + 1)
	moved := int64(hw) != g.hw.Load()
	g.commitIndex.Store(uint64(i))
	g.hw.Store(int64(hw))
	g.answer()
	if moved {
		g.machine.Committed(hw)
	}
}

// apply applies committed entries and tells Raft.
func (g *Group) apply(m *raftpb.Message) {
	for _, e := range m.GetEntries() {
		g.applyEntry(e)
		if g.broken != nil {
			return
		}
	}
	g.appliedIndex.Store(uint64(g.applied))
	g.uncharge(g.handled)
	for _, r := range m.GetResponses() {
		_ = g.step(r)
	}
}

func (g *Group) applyEntry(e *raftpb.Entry) {
	index, term, kind := id.Index(e.GetIndex()), id.Term(e.GetTerm()), walKind(e)
	if index != g.handled+1 {
		g.breakDown(fmt.Errorf("entry %d is to be applied after entry %d", index, g.handled))
		return
	}
	if kind == wal.KindConfChange || kind == wal.KindConfChangeV2 {
		if !g.applyConfChange(kind, e.GetData()) {
			return
		}
	}
	g.handled = index
	if g.halted == nil {
		g.show(e, index, term, kind)
	}
	g.changeApplied(index, term, kind)
}
