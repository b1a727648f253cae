package raftgroup

import (
	"fmt"
	"sync/atomic"
	"time"
)

// Condition is what the disk of a node allows its replicas to do. A leader in any other than Good keeps its followers quiet by heartbeats,
// for which it needs no disk, and takes nothing: so it hands over, to whoever can take records.
type Condition uint8

// The conditions, from the best to the worst.
const (
	Good Condition = iota
	// Full has no space for batches. Votes are stored, and vital groups work.
	Full
	// Stalled has a commit round under way that does not end: nothing becomes durable, votes neither.
	Stalled
)

// String names the condition.
func (c Condition) String() string {
	switch c {
	case Good:
		return "good"
	case Full:
		return "full"
	case Stalled:
		return "stalled"
	}
	return fmt.Sprintf("Condition(%d)", uint8(c))
}

// peerCondition is that of a node whose disk is not Good.
type peerCondition struct {
	condition Condition
	budget    int64 // what it may be sent, while it is stalled
	since     time.Time
}

// fullAllowance bounds the batches that a host takes all the same from when its space ends until it has some again. See group.trim.
const fullAllowance = 16 * mib

// allowance is what of fullAllowance was used.
type allowance struct{ used atomic.Int64 }

// take takes bytes out of what is left, if they are left.
func (a *allowance) take(bytes int64) bool {
	if a.used.Add(bytes) <= fullAllowance {
		return true
	}
	a.used.Add(-bytes)
	return false
}

// renew is called when there is space.
func (a *allowance) renew() { a.used.Store(0) }
