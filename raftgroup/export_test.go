package raftgroup

import "fmt"

// SwitchOffLogData has Raft keep the data that entries came with, until the returned function is called.
func SwitchOffLogData() (restore func()) {
	off.keepGivenData = true
	return func() { off.keepGivenData = false }
}

// SwitchOff turns rules off until the returned function is called.
func SwitchOff(answerBeforeCut, respondImmediately bool) (restore func()) {
	old := off
	off = rules{answerBeforeCut: answerBeforeCut, respondImmediately: respondImmediately}
	return func() { off = old }
}

// What a turn may find to be done by a visitor, what a message weighs besides its data, and how many turns a visitor works.
const (
	LightBytes        = lightBytes
	LightEvents       = lightEvents
	SmallMessageBytes = smallMessageBytes
	VisitTurns        = visitTurns
	HeavyFor          = heavyFor
)

// Unfinished says what is left to do when nobody runs any more; empty: nothing.
func Unfinished(h *Host) string {
	for _, w := range h.workers {
		w.in.mu.Lock()
		waiting := len(w.in.urgent) + len(w.in.bulk) + len(w.in.proposals)
		w.in.mu.Unlock()
		if state := w.turns.state.Load(); waiting > 0 || w.in.waiting.Load() || state != turnIdle {
			return fmt.Sprintf("worker %d: %d wait (%v), turns are in state %d", w.number, waiting, w.in.waiting.Load(), state)
		}
	}
	return ""
}
