package raftgroup

import (
	"fmt"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/quorumlog/quorumlog/raftgroup/election"
	"github.com/quorumlog/quorumlog/raftgroup/insync"
	"github.com/quorumlog/quorumlog/wal/id"
)

// abortTransfer ends a transfer that has no outcome. Raft aborts one when it is asked for another, to the leader itself for instance.
func (g *group) abortTransfer(err error) {
	t := g.transfer
	g.transfer = nil
	if g.role == Leader && g.term == t.term && g.rn.BasicStatus().LeadTransferee != raft.None {
		g.guard(func() { g.rn.TransferLeader(uint64(g.replica)) })
	}
	t.result <- err
}

func (g *group) startTransfer(to id.Replica, tried []id.Replica, result chan error) {
	if g.role != Leader {
		result <- &NotLeaderError{Leader: g.nodeOf(g.leader)}
		return
	}
	if g.transfer != nil {
		result <- fmt.Errorf("%w: one to replica %d is under way", ErrTransferFailed, g.transfer.to)
		return
	}
	chosen := to != id.NoReplica
	if !chosen {
		to = g.bestSuccessor(tried)
	}
	m := g.member(to)
	switch {
	case to == g.replica:
		result <- nil
		return
	case to == id.NoReplica:
		result <- fmt.Errorf("%w: no other voter can take it", ErrTransferFailed)
		return
	case m == nil || m.seat&insync.Incoming == 0:
		result <- fmt.Errorf("%w: replica %d", ErrUnknownReplica, to)
		return
	case !g.alive(m):
		result <- fmt.Errorf("%w: replica %d was not heard from for %v", ErrTransferFailed, to, timeSince(g.turn.now, m.lastAck).Round(time.Millisecond))
		return
	case g.declines(m):
		result <- errDeclined(to)
		return
	case chosen && g.conditionOf(to) != Good:
		result <- fmt.Errorf("%w: the disk of replica %d is %v", ErrTransferFailed, to, g.conditionOf(to))
		return
	}
	g.transfer = &transferRequest{
		to: to, any: !chosen, tried: tried, term: g.term, result: result, watch: election.NewTransfer(g.turn.now),
		until: g.turn.now.Add(2 * time.Duration(g.env.o.ElectionTicks) * g.env.o.TickInterval),
	}
	g.guard(func() { g.rn.TransferLeader(uint64(to)) })
}

// transferTick gives a transfer up that Raft gave up, or that has no outcome.
func (g *group) transferTick() {
	t := g.transfer
	leads := g.role == Leader && g.term == t.term
	m := g.member(t.to)
	switch {
	case g.turn.now.After(t.until) || leads && (m == nil || g.rn.BasicStatus().LeadTransferee == raft.None):
		g.abortTransfer(fmt.Errorf("%w: replica %d did not take over in time", ErrTransferFailed, t.to))
		return
	case !leads:
		return // it campaigns, and somebody will be heard of
	}
	p := election.Progress{Heard: time.Unix(0, m.lastAck)}
	var match id.Index
	g.eachProgress(func(of *member, pr *tracker.Progress) {
		if of == m {
			match = id.Index(pr.Match)
		}
	})
	p.CaughtUp = match >= g.last
	switch t.watch.Check(g.turn.now, p) {
	case election.Silent:
		g.transferLost("it is silent")
	case election.Ignored:
		g.transferLost("it does not campaign")
	default:
		g.probe(t.to, min(match, g.commit))
	}
}

// probe asks a follower for a sign of life: it sends a heartbeat between Raft's own, which says what they say. A smaller commit index would
// clear a follower that has lost what it acknowledged.
func (g *group) probe(to id.Replica, commit id.Index) {
	m := &raftpb.Message{
		Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(to)), From: new(uint64(g.replica)), Term: new(uint64(g.term)), Commit: new(uint64(commit)),
	}
	if g.send(m, nil) {
		g.turn.sent = true
	}
}

// transferLost ends a transfer to somebody who does not take it, so that proposals do not wait any longer. Whoever it was to be, another is
// tried. If it campaigns all the same, later, it is as good as any election.
func (g *group) transferLost(why string) {
	t := g.transfer
	g.passOn(fmt.Errorf("%w: replica %d: %s", ErrTransferFailed, t.to, why))
}

// passOn ends a transfer with err, or has another replica tried.
func (g *group) passOn(err error) {
	t := g.transfer
	result := t.result
	t.result = make(chan error, 1)
	g.abortTransfer(err)
	if t.any {
		g.startTransfer(id.NoReplica, append(t.tried, t.to), result)
		return
	}
	result <- err
}

// declinedFor is how long a member that declined to lead is not asked again.
const declinedFor = time.Minute

// decline answers a MsgTimeoutNow with one that is rejected, which Raft does not have and is not shown: a replica that is not fit to lead,
// or whose node stops, could only hand over again. Without the answer the leader would wait for the end of the transfer, and proposals
// with it. Where nobody else is left, timers elect the replica all the same.
func (g *group) decline(m *raftpb.Message) {
	answer := &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), To: m.From, From: m.To, Term: m.Term, Reject: new(true)}
	if g.send(answer, nil) {
		g.turn.sent = true
	}
}

// declinedBy ends the transfer to a member that declines.
func (g *group) declinedBy(r id.Replica, term id.Term) {
	t, m := g.transfer, g.member(r)
	if g.role != Leader || term != g.term || m == nil {
		return
	}
	m.declined = g.turn.now.UnixNano()
	g.touch()
	if t == nil || t.to != r || t.term != term {
		return
	}
	g.passOn(errDeclined(r))
}

func errDeclined(r id.Replica) error {
	return fmt.Errorf("%w: replica %d declines: its node stops, its log is condemned, or it is halted", ErrTransferFailed, r)
}

// declines tells whether a member has declined to lead a while ago.
func (g *group) declines(m *member) bool {
	return m.declined != 0 && g.turn.now.UnixNano()-m.declined < int64(declinedFor)
}

// bestSuccessor is the live voter, none of those that were tried, that has not declined and whose disk is best, and of these the one whose
// log reaches furthest.
func (g *group) bestSuccessor(tried []id.Replica) id.Replica {
	best, match, worst := id.NoReplica, id.Index(0), Good
	g.eachProgress(func(m *member, pr *tracker.Progress) {
		if m.seat&insync.Incoming == 0 || m.replica == g.replica || !g.alive(m) || g.declines(m) || slices.Contains(tried, m.replica) {
			return
		}
		c := g.conditionOf(m.replica)
		if best == id.NoReplica || c < worst || c == worst && id.Index(pr.Match) > match {
			best, match, worst = m.replica, id.Index(pr.Match), c
		}
	})
	return best
}

func timeSince(now time.Time, unixNano int64) time.Duration {
	if unixNano == 0 {
		return -1
	}
	return time.Duration(now.UnixNano() - unixNano)
}
