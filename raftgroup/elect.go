package raftgroup

import (
	"math/rand/v2"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup/election"
	"github.com/quorumlog/quorumlog/raftgroup/waiting"
	"github.com/quorumlog/quorumlog/wal/id"
)

func (g *group) nodeDown(n id.Node) {
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

func (g *group) nodeUp(n id.Node) {
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
func (g *group) view() election.View {
	v := election.View{Now: g.turn.now, Log: g.position(), Fitness: g.fitness(g.replica), Heard: g.heardAt}
	switch roleOf(g.rn.BasicStatus().RaftState) {
	case PreCandidate:
		v.Standing = election.PreCandidate
	case Candidate:
		v.Standing = election.Candidate
	}
	others := g.turn.voters[:0]
	for _, r := range g.order {
		if r == g.replica {
			v.Place = len(others)
			continue
		}
		if g.isVoter(r) {
			_, down := g.turn.down[g.nodeOf(r)]
			others = append(others, election.Voter{Replica: r, Fitness: g.fitness(r), Down: down})
		}
	}
	g.turn.voters, v.Others = others, others
	return v
}

// position is where the log ends.
func (g *group) position() election.Position {
	t, _ := g.log.Term(g.last)
	return election.Position{Term: t, Index: g.last}
}

// fitness is what a replica could do as the leader. Of its own log alone it knows whether that is condemned.
func (g *group) fitness(r id.Replica) election.Fitness {
	c := g.conditionOf(r)
	switch own := r == g.replica; {
	case !g.isVoter(r) || c == Stalled:
		return election.Unfit
	case own && (g.unfit() || g.env.draining.Load()):
		return election.LastResort
	case c != Good:
		return election.Burdened
	}
	return election.Fit
}

// enterRace is how a replica that was opened begins: it knows no leader.
func (g *group) enterRace(hint CampaignHint) {
	g.race = election.New(time.Duration(g.env.o.HeartbeatTicks)*g.env.o.TickInterval, rand.N[time.Duration])
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
func (g *group) raceSees(old LeaderChange) {
	if g.broken != nil {
		return
	}
	if g.role == Candidate && (old.Role != Candidate || old.Term != g.term) {
		g.race.Stood(g.turn.now)
	}
	leader := id.Replica(g.rn.BasicStatus().Lead)
	switch _, down := g.turn.down[g.nodeOf(leader)]; {
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
func (g *group) asked(m *raftpb.Message) {
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
func (g *group) answered(m *raftpb.Message) {
	pre := m.GetType() == raftpb.MsgPreVoteResp
	if !m.GetReject() {
		if pre && g.race.Withdrawn(g.turn.now) {
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
func (g *group) setAlarm() {
	if due := g.race.Due(); !due.IsZero() && (g.alarm.IsZero() || due.Before(g.alarm)) {
		g.alarm = due
		g.turn.alarms.Add(waiting.Alarm[*group]{At: due, Who: g})
	}
}

// ring is called when a timer of the group rings.
func (g *group) ring() {
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

// slowClock is how many times slower the election clock of a stalled replica runs. It must not campaign as long as somebody else may:
// it can win with the others' votes, and would only have to hand over again. It must not wait for ever either, or where all disks are
// slow a leader that dies has no successor.
const slowClock = 10

// clockRuns tells whether a tick counts for the replica's election clock. It does not for a candidate that still has good reason to wait for
// votes: when the clock rings Raft gives up those that it has.
func (g *group) clockRuns() bool {
	if g.role == Candidate && g.race.Patient(g.turn.now) {
		return false
	}
	return g.turn.condition != Stalled || g.role == Leader || g.turn.ticks%slowClock == 0
}

// doubtLeader is called with each tick that does not count. By its election clock Raft also measures how long it denies others a vote for
// the sake of a leader that it does not hear from: that must not take ten times as long.
func (g *group) doubtLeader() {
	if g.leader == id.NoReplica {
		return
	}
	if g.silent++; g.silent >= g.env.o.ElectionTicks {
		g.silent = 0
		g.forgetLeader()
		g.touch()
	}
}

// heard is called with each message that only a leader sends.
func (g *group) heard(from id.Replica, term id.Term) {
	if from == g.leader {
		g.silent = 0
	}
	if term >= g.term {
		g.heardAt = g.turn.now
	}
}

// accused tells whether the replica may have lost what it acknowledged. A leader may not: it goes on until a later one is heard of.
func (g *group) accused() bool {
	return g.role != Leader && g.accusation.stands(g.turn.ticks, g.env.o.ElectionTicks)
}

func (g *group) campaign() {
	if g.accused() {
		return
	}
	g.turn.n.elections.Add(1)
	g.guard(func() { _ = g.rn.Campaign() })
	g.touch()
}

// unfit tells whether the replica should lead only if nobody else can.
func (g *group) unfit() bool { return g.halted != nil || g.log.Condemned() != 0 }
