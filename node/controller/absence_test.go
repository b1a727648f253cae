package controller

import (
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestGraceAfterAChangeOfLeader: a leader knows nothing of what was before its term, or while it was frozen, so no voter is away for longer than
// the leader has watched.
func TestGraceAfterAChangeOfLeader(t *testing.T) {
	const grace = 10 * time.Minute
	begin := time.Now()
	var w watch
	away := func(after time.Duration, term uint64, lastAck time.Duration) bool {
		w2 := w.look(begin.Add(after), id.Term(term))
		return isAway(raftgroup.MemberStatus{LastAck: lastAck}, w2, grace)
	}
	steadily := func(from, to time.Duration, term uint64, lastAck time.Duration) (first time.Duration) {
		for at := from; at <= to; at += driveInterval {
			if away(at, term, lastAck) {
				return at
			}
		}
		return -1
	}
	const day = 24 * time.Hour
	if at := steadily(0, day, 1, day); at != grace {
		t.Errorf("the first leader finds a voter away after %v", at)
	}
	if at := steadily(day, 2*day, 2, day); at != day+grace {
		t.Errorf("the next leader finds it away after %v", at-day)
	}
	if at := steadily(3*day, 4*day, 2, day); at != 3*day+grace {
		t.Errorf("a leader that was frozen for a while finds it away after %v", at-3*day)
	}
	if at := steadily(4*day, 4*day+time.Hour, 3, grace-1); at != -1 {
		t.Errorf("a voter that was heard of within the grace is away after %v", at-4*day)
	}
	if !away(4*day+time.Hour+changeTimeout, 3, grace) {
		t.Error("a change that timed out begins the watch anew")
	}
}

// TestGraceWhenTheClockIsSet: the watch goes by the clock by which it is told when a voter was last heard from. The clock has jumped, and no
// voter has answered since.
func TestGraceWhenTheClockIsSet(t *testing.T) {
	const grace = 10 * time.Minute
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		var w watch
		begin := time.Now()
		for at := time.Duration(0); at < 2*grace; at += driveInterval {
			w.look(begin.Add(at), 1)
		}
		if w.last != w.last.Round(0) {
			t.Error("the watch goes by the clock that is not set")
		}
		watched := w.look(begin.Add(2*grace+jump), 1)
		silent := raftgroup.MemberStatus{LastAck: time.Hour}
		if isAway(silent, watched, grace) {
			t.Errorf("the clock went by %v: a voter that answered a moment ago is away", jump)
		}
	}
}
