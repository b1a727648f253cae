package raftgroup

import (
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/quorumlog/quorumlog/raftgroup/insync"
	"github.com/quorumlog/quorumlog/wal/id"
)

// becameLeader starts judging the members: each has the full time to be heard from.
func (g *group) becameLeader() {
	now := g.turn.now.UnixNano()
	for i := range g.members {
		m := &g.members[i]
		if _, down := g.turn.down[g.nodeOf(m.replica)]; !down {
			m.lastAck = now
		}
	}
	g.samples, g.alone = insync.Samples{}, 0
	g.refreshInSync()
}

// inSyncTicks is how often a leader judges its members while it has enough of them.
const inSyncTicks = 10

// leaderTick is called every tick while the replica leads.
func (g *group) leaderTick() {
	if g.majority {
		g.alone = 0
	}
	if g.majority && g.inSync >= g.minInSync && (g.turn.ticks+g.slot)%inSyncTicks != 0 {
		return
	}
	g.samples.Add(g.turn.now.UnixNano(), g.commit, int64(g.env.o.ReplicaLagMax)/3)
	g.refreshInSync()
	if !g.majority {
		if g.alone++; g.alone >= g.env.o.HeartbeatTicks {
			g.resign()
			return
		}
	}
	if g.inSync >= g.minInSync {
		return
	}
	// What is committed has all the replicas that it will get soon.
	err := ErrNotEnoughReplicasAfterAppend
	for w, ok := g.onCommit.PopTo(g.commit); ok; w, ok = g.onCommit.PopTo(g.commit) {
		w.Who.Result.Err = err
		w.Who.Done(w.Who)
	}
}

// resign has a leader step down that has no majority any more, since its lanes have failed: not at once, or lanes that come back would cost
// an election. Raft would notice after one or two election timeouts; until then it keeps those loyal that it still reaches, and with more
// than three voters the others may need one of these for a majority of their own. When it asks for votes itself they forget it: see asked.
// Raft steps down for a higher term only, so it is shown one.
func (g *group) resign() {
	g.alone = 0
	_ = g.step(&raftpb.Message{
		Type: raftpb.MsgHeartbeatResp.Enum(), From: new(uint64(g.replica)), To: new(uint64(g.replica)), Term: new(uint64(g.term + 1)),
	})
	g.touch()
}

// refreshInSync judges the members. Only the leader knows.
func (g *group) refreshInSync() {
	now, most := g.turn.now.UnixNano(), int64(g.env.o.ReplicaLagMax)
	lag := insync.Lag{Now: now, Max: most, Must: g.samples.Before(now - most), Last: g.last}
	g.eachProgress(func(m *member, pr *tracker.Progress) {
		_, down := g.turn.down[g.nodeOf(m.replica)]
		heard := lag.Heard(m.lastAck) && (!down || g.alive(m))
		m.inSync = m.voter() && (m.replica == g.replica || heard && lag.Reached(id.Index(pr.Match)))
	})
	g.inSync = 0
	for i := range g.members {
		if g.members[i].inSync {
			g.inSync++
		}
	}
	g.majority = g.most(g.alive)
	g.tellInSync()
}

// tellInSync tells the machine how the members are judged, if that is another judgement than the last one: it costs a comparison otherwise.
func (g *group) tellInSync() {
	changed, named, answering := g.judged.Term != g.term, 0, 0
	for i := range g.members {
		m := &g.members[i]
		if !m.inSync {
			continue
		}
		if g.alive(m) {
			answering++
		}
		changed = changed || named == len(g.judged.Nodes) || g.judged.Nodes[named] != g.nodeOf(m.replica)
		named++
	}
	lagging := len(g.members) - answering
	if !changed && named == len(g.judged.Nodes) && lagging == g.judged.Lagging {
		return
	}
	g.judged = InSync{Term: g.term, Nodes: make([]id.Node, 0, named), Lagging: lagging}
	for i := range g.members {
		if m := &g.members[i]; m.inSync {
			g.judged.Nodes = append(g.judged.Nodes, g.nodeOf(m.replica))
		}
	}
	g.machine.InSync(g.judged)
}

// most tells whether a majority of the voters is as is asks.
func (g *group) most(is func(*member) bool) bool {
	var t insync.Tally
	for i := range g.members {
		if m := &g.members[i]; is(m) {
			t.For(m.seat)
		} else {
			t.Against(m.seat)
		}
	}
	return t.Majority()
}

// noSpace tells whether so many disks are full that no batch can commit: what is appended all the same only stands before the commands that
// free space. Disks that hang count as others, for they may only be slow.
func (g *group) noSpace() bool {
	if g.turn.condition == Good && len(g.turn.conditions) == 0 {
		return false
	}
	return !g.most(func(m *member) bool { return g.alive(m) && g.conditionOf(m.replica) != Full })
}

// acknowledged returns the index up to which producers may be answered: the commit index, or less when min.insync.replicas is
// more than a majority. Then the entry must be on that many voters, in both halves of a joint configuration; matches are of
// the leader's own term, since Raft forgets them with each new one.
func (g *group) acknowledged() id.Index {
	var voters insync.Tally
	for i := range g.members {
		voters.Against(g.members[i].seat)
	}
	if voters.MajorityHas(g.minInSync) {
		return g.commit
	}
	var matches insync.Matches
	g.eachProgress(func(m *member, pr *tracker.Progress) { matches.Add(m.seat, id.Index(pr.Match)) })
	return min(g.commit, matches.On(g.minInSync, voters))
}
