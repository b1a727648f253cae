package raftgroup

import (
	"math/rand/v2"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup/election"
	"github.com/quorumlog/quorumlog/wal/id"
)

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
	delete(w.down, n)
	for i := 0; i < len(w.groups); i++ {
		w.groups[i].nodeUp(n)
	}
}

func (g *Group) nodeDown(n id.Node) {
	if g.broken != nil {
		return
	}
	if g.leader != id.NoReplica && g.role != Leader {
		if g.nodeOf(g.leader) == n {
			g.lost = LeaderChange{Term: g.term, Leader: g.leader}
			g.forgetLeader()
			g.touch()
			g.race.Begin(g.view(), election.LeaderDown)
			g.setAlarm()
		}
		return
	}
	for _, m := range g.members {
		if g.nodeOf(m.replica) != n || m.replica == g.replica {
			continue
		}
		if g.role != Leader {
			g.race.PeerDown(g.view(), m.replica)
			continue
		}
		g.unreachable(m.replica)
		if t := g.transfer; t != nil && t.to == m.replica {
			g.transferLost("its node cannot be reached")
		}
		g.touch()
	}
	if g.role == Leader {
		g.refreshInSync()
	}
	g.setAlarm()
}

func (g *Group) nodeUp(n id.Node) {
	if g.broken != nil {
		return
	}
	if g.leader != id.NoReplica && g.nodeOf(g.leader) == n {
		g.race.Trust()
	}
	for i := range g.members {
		m := &g.members[i]
		if g.nodeOf(m.replica) != n || m.replica == g.replica {
			continue
		}
		if g.leader == id.NoReplica {
			g.race.PeerUp(g.view())
		}
		m.declined = 0 // it may have stopped for that
	}
	if g.role == Leader {
		g.refreshInSync()
	}
	g.setAlarm()
}

// view is what the race is told when it has to decide.
func (g *Group) view() election.View {
	v := election.View{Now: g.w.now, Log: g.position(), Fitness: g.fitness(g.replica), Heard: g.heardAt}
	switch roleOf(g.rn.BasicStatus().RaftState) {
	case PreCandidate:
		v.Standing = election.PreCandidate
	case Candidate:
		v.Standing = election.Candidate
	}
	others := g.w.voters[:0]
	for _, r := range g.order {
		if r == g.replica {
			v.Place = len(others)
			continue
		}
		if g.isVoter(r) {
			_, down := g.w.down[g.nodeOf(r)]
			others = append(others, election.Voter{Replica: r, Fitness: g.fitness(r), Down: down})
		}
	}
	g.w.voters, v.Others = others, others
	return v
}

// position is where the log ends.
func (g *Group) position() election.Position {
	t, _ := g.log.Term(g.last)
	return election.Position{Term: t, Index: g.last}
}

// fitness is what a replica could do as the leader. Of its own log alone it knows whether that is condemned.
func (g *Group) fitness(r id.Replica) election.Fitness {
	c := g.conditionOf(r)
	switch own := r == g.replica; {
	case !g.isVoter(r) || c == Stalled:
		return election.Unfit
	case own && (g.unfit() || g.h.draining.Load()):
		return election.LastResort
	case c != Good:
		return election.Burdened
	}
	return election.Fit
}

// enterRace is how a replica that was opened begins: it knows no leader.
func (g *Group) enterRace(hint CampaignHint) {
	g.race = election.New(time.Duration(g.h.o.HeartbeatTicks)*g.h.o.TickInterval, rand.N[time.Duration])
	why := election.Opened
	switch {
	case hint == CampaignPreferred:
		why = election.OpenedPreferred
	case g.last < g.log.FirstIndex():
		why = election.OpenedEmpty
	}
	g.race.Begin(g.view(), why)
	g.ring()
}

