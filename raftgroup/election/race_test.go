package election_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/raftgroup/election"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	ms        = time.Millisecond
	heartbeat = 500 * ms
)

var origin = time.Unix(1_000_000, 0)

// fact is something that a replica learns at a time.
type fact struct {
	at   time.Duration
	tell func(r *election.Race, v *election.View)
}

func begin(at time.Duration, why election.Cause) fact {
	return fact{at, func(r *election.Race, v *election.View) { r.Begin(*v, why) }}
}

func asked(at time.Duration, from id.Replica, log election.Position, a election.Answer) fact {
	return fact{at, func(r *election.Race, v *election.View) {
		r.Asked(*v, election.Request{From: from, Log: log, Answer: a})
	}}
}

func refused(at time.Duration, by id.Replica, why election.Refusal) fact {
	return fact{at, func(r *election.Race, v *election.View) { r.Refused(*v, by, why) }}
}

func led(at time.Duration) fact {
	return fact{at, func(r *election.Race, _ *election.View) { r.Led() }}
}

func doubt(at, heard time.Duration) fact {
	return fact{at, func(r *election.Race, v *election.View) {
		v.Heard = origin.Add(heard)
		r.Doubt(*v)
	}}
}

func down(at time.Duration, who id.Replica) fact {
	return fact{at, func(r *election.Race, v *election.View) {
		for i := range v.Others {
			v.Others[i].Down = v.Others[i].Down || v.Others[i].Replica == who
		}
		r.PeerDown(*v, who)
	}}
}

func stands(at time.Duration, s election.Standing) fact {
	return fact{at, func(r *election.Race, v *election.View) {
		if v.Standing = s; s == election.Candidate {
			r.Stood(v.Now)
		}
	}}
}

// act is what a replica does at a time.
type act struct {
	at time.Duration
	do election.Action
}

// play tells a replica the facts, rings when it is due, and returns what it does until the end.
func play(v election.View, facts []fact, end time.Duration) (acts []act) {
	r := election.New(heartbeat, nil)
	now := time.Duration(0)
	for {
		v.Now = origin.Add(now)
		for len(facts) > 0 && facts[0].at <= now {
			facts[0].tell(&r, &v)
			facts = facts[1:]
		}
		for {
			do := r.Ring(v)
			if do == election.Wait {
				break
			}
			acts = append(acts, act{now, do})
		}
		next := end + 1
		if due := r.Due(); !due.IsZero() {
			next = due.Sub(origin)
		}
		if len(facts) > 0 {
			next = min(next, facts[0].at)
		}
		if next > end {
			return acts
		}
		now = next
	}
}

func others(o ...election.Voter) []election.Voter { return o }

