package raftgroup

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"
	"google.golang.org/protobuf/proto"

	"github.com/quorumlog/quorumlog/raftgroup/election"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// ID returns the group's id.
func (g *Group) ID() id.Group { return g.id }

// Replica returns the id of this replica.
func (g *Group) Replica() id.Replica { return g.replica }

// Log returns the replica's log.
func (g *Group) Log() Log { return g.log }

// Leader returns the leader as this replica knows it; NoReplica and NoNode while none is known.
func (g *Group) Leader() (id.Replica, id.Node, id.Term) {
	l := g.lead.Load()
	return l.Leader, l.Node, l.Term
}

// IsLeader tells whether this replica leads. By the time it returns another may lead in a later term.
func (g *Group) IsLeader() bool { return g.lead.Load().Role == Leader }

// HighWatermark returns the offset after the last record known to be committed.
func (g *Group) HighWatermark() id.Offset { return id.Offset(g.hw.Load()) }

// Commit returns the index of the last entry known to be committed.
func (g *Group) Commit() id.Index { return id.Index(g.commitIndex.Load()) }

// Applied returns the index of the last entry applied.
func (g *Group) Applied() id.Index { return id.Index(g.appliedIndex.Load()) }

// post runs call on the worker, later.
func (g *Group) post(call func()) bool {
	return g.w.post(event{kind: evCall, call: func(*worker) { call() }})
}

// Status returns the replica's view of the group.
func (g *Group) Status(ctx context.Context) (Status, error) {
	result := make(chan Status, 1)
	ok := g.post(func() {
		if !g.closed {
			result <- g.status()
		} else {
			close(result)
		}
	})
	if !ok {
		return Status{}, ErrClosed
	}
	select {
	case s, ok := <-result:
		if !ok {
			return Status{}, ErrClosed
		}
		return s, nil
	case <-g.w.done:
		return Status{}, ErrClosed
	case <-ctx.Done():
		return Status{}, ctx.Err()
	}
}

// SetMinInSync changes min.insync.replicas.
func (g *Group) SetMinInSync(n int) {
	g.post(func() {
		g.minInSync = max(1, n)
		if g.role == Leader && g.broken == nil {
			g.answer()
		}
	})
}

// AddMembers says where members live, in addition to what is known.
func (g *Group) AddMembers(m ...Member) {
	g.post(func() {
		for _, m := range m {
			if m.Replica != g.replica {
				g.learnPeers(m)
			}
		}
	})
}

// Campaign starts an election, if this replica is a voter and does not lead.
func (g *Group) Campaign() {
	g.post(func() {
		if !g.closed && g.broken == nil && g.role != Leader {
			g.campaign()
		}
	})
}

// Abandon ends a replica whose log was refused, durably, as if it had found out by itself. Whoever wants another to lead has handed the
// leadership over before.
func (g *Group) Abandon(cause error) { g.post(func() { g.fail(Refused, cause) }) }

