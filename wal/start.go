package wal

import (
	"slices"
	"time"

	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// How the log start moves.
//
// The owner says below which offset nobody reads any more (Trim). That is a promise about readers, and no place in the log. The start
// itself moves over whole segments, from the front, in four steps:
//
//  1. A cut leaves out the segments that are sealed, end at or below that offset, and hold nothing above the cut's Applied: what is not
//     applied has to be applied again after a start. Nor anything that the owner may still ask for because its state, of a reset, is ahead
//     of the log (settled). Its start is the last entry of what it leaves out.
//  2. The cut is stored. From here on the log begins there, whatever happens: a start of the store removes files that no cut names.
//  3. The owner takes it over (advance), in a call of its own: Raft must not find another first index, or another term of the entry before
//     it, in the middle of a step. An idle owner is asked for a cut for that reason alone.
//  4. The files go. Whoever is reading them has them open, and whoever comes too late is told that the offset is out of range.
//
// So no record of the journal that is replayed upon a cut speaks of what the cut left out: entries and truncations after it begin above the
// commit index, which is at or above Applied.

// SegmentInfo describes a segment of a log.
type SegmentInfo struct {
	Base         id.Offset // of its first record
	Next         id.Offset // after its last record
	First        id.Index  // of its first entry
	Bytes        int64     // of the batches in it
	MaxTimestamp int64     // of its records and those before it in the segment, milliseconds; -1: there is none
	// Created and Appended are when its first entry and its last record came, by the clock of this node. After a crash they may be later than it
	// was, never earlier.
	Created, Appended time.Time
	Sealed            bool // never written again
}

// Segments returns the segments of the log, the first one first; the last one is the one that is written to.
func (l *Log) Segments() []SegmentInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	infos := make([]SegmentInfo, len(l.segs))
	for k, sg := range l.segs {
		next := l.NextOffset()
		if k+1 < len(l.segs) {
			next = l.segs[k+1].key.Base
		}
		infos[k] = SegmentInfo{
			Base: sg.key.Base, Next: next, First: sg.first, Bytes: int64(sg.end), MaxTimestamp: sg.maxTime,
			Created: time.UnixMilli(sg.created), Appended: time.UnixMilli(sg.appended), Sealed: sg.stage == segSealed,
		}
	}
	return infos
}

// Roll has the next entry begin a new segment, unless the one that is written to has none. Owner. A first entry that truncates goes to the
// segment that it cuts, and leaves the roll to the one after it.
func (l *Log) Roll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rollNext = true
}

// rolls tells whether an entry begins a new segment behind sg. Called with mu.
func (l *Log) rolls(sg *seg, e *Entry) bool {
	if e.Kind == KindBatch && sg.end > 0 && int64(sg.end)+int64(len(e.Data)) > l.segmentBytes {
		return true
	}
	return (l.rollNext || e.Roll) && l.LastIndex() >= sg.first
}

// Trim says that nobody will read below an offset: whole segments below it go soon, once they are sealed and their entries are in a state that
// the owner gave. Owner. An offset that is not above those of earlier calls has no effect. It has to be said again after a start.
//
// FirstIndex, Start, StartOffset and Term change later, in a call of the owner: Submit, TakeCut or Trim.
func (l *Log) Trim(below id.Offset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.advance()
	if below <= l.trim {
		return
	}
	l.trim = below
	l.wantTrim()
}

// TrimBefore says the same of the segments before the one that has entry i, or of none if there is no such segment. Owner.
func (l *Log) TrimBefore(i id.Index) {
	l.mu.Lock()
	below := l.StartOffset()
	if k := l.segOf(i); k >= 0 {
		below = l.segs[k].key.Base
	}
	l.mu.Unlock()
	l.Trim(below)
}

// muchToTrim is how large a segment is that is not to wait for the next tick.
const muchToTrim = 8 * mib

// wantTrim has the checkpointer look at the log if its start can move, at its next tick: retention trims many logs at a time. It comes sooner
// where much goes: a large segment, or more than one, as with a replica that catches up. Called with mu, when there may be more segments that
// nobody reads: after Trim, a seal, a start that was taken over, and a truncation or reset, whose segments go with a cut as well. A log that
// begins anew has the space of two until then, and on a full disk that is what its next entries need.
func (l *Log) wantTrim() {
	much := len(l.garbage) > 1
	switch {
	case l.trimmable():
		l.askState()
		much = much || l.segs[0].end >= muchToTrim || len(l.segs) > 2 && l.segs[2].key.Base <= l.trim
	case len(l.garbage) == 0:
		return
	}
	c := &l.s.checkpoints
	c.trims.Store(true)
	if much && !c.much.Swap(true) {
		c.kick()
	}
}

// trimmable tells whether there are segments that nobody reads. Called with mu.
func (l *Log) trimmable() bool {
	return len(l.segs) > 1 && l.segs[1].key.Base <= l.trim && l.segs[1].first > l.moved.Index+1
}

// askState has the owner asked for a state without which the start cannot move. Called with mu, when the log is trimmable.
func (l *Log) askState() {
	if min(l.state.Applied, l.settled) < l.lastOf(0) {
		l.needs |= cutState
	}
}

