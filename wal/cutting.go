package wal

import (
	"errors"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/journal"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// longestTail bounds the bytes that a cut holds of a log.
func (s *Store) longestTail() int64 {
	if s.space.full.Load() {
		return flushWorthy
	}
	return longestTail
}

// cutBytes is about what the log's cut takes; of one that is left alone nothing.
func (l *Log) cutBytes(longest int64) int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.tailBytes()
	if _, before := l.newStart(); before > 0 || l.drops() {
		longest = longestTail // see takeCut
	}
	if n > longest {
		return 0
	}
	n += 512 + int64(len(l.state.ConfState)+16*len(l.epochs)+cutSegmentBytes*len(l.segs))
	switch {
	case l.given != nil:
		n += int64(l.given.mark.bytes)
	case l.viewNumber != l.viewStored || l.wantsState(): // about as much as the one before
		n += int64(l.mark.bytes)
	}
	for _, sg := range l.segs {
		if sg.stage != segSealed {
			n += segment.RowSize * int64(sg.rowBase+id.Index(len(sg.rows))-sg.indexed)
		}
	}
	for _, e := range l.controls {
		n += int64(len(e.data))
	}
	return n
}

// tailBytes is how many durable bytes of the log are in no segment: what a cut would hold. Called with mu.
func (l *Log) tailBytes() (n int64) {
	for k, sg := range l.segs {
		if sg.stage != segSealed {
			n += max(int64(l.durableEnd(k)-sg.w), 0)
		}
	}
	return n
}

// askCuts asks the owners for their states, where these are worth it, and waits a moment for the answers.
func (c *checkpointer) askCuts(logs []*Log) {
	take := c.taker.Load()
	if take == nil {
		return
	}
	for _, l := range logs {
		l.mu.Lock()
		wanted := l.wantsState()
		if wanted {
			l.needs |= cutAsked
		}
		l.mu.Unlock()
		if wanted {
			(*take)(l)
		}
	}
	timer := time.NewTimer(cutWait)
	defer timer.Stop()
	for _, l := range logs {
		for l.awaitsCut() {
			select {
			case <-c.given:
			case <-timer.C:
				return
			case <-c.s.closing:
				return
			case <-c.s.failure:
				return
			}
		}
	}
}

func (l *Log) awaitsCut() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.needs&cutAsked != 0 && l.life == alive
}

// TakeCut gives the state of the log's owner as of st.Applied for the next cut. Owner. The slices of st belong to the wal
// from now on.
func (l *Log) TakeCut(st State) {
	given := &markedState{st, markOf(st.View)}
	l.mu.Lock()
	l.advance()
	if st.Applied >= l.stateAt {
		l.given = given
	}
	l.needs &^= cutAsked
	l.mu.Unlock()
	l.s.checkpoints.answered()
}

// DeclineCut answers instead of TakeCut for an owner that has no state to give, or for a log that nobody owns: the next cut is taken
// with the state that was given last. Without an answer the checkpoint would wait for one, and each later one again.
//
// It does not move the start: who answers for a log without an owner is on another goroutine than the owner that may be opening it.
func (l *Log) DeclineCut() {
	l.mu.Lock()
	l.needs &^= cutAsked
	l.mu.Unlock()
	l.s.checkpoints.answered()
}

// answered wakes a checkpoint that waits for cuts.
func (c *checkpointer) answered() {
	select {
	case c.given <- struct{}{}:
	default:
	}
}

// takenCut is a cut on its way to Pebble.
type takenCut struct {
	l       *Log
	covered journal.Seq
	applied id.Index
	garbage []segment.Key
	start   Start
	moves   bool          // start is another than the log had
	early   []segment.Key // see rules.startStored

	view                   []byte
	viewNumber, viewStored uint64
}

