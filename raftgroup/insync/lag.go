package insync

import "github.com/quorumlog/quorumlog/wal/id"

// Samples remember the commit index at a few moments of the past, so that a replica can be asked whether it has what was committed some
// time ago.
type Samples struct {
	at    [4]int64 // UnixNano; 0: none
	index [4]id.Index
	next  int
}

// Add notes a sample unless the last one is younger than spacing.
func (s *Samples) Add(now int64, commit id.Index, spacing int64) {
	last := (s.next + len(s.at) - 1) % len(s.at)
	if s.at[last] != 0 && now-s.at[last] < spacing {
		return
	}
	s.at[s.next], s.index[s.next] = now, commit
	s.next = (s.next + 1) % len(s.at)
}

// Before returns the latest sample that is at least as old as then, or 0.
func (s *Samples) Before(then int64) id.Index {
	var best int64
	var index id.Index
	for i, at := range s.at {
		if at != 0 && at <= then && at > best {
			best, index = at, s.index[i]
		}
	}
	return index
}

// Lag is how far a voter may fall behind and be in sync.
type Lag struct {
	Now, Max int64    // since it was heard from
	Must     id.Index // what was committed Max ago
	Last     id.Index // where the leader's log ends
}

// Heard tells whether a voter that acknowledged something last at ack was heard from lately enough.
func (l Lag) Heard(ack int64) bool { return l.Now-ack < l.Max }

// Reached tells whether a log that matches the leader's up to match is long enough.
func (l Lag) Reached(match id.Index) bool { return match >= l.Must || match >= l.Last }
