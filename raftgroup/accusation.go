package raftgroup

import (
	"github.com/quorumlog/quorumlog/wal/id"
)

// maxTermAhead is how far a message's term may be ahead of the replica's: terms count elections, and nobody misses sixteen million of them.
// A message beyond it is made up; taken for true, a few of it would use up all the terms that there are.
const maxTermAhead = 1 << 24

// accusation is what somebody says who speaks as the leader: this replica lost what it has acknowledged. If it is true the replica must stop
// for good. But anybody who gets to a lane can say it once, and without certificates nothing in the message tells him from the leader.
//
// The leader itself does. It repeats what it says with each heartbeat, and it never takes back a commit index that it told a follower,
// which is the smaller of its own and of what that follower acknowledged in its term. So the accusation is believed when it has been
// repeated for an election timeout without a word to the contrary, and a heartbeat that fits the log ends it. Until then the replica does
// not take part in elections, and what it was told is dropped: should it be true, nothing is decided by what the replica has left.
type accusation struct {
	by    id.Replica // 0: none
	term  id.Term
	times int
	since int // tick of the first
	last  int // tick of the newest
}

// accusations is how often it is said at least.
const accusations = 3

// hear takes an accusation at a tick, and tells whether it is to be believed.
func (a *accusation) hear(by id.Replica, term id.Term, tick, patience int) bool {
	if a.by != by || a.term != term || tick-a.last > patience {
		*a = accusation{by: by, term: term, since: tick}
	}
	a.times++
	a.last = tick
	return a.times >= accusations && tick-a.since >= patience
}

// stands tells whether the accusation may still be true: a leader that has fallen silent cannot repeat it.
func (a *accusation) stands(tick, patience int) bool { return a.by != 0 && tick-a.last <= patience }
