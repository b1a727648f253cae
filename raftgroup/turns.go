package raftgroup

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
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

// nudge has what waits in the inbox done soon, on the worker's goroutine if nobody works already.
func (w *worker) nudge() {
	if w.turns.claim() {
		w.handOver()
	}
}

// handOver passes the claim on to the worker's goroutine.
func (w *worker) handOver() { w.wake <- struct{}{} }

const (
	// lightBytes is what a turn may find in the inbox to be done by whoever came with it: the more there is, the longer that one's
	// connection is not read, and the less a wake-up matters.
	lightBytes  = 64 << 10
	lightEvents = 64
	// visitTurns is how many turns a visitor works before the worker's goroutine has to go on.
	visitTurns = 3
	// heavyFor is how long after a turn with more than that nobody visits. At high rates turns had better be few and large: while the
	// worker's goroutine wakes up, what it will find grows.
	heavyFor = 5 * time.Millisecond
)

// visit does what waits in the inbox on the caller's goroutine, unless that is much or somebody works already.
func (w *worker) visit() {
	if !w.in.waiting.Load() || !w.turns.claim() {
		return
	}
	defer func() {
		if p := recover(); p != nil { // it must end the process, and visitors may live under somebody's recover
			go panic(fmt.Sprintf("%v\n\n%s", p, debug.Stack()))
			select {}
		}
	}()
	for range visitTurns {
		if !w.light() {
			break
		}
		w.turn()
		if !w.turns.again() {
			return
		}
	}
	w.handOver()
}

// light tells whether the next turn is one for visitors: little to do, for few groups. Called with the claim.
func (w *worker) light() bool {
	return time.Since(w.heavy) > heavyFor && len(w.waiting) == 0 && !w.ticked.Load() && !w.rang.Load() && !w.closing.Load() && w.in.light()
}

// Visit is how a goroutine that receives brings what it received: several messages and proposals, and then End, which does what
// little there is to do on this very goroutine. Its methods are those of Host and Group in all else.
type Visit struct{ h *Host }

// Visit begins a visit. It costs nothing, and ends with End; without that, what was brought waits for the next tick.
func (h *Host) Visit() Visit { return Visit{h} }

// Step brings a message: see Host.Step.
func (v Visit) Step(from id.Node, group id.Group, m *raftpb.Message, data Loan) {
	v.h.step(from, group, m, data)
}

// Propose brings a proposal: see Group.Propose.
func (v Visit) Propose(g *Group, p *Proposal) { g.propose(p) }

// End returns when everything that was brought is in somebody's hands. It does not block, but may work for a turn or so; locks that
// the Transport, a Machine, Proposal.Done or Options.TurnDone take must not be held.
func (v Visit) End() {
	for _, w := range v.h.workers {
		w.visit()
	}
}
