package controller

import (
	"time"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal/id"
)

// watch is for how long this node has looked at the members of the metadata group as their leader. What a leader says of when it heard from a
// member counts from before its term, or from before it was frozen, when nobody told it anything: it would take healthy voters
// for gone. Nobody is away for longer than the leader has watched.
type watch struct {
	term  id.Term
	since time.Time
	last  time.Time
}

// maxUnwatched is how far two looks may lie apart without the watch beginning anew: a change of the group that times out lies between.
const maxUnwatched = changeTimeout + 10*driveInterval

// look is called by the leader at each look; it returns for how long it has watched without a gap. It goes by the wall clock, as that does
// which says when a member was heard from: a clock that was set, or stood still with the machine, makes all members look silent for as long.
func (w *watch) look(now time.Time, term id.Term) time.Duration {
	now = now.Round(0)
	if gap := now.Sub(w.last); term != w.term || gap > maxUnwatched || gap < 0 {
		w.term, w.since = term, now
	}
	w.last = now
	return now.Sub(w.since)
}

// isAway tells whether a voter is gone for as long as the grace allows.
func isAway(m raftgroup.MemberStatus, watched, grace time.Duration) bool {
	return min(m.LastAck, watched) >= grace
}
