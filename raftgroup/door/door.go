// Package door decides what a disk in trouble is sent and takes all the same: a disk without space as little as lets the partition be read,
// one that hangs a trickle.
package door

import (
	"sync/atomic"
	"time"
)

// Entry says what an entry means to a store without space.
type Entry uint8

const (
	// Free takes no space: it has no batch, or the log has it already.
	Free Entry = iota
	// Needed is a batch behind which something stands that has to commit: see raftgroup.
	Needed
	// Own is another one of the leader's own term.
	Own
)

// Cut finds how many of a message's first entries a store without space takes.
//
// Its own batches may stand behind what the leader needs, in the same message, so the message is cut rather than dropped.
type Cut struct {
	keep, free int // free: of these, before the first that takes space
	bytes      int64
}

// Add adds the next entry. False: neither it nor what follows is taken.
func (c *Cut) Add(e Entry, bytes int) bool {
	switch e {
	case Own:
		return false
	case Needed:
		c.bytes += int64(bytes)
	}
	c.keep++
	if c.bytes == 0 {
		c.free = c.keep
	}
	return true
}

// Take returns how many entries are taken, and takes their bytes out of the allowance; without one only those before them are.
func (c *Cut) Take(a *Allowance) int {
	if c.bytes > 0 && !a.Take(c.bytes) {
		return c.free
	}
	return c.keep
}

// Free returns how many of the first entries take no space.
func (c *Cut) Free() int { return c.free }

// Allowed bounds what a host takes all the same of one kind, batches or views, from when its space ends until it has some again.
const Allowed = 16 << 20

// Allowance is what of that was used. All of a host's workers take from it.
type Allowance struct{ used atomic.Int64 }

// Take takes bytes out of it, if so many are left.
func (a *Allowance) Take(bytes int64) bool {
	if a.used.Add(bytes) <= Allowed {
		return true
	}
	a.used.Add(-bytes)
	return false
}

// Renew is called when there is space.
func (a *Allowance) Renew() { a.used.Store(0) }

// A follower whose disk hangs is sent no more than TrickleBytes with each TrickleEvery by each worker: a disk that is slow takes part as far
// as it can, and one that hangs is not sent the same again and again, a message a group with each heartbeat.
const (
	TrickleBytes = 4 << 20
	TrickleEvery = time.Second
)

// Trickle is what such a follower is sent.
type Trickle struct {
	budget int64
	since  time.Time
}

// Spend tells whether a message may be sent. The last one of a second may be larger than what is left.
func (t *Trickle) Spend(now time.Time, bytes int64) bool {
	if now.Sub(t.since) >= TrickleEvery {
		t.since, t.budget = now, TrickleBytes
	}
	if t.budget <= 0 {
		return false
	}
	t.budget -= bytes
	return true
}
