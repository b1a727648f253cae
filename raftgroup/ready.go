package raftgroup

import (
	"fmt"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// handleReady works one Ready off. The order matters:
//
//  0. begin anew, if the log is given up for a snapshot
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
func (g *group) handleReady(rd *raft.Ready) {
	commit := id.Index(rd.HardState.GetCommit())
	if off.answerBeforeCut && commit > 0 {
		g.commitTo(min(commit, g.last))
	}
	anew := !raft.IsEmptySnap(rd.Snapshot)
	if anew && !g.beginAnew(id.Index(rd.Snapshot.GetMetadata().GetIndex())) {
		return
	}
	g.arrivals = nil
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
		if !anew { // the log still is the old one
			g.commitTo(min(commit, firstNew-1))
		}
		if anew || commit >= firstNew {
			g.committing = commit
			g.turn.after = append(g.turn.after, g)
		}
	}
	if apply != nil {
		g.apply(apply)
	}
	for _, rs := range rd.ReadStates {
		g.readState(rs)
	}
	if g.minInSync > 1 && g.onCommit.Len() > 0 {
		g.answer()
	}
}

// cutAt removes what the log has at i and above, if it has anything there.
func (g *group) cutAt(i id.Index) bool {
	if i > g.last+1 || i <= g.commit {
		g.breakDown(fmt.Errorf("new entries begin at %d; the log ends at %d and is committed up to %d", i, g.last, g.commit))
		return false
	}
	if i == g.last+1 {
		return true
	}
	if g.halted == nil {
		g.machine.Truncate(max(i, g.applied+1))
	}
	g.endWaiting(i, &NotLeaderError{Leader: g.nodeOf(g.leader)})
	g.turn.held = g.loans.cut(i, g.turn.held)
	g.leo = g.log.OffsetAt(i)
	g.last = i - 1
	return true
}

// roleAndTerm publishes what changed of leader, role and term.
func (g *group) roleAndTerm(rd *raft.Ready) {
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

func (g *group) setLeader(l LeaderChange) {
	old := LeaderChange{Term: g.term, Leader: g.leader, Role: g.role}
	led, leads := g.role == Leader, l.Role == Leader
	g.turn.n.leaderChanges.Add(1)
	g.term, g.role, g.leader = l.Term, l.Role, l.Leader
	if led && !leads {
		g.turn.n.leading.Add(-1)
		g.endOffers()
		err := &NotLeaderError{Leader: l.Node}
		if g.transfer != nil && l.Node == id.NoNode {
			err.Leader = g.nodeOf(g.transfer.to) // which is about to lead
		}
		g.endWaiting(0, err)
		g.failPending(err)
	}
	if leads && !led {
		g.turn.n.leading.Add(1)
		g.becameLeader()
		g.machine.Elected()
	}
	g.raceSees(old)
	g.lead.Store(&l)
	g.requestsSeeLeader(l)
	g.machine.Leader(l)
}

// noteEntries tells the machine of new entries, and checks that their offsets go on where the log ends: a replica whose log
// differs from its leader's must not add to it.
func (g *group) noteEntries(entries []*raftpb.Entry) bool {
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
			if g.halted == nil && index > g.applied && (g.admitted == 0 || index < g.admitted) {
				g.machine.Append(index, id.Term(e.GetTerm()), b)
			}
		} else {
			g.command = index
		}
		g.last = index
	}
	g.admitted = 0
	return true
}

// dispatch sends messages on their way, queues the append and returns what is to be applied. MsgApps leave after the submission:
// their entries are in the log's memory then, from which they can be sent without a copy.
func (g *group) dispatch(messages []*raftpb.Message) (apply *raftpb.Message) {
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
			g.turn.posts = append(g.turn.posts, post{g, m})
		case m.GetType() == raftpb.MsgSnap:
			g.offerSnapshot(m)
		default:
			if g.send(m, nil) {
				g.turn.sent = true
			}
		}
	}
	return apply
}

// commitSubmitted moves the commit index over entries that were just submitted.
func (g *group) commitSubmitted() {
	if c := g.committing; c > 0 && !g.closed && !g.failed.Load() {
		g.committing = 0
		g.commitTo(c)
	}
}

// commitTo moves commit index and high watermark and answers.
func (g *group) commitTo(i id.Index) {
	if i <= g.commit {
		return
	}
	g.turn.n.committed.Add(uint64(i - g.commit))
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
func (g *group) apply(m *raftpb.Message) {
	for _, e := range m.GetEntries() {
		g.applyEntry(e)
		if g.broken != nil {
			return
		}
	}
	g.publishApplied()
	g.uncharge(g.handled)
	for _, r := range m.GetResponses() {
		_ = g.step(r)
	}
}

func (g *group) applyEntry(e *raftpb.Entry) {
	index, term, kind := id.Index(e.GetIndex()), id.Term(e.GetTerm()), walKind(e)
	if index != g.handled+1 {
		g.breakDown(fmt.Errorf("entry %d is to be applied after entry %d", index, g.handled))
		return
	}
	known := index <= g.applied // it is in a state that is ahead of the log
	if !known && (kind == wal.KindConfChange || kind == wal.KindConfChangeV2) {
		if !g.applyConfChange(kind, e.GetData()) {
			return
		}
	}
	g.handled = index
	if g.halted == nil && !known {
		g.show(e, index, term, kind)
	}
	g.changeApplied(index, term, kind)
}
