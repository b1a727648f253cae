// Package insync counts voters: who keeps up with the leader, whether a majority is for something, and how far an entry's copies reach.
// In a joint configuration each half counts for itself.
package insync

import (
	"slices"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Seat is where a member votes. A learner has none.
type Seat uint8

// The seats; a member may have both.
const (
	Incoming Seat = 1 << iota // in the new half, or in the only one
	Outgoing                  // in the old half of a joint configuration
)

// Tally counts the voters of both halves, and those of them who are for something. It begins empty.
type Tally struct{ in, inFor, out, outFor int }

// For counts a member that is for it.
func (t *Tally) For(s Seat) {
	t.Against(s)
	if s&Incoming != 0 {
		t.inFor++
	}
	if s&Outgoing != 0 {
		t.outFor++
	}
}

// Against counts a member that is not.
func (t *Tally) Against(s Seat) {
	if s&Incoming != 0 {
		t.in++
	}
	if s&Outgoing != 0 {
		t.out++
	}
}

// Majority tells whether more than half of the voters are for it, in each half.
func (t *Tally) Majority() bool { return t.inFor > t.in/2 && (t.out == 0 || t.outFor > t.out/2) }

// MajorityHas tells whether any majority has at least n voters, in each half: what is committed is on as many.
func (t *Tally) MajorityHas(n int) bool { return n <= t.in/2+1 && (t.out == 0 || n <= t.out/2+1) }

// Matches are how far the logs of voters are known to equal the leader's.
type Matches struct {
	in, out     []id.Index
	inBuf, oBuf [16]id.Index // most groups need no other memory
}

// Add adds a member's.
func (m *Matches) Add(s Seat, match id.Index) {
	if m.in == nil {
		m.in, m.out = m.inBuf[:0], m.oBuf[:0]
	}
	if s&Incoming != 0 {
		m.in = append(m.in, match)
	}
	if s&Outgoing != 0 {
		m.out = append(m.out, match)
	}
}

// On returns the index up to which n voters have the log, in each half of the configuration that t has counted. What is not known of a
// voter counts as nothing.
func (m *Matches) On(n int, t Tally) id.Index {
	to := kthLargest(m.in, n)
	if t.out > 0 {
		to = min(to, kthLargest(m.out, n))
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