// cutAll stores the cuts of logs, then what follows from them about the journal. Each cut counts by itself, so they are
// stored in several batches; only the last one is synced, which syncs those before, and it retires files.
// It returns the logs that cannot be cut now.
func (c *checkpointer) cutAll(logs []*Log) (left []*Log, err error) {
	s := c.s
	longest := s.longestTail()
	completed := journal.Seq(s.completed.Load())
	var taken []takenCut
	var buf []byte
	b := s.meta.NewBatch()
	defer func() { _ = b.Close() }() // the current one; closing a batch twice would close another's
	for _, l := range logs {
		if s.o.off.unlinkWaits {
			s.unlinkDropped(l, l.garbageNow())
		}
		cut, t, ok, err := l.takeCut(completed, longest)
		if err != nil {
			return nil, err
		}
		if !ok {
			left = append(left, l)
			continue
		}
		s.unlinkDropped(l, t.early)
		buf = cut.append(buf[:0])
		if err := errors.Join(b.Set(cutKey(l.group, l.replica), buf, nil), t.storeView(b)); err != nil {
			return nil, err
		}
		taken = append(taken, t)
		if int64(b.Len()) >= s.o.memTableBytes() {
			if err := c.store(b, taken, pebble.NoSync); err != nil {
				return nil, err
			}
			if err := b.Close(); err != nil {
				return nil, err
			}
			b = s.meta.NewBatch()
		}
	}
	return left, c.storeLast(b, taken, completed)
}

// garbageNow is what the log has dropped: see rules.unlinkWaits.
func (l *Log) garbageNow() []segment.Key {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.garbage
}

// storeLast stores the last batch of cuts, and does what may be done now that all of them are stored.
func (c *checkpointer) storeLast(b *pebble.Batch, taken []takenCut, completed journal.Seq) error {
	s := c.s
	err := errors.Join(
		b.Set(completedKey, appendSeq(nil, completed), nil), b.Set(coveredKey, appendSeq(nil, s.coveredBut(completed, taken)), nil))
	if err != nil {
		return err
	}
	if err := c.store(b, taken, pebble.Sync); err != nil {
		return err
	}
	for _, t := range taken {
		t.l.covered(&t)
		s.unlinkDropped(t.l, t.garbage)
	}
	c.moveStarts(taken)
	return c.retire(completed)
}

// store commits a batch, but for cuts of logs whose deletion was stored meanwhile. With the metadata's cut go the tombstones that it
// makes unnecessary.
func (c *checkpointer) store(b *pebble.Batch, taken []takenCut, sync *pebble.WriteOptions) error {
	s := c.s
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	outlived := s.outlivedElsewhere()
	for _, t := range taken {
		t.l.mu.Lock()
		gone := t.l.life == forgotten
		t.l.mu.Unlock()
		switch {
		case t.l.group == id.MetadataGroup && !gone:
			outlived = s.outlived(t.applied) // it is here, and nowhere else
			c.metadata = t.applied
		case gone:
			if err := errors.Join(b.Delete(cutKey(t.l.group, t.l.replica), nil), b.Delete(viewKey(t.l.group, t.l.replica), nil)); err != nil {
				return err
			}
		}
	}
	for _, k := range outlived {
		if err := b.Delete(tombstoneKey(k), nil); err != nil {
			return err
		}
	}
	if err := s.metaCommit(b, sync); err != nil {
		return err
	}
	s.exhume(outlived)
	if sync == pebble.Sync { // what was stored before it without is durable now
		s.tellFollowers(c.metadata)
	}
	return nil
}

// wantState makes checkpoints cut the log, although it has no new journal records, or few, until one has a new state: an owner that is slow
// gives it to the one after.
func (l *Log) wantState() {
	l.mu.Lock()
	l.needs |= cutState
	l.mu.Unlock()
}

// markDirty makes the next checkpoint cut the log although it has no new journal records.
func (l *Log) markDirty() {
	l.mu.Lock()
	l.needs |= cutChanged
	l.mu.Unlock()
}

// covered notes that a cut is stored.
func (l *Log) covered(t *takenCut) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.noteStart(t)
	l.viewStored = t.viewNumber
	l.dirty = 0
	if l.doneSeq > t.covered {
		l.dirty = t.covered + 1
	}
}

