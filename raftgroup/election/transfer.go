package election

import "time"

const (
	// silence is how long the successor may say nothing at all during a transfer: it is asked for a sign of life with every tick.
	silence = 500 * time.Millisecond
	// idleness is how long a successor that has everything and was told to campaign may do nothing about it.
	idleness = time.Second
)

// Transfer is a handing over of leadership, as its leader sees it. Proposals wait for its end, so it must have one soon, though the
// successor died, is frozen, or was never told.
type Transfer struct {
	began time.Time
	told  time.Time // since when it has everything; zero: it has not
}

// NewTransfer begins one.
func NewTransfer(now time.Time) Transfer { return Transfer{began: now} }

// Verdict is what has become of a Transfer.
type Verdict uint8

// The verdicts.
const (
	// UnderWay is one that may still succeed.
	UnderWay Verdict = iota
	// Silent is one whose successor is not heard from.
	Silent
	// Ignored is one whose successor lives and does not campaign.
	Ignored
)

// Progress is what the leader knows of the successor.
type Progress struct {
	Heard    time.Time // when it last said anything
	CaughtUp bool      // it has the whole log, so Raft has told it to campaign
}

// Check looks at the successor.
func (t *Transfer) Check(now time.Time, p Progress) Verdict {
	heard := p.Heard
	if heard.Before(t.began) {
		heard = t.began
	}
	if p.CaughtUp && t.told.IsZero() {
		t.told = now
	}
	switch {
	case now.Sub(heard) >= silence:
		return Silent
	case !t.told.IsZero() && now.Sub(t.told) >= idleness:
		return Ignored
	}
	return UnderWay
}
