package wal

import (
	"time"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
)

const (
	flushPiece = 8 * mib // bytes of one flush write of one who has to be fast: a busy log would outrun smaller ones
	pacedPiece = mib     // and of a checkpoint that nobody waits for
	indexPiece = mib

	// restAfterFlush is how many times as long as a write of the checkpointer it rests after it, and longestRest the longest such rest:
	// rounds wait for the same disk, and a checkpoint at full speed is a stall of a tenth of a second for each of them.
	restAfterFlush = 3
	longestRest    = 20 * time.Millisecond
)

// flush writes what only the journal holds of a log into its segments, whole blocks of durable bytes, committed or not, and
// seals segments that are complete. It leaves off where rounds are at work: a log that is written directly has little left.
// patient waits for the preparer where a segment has no space yet; the preparer itself must not.
func (s *Store) flush(l *Log, patient bool) error {
	for {
		begin, piece := time.Now(), id.Position(flushPiece)
		paced := patient && !s.hurried()
		if paced {
			piece = pacedPiece
		}
		more, err := s.flushOnce(l, patient, piece)
		if err != nil || !more {
			return err
		}
		if paced {
			s.rest(min(restAfterFlush*time.Since(begin), longestRest))
		}
	}
}

// hurried tells whether somebody waits for a checkpoint: the start of the store, or producers that are held back or soon will be.
func (s *Store) hurried() bool {
	return s.checkpoints.starting || s.Pressure() != PressureNone || s.memory.held() > s.o.CacheBytes ||
		s.checkpoints.uncut.Load() > s.o.CheckpointBytes+s.o.CheckpointBytes/2
}

// rest waits, but not for a store that closes or failed.
func (s *Store) rest(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.closing:
	case <-s.failure:
	}
}

// flushOnce does one write, of up to piece bytes. It returns whether there may be more to do.
func (s *Store) flushOnce(l *Log, patient bool, piece id.Position) (more bool, err error) {
	l.mu.Lock()
	sg, to, seal := l.flushable(piece)
	if sg == nil || sg.preparing && !patient {
		l.mu.Unlock()
		return false, nil
	}
	// Taken now: a truncation may change the tail at any time, although its round waits until the write has returned.
	from, prepared := sg.w, sg.names == namesReady && int64(to) <= sg.allocated
	pieces, ok := sg.tail.pieces(nil, int64(from), int64(to))
	var rows []segment.Row
	if ok {
		l.begin(flushWork)
	}
	if ok && seal {
		rows = append(rows, sg.rows[sg.indexed-sg.rowBase:]...)
		sg.stage = segSealing
	}
	l.mu.Unlock()
	if !ok {
		return false, s.broken(l, "the tail does not hold what is above the watermark")
	}
	defer release(pieces, 0)
	defer func() {
		l.mu.Lock()
		if sg.stage == segSealing { // it failed
			sg.stage = segOpen
		}
		l.end(flushWork)
		l.mu.Unlock()
		s.commits.kick() // a truncation may have waited
	}()
	if !prepared {
		need := disk.RoundUp(int64(to))
		if seal { // one of nothing but control entries, too, is worth the ballast: while it is not sealed the start stays before it
			need = max(need, disk.BlockSize)
		}
		if err := s.prepareNow(l, sg, need); err != nil {
			return false, err
		}
	}
	if seal {
		return true, s.space.must(int64(len(rows))*segment.RowSize, func() error { return s.seal(l, sg, pieces, rows) })
	}
	if err := s.writePieces(l, sg, pieces, from); err != nil {
		return false, err
	}
	s.metrics.segmentBytes.Add(uint64(to - from))
	l.mu.Lock()
	sg.w = to
	l.mu.Unlock()
	return true, nil
}

func (s *Store) writePieces(l *Log, sg *seg, pieces []piece, at id.Position) error {
	o, err := s.files.acquire(l, sg)
	if err != nil {
		return err
	}
	defer s.files.release(o)
	bufs, bytes := make([][]byte, len(pieces)), int64(0)
	for i, p := range pieces {
		bufs[i] = p.bytes()
		bytes += int64(len(bufs[i]))
	}
	err = s.space.must(bytes, func() error { return o.log.WritevAt(bufs, int64(at)) })
	if err != nil || s.o.off.flushSync {
		return err
	}
	return o.log.Sync()
}

// flushable returns a segment with whole blocks to write, and up to where, at most piece bytes; or one to seal. Called with mu.
func (l *Log) flushable(piece id.Position) (sg *seg, to id.Position, seal bool) {
	if !l.writable() {
		return nil, 0, false
	}
	for k, sg := range l.segs {
		if sg.stage == segSealed {
			continue
		}
		to := min(id.Position(disk.RoundDown(int64(l.durableEnd(k)))), sg.w+piece)
		if to > sg.w {
			return sg, to, false
		}
		last := l.lastOf(k)
		if l.doing(indexWork) {
			continue // the checkpointer appends rows to an index: both would count the same rows
		}
		// Not before an entry of the next segment is durable: a recovered log never ends with a sealed segment.
		if k+1 < len(l.segs) && last < l.doneIndex && (last <= l.commit() || l.s.o.off.sealCommitted) {
			return sg, sg.end, true
		}
	}
	return nil, 0, false
}

