package raftgroup

import (
	"slices"

	"go.etcd.io/raft/v3/tracker"

	"github.com/quorumlog/quorumlog/wal/id"
)

// commitSamples remembers the commit index at a few moments of the past, so that a replica can be asked whether it has what
// was committed ReplicaLagMax ago.
type commitSamples struct {
	at    [4]int64 // UnixNano; 0: none
	index [4]id.Index
	next  int
}

// add notes a sample unless the last one is younger than spacing.
func (s *commitSamples) add(now int64, commit id.Index, spacing int64) {
	last := (s.next + len(s.at) - 1) % len(s.at)
	if s.at[last] != 0 && now-s.at[last] < spacing {
		return
	}
	s.at[s.next], s.index[s.next] = now, commit
	s.next = (s.next + 1) % len(s.at)
}

// before returns the latest sample that is at least as old as then, or 0.
func (s *commitSamples) before(then int64) id.Index {
	var best int64
	var index id.Index
	for i, at := range s.at {
		if at != 0 && at <= then && at > best {
			best, index = at, s.index[i]
		}
	}
	return index
}

// becameLeader starts judging the members: each has the full time to be heard from.
func (g *group) becameLeader() {
	now := g.turn.now.UnixNano()
	for i := range g.members {
		m := &g.members[i]
		if _, down := g.turn.down[g.nodeOf(m.replica)]; !down {
			m.lastAck = now
		}
	}
	g.samples = commitSamples{}
	g.refreshInSync()
}

// inSyncTicks is how often a leader judges its members while it has enough of them.
const inSyncTicks = 10

// leaderTick is called every tick while the replica leads.
func (g *group) leaderTick() {
	if g.majority && g.inSync >= g.minInSync && (g.turn.ticks+g.slot)%inSyncTicks != 0 {
		return
	}
	g.samples.add(g.turn.now.UnixNano(), g.commit, int64(g.env.o.ReplicaLagMax)/3)
	g.refreshInSync()
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

// refreshInSync judges the members. Only the leader knows.
func (g *group) refreshInSync() {
	now := g.turn.now.UnixNano()
	lag := int64(g.env.o.ReplicaLagMax)
	must := g.samples.before(now - lag)
	g.eachProgress(func(m *member, pr *tracker.Progress) {
		match := id.Index(pr.Match)
		_, down := g.turn.down[g.nodeOf(m.replica)]
		heard := now-m.lastAck < lag && (!down || g.alive(m))
		m.inSync = m.voter() && (m.replica == g.replica || heard && (match >= must || match >= g.last))
	})
	g.inSync = 0
	var in, inAlive, out, outAlive int
	for i := range g.members {
		m := &g.members[i]
		alive := g.alive(m)
		if m.inSync {
			g.inSync++
		}
		if m.incoming {
			in++
			inAlive += one(alive)
		}
		if m.outgoing {
			out++
			outAlive += one(alive)
		}
	}
	g.majority = inAlive > in/2 && (out == 0 || outAlive > out/2)
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

// acknowledged returns the index up to which producers may be answered: the commit index, or less when min.insync.replicas is
// more than a majority. Then the entry must be on that many voters, in both halves of a joint configuration; matches are of
// the leader's own term, since Raft forgets them with each new one.
func (g *group) acknowledged() id.Index {
	var in, out int
	for i := range g.members {
		in += one(g.members[i].incoming)
		out += one(g.members[i].outgoing)
	}
	if g.minInSync <= in/2+1 && (out == 0 || g.minInSync <= out/2+1) {
		return g.commit
	}
	var buf [2][16]id.Index
	matches := [2][]id.Index{buf[0][:0], buf[1][:0]}
	g.eachProgress(func(m *member, pr *tracker.Progress) {
		if m.incoming {
			matches[0] = append(matches[0], id.Index(pr.Match))
		}
		if m.outgoing {
			matches[1] = append(matches[1], id.Index(pr.Match))
		}
	})
	to := g.commit
	for half, list := range matches {
		if half == 1 && out == 0 {
			break
		}
		to = min(to, kthLargest(list, g.minInSync))
	}
	return to
}

// kthLargest sorts list and returns its k-th largest element, or 0 when it has fewer.
func kthLargest(list []id.Index, k int) id.Index {
	if k > len(list) {
		return 0
	}
	slices.Sort(list)
	return list[len(list)-k]
}
