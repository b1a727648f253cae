// Package election decides which replica of a Raft group campaigns, and when; and how long a leader waits for whom it hands over to.
//
// It is pure: it knows replicas, where logs end and what time it is told, and nothing of clocks, messages, disks or of the group that asks.
// Whatever it decides, Raft stays safe, since it only says when to campaign and when to let others: a wrong decision costs time.
//
// # Why Raft's timers are not enough
//
// They wait for 3 to 6 s, as long as a leader may be silent on a bad day. Who knows that there is no leader need not wait, but those who
// know it must not all go at once: two that campaign at the same moment split the votes, and one that campaigns a moment after another
// has won deposes him. So there is an order, the same for all who know the same: first who can take records (Fitness), then whose log
// reaches furthest, then the group's order of preference; each waits a step longer than the one before. What is not known at the beginning,
// the ends of the others' logs, comes with their requests and refusals, and hands the turn to the one with the best log.
package election

import (
	"cmp"
	"slices"
	"time"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Position is where a log ends.
type Position struct {
	Term  id.Term
	Index id.Index
}

// Compare orders logs as votes do: who has the greater one is not elected by who has the smaller. It is negative when p is behind o.
func (p Position) Compare(o Position) int {
	return cmp.Or(cmp.Compare(p.Term, o.Term), cmp.Compare(p.Index, o.Index))
}

// Fitness is what a replica could do as a leader.
type Fitness uint8

// The degrees of fitness, from the best to the worst.
const (
	Fit Fitness = iota
	// Burdened would have to hand over at once if anybody else could take it.
	Burdened
	// LastResort leads only where nobody else does.
	LastResort
	// Unfit does not campaign: a learner, or one that could not even store its own vote.
	Unfit
)

// Voter is another voter, as the replica knows it.
type Voter struct {
	Replica id.Replica
	Fitness Fitness
	Down    bool // its node cannot be reached
}

// Standing is how far a replica's own campaign has come in Raft.
type Standing uint8

// The standings.
const (
	// NotStanding is a follower.
	NotStanding Standing = iota
	// PreCandidate asks whether it would be elected. Asking again costs nothing.
	PreCandidate
	// Candidate has raised its term and waits for votes. Asking again gives up those it has.
	Candidate
)

// View is what a replica knows at the moment it decides.
type View struct {
	Now      time.Time
	Log      Position
	Fitness  Fitness
	Standing Standing
	Heard    time.Time // when something last came that only a leader sends
	Others   []Voter   // the other voters, in the group's order of preference
	Place    int       // the replica's own place in that order: before Others[Place]
}

// rival is what is known of another voter's log.
type rival struct {
	replica id.Replica
	log     Position
	ahead   bool // it has refused a vote for a log that it is ahead of; log is not known then
	at      time.Time
	turns   int // how often the replica has waited for its pre-vote in this race
}

// rivalFor is how long what is known of another's log counts.
const rivalFor = 5 * time.Second

// precedes tells whether the other voter at place i of the order campaigns before the replica.
func (r *Race) precedes(v *View, i int) bool {
	o := v.Others[i]
	if o.Fitness != v.Fitness {
		return o.Fitness < v.Fitness
	}
	if k := r.rival(o.Replica); k != nil && v.Now.Sub(k.at) < rivalFor {
		if k.ahead {
			return true
		}
		if c := k.log.Compare(v.Log); c != 0 {
			return c > 0
		}
	}
	return i < v.Place
}

// rank is how many campaign before the replica.
func (r *Race) rank(v *View) (rank int) {
	for i, o := range v.Others {
		if !o.Down && o.Fitness != Unfit && r.precedes(v, i) {
			rank++
		}
	}
	return rank
}

func (r *Race) rival(who id.Replica) *rival {
	for i := range r.rivals {
		if r.rivals[i].replica == who {
			return &r.rivals[i]
		}
	}
	return nil
}

// note remembers something of another voter's log. What strangers say is not remembered: nil.
func (r *Race) note(v *View, who id.Replica) *rival {
	if place(v, who) < 0 {
		return nil
	}
	k := r.rival(who)
	if k == nil {
		r.rivals = slices.DeleteFunc(r.rivals, func(k rival) bool { return place(v, k.replica) < 0 })
		r.rivals = append(r.rivals, rival{replica: who})
		k = &r.rivals[len(r.rivals)-1]
	}
	k.at = v.Now
	return k
}

// place returns where a voter stands in Others, or -1.
func place(v *View, who id.Replica) int {
	for i := range v.Others {
		if v.Others[i].Replica == who {
			return i
		}
	}
	return -1
}
