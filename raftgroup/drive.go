package raftgroup

import (
	"fmt"
	"runtime/debug"
	"time"
)

const (
	// visitTurns is how many turns a visitor works before the worker's goroutine has to go on.
	visitTurns = 3
	// heavyFor is how long after a turn with more than lightBytes nobody visits. At high rates turns had better be few and large: while the
	// worker's goroutine wakes up, what it will find grows.
	heavyFor = 5 * time.Millisecond
)

// run is the worker's goroutine. Host.Close joins it.
func (w *worker) run() {
	defer close(w.done)
	ticker := time.NewTicker(w.env.o.TickInterval)
	defer ticker.Stop()
	defer w.alarm.Stop()
	for {
		select {
		case <-w.wake:
			w.work()
		case <-ticker.C:
			w.ticked.Store(true)
			w.nudgeSelf()
		case <-w.alarm.C:
			w.rang.Store(true)
			w.nudgeSelf()
		case <-w.stop:
			w.closing.Store(true)
			if !w.turns.claim() {
				<-w.wake
			}
			w.end() // the claim is kept: there are no more turns
			return
		}
	}
}

// nudgeSelf is nudge, on run's own goroutine.
func (w *worker) nudgeSelf() {
	if w.turns.claim() {
		w.work()
	}
}

// work takes the turn that was claimed. The next one, if somebody asked for it, comes by way of the channel: on a busy worker somebody
// always has, and tick, alarm and stop would never be looked at.
func (w *worker) work() {
	w.takeTurn()
	if w.turns.again() {
		w.handOver()
	}
}

// nudge has what waits in the inbox done soon, on the worker's goroutine if nobody works already.
func (w *worker) nudge() {
	if w.turns.claim() {
		w.handOver()
	}
}

// handOver passes the claim on to the worker's goroutine.
func (w *worker) handOver() { w.wake <- struct{}{} }

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
		w.takeTurn()
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

// post queues an event that must not be lost. False: the worker has ended.
func (w *worker) post(ev event) bool {
	if !w.in.post(ev) {
		return false
	}
	w.nudge()
	return true
}