// takeCut takes the log's cut as of the last completed round, or says that it cannot be taken now: a truncation or reset is
// in flight, or the cut would hold more than longest bytes of segments. completed was read before. The taken cut has what belongs to
// it: the view, and the segments whose files can go when it is stored.
func (l *Log) takeCut(completed journal.Seq, longest int64) (c *cut, t takenCut, ok bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.blocked > 0 && !l.s.o.off.cutWaits || l.life != alive {
		return nil, t, false, nil
	}
	l.takeGiven()
	start, before := l.newStart()
	if before > 0 || l.drops() {
		longest = longestTail // it gives back more than it takes, also on a full disk
	}
	if l.tailBytes() > longest {
		return nil, t, false, nil
	}
	next, ok := l.offsetInMemory(l.doneIndex + 1)
	if !ok {
		return nil, t, false, l.s.broken(l, "the row of the first entry that is not durable is not in memory")
	}
	l.needs &^= cutChanged
	c = &cut{
		covered: max(completed, l.doneSeq), topic: l.topic, name: l.name, dir: l.dir, segmentBytes: l.segmentBytes,
		start: start, next: next, hs: l.doneHS, state: l.state, view: l.mark, since: l.since,
	}
	c.hs.Commit = min(max(c.hs.Commit, l.commit(), c.state.Applied), l.doneIndex)
	if !l.fillCut(c, before) {
		return nil, t, false, l.s.broken(l, "the tail does not hold what the cut needs")
	}
	t = takenCut{
		l: l, covered: c.covered, applied: c.state.Applied, garbage: l.garbage, start: start, moves: before > 0,
		view: l.state.View, viewNumber: l.viewNumber, viewStored: l.viewStored,
	}
	l.garbage = nil
	if l.s.o.off.startTold {
		l.noteStart(&t)
	}
	if l.s.o.off.startStored {
		t.early = trimmedKeys(l.segs[:before])
	}
	return c, t, true, nil
}

// fillCut adds what is durable behind the cut's start: epochs, control entries, and segments but for the first few. Called with mu.
func (l *Log) fillCut(c *cut, before int) bool {
	for _, e := range epochsFrom(l.epochs, c.start) {
		if e.first <= l.doneIndex || e.first == c.start.Index {
			c.epochs = append(c.epochs, e)
		}
	}
	for _, e := range l.controls {
		if e.index > c.start.Index && e.index <= l.doneIndex {
			c.controls = append(c.controls, e)
		}
	}
	for k := before; k < len(l.segs) && l.segs[k].first <= l.doneIndex; k++ { // of the others the first record will name them
		cs, ok := l.cutSegment(k)
		if !ok {
			return false
		}
		c.segs = append(c.segs, cs)
	}
	return true
}

// takeGiven makes the state that the owner gave last that of the next cut, once all that it is derived from is durable. Called with mu.
func (l *Log) takeGiven() {
	if l.given != nil && l.given.Applied <= l.doneIndex && (l.blocked == 0 || l.s.o.off.cutWaits) {
		l.setState(l.given.State, l.given.mark)
		l.settled = l.given.Applied
		l.given = nil
		l.needs &^= cutState
	}
}

// cutSegment returns the durable part of segs[k]. Called with mu.
func (l *Log) cutSegment(k int) (cutSegment, bool) {
	sg := l.segs[k]
	end, last := l.durableEnd(k), min(l.lastOf(k), l.doneIndex)
	if l.s.o.off.cutUncommitted && last > l.commit() && l.commit()+1 >= sg.rowBase {
		last, end = l.commit(), l.committedEnd(k)
	}
	c := cutSegment{
		key: sg.key, sealed: sg.stage == segSealed, first: sg.first, end: end, w: min(sg.w, id.Position(disk.RoundDown(int64(end)))),
		indexed: sg.indexed, maxTime: sg.timeBefore, created: sg.created, appended: sg.appended,
	}
	if row := sg.row(sg.indexed - 1); row != nil {
		c.maxTime = row.MaxTimestamp
	}
	if sg.stage == segSealed {
		c.w = end
		return c, true
	}
	c.rows = append(c.rows, sg.rows[sg.indexed-sg.rowBase:last+1-sg.rowBase]...)
	pieces, ok := sg.tail.pieces(nil, int64(c.w), int64(end))
	for _, p := range pieces {
		c.tail = append(c.tail, p.bytes()...)
	}
	release(pieces, 0)
	return c, ok
}