func TestRace(t *testing.T) {
	const (
		a, b, c = id.Replica(1), id.Replica(2), id.Replica(3)
	)
	at := func(i id.Index) election.Position { return election.Position{Term: 5, Index: i} }
	campaigns := func(at ...time.Duration) (acts []act) {
		for _, at := range at {
			acts = append(acts, act{at, election.Campaign})
		}
		return acts
	}
	// The replica is a, b or c of three by its place; the leader that is lost is one of the others.
	firstOf := election.View{Log: at(10), Others: others(election.Voter{Replica: b}, election.Voter{Replica: c, Down: true})}
	second := election.View{Log: at(10), Place: 1, Others: others(election.Voter{Replica: a}, election.Voter{Replica: c, Down: true})}
	last := election.View{Log: at(10), Place: 2, Others: others(election.Voter{Replica: a}, election.Voter{Replica: b})}
	with := func(v election.View, change func(*election.View)) election.View {
		v.Others = append([]election.Voter(nil), v.Others...)
		change(&v)
		return v
	}
	for name, test := range map[string]struct {
		view  election.View
		facts []fact
		end   time.Duration
		want  []act
	}{
		// Turns.
		"nothing happens while nothing is known": {view: firstOf, end: time.Hour},
		"the first survivor goes at once and asks again": {
			view: firstOf, facts: []fact{begin(0, election.LeaderDown)}, end: 700 * ms, want: campaigns(20*ms, 320*ms, 620*ms)},
		"the second waits for it": {view: second, facts: []fact{begin(0, election.LeaderDown)}, end: 400 * ms, want: campaigns(170 * ms)},
		"nobody waits for who is down": {
			view:  with(second, func(v *election.View) { v.Others[0].Down = true }),
			facts: []fact{begin(0, election.LeaderDown)}, end: 300 * ms, want: campaigns(20 * ms)},
		"nor for who stops being there": {
			view: second, facts: []fact{begin(0, election.LeaderDown), down(50*ms, a)}, end: 300 * ms, want: campaigns(70 * ms)},
		"a full disk goes after a good one": {
			view:  with(firstOf, func(v *election.View) { v.Fitness = election.Burdened }),
			facts: []fact{begin(0, election.LeaderDown)}, end: 400 * ms, want: campaigns(170 * ms)},
		"a good disk goes before a full one": {
			view:  with(second, func(v *election.View) { v.Others[0].Fitness = election.Burdened }),
			facts: []fact{begin(0, election.LeaderDown)}, end: 300 * ms, want: campaigns(20 * ms)},
		"nobody waits for who will not campaign": {
			view:  with(second, func(v *election.View) { v.Others[0].Fitness = election.Unfit }),
			facts: []fact{begin(0, election.LeaderDown)}, end: 300 * ms, want: campaigns(20 * ms)},
		"who is unfit never goes": {
			view:  with(firstOf, func(v *election.View) { v.Fitness = election.Unfit }),
			facts: []fact{begin(0, election.LeaderDown)}, end: time.Minute},

		// Opened.
		"the preferred replica goes at once": {
			view: firstOf, facts: []fact{begin(0, election.OpenedPreferred)}, end: 400 * ms, want: campaigns(0, 300*ms)},
		"but not before others with a full disk": {
			view:  with(firstOf, func(v *election.View) { v.Fitness = election.Burdened }),
			facts: []fact{begin(0, election.OpenedPreferred)}, end: 700 * ms, want: campaigns(600 * ms)},
		"others listen for a leader first": {
			view: last, facts: []fact{begin(0, election.Opened)}, end: time.Second, want: campaigns(925 * ms)},
		"whom they hear": {view: last, facts: []fact{begin(0, election.Opened), led(500 * ms)}, end: time.Hour},
		"in a new group they wait for longer": {
			view: last, facts: []fact{begin(0, election.OpenedEmpty)}, end: 1400 * ms, want: campaigns(1300 * ms)},
		"a peer that comes up is asked at once": {
			view:  with(firstOf, func(v *election.View) {}),
			facts: []fact{begin(0, election.OpenedPreferred), {10 * ms, func(r *election.Race, v *election.View) { r.PeerUp(*v) }}},
			end:   200 * ms, want: campaigns(0, 30*ms)},
		"if anybody was asked before": {
			view:  last,
			facts: []fact{begin(0, election.Opened), {10 * ms, func(r *election.Race, v *election.View) { r.PeerUp(*v) }}},
			end:   900 * ms},

		// The best log first.
		"asked by one that is behind": {
			view: last, facts: []fact{begin(0, election.Opened), asked(100*ms, a, at(9), election.Denied)}, end: 300 * ms,
			want: campaigns(130 * ms)}, // b may be better, and goes before
		"asked by both": {
			view: last,
			facts: []fact{begin(0, election.Opened), asked(100*ms, a, at(9), election.Denied),
				asked(110*ms, b, election.Position{Term: 4, Index: 99}, election.Denied)},
			end: 300 * ms, want: campaigns(110 * ms)},
		"asked by one that is ahead, and has the vote": {
			view: firstOf, facts: []fact{begin(0, election.LeaderDown), asked(10*ms, b, at(11), election.PreVoted)}, end: 800 * ms,
			want: campaigns(660 * ms)},
		"asked by one that is behind, with a leader": {view: last, facts: []fact{led(0), asked(0, a, at(9), election.Denied)}, end: time.Hour},
		"what was asked under the old leader counts": {
			view:  second,
			facts: []fact{led(0), asked(0, a, at(9), election.Denied), begin(10*ms, election.LeaderDown)}, end: 200 * ms, want: campaigns(30 * ms)},
		"but not for ever": {
			view:  second,
			facts: []fact{led(0), asked(0, a, at(9), election.Denied), begin(time.Minute, election.LeaderDown)},
			end:   time.Minute + 300*ms, want: campaigns(time.Minute + 170*ms)},
		"refused by one that is ahead": {
			view: firstOf, facts: []fact{begin(0, election.LeaderDown), refused(30*ms, b, election.Behind)}, end: 800 * ms,
			want: campaigns(20*ms, 680*ms)},
		"who is unfit": {
			view:  with(firstOf, func(v *election.View) { v.Others[0].Fitness = election.Unfit }),
			facts: []fact{begin(0, election.LeaderDown), refused(30*ms, b, election.Behind)}, end: 400 * ms, want: campaigns(20*ms, 320*ms)},
		"refused for an old term": {
			view: firstOf, facts: []fact{begin(0, election.LeaderDown), refused(30*ms, b, election.OldTerm)}, end: 300 * ms,
			want: campaigns(20*ms, 50*ms)},

		// Who has voted waits.
		"a vote": {
			view: second, facts: []fact{begin(0, election.LeaderDown), asked(40*ms, a, at(10), election.Voted)}, end: 1300 * ms,
			want: campaigns(1190 * ms)},
		"a vote before the leader is known to be lost": {
			view: second, facts: []fact{led(0), asked(0, a, at(10), election.Voted), begin(0, election.Leaderless)}, end: 1700 * ms,
			want: campaigns(1650 * ms)},
		"for one who is not known to be a voter": {
			view: second, facts: []fact{begin(0, election.LeaderDown), asked(40*ms, 9, at(10), election.Voted)}, end: 1300 * ms,
			want: campaigns(1190 * ms)},
		"for one who dies": {
			view: second, facts: []fact{begin(0, election.LeaderDown), asked(40*ms, a, at(10), election.Voted), down(100*ms, a)}, end: 300 * ms,
			want: campaigns(120 * ms)},
		"for one who leads": {
			view: second, facts: []fact{begin(0, election.LeaderDown), asked(40*ms, a, at(10), election.Voted), led(100 * ms)}, end: time.Hour},
		"a pre-vote": {
			view: second, facts: []fact{begin(0, election.LeaderDown), asked(40*ms, a, at(10), election.PreVoted)}, end: 800 * ms,
			want: campaigns(690 * ms)},
		"again and again for the same": {
			view: firstOf,
			facts: []fact{
				begin(0, election.LeaderDown), asked(0, b, at(10), election.PreVoted), asked(400*ms, b, at(10), election.PreVoted),
				asked(1200*ms, b, at(10), election.PreVoted), asked(1500*ms, b, at(10), election.PreVoted)},
			end: 1500 * ms, want: campaigns(1400 * ms)}, // the third time it is b that has to wait

		// Candidates are not disturbed.
		"a candidate waits for its votes": {
			view: firstOf, facts: []fact{begin(0, election.LeaderDown), stands(30*ms, election.Candidate)}, end: 1200 * ms,
			want: campaigns(20*ms, 1030*ms)},
		"longer the second time": {
			view:  firstOf,
			facts: []fact{begin(0, election.LeaderDown), stands(30*ms, election.Candidate), stands(1040*ms, election.Candidate)}, end: 3200 * ms,
			want: campaigns(20*ms, 1030*ms, 3040*ms)},
		"one that was handed the leadership": {
			view: firstOf, facts: []fact{led(0), stands(0, election.Candidate), begin(0, election.Leaderless)}, end: 1200 * ms,
			want: campaigns(1000 * ms)},
		"and where pre-votes took long": {
			view: firstOf, facts: []fact{begin(0, election.LeaderDown), stands(810*ms, election.Candidate)}, end: 2500 * ms,
			want: campaigns(20*ms, 320*ms, 620*ms, 2430*ms)},
		"but not for one whose node came up meanwhile": {
			view: firstOf,
			facts: []fact{begin(0, election.LeaderDown), stands(30*ms, election.Candidate),
				{100 * ms, func(r *election.Race, v *election.View) { r.PeerUp(*v) }}},
			end: 300 * ms, want: campaigns(20*ms, 120*ms)},
		"nor when it is refused one": {
			view:  firstOf,
			facts: []fact{begin(0, election.LeaderDown), stands(30*ms, election.Candidate), refused(100*ms, b, election.NoVote)}, end: 300 * ms,
			want: campaigns(20*ms, 250*ms)},
		"a deposed leader goes first": {view: last, facts: []fact{led(0), begin(0, election.Deposed)}, end: 300 * ms, want: campaigns(20 * ms)},
		"unless it has voted": {
			view: last, facts: []fact{led(0), asked(0, a, at(10), election.Voted), begin(0, election.Deposed)}, end: 900 * ms},

		// Leaders whose node is down.
		"an old word of the dead": {
			view: firstOf, facts: []fact{begin(0, election.LeaderDown), doubt(10*ms, 5*ms)}, end: 300 * ms,
			want: []act{{105 * ms, election.Forget}, {105 * ms, election.Campaign}}},
		"who lives": {
			view: firstOf,
			facts: []fact{begin(0, election.LeaderDown), doubt(10*ms, 10*ms), doubt(120*ms, 120*ms),
				{200 * ms, func(r *election.Race, _ *election.View) { r.Trust() }}},
			end: time.Hour, want: []act{{110 * ms, election.Forget}, {110 * ms, election.Campaign}}},
		"who was elected since": {
			view: firstOf, facts: []fact{{0, func(r *election.Race, v *election.View) { v.Heard = v.Now; r.Watch(*v) }}}, end: 1600 * ms,
			want: []act{{1500 * ms, election.Forget}, {1500 * ms, election.Campaign}}},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, test.want, play(with(test.view, func(*election.View) {}), test.facts, test.end))
		})
	}
}