// newStart returns where the log would begin by a cut with the present state, and how many segments are before that. Called with mu.
func (l *Log) newStart() (start Start, before int) {
	start = l.start
	for k := 0; k+1 < len(l.segs) && l.segs[k].stage == segSealed && l.segs[k+1].key.Base <= l.trim; k++ {
		if l.lastOf(k) > min(l.state.Applied, l.settled) && !l.s.o.off.trimApplied {
			break
		}
		before = k + 1
	}
	if before > 0 {
		first := l.segs[before].first
		term, _ := l.Term(first - 1)
		start = Start{Index: first - 1, Term: term, Offset: l.segs[before].key.Base}
	}
	return start, before
}

// epochsFrom returns the epochs of a log that begins at start, of those that one with an earlier start has.
func epochsFrom(epochs []epoch, start Start) []epoch {
	k := 0
	for k < len(epochs) && epochs[k].first <= start.Index {
		k++
	}
	return append([]epoch{{start.Index, start.Term}}, epochs[k:]...)
}

// advance moves the start to that of the stored cut, and leaves the files to whoever removes them. Called with mu, by the owner.
func (l *Log) advance() {
	if l.moved.Index <= l.start.Index {
		return // nothing has changed, or a reset was faster
	}
	n := l.segOf(l.moved.Index + 1)
	for _, sg := range l.segs[:n] {
		l.s.metrics.trimmedBytes.Add(uint64(sg.end))
		sg.tail.clear()
		l.dropRows(sg)
		l.s.files.forget(sg)
		l.gone = append(l.gone, sg.key)
	}
	l.segs = slices.Clone(l.segs[n:])
	l.start = l.moved
	l.epochs = epochsFrom(l.epochs, l.start)
	l.controls = controlsFrom(l.controls, l.start)
	l.first.Store(uint64(l.start.Index + 1))
	l.startOffset.Store(int64(l.start.Offset))
	l.s.metrics.trimmedSegments.Add(uint64(n))
	l.wantTrim() // until now it did not count as trimmable
	l.s.checkpoints.leave(l)
}

// controlsFrom returns the control entries of a log that begins at start.
func controlsFrom(controls []control, start Start) []control {
	k := 0
	for k < len(controls) && controls[k].index <= start.Index {
		k++
	}
	return slices.Clone(controls[k:])
}

// leave leaves the files of segments that are before the start of a log to the goroutine that looks after space: the checkpointer may wait, in
// Pebble, for the very space that they have.
func (c *checkpointer) leave(l *Log) {
	c.mu.Lock()
	c.left = append(c.left, l)
	c.mu.Unlock()
	c.s.space.lookNow()
}

// unlinkLeft removes these files.
func (c *checkpointer) unlinkLeft() {
	c.mu.Lock()
	logs := c.left
	c.left = nil
	c.mu.Unlock()
	for _, l := range logs {
		l.mu.Lock()
		keys := l.gone
		l.gone = nil
		l.mu.Unlock()
		c.s.unlinkDropped(l, keys)
	}
}

// trim cuts the logs whose start can move, or that have dropped segments, in rounds as a checkpoint does: where segments go as fast as the disk
// can, one flush takes so long that what came meanwhile is too much for a cut, and a start that does not move leaves the next flush more to
// do. Those that have to wait, for their owners, a seal, or room on a full disk, are looked at again.
func (c *checkpointer) trim() error {
	var logs []*Log
	for _, l := range c.s.Logs() {
		l.mu.Lock()
		if trimmable := l.trimmable(); (trimmable || len(l.garbage) > 0) && l.life == alive && !l.refused {
			if trimmable {
				l.askState()
			}
			logs = append(logs, l)
		}
		l.mu.Unlock()
	}
	if len(logs) == 0 {
		return nil
	}
	c.trims.Store(true)
	if err := c.flushAll(logs, flushWorthy); err != nil {
		return err
	}
	c.askCuts(logs)
	logs = c.fitting(slices.DeleteFunc(logs, func(l *Log) bool { return !l.letsGo() }))
	if len(logs) == 0 {
		return nil
	}
	_, err := c.cutInRounds(logs)
	return err
}

// fitting returns those of the logs whose cuts there is room for: all of them, but on a full disk. The others are no shortage, and their
// turn comes: each start that moves frees more than its cut takes.
func (c *checkpointer) fitting(logs []*Log) []*Log {
	s := c.s
	if !s.space.full.Load() {
		return logs
	}
	room := s.space.room() - 2*s.o.memTableBytes()
	return slices.DeleteFunc(logs, func(l *Log) bool {
		need := 2 * l.cutBytes(s.longestTail())
		if need > room {
			return true
		}
		room -= need
		return false
	})
}

// letsGo tells whether segments go with the next cut.
func (l *Log) letsGo() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.takeGiven()
	_, before := l.newStart()
	return before > 0 || l.drops()
}

// drops tells whether what a truncation or reset dropped goes with the next cut. Called with mu.
func (l *Log) drops() bool { return len(l.garbage) > 0 && l.blocked == 0 }

// moveStarts has the owners of the logs take over the starts of their stored cuts.
func (c *checkpointer) moveStarts(taken []takenCut) {
	take := c.taker.Load()
	for i := range taken {
		if t := &taken[i]; t.moves && take != nil {
			(*take)(t.l)
		}
	}
}

// noteStart notes the start of a stored cut. Called with mu.
func (l *Log) noteStart(t *takenCut) {
	if t.moves && t.start.Index > l.moved.Index {
		l.moved = t.start
	}
}

// trimmedKeys are the keys of the segments before the start of a cut that is being taken. Called with mu.
func trimmedKeys(segs []*seg) (keys []segment.Key) {
	for _, sg := range segs {
		keys = append(keys, sg.key)
	}
	return keys
}
