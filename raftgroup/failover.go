package raftgroup

import (
	"math/rand/v2"
	"slices"
	"time"

	"go.etcd.io/raft/v3"

	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// failoverDelay is how long the first survivor of a leader's node waits before it campaigns, so that the others have
	// noticed too and forget the leader; and up to as much again, drawn by lot.
	failoverDelay = 20 * time.Millisecond
	failoverDraw  = 30 * time.Millisecond
	// failoverStep is how much later each further survivor campaigns, if there is no leader by then.
	failoverStep = 150 * time.Millisecond
	// maxCampaigns bounds the hurry; Raft's timers go on for ever.
	maxCampaigns = 100
)

// hurry is a series of campaigns that ends when there is a leader.
type hurry struct {
	active bool
	series uint32 // a timer of an earlier series is void
	tries  int
	every  time.Duration
}

// nodeDown has every group that may have lost its leader elect another.
func (w *worker) nodeDown(n id.Node) {
	if n == w.h.o.Node {
		return
	}
	w.down[n] = w.now.UnixNano()
	for i := 0; i < len(w.groups); i++ {
		w.groups[i].nodeDown(n)
	}
}

func (w *worker) nodeUp(n id.Node) {
	if _, ok := w.down[n]; !ok {
		return
	}
	delete(w.down, n)
	for i := 0; i < len(w.groups); i++ {
		if g := w.groups[i]; g.role == Leader && g.broken == nil {
			for j := range g.members {
				if m := &g.members[j]; g.nodeOf(m.replica) == n {
					m.declined = 0 // it may have stopped for that
				}
			}
			g.refreshInSync()
		}
	}
}

func (g *Group) nodeDown(n id.Node) {
	if g.broken != nil {
		return
	}
	if g.role == Leader {
		for _, m := range g.members {
			if g.nodeOf(m.replica) == n && m.replica != g.replica {
				g.unreachable(m.replica)
			}
		}
		g.refreshInSync()
		g.touch()
		return
	}
	switch {
	case g.leader == id.NoReplica:
		if !slices.ContainsFunc(g.members, func(m member) bool { return g.nodeOf(m.replica) == n }) {
			return
		}
	case g.nodeOf(g.leader) == n:
		g.forgetLeader()
		g.touch()
	default:
		return
	}
	g.failover()
}

// failover starts campaigns, later the further down this replica stands among the survivors: those with a better disk come first.
func (g *Group) failover() {
	rank, survivors := 0, 0
	mine, own := false, g.conditionOf(g.replica)
	for _, r := range g.order {
		m := g.member(r)
		if m == nil || !m.voter() {
			continue
		}
		if r == g.replica {
			mine = true
		} else if _, down := g.w.down[g.nodeOf(r)]; down {
			continue
		} else if c := g.conditionOf(r); c < own || c == own && !mine {
			rank++
		}
		survivors++
	}
	if !mine || own == Stalled {
		return // a learner waits, and so does who could not even vote for himself
	}
	if g.log.Condemned() != 0 {
		rank = survivors // behind all others
	}
	delay := failoverDelay + rand.N(failoverDraw) + time.Duration(rank)*failoverStep
	g.hurryUp(delay, failoverStep*time.Duration(max(2, survivors)))
}

// hurryUp campaigns after a delay and then every so often, until there is a leader.
func (g *Group) hurryUp(delay, every time.Duration) {
	if g.hurry.active {
		return
	}
	g.hurry = hurry{active: true, series: g.hurry.series + 1, every: every}
	g.w.timers.add(timer{g.w.now.Add(delay), g, g.hurry.series})
}

// hurried is called when a timer of the group rings.
func (g *Group) hurried(series uint32) {
	h := &g.hurry
	if !h.active || h.series != series {
		return
	}
	if g.closed || g.broken != nil || h.tries >= maxCampaigns || g.w.condition == Stalled {
		h.active = false
		return
	}
	g.campaign()
	h.tries++
	if h.tries%8 == 0 { // the others are not there: go easy
		h.every = min(2*h.every, time.Second)
	}
	g.w.timers.add(timer{g.w.now.Add(h.every), g, h.series})
}

func (g *Group) campaign() {
	if g.accused() {
		return
	}
	g.w.n.elections.Add(1)
	g.guard(func() { _ = g.rn.Campaign() })
	g.touch()
}

func (g *Group) forgetLeader() { g.guard(func() { _ = g.rn.ForgetLeader() }) }

func (g *Group) unreachable(r id.Replica) { g.guard(func() { g.rn.ReportUnreachable(uint64(r)) }) }

// alive tells whether a member was heard from lately, and since its node was reported down.
func (g *Group) alive(m *member) bool {
	if m.replica == g.replica {
		return true
	}
	if at, down := g.w.down[g.nodeOf(m.replica)]; down && m.lastAck <= at {
		return false
	}
	return g.w.now.UnixNano()-m.lastAck < int64(g.h.o.ElectionTicks)*int64(g.h.o.TickInterval)
}

// timer is an entry of timers.
type timer struct {
	at     time.Time
	group  *Group
	series uint32
}

// timers is a binary heap, earliest first.
type timers struct{ heap []timer }

func (t *timers) next() time.Time {
	if len(t.heap) == 0 {
		return time.Time{}
	}
	return t.heap[0].at
}

func (t *timers) add(x timer) {
	t.heap = append(t.heap, x)
	for i := len(t.heap) - 1; i > 0; {
		up := (i - 1) / 2
		if !t.heap[i].at.Before(t.heap[up].at) {
			break
		}
		t.heap[i], t.heap[up] = t.heap[up], t.heap[i]
		i = up
	}
}

func (t *timers) pop() timer {
	first := t.heap[0]
	n := len(t.heap) - 1
	t.heap[0], t.heap[n] = t.heap[n], timer{}
	t.heap = t.heap[:n]
	for i := 0; ; {
		least := i
		for _, child := range [...]int{2*i + 1, 2*i + 2} {
			if child < n && t.heap[child].at.Before(t.heap[least].at) {
				least = child
			}
		}
		if least == i {
			return first
		}
		t.heap[i], t.heap[least] = t.heap[least], t.heap[i]
		i = least
	}
}

func (w *worker) fireTimers() {
	for next := w.timers.next(); !next.IsZero() && !next.After(w.now); next = w.timers.next() {
		t := w.timers.pop()
		t.group.hurried(t.series)
	}
}

// orderOf returns the replicas of a Spec's members in their order, and then those that it does not name.
func orderOf(members []Member, voters []uint64) []id.Replica {
	var order []id.Replica
	for _, m := range members {
		order = append(order, m.Replica)
	}
	for _, v := range voters {
		if !slices.Contains(order, id.Replica(v)) {
			order = append(order, id.Replica(v))
		}
	}
	return order
}

// isVoter tells whether r is a voter in either half of the configuration.
func (g *Group) isVoter(r id.Replica) bool {
	m := g.member(r)
	return m != nil && m.voter()
}

func roleOf(s raft.StateType) Role {
	switch s {
	case raft.StateLeader:
		return Leader
	case raft.StateCandidate:
		return Candidate
	case raft.StatePreCandidate:
		return PreCandidate
	}
	return Follower
}
