package raftgroup

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// condition is a host's own, and what it was told of others. Worker 0 judges, all read.
type condition struct {
	current atomic.Uint32 // a Condition
	slow    bool
	slowAt  time.Time // when a round was last seen to take too long

	mu     sync.Mutex // held while workers are told, so that all hear the same last
	others map[id.Node]Condition
}

// Condition returns what the host's disk allows, as of the last tick.
func (h *Host) Condition() Condition { return Condition(h.condition.current.Load()) }

// judge looks at the store, in worker 0's ticks. Without space is as long as the store says so; stalled is left when no round took too long
// for a while, or a disk that hangs now and then would have leaderships come and go.
func (h *Host) judge(now time.Time) {
	c := &h.condition
	if h.o.Store.Stalled() > h.o.StallAfter {
		c.slow, c.slowAt = true, now
	} else if c.slow && now.Sub(c.slowAt) >= h.o.StallClears {
		c.slow = false
	}
	found, full := Good, h.o.Store.Pressure() == wal.PressureNoSpace
	switch {
	case c.slow:
		found = Stalled
	case full:
		found = Full
	}
	if !full {
		h.allowance.renew()
	}
	c.current.Store(uint32(found))
}

// NodeCondition tells what another node says of its disk. It costs nothing to be told again.
func (h *Host) NodeCondition(n id.Node, c Condition) {
	h.condition.mu.Lock()
	defer h.condition.mu.Unlock()
	if n == h.o.Node || h.condition.others[n] == c {
		return
	}
	if h.condition.others == nil {
		h.condition.others = make(map[id.Node]Condition)
	}
	h.condition.others[n] = c
	for _, w := range h.workers {
		w.post(event{kind: evCall, call: func(w *worker) { w.noteCondition(n, c) }})
	}
}

// ConditionOf returns what is known of a node's disk: Good, where nobody said otherwise.
func (h *Host) ConditionOf(n id.Node) Condition {
	if n == h.o.Node {
		return h.Condition()
	}
	h.condition.mu.Lock()
	defer h.condition.mu.Unlock()
	return h.condition.others[n]
}