// TestOneOfTwoWithdraws: two ask each other at the same moment. Exactly one leaves it to the other.
func TestOneOfTwoWithdraws(t *testing.T) {
	for name, test := range map[string]struct {
		logs [2]election.Position
		out  int // who withdraws
	}{
		"equal logs: the second in order": {[2]election.Position{{Term: 5, Index: 10}, {Term: 5, Index: 10}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			for me := range 2 {
				v := election.View{
					Now: origin, Log: test.logs[me], Place: me, Standing: election.PreCandidate,
					Others: others(election.Voter{Replica: id.Replica(2 - me)}, election.Voter{Replica: 3, Down: true}),
				}
				r := election.New(heartbeat, nil)
				r.Begin(v, election.LeaderDown)
				r.Asked(v, election.Request{From: id.Replica(2 - me), Log: test.logs[1-me], Answer: election.PreVoted})
				require.Equal(t, me == test.out, r.Withdrawn(v.Now), "replica %d", me)
				require.False(t, r.Withdrawn(v.Now.Add(time.Second)), "for ever")
			}
		})
	}
}

// TestRaceEnds: who asks in vain asks less and less often, and then not at all, until there is news.
func TestRaceEnds(t *testing.T) {
	v := election.View{Others: others(election.Voter{Replica: 2}, election.Voter{Replica: 3})}
	acts := play(v, []fact{begin(0, election.OpenedPreferred)}, time.Hour)
	require.Len(t, acts, 100)
	require.Less(t, acts[7].at, 3*time.Second)
	require.Greater(t, acts[99].at, 2*time.Minute)
	again := fact{30 * time.Minute, func(r *election.Race, v *election.View) { r.PeerUp(*v) }}
	acts = play(v, []fact{begin(0, election.OpenedPreferred), again}, time.Hour)
	require.Equal(t, act{30*time.Minute + 20*ms, election.Campaign}, acts[100])
}

