package wal

import (
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// scrubber reads what the logs have in files, slowly, so that rot is found while other replicas still have what it took: nobody reads most
// old records for months. It checks all committed entries whose bytes are below their segment's watermark against row and batch, and each
// row in an index.
//
// What it finds goes the way of every other read that went wrong: it is looked at twice, and asked about once more under the log's lock,
// since a segment may have been dropped meanwhile, before the log is condemned (condemn.go).
//
// It has files and a buffer of its own, so that it takes neither from the caches. It stands still while the store has to refuse or throttle
// producers, and while a round is late. It begins each pass with the logs in another order, and knows nothing of the passes of earlier
// starts: a store that is started often reads the same logs no more often than others.
type scrubber struct {
	s     *Store
	limit *rate.Limiter
	buf   []byte // aligned
	index []byte // aligned
	rows  []segment.Row
	left  int // segments of the pass that could not be checked

	bytes, passes, errors atomic.Uint64
	last                  atomic.Int64 // when the last whole pass ended, ms; 0: none has
}

const (
	scrubFirst    = time.Minute    // after the start
	scrubInterval = 24 * time.Hour // between the beginnings of two passes, at least
	scrubPause    = time.Second    // between two looks whether the disk is well
	scrubPiece    = 256 * kib      // of a read, but for larger batches
	scrubRows     = 1024           // of a read of an index
)

func (c *scrubber) init(s *Store) {
	c.s = s
	c.limit = rate.NewLimiter(rate.Limit(s.o.ScrubRate), scrubPiece)
	c.index = disk.AlignedBytes(scrubRows * segment.RowSize)
}

// run is a goroutine of the store.
func (c *scrubber) run() {
	for wait := c.s.o.scrubFirst; c.pause(wait); {
		begin := time.Now()
		if !c.pass() {
			return
		}
		wait = max(scrubInterval-time.Since(begin), scrubPause)
	}
}

// pause waits; false: the store ends.
func (c *scrubber) pause(d time.Duration) bool {
	if d <= 0 {
		return !c.s.ended()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.s.closing:
	case <-c.s.failure:
	}
	return false
}

// pass looks at all logs once, and counts if that was possible; false: the store ends.
func (c *scrubber) pass() bool {
	c.left = 0
	logs := c.s.Logs()
	rand.Shuffle(len(logs), func(i, j int) { logs[i], logs[j] = logs[j], logs[i] })
	for _, l := range logs {
		for from := id.Index(0); ; {
			v := l.segmentFrom(from)
			if v == nil {
				break
			}
			if !c.segment(v) {
				return false
			}
			from = v.sg.first + 1
		}
	}
	if c.left > 0 { // for want of file descriptors, for one thing: nobody may take it for a whole one
		c.s.o.Logger.Warn("the scrub could not check everything", "segments left", c.left)
		return true
	}
	c.passes.Add(1)
	c.last.Store(time.Now().UnixMilli())
	return true
}

// segmentFrom returns the first segment whose first entry is at or after i, or nil, also if the log is not worth a look any more.
func (l *Log) segmentFrom(i id.Index) *segView {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.life != alive || l.refused || l.Condemned() != 0 {
		return nil
	}
	for k, sg := range l.segs {
		if sg.first >= i {
			return l.view(k)
		}
	}
	return nil
}

// segment looks at the entries of a segment; false: the store ends.
func (c *scrubber) segment(v *segView) bool {
	for i := v.sg.first; ; {
		if !c.awaitTurn() {
			return false
		}
		n, err := c.piece(v, i)
		if err != nil && rotten(err) {
			n, err = c.piece(v, i)
		}
		switch {
		case c.s.ended():
			return false
		case err != nil && rotten(err):
			before := v.l.Condemned()
			_ = v.condemn(i, err) // unless it was dropped or deleted meanwhile
			if before != v.l.Condemned() {
				c.errors.Add(1)
			}
			return true
		case err != nil:
			c.s.o.Logger.Warn("a segment was not checked", "log", v.l.String(), "segment", v.sg.key, "error", shortage(err))
			c.left++
			return true
		case n == 0:
			return true
		}
		i += id.Index(n)
	}
}

// awaitTurn waits until the disk is well; false: the store ends.
func (c *scrubber) awaitTurn() bool {
	for c.s.Pressure() != PressureNone || c.s.Stalled() > 0 {
		if !c.pause(scrubPause) {
			return false
		}
	}
	return !c.s.ended()
}

// spend waits until n bytes may be read; an error: the store ends.
func (c *scrubber) spend(n int) error {
	c.bytes.Add(uint64(n))
	for n > 0 {
		k := min(n, scrubPiece)
		if !c.pause(c.limit.ReserveN(time.Now(), k).Delay()) {
			return ErrClosed
		}
		n -= k
	}
	return nil
}

// piece checks entries from index i on and returns how many; 0: none is committed and in the files.
func (c *scrubber) piece(v *segView, i id.Index) (n int, err error) {
	w, err := c.rowsFrom(v, i)
	if err != nil {
		return 0, err
	}
	for n < len(c.rows) && c.rows[n].End() <= w && (n == 0 || c.rows[n].End()-c.rows[0].Position <= scrubPiece) {
		n++
	}
	if n == 0 {
		return 0, nil
	}
	from, to := c.rows[0].Position, c.rows[n-1].End()
	start := disk.RoundDown(int64(from))
	if size := int(disk.RoundUp(int64(to)) - start); len(c.buf) < size {
		c.buf = disk.AlignedBytes(max(size, scrubPiece+2*disk.BlockSize))
	}
	b := c.buf[:disk.RoundUp(int64(to))-start]
	if to > from {
		have, err := c.read(v, v.sg.key.Log(), b, start)
		if err != nil {
			return 0, err
		}
		if int64(have) < int64(to)-start {
			return 0, fmt.Errorf("%w: segment %v of %v ends at %d instead of %d", ErrCorrupt, v.sg.key, v.l, start+int64(have), to)
		}
	}
	for k := range c.rows[:n] {
		row := &c.rows[k]
		if row.Length > 0 && !intact(row, b[int64(row.Position)-start:int64(row.End())-start]) {
			return 0, v.mismatch(row)
		}
	}
	if len(c.buf) > keepReadBuffer {
		c.buf = nil
	}
	return n, nil
}

// rowsFrom makes c.rows rows of committed entries from i on, from the index on the disk, even where memory has them, or else from memory. It
// returns the watermark of the segment.
func (c *scrubber) rowsFrom(v *segView, i id.Index) (w id.Position, err error) {
	l, sg := v.l, v.sg
	c.rows = c.rows[:0]
	l.mu.Lock()
	w = sg.w
	indexed, last := sg.indexed, min(v.last, l.commit())
	if i >= indexed {
		for ; i <= last && len(c.rows) < scrubRows; i++ {
			row := sg.row(i)
			if row == nil {
				break
			}
			c.rows = append(c.rows, *row)
		}
	}
	l.mu.Unlock()
	if i >= indexed || i > last {
		return w, nil
	}
	at := int64(i-sg.first) * segment.RowSize
	start := disk.RoundDown(at)
	have, err := c.read(v, sg.key.Index(), c.index, start)
	if err != nil {
		return w, err
	}
	for at -= start; i < indexed && i <= last && at < int64(len(c.index)); at, i = at+segment.RowSize, i+1 {
		if int64(have) < at+segment.RowSize {
			return w, fmt.Errorf("%w: the index of segment %v of %v ends before entry %d", ErrCorrupt, sg.key, l, i)
		}
		var row segment.Row
		if err := v.parseRow(&row, c.index[at:at+segment.RowSize], i); err != nil {
			return w, err
		}
		c.rows = append(c.rows, row)
	}
	return w, nil
}

// read reads a piece of a file of the segment, opened for this alone.
func (c *scrubber) read(v *segView, name string, b []byte, at int64) (n int, err error) {
	if err := c.spend(len(b)); err != nil {
		return 0, err
	}
	f, err := c.s.fs.OpenRead(path.Join(c.s.logsDir, v.l.dir, name))
	if err != nil {
		return 0, err
	}
	defer func() { _ = f.Close() }()
	if n, err = f.ReadAt(b, at); err == io.EOF {
		err = nil
	}
	return n, err
}