// await returns what arrives at result, or the error that ends the waiting.
func (g *Group) await(ctx context.Context, result <-chan error) error {
	select {
	case err := <-result:
		return err
	case <-g.w.done:
		return ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ask posts a request that answers once into the channel it is given.
func (g *Group) ask(ctx context.Context, request func(result chan error)) error {
	result := make(chan error, 1)
	ok := g.post(func() {
		switch {
		case g.closed:
			result <- ErrClosed
		case g.broken != nil:
			result <- g.whyBroken()
		default:
			request(result)
			g.touch()
		}
	})
	if !ok {
		return ErrClosed
	}
	return g.await(ctx, result)
}

// transferRequest is a handing over of leadership that is under way.
type transferRequest struct {
	to     id.Replica
	any    bool // whoever can take it, of those who were not tried
	tried  []id.Replica
	watch  election.Transfer
	term   id.Term
	until  time.Time
	result chan error
}

// TransferLeader hands leadership over to a voter, or to the best one when to is NoReplica, and waits until it leads. Proposals
// wait meanwhile.
func (g *Group) TransferLeader(ctx context.Context, to id.Replica) error {
	return g.ask(ctx, func(result chan error) { g.startTransfer(to, nil, result) })
}

func (g *Group) startTransfer(to id.Replica, tried []id.Replica, result chan error) {
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
	case m == nil || !m.incoming:
		result <- fmt.Errorf("%w: replica %d", ErrUnknownReplica, to)
		return
	case !g.alive(m):
		result <- fmt.Errorf("%w: replica %d was not heard from for %v", ErrTransferFailed, to, timeSince(g.w.now, m.lastAck).Round(time.Millisecond))
		return
	case g.declines(m):
		result <- errDeclined(to)
		return
	case chosen && g.conditionOf(to) != Good:
		result <- fmt.Errorf("%w: the disk of replica %d is %v", ErrTransferFailed, to, g.conditionOf(to))
		return
	}
	g.transfer = &transferRequest{
		to: to, any: !chosen, tried: tried, term: g.term, result: result, watch: election.NewTransfer(g.w.now),
		until: g.w.now.Add(2 * time.Duration(g.h.o.ElectionTicks) * g.h.o.TickInterval),
	}
	g.guard(func() { g.rn.TransferLeader(uint64(to)) })
}

// transferTick gives a transfer up that Raft gave up, or that has no outcome.
func (g *Group) transferTick() {
	t := g.transfer
	leads := g.role == Leader && g.term == t.term
	m := g.member(t.to)
	switch {
	case g.w.now.After(t.until) || leads && (m == nil || g.rn.BasicStatus().LeadTransferee == raft.None):
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
	switch t.watch.Check(g.w.now, p) {
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
func (g *Group) probe(to id.Replica, commit id.Index) {
	m := &raftpb.Message{
		Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(to)), From: new(uint64(g.replica)), Term: new(uint64(g.term)), Commit: new(uint64(commit)),
	}
	if g.send(m, nil) {
		g.w.sent = true
	}
}

// transferLost ends a transfer to somebody who does not take it, so that proposals do not wait any longer. Whoever it was to be, another is
// tried. If it campaigns all the same, later, it is as good as any election.
func (g *Group) transferLost(why string) {
	t := g.transfer
	g.passOn(fmt.Errorf("%w: replica %d: %s", ErrTransferFailed, t.to, why))
}

// passOn ends a transfer with err, or has another replica tried.
func (g *Group) passOn(err error) {
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
func (g *Group) decline(m *raftpb.Message) {
	answer := &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), To: m.From, From: m.To, Term: m.Term, Reject: new(true)}
	if g.send(answer, nil) {
		g.w.sent = true
	}
}

// declinedBy ends the transfer to a member that declines.
func (g *Group) declinedBy(r id.Replica, term id.Term) {
	t, m := g.transfer, g.member(r)
	if g.role != Leader || term != g.term || m == nil {
		return
	}
	m.declined = g.w.now.UnixNano()
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
func (g *Group) declines(m *member) bool {
	return m.declined != 0 && g.w.now.UnixNano()-m.declined < int64(declinedFor)
}

// bestSuccessor is the live voter, none of those that were tried, that has not declined and whose disk is best, and of these the one whose
// log reaches furthest.
func (g *Group) bestSuccessor(tried []id.Replica) id.Replica {
	best, match, worst := id.NoReplica, id.Index(0), Good
	g.eachProgress(func(m *member, pr *tracker.Progress) {
		if !m.incoming || m.replica == g.replica || !g.alive(m) || g.declines(m) || slices.Contains(tried, m.replica) {
			return
		}
		c := g.conditionOf(m.replica)
		if best == id.NoReplica || c < worst || c == worst && id.Index(pr.Match) > match {
			best, match, worst = m.replica, id.Index(pr.Match), c
		}
	})
	return best
}

// readRequest is a ReadIndex that waits for a majority.
type readRequest struct {
	context []byte
	index   id.Index
	result  chan error
}

// ReadIndex returns an index such that a replica that has applied it has applied everything that was committed when ReadIndex
// was called. It asks the leader, which asks a majority.
func (g *Group) ReadIndex(ctx context.Context) (id.Index, error) {
	key := g.h.readID.Add(1)
	r := &readRequest{context: binary.LittleEndian.AppendUint64(nil, key)}
	err := g.ask(ctx, func(result chan error) {
		if g.leader == id.NoReplica {
			result <- &NotLeaderError{Leader: id.NoNode}
			return
		}
		r.result = result
		if g.reads == nil {
			g.reads = make(map[uint64]*readRequest)
		}
		g.reads[key] = r
		g.guard(func() { g.rn.ReadIndex(r.context) })
	})
	if err == nil {
		return r.index, nil
	}
	g.post(func() { delete(g.reads, key) })
	return 0, err
}

// repeatReads asks again: a request or its answer may have been lost on the way to or from the leader.
func (g *Group) repeatReads() {
	for _, r := range g.reads {
		g.guard(func() { g.rn.ReadIndex(r.context) })
	}
}

func (g *Group) readState(rs raft.ReadState) {
	if len(rs.RequestCtx) != 8 {
		return
	}
	key := binary.LittleEndian.Uint64(rs.RequestCtx)
	if r := g.reads[key]; r != nil {
		delete(g.reads, key)
		r.index = id.Index(rs.Index)
		r.result <- nil
	}
}

// changeRequest is a membership change that is under way.
type changeRequest struct {
	cc       *raftpb.ConfChangeV2
	proposed bool
	index    id.Index
	term     id.Term
	result   chan error
}

// ChangeMembers changes the membership and waits until the change is applied here, and a joint configuration that it went
// through is left again. Where new members live is said in the change's Context: see ConfChange.
func (g *Group) ChangeMembers(ctx context.Context, cc *raftpb.ConfChangeV2) error {
	cc = proto.Clone(cc).(*raftpb.ConfChangeV2)
	if _, err := decodeMembers(cc.GetContext()); err != nil {
		return fmt.Errorf("raftgroup: %w", err)
	}
	return g.ask(ctx, func(result chan error) {
		switch {
		case g.role != Leader:
			result <- &NotLeaderError{Leader: g.nodeOf(g.leader)}
		case g.change != nil:
			result <- ErrConfChangeRefused
		default:
			g.change = &changeRequest{cc: cc, result: result}
		}
	})
}

// proposeChange proposes the change that waits. Its index is known: see canPropose.
func (g *Group) proposeChange() {
	c := g.change
	m := &raftpb.Message{Type: raftpb.MsgProp.Enum(), Entries: []*raftpb.Entry{
		{Type: raftpb.EntryConfChangeV2.Enum(), Data: mustMarshal(c.cc)},
	}}
	err := g.step(m)
	switch {
	case err != nil:
		g.endChange(ErrProposalDropped)
		return
	case m.Entries[0].GetType() == raftpb.EntryNormal: // what Raft puts there instead of a change that it refuses
		g.endChange(ErrConfChangeRefused)
	default:
		c.proposed, c.index, c.term = true, g.last+1, g.term
	}
}

func (g *Group) endChange(err error) {
	if g.change != nil {
		g.change.result <- err
		g.change = nil
	}
}

// changeApplied sees every entry that was applied.
func (g *Group) changeApplied(index id.Index, term id.Term, kind wal.EntryKind) {
	c := g.change
	if c == nil || !c.proposed {
		return
	}
	if index == c.index && (term != c.term || kind != wal.KindConfChangeV2) {
		g.endChange(ErrConfChangeRefused)
		return
	}
	if index >= c.index && len(g.confState.VotersOutgoing) == 0 {
		g.endChange(nil)
	}
}

// applyConfChange changes the configuration as a committed entry says.
func (g *Group) applyConfChange(kind wal.EntryKind, data []byte) bool {
	var cc raftpb.ConfChangeI
	var err error
	if kind == wal.KindConfChange {
		v1 := &raftpb.ConfChange{}
		err, cc = proto.Unmarshal(data, v1), v1
	} else {
		v2 := &raftpb.ConfChangeV2{}
		err, cc = proto.Unmarshal(data, v2), v2
	}
	if err != nil {
		g.breakDown(fmt.Errorf("decode membership change: %w", err))
		return false
	}
	if members, err := decodeMembers(cc.AsV2().GetContext()); err == nil {
		for _, m := range members {
			if m.Replica != g.replica {
				g.learnPeers(m)
			}
		}
	}
	var cs *raftpb.ConfState
	g.guard(func() { cs = g.rn.ApplyConfChange(cc) })
	if g.broken != nil || cs == nil {
		g.confUnknown = true
		return false
	}
	g.confState, g.confBytes = cs, mustMarshal(cs)
	g.order = orderOf(membersInOrder(g.order), votersOf(cs))
	g.rebuildMembers()
	if g.role == Leader {
		g.refreshInSync()
	}
	return true
}

func membersInOrder(order []id.Replica) []Member {
	members := make([]Member, len(order))
	for i, r := range order {
		members[i].Replica = r
	}
	return members
}

// requestsSeeLeader ends what waits for this replica to lead, or for another to.
func (g *Group) requestsSeeLeader(l LeaderChange) {
	if t := g.transfer; t != nil && l.Term > t.term && l.Leader != id.NoReplica {
		g.transfer = nil
		if l.Leader == t.to {
			t.result <- nil
		} else {
			t.result <- fmt.Errorf("%w: replica %d leads", ErrTransferFailed, l.Leader)
		}
	}
	if l.Role != Leader {
		g.endChange(&NotLeaderError{Leader: l.Node})
	}
	for key, r := range g.reads {
		delete(g.reads, key)
		r.result <- &NotLeaderError{Leader: l.Node}
	}
}

// endRequests ends all requests.
func (g *Group) endRequests(err error) {
	if g.transfer != nil {
		g.transfer.result <- err
		g.transfer = nil
	}
	g.endChange(err)
	for key, r := range g.reads {
		delete(g.reads, key)
		r.result <- err
	}
}

func timeSince(now time.Time, unixNano int64) time.Duration {
	if unixNano == 0 {
		return -1
	}
	return time.Duration(now.UnixNano() - unixNano)
}

func randomUint64() uint64 { return rand.Uint64() }
