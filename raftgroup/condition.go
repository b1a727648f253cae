package raftgroup

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/raftgroup/door"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
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
	trickle   door.Trickle // what it is sent while it is stalled
}

// disk is what a host finds out about its own. Worker 0 judges, all read.
type disk struct {
	current atomic.Uint32 // a Condition
	slow    bool
	slowAt  time.Time // when a round was last seen to take too long
	// allowance is what replicas take though there is no space: of batches, and of views of snapshots.
	allowance, views door.Allowance
}

func (d *disk) condition() Condition { return Condition(d.current.Load()) }

// judge looks at the store, in worker 0's ticks. Without space is as long as the store says so; stalled is left when no round took too long
// for a while, or a disk that hangs now and then would have leaderships come and go.
func (d *disk) judge(o *Options, now time.Time) {
	if o.Store.Stalled() > o.StallAfter {
		d.slow, d.slowAt = true, now
	} else if d.slow && now.Sub(d.slowAt) >= o.StallClears {
		d.slow = false
	}
	found, full := Good, o.Store.Pressure() == wal.PressureNoSpace
	switch {
	case d.slow:
		found = Stalled
	case full:
		found = Full
	}
	if !full {
		d.allowance.Renew()
		d.views.Renew()
	}
	d.current.Store(uint32(found))
}

// hearsay is what a host was told of the disks of others.
type hearsay struct {
	mu     sync.Mutex // held while workers are told, so that all hear the same last
	others map[id.Node]Condition
}
