package raftgroup

import "fmt"

// Standing is how far a replica takes part in its group.
type Standing uint8

// The standings, from the best to the worst.
const (
	// Working: it does all that a replica does.
	Working Standing = iota
	// Halted: its machine cannot follow the log over an entry. It follows and votes, applies nothing further, and goes on when the node runs
	// a release that knows the entry. See HaltedError.
	Halted
	// Stopped: something broke in this process, and nothing says that the log is not what it acknowledged. It takes part in nothing until
	// the node is started again. See FailedError.
	Stopped
	// Refused: it lost what it had acknowledged, or its disk does not give it back. That is stored: it never takes part in anything again,
	// and has to be replaced. See FailedError.
	Refused
)

// String names the standing.
func (s Standing) String() string {
	switch s {
	case Working:
		return "working"
	case Halted:
		return "halted"
	case Stopped:
		return "stopped"
	case Refused:
		return "refused"
	}
	return fmt.Sprintf("Standing(%d)", uint8(s))
}

// standing is a Standing and why; it is replaced, never changed.
type standing struct {
	Standing
	cause error
}
