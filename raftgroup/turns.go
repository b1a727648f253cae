package raftgroup

import (
	"sync/atomic"
)

// turns says who works for a worker: one goroutine at a time. It is the worker's own, or one that came with something to do and does it
// at once. A wake-up of the worker's goroutine costs more than a turn with one message in it, and on a busy machine that goroutine waits for
// a processor although the one that woke it has one; a record would wait so four times on its way.
//
//	idle ──claim──▶ taken ──claim──▶ asked
//	  ▲               │ ▲              │
//	  └─────again─────┘ └────again─────┘ one more turn
//
// Who has claimed must work, or hand the claim to the worker's goroutine. Who finds it taken may go: whoever works looks again.
type turns struct{ state atomic.Int32 }

const (
	turnIdle int32 = iota
	turnTaken
	turnAsked // taken, and something came since
)

// claim tells whether the caller has to work now. If not, somebody else does, and sees what the caller left in the inbox before.
func (t *turns) claim() bool {
	for {
		switch s := t.state.Load(); {
		case s == turnIdle && t.state.CompareAndSwap(turnIdle, turnTaken):
			return true
		case s == turnAsked || s == turnTaken && t.state.CompareAndSwap(turnTaken, turnAsked):
			return false
		}
	}
}

// again ends a turn. It tells whether another is needed; if not, the claim is gone.
func (t *turns) again() bool {
	if t.state.CompareAndSwap(turnTaken, turnIdle) {
		return false
	}
	t.state.Store(turnTaken)
	return true
}

// ask has the turn under way followed by another. Of the claim's holder only.
func (t *turns) ask() { t.state.Store(turnAsked) }