// raceSees is called when leader, term or role changed; old is what they were.
func (g *Group) raceSees(old LeaderChange) {
	if g.broken != nil {
		return
	}
	if g.role == Candidate && (old.Role != Candidate || old.Term != g.term) {
		g.race.Stood(g.w.now)
	}
	leader := id.Replica(g.rn.BasicStatus().Lead)
	switch _, down := g.w.down[g.nodeOf(leader)]; {
	case leader == id.NoReplica && old.Role == Leader:
		g.race.Begin(g.view(), election.Deposed)
	case leader == id.NoReplica:
		g.race.Begin(g.view(), election.Leaderless)
	case down && leader == g.lost.Leader && g.term == g.lost.Term:
		g.race.Doubt(g.view())
	case down:
		g.race.Watch(g.view())
	default:
		g.race.Led()
	}
	g.setAlarm()
}

// asked shows Raft a request for a vote or a pre-vote, and the race what became of it.
func (g *Group) asked(m *raftpb.Message) {
	if st := g.rn.BasicStatus(); st.Lead == m.GetFrom() && m.GetTerm() > st.GetTerm() {
		g.forgetLeader() // who asks to be elected does not lead; but Raft would defend his leadership against himself
	}
	_ = g.step(m)
	if g.broken != nil {
		return
	}
	q := election.Request{From: id.Replica(m.GetFrom()), Log: election.Position{Term: id.Term(m.GetLogTerm()), Index: id.Index(m.GetIndex())}}
	v, now := g.view(), g.rn.BasicStatus()
	forIt := now.GetVote() == m.GetFrom()
	switch {
	case m.GetType() == raftpb.MsgVote && now.GetTerm() == m.GetTerm() && forIt:
		q.Answer = election.Voted
	case m.GetType() == raftpb.MsgPreVote && now.Lead == raft.None && q.Log.Compare(v.Log) >= 0 &&
		(m.GetTerm() > now.GetTerm() || m.GetTerm() == now.GetTerm() && (forIt || now.GetVote() == 0)):
		q.Answer = election.PreVoted
	}
	g.race.Asked(v, q)
	g.setAlarm()
}

// answered shows Raft the answer to such a request of its own, and the race a refusal.
func (g *Group) answered(m *raftpb.Message) {
	pre := m.GetType() == raftpb.MsgPreVoteResp
	if !m.GetReject() {
		if pre && g.race.Withdrawn(g.w.now) {
			return
		}
		_ = g.step(m)
		return
	}
	why := election.NoVote
	switch term := id.Term(m.GetTerm()); {
	case pre && g.role == PreCandidate && term > g.term:
		why = election.OldTerm
	case pre && g.role == PreCandidate:
		why = election.Behind
	case !pre && g.role == Candidate && term == g.term:
	default: // of an earlier campaign
		_ = g.step(m)
		return
	}
	_ = g.step(m)
	if g.broken == nil {
		g.race.Refused(g.view(), id.Replica(m.GetFrom()), why)
		g.setAlarm()
	}
}

// setAlarm has the group woken when the race is due. A timer that is there already and rings too early does no harm.
func (g *Group) setAlarm() {
	if due := g.race.Due(); !due.IsZero() && (g.alarm.IsZero() || due.Before(g.alarm)) {
		g.alarm = due
		g.w.timers.add(timer{due, g})
	}
}

// ring is called when a timer of the group rings.
func (g *Group) ring() {
	if g.closed || g.broken != nil {
		return
	}
	if g.race.Racing() && g.rn.BasicStatus().Lead != raft.None {
		// Raft has heard of one since; or it was told to forget one, and heard of him again before anybody saw.
		g.raceSees(LeaderChange{Term: g.term, Leader: g.leader, Role: g.role})
	}
	for g.broken == nil {
		switch g.race.Ring(g.view()) {
		case election.Forget:
			g.forgetLeader()
			g.touch()
			continue
		case election.Campaign:
			g.campaign()
		}
		break
	}
	g.setAlarm()
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
	at    time.Time
	group *Group
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
		if !t.at.Before(t.group.alarm) {
			t.group.alarm = time.Time{}
		}
		t.group.ring()
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