// unflushed is how many durable bytes of the log only journal and cut hold, and how many rows are not indexed.
func (l *Log) unflushed() (bytes int64, rows int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sg := range l.segs {
		if sg.stage != segSealed {
			bytes += int64(sg.end - sg.w)
			rows += int(sg.rowBase) + len(sg.rows) - int(sg.indexed)
		}
	}
	return bytes, rows
}

// seal writes the last block and the last rows of a segment all of whose bytes are committed and cuts the files to their
// exact lengths. They are never written again once a cut says so. The caller is at its flushWork, so nobody else changes the
// segment, which has another one behind it.
func (s *Store) seal(l *Log, sg *seg, pieces []piece, rows []segment.Row) error {
	l.mu.Lock()
	w, end, indexed := sg.w, sg.end, sg.indexed
	l.mu.Unlock()
	o, err := s.files.acquire(l, sg)
	if err != nil {
		return err
	}
	defer s.files.release(o)
	if err := s.sealLog(o.log, pieces, w, end); err != nil {
		return err
	}
	if err := s.writeRows(o.index, l.owner(), rows, int64(indexed-sg.first)*segment.RowSize); err != nil {
		return err
	}
	if err := o.index.Truncate(int64(int(indexed-sg.first)+len(rows)) * segment.RowSize); err != nil {
		return err
	}
	if err := o.index.Sync(); err != nil {
		return err
	}
	l.mu.Lock()
	sg.w, sg.indexed, sg.stage = end, indexed+id.Index(len(rows)), segSealed
	l.forgetRows(sg)
	l.wantTrim() // what Trim said may have been ahead of the log
	l.mu.Unlock()
	l.markDirty()
	return nil
}

func (s *Store) sealLog(f disk.File, pieces []piece, w, end id.Position) error {
	if err := s.writeEnd(f, pieces, w, end); err != nil {
		return err
	}
	return f.Sync()
}

// writeEnd writes the bytes [w, end) of a segment, of which w is a multiple of 4 KiB, and cuts the file to end there.
func (s *Store) writeEnd(f disk.File, pieces []piece, w, end id.Position) error {
	if end > w {
		b := disk.AlignedBytes(int(disk.RoundUp(int64(end - w))))
		n := 0
		for _, p := range pieces {
			n += copy(b[n:], p.bytes())
		}
		if _, err := f.WriteAt(b, int64(w)); err != nil {
			return err
		}
		s.metrics.segmentBytes.Add(uint64(len(b)))
	}
	return f.Truncate(int64(end))
}

// writeRows writes rows at a block-aligned position of an index, the last block filled up with zeros.
func (s *Store) writeRows(f disk.File, owner segment.Owner, rows []segment.Row, at int64) error {
	for len(rows) > 0 {
		n := min(len(rows), indexPiece/segment.RowSize)
		b := disk.AlignedBytes(int(disk.RoundUp(int64(n) * segment.RowSize)))
		for i := range rows[:n] {
			rows[i].PutOwned(b[i*segment.RowSize:], owner)
		}
		if _, err := f.WriteAt(b, at); err != nil {
			return err
		}
		s.metrics.indexBytes.Add(uint64(len(b)))
		rows, at = rows[n:], at+int64(len(b))
	}
	return nil
}

// flushIndex writes the rows of committed, durable entries to the indexes, as far as they fill whole blocks. These are never truncated, so
// rounds and truncations may come up meanwhile. But while a truncation is in flight, doneIndex speaks of the log before it, and what is
// committed may be new entries that are not durable: a cut after that round would find rows indexed beyond its end.
func (s *Store) flushIndex(l *Log) error {
	for k := 0; ; k++ {
		l.mu.Lock()
		if k >= len(l.segs) || l.life != alive {
			l.mu.Unlock()
			return nil
		}
		sg := l.segs[k]
		last := min(l.lastOf(k), l.commit(), l.doneIndex)
		n := 0
		if sg.stage == segOpen && last >= sg.indexed && l.blocked == 0 {
			n = int(last+1-sg.indexed) / segment.RowsPerBlock * segment.RowsPerBlock
		}
		if n == 0 {
			l.mu.Unlock()
			continue
		}
		at := int(sg.indexed - sg.rowBase)
		rows := append([]segment.Row(nil), sg.rows[at:at+n]...)
		prepared := sg.names == namesReady
		l.begin(indexWork)
		l.mu.Unlock()
		var err error
		if !prepared { // control entries have rows only: nothing else might ever make the files
			err = s.prepareNow(l, sg, 0)
		}
		if err == nil {
			err = s.appendRows(l, sg, rows)
		}
		l.mu.Lock()
		if err == nil {
			sg.indexed += id.Index(n)
			l.forgetRows(sg)
		}
		l.end(indexWork)
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

func (s *Store) appendRows(l *Log, sg *seg, rows []segment.Row) error {
	o, err := s.files.acquire(l, sg)
	if err != nil {
		return err
	}
	defer s.files.release(o)
	err = s.space.must(int64(len(rows))*segment.RowSize, func() error {
		return s.writeRows(o.index, l.owner(), rows, int64(rows[0].Index-sg.first)*segment.RowSize)
	})
	if err != nil {
		return err
	}
	return o.index.Sync()
}
