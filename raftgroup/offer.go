package raftgroup

import (
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/quorumlog/quorumlog/wal/id"
)

// A follower that needs entries from before the log's start is offered a snapshot. Raft decides that, makes a message without data, and
// leaves the follower alone until it has answered, or somebody says that it will not. So whatever happens to the offer, the group hears of
// it in the end:
//
//   - the follower acknowledges the start or more: Raft goes on with entries
//   - it acknowledges the start, but the log begins later by now: failure, and Raft makes another one
//   - the transport could not deliver it (Host.SnapshotLost): failure
//   - nothing is heard of it in time: failure. That also is what becomes of one that the follower cannot read.
//
// What fails is offered again a while later, each time a longer one.

const (
	// offerBudget bounds the bytes of snapshots under way from a host, in the measure of offers that begin: one may exceed it.
	offerBudget = 64 * mib
	// An answer is waited for as long, and so much longer for each MiB.
	offerPatience, offerPatiencePerMiB = 10 * time.Second, time.Second
	// Parts go so many at once, and the next ones with the next tick: a body may be larger than a lane's queue, which would drop it each time.
	partsATick = 4
	// After a failure as long, doubled with each that follows.
	offerRetry, maxOfferRetry = 250 * time.Millisecond, time.Minute
)

// offerSnapshot sends the snapshot for which Raft has made m, or tells it that it cannot be had just now.
func (g *group) offerSnapshot(m *raftpb.Message) {
	to := id.Replica(m.GetTo())
	if g.offers == nil {
		g.offers = make(map[id.Replica]*offer)
	}
	o := g.offers[to]
	if o == nil {
		o = &offer{}
		g.offers[to] = o
		g.turn.n.belowStart.Add(1)
	}
	g.settleOffer(o)
	if g.turn.now.Before(o.after) || g.env.offered.Load() >= offerBudget || !g.sendSnapshot(o, m) {
		g.refuseSnapshot(to)
	}
}

// sendSnapshot draws the snapshot: the state as of now belongs to the start as of now.
func (g *group) sendSnapshot(o *offer, m *raftpb.Message) bool {
	start := g.log.Start()
	if uint64(start.Index) != m.GetSnapshot().GetMetadata().GetIndex() || g.halted != nil || g.confUnknown {
		return false
	}
	s := snapshot{start: start, applied: g.applied, conf: g.confState, view: g.machine.View()}
	for i := range g.members {
		if n := g.nodeOf(g.members[i].replica); n != id.NoNode {
			s.members = append(s.members, Member{Replica: g.members[i].replica, Node: n})
		}
	}
	body, err := s.encode()
	if err != nil {
		g.fails(o)
		g.env.o.Logger.Error("a follower that needs a snapshot gets none", "group", uint64(g.id), "replica", uint64(g.replica),
			"follower", m.GetTo(), "error", err)
		return false
	}
	o.index, o.bytes = s.start.Index, int64(len(body))
	o.deadline = g.turn.now.Add(offerPatience + time.Duration(o.bytes/mib)*offerPatiencePerMiB)
	g.env.offered.Add(o.bytes)
	g.turn.n.snapshotsSent.Add(1)
	metadata := &raftpb.SnapshotMetadata{ConfState: s.conf, Index: new(uint64(s.start.Index)), Term: new(uint64(s.start.Term))}
	o.unsent = &unsent{number: g.env.readID.Add(1), body: body, message: raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), To: m.To, From: m.From, Term: m.Term, Snapshot: &raftpb.Snapshot{Metadata: metadata},
	}}
	if !g.sendParts(o) {
		g.fails(o)
		return false
	}
	return true
}

// sendParts sends the next parts of a snapshot. What a lane drops of them is reported like all that is lost.
func (g *group) sendParts(o *offer) bool {
	u := o.unsent
	for n := 0; n < partsATick && u.at < len(u.body); n++ {
		u.message.Snapshot.Data, u.at = cutPart(u.number, u.body, u.at)
		if !g.send(&u.message, nil) {
			return false
		}
		g.turn.sent = true
	}
	if u.at == len(u.body) {
		o.unsent = nil
	}
	return true
}

// settleOffer ends what is under way of an offer.
func (g *group) settleOffer(o *offer) {
	g.env.offered.Add(-o.bytes)
	o.bytes, o.unsent = 0, nil
}

// fails notes a failure.
func (g *group) fails(o *offer) {
	g.settleOffer(o)
	g.turn.n.snapshotsLost.Add(1)
	o.after = g.turn.now.Add(min(maxOfferRetry, offerRetry<<min(o.failures, 16)))
	o.failures++
}

// refuseSnapshot has Raft probe a follower instead of waiting for its answer to a snapshot.
func (g *group) refuseSnapshot(to id.Replica) {
	g.guard(func() { g.rn.ReportSnapshot(uint64(to), raft.SnapshotFailure) })
	g.touch()
}

// snapshotLost is told that a snapshot will not arrive.
func (g *group) snapshotLost(to id.Replica) {
	if o := g.offers[to]; o != nil && o.bytes > 0 && g.broken == nil && !g.closed {
		g.fails(o)
		g.refuseSnapshot(to)
	}
}

// snapshotsLost is told the same of all snapshots for a node.
func (g *group) snapshotsLost(n id.Node) {
	for to := range g.offers {
		if g.nodeOf(to) == n {
			g.snapshotLost(to)
		}
	}
}

// offerAnswered looks at an acknowledgement that Raft was shown.
func (g *group) offerAnswered(m *raftpb.Message) {
	from := id.Replica(m.GetFrom())
	o := g.offers[from]
	if o == nil || o.bytes == 0 || m.GetReject() || g.broken != nil {
		return
	}
	if !g.awaitsSnapshot(from) {
		g.settleOffer(o)
		delete(g.offers, from)
		return
	}
	if id.Index(m.GetIndex()) >= o.index { // the log begins later by now
		g.settleOffer(o)
		o.failures = 0
		g.refuseSnapshot(from)
	}
}

// awaitsSnapshot tells whether Raft waits for a follower's answer to a snapshot.
func (g *group) awaitsSnapshot(r id.Replica) (awaits bool) {
	g.eachProgress(func(m *member, pr *tracker.Progress) {
		awaits = awaits || m.replica == r && pr.State == tracker.StateSnapshot
	})
	return awaits
}

// offerTick gives up offers that were not answered in time, and forgets those that are settled. It is called every tick.
func (g *group) offerTick() {
	for to, o := range g.offers {
		switch {
		case g.member(to) == nil:
			g.settleOffer(o)
			delete(g.offers, to)
		case o.bytes > 0 && g.turn.now.After(o.deadline), o.unsent != nil && !g.sendParts(o):
			g.snapshotLost(to)
		case o.bytes == 0 && g.turn.now.After(o.after.Add(maxOfferRetry)):
			delete(g.offers, to)
		}
	}
}

// endOffers is called when the replica leads no more.
func (g *group) endOffers() {
	for _, o := range g.offers {
		g.settleOffer(o)
	}
	g.offers = nil
}