// TestStrangersAreNotRemembered: whoever asks, what a replica remembers is bounded by its group's voters.
func TestStrangersAreNotRemembered(t *testing.T) {
	r := election.New(heartbeat, nil)
	v := election.View{Now: origin, Others: others(election.Voter{Replica: 2})}
	for i := id.Replica(100); i < 10_000; i++ {
		r.Asked(v, election.Request{From: i})
	}
	require.Zero(t, r.Known())
	for i := id.Replica(100); i < 10_000; i++ {
		v.Others[0].Replica = i
		r.Asked(v, election.Request{From: i})
	}
	require.Equal(t, 1, r.Known())
}

func TestTransfer(t *testing.T) {
	for name, test := range map[string]struct {
		silentFrom, caughtUpAt time.Duration // -1: never
		end                    time.Duration
		want                   election.Verdict
	}{
		"dead from the beginning":               {0, 0, 500 * ms, election.Silent},
		"dies later":                            {300 * ms, -1, 800 * ms, election.Silent},
		"lives, is told, and does nothing":      {-1, 0, time.Second, election.Ignored},
		"is told when it has caught up":         {-1, 2 * time.Second, 3 * time.Second, election.Ignored},
		"catches up for as long as it may take": {-1, -1, time.Hour, election.UnderWay},
	} {
		t.Run(name, func(t *testing.T) {
			w := election.NewTransfer(origin)
			heard := origin.Add(-time.Second) // what it said before tells nothing
			for at := time.Duration(0); ; at += 100 * ms {
				now := origin.Add(at)
				if test.silentFrom < 0 || at < test.silentFrom {
					heard = now
				}
				verdict := w.Check(now, election.Progress{Heard: heard, CaughtUp: test.caughtUpAt >= 0 && at >= test.caughtUpAt})
				if verdict != election.UnderWay || at >= test.end {
					require.Equal(t, test.want, verdict)
					require.InDelta(t, test.end, at, float64(100*ms))
					return
				}
			}
		})
	}
}
