package wal

import (
	"fmt"
	"io"
	"sort"
	"sync"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// reader is the scratch memory of one read.
type reader struct {
	pieces []piece
	rows   []segment.Row
	buf    []byte // aligned
	data   []byte // of who keeps nothing of it
}

var readers = sync.Pool{New: func() any { return new(reader) }}

const keepReadBuffer = 4 * mib

func (r *reader) done() {
	r.pieces = release(r.pieces, 0)
	if len(r.buf) > keepReadBuffer {
		r.buf = nil
	}
	if cap(r.data) > keepReadBuffer {
		r.data = nil
	}
	r.rows = r.rows[:0]
	readers.Put(r)
}

// aligned returns n bytes of the buffer.
func (r *reader) aligned(n int64) []byte {
	if int64(len(r.buf)) < n {
		r.buf = disk.AlignedBytes(int(n))
	}
	return r.buf[:n]
}

// Entries appends the entries [lo, hi) to dst, as many as maxBytes of data allow but at least one, from memory only; false
// when the first is not in memory, or not in the log. Owner. Data aliases the tail: it stays as it is until Release.
func (l *Log) Entries(dst []Entry, lo, hi id.Index, maxBytes int) ([]Entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	hi = min(hi, l.LastIndex()+1)
	if lo >= hi || lo <= l.start.Index {
		return dst, false
	}
	n := len(dst)
	k := l.segOf(lo)
	for i := lo; i < hi; i++ {
		for k+1 < len(l.segs) && l.segs[k+1].first <= i {
			k++
		}
		row := l.segs[k].row(i)
		if row == nil {
			break
		}
		if maxBytes -= int(row.Length); maxBytes < 0 && len(dst) > n {
			break
		}
		e := Entry{Index: i, Term: row.Term, Kind: EntryKind(row.Kind)}
		if e.Kind != KindBatch {
			e.Data = l.controlData(i)
		} else if p, ok := l.segs[k].tail.get(int64(row.Position), int(row.Length)); ok {
			e.Data = p.bytes()
			l.lend(p.c)
		} else {
			break
		}
		dst = append(dst, e)
	}
	return dst, len(dst) > n
}

// lend keeps a chunk until Release. Called with mu.
func (l *Log) lend(c *chunk) {
	if n := len(l.lent); n == 0 || l.lent[n-1] != c {
		c.retain()
		l.lent = append(l.lent, c)
	}
}

// Release ends the life of the Data of all earlier Entries. The owner calls it when it is done with them, once a turn.
func (l *Log) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, c := range l.lent {
		c.release()
		l.lent[i] = nil
	}
	l.lent = l.lent[:0]
}

// ReadEntries returns the entries [lo, hi), as many as maxBytes of data allow but at least one, in fresh memory. It may read
// the disk. ErrCompacted and ErrUnavailable say that lo is before or after what the log has.
func (l *Log) ReadEntries(lo, hi id.Index, maxBytes int) ([]Entry, error) {
	var entries []Entry
	for {
		part, err := l.readEntries(lo, hi, maxBytes)
		if err != nil {
			return nil, err
		}
		entries = append(entries, part...)
		for _, e := range part {
			maxBytes -= len(e.Data)
		}
		if lo += id.Index(len(part)); len(part) == 0 || lo >= hi || maxBytes <= 0 || lo > l.LastIndex() {
			return entries, nil
		}
	}
}

// readEntries reads from one segment.
func (l *Log) readEntries(lo, hi id.Index, maxBytes int) ([]Entry, error) {
	r := readers.Get().(*reader)
	defer r.done()
	l.mu.Lock()
	hi = min(hi, l.LastIndex()+1)
	if lo <= l.start.Index || lo >= hi {
		first, last := l.start.Index+1, l.LastIndex()
		l.mu.Unlock()
		if lo < first {
			return nil, fmt.Errorf("%w: entry %d of %v, which has [%d, %d]", ErrCompacted, lo, l, first, last)
		}
		return nil, fmt.Errorf("%w: entry %d of %v, which has [%d, %d]", ErrUnavailable, lo, l, first, last)
	}
	k := l.segOf(lo)
	v := l.view(k)
	l.mu.Unlock()
	hi = min(hi, v.last+1)
	var entries []Entry
	err := v.attempt(r, maxBytes, func(maxBytes int) (err error) {
		if err = v.rowsFrom(r, lo, func(row *segment.Row, n int64) bool {
			return row.Index < hi && (len(r.rows) == 0 || n <= int64(maxBytes))
		}); err == nil {
			entries, err = v.entries(r)
		}
		return err
	})
	if err != nil && lo < l.FirstIndex() { // likewise
		err = fmt.Errorf("%w: entry %d of %v, which begins with %d", ErrCompacted, lo, l, l.FirstIndex())
	}
	return entries, err
}

// entries returns the entries of r.rows with their data in fresh memory.
func (v *segView) entries(r *reader) ([]Entry, error) {
	if len(r.rows) == 0 {
		return nil, nil
	}
	data, err := v.bytes(r, nil)
	if err != nil {
		return nil, err
	}
	l := v.l
	entries := make([]Entry, len(r.rows))
	l.mu.Lock()
	defer l.mu.Unlock()
	if first := r.rows[0].Index; first <= l.start.Index { // the payloads of control entries went with the start
		return nil, fmt.Errorf("%w: entry %d of %v, which begins with %d", ErrCompacted, first, l, l.start.Index+1)
	}
	for i := range r.rows {
		row := &r.rows[i]
		entries[i] = Entry{Index: row.Index, Term: row.Term, Kind: EntryKind(row.Kind)}
		if row.Length > 0 {
			entries[i].Data, data = data[:row.Length:row.Length], data[row.Length:]
		} else {
			entries[i].Data = clone(l.controlData(row.Index))
		}
	}
	return entries, nil
}

// Read appends to dst whole batches as they are stored, beginning with the one that holds offset from, all of them below
// limit (exclusive, normally the high watermark), as many as maxBytes allow but at least one. It appends nothing when from
// is at or above limit. ErrOffsetOutOfRange when from is outside [StartOffset, NextOffset].
func (l *Log) Read(dst []byte, from, limit id.Offset, maxBytes int) ([]byte, error) {
	l.mu.Lock()
	if start, next := l.StartOffset(), l.NextOffset(); from < start || from > next {
		l.mu.Unlock()
		return dst, ErrOffsetOutOfRange{Offset: from, Start: start, End: next}
	}
	if from >= limit {
		l.mu.Unlock()
		return dst, nil
	}
	k := sort.Search(len(l.segs), func(k int) bool { return l.segs[k].key.Base > from }) - 1
	if k < 0 || l.life != alive {
		l.mu.Unlock()
		return dst, nil
	}
	r := readers.Get().(*reader)
	defer r.done()
	sg := l.segs[k]
	if pos, end, ok := sg.inTail(from, limit, maxBytes); ok {
		r.pieces, ok = sg.tail.pieces(r.pieces, int64(pos), int64(end))
		l.mu.Unlock()
		if !ok {
			return dst, l.s.broken(l, "a batch of the tail is not in it")
		}
		for _, p := range r.pieces {
			dst = append(dst, p.bytes()...)
		}
		return dst, nil
	}
	v := l.view(k)
	l.mu.Unlock()
	err := v.attempt(r, maxBytes, func(maxBytes int) (err error) {
		dst, err = v.read(r, dst, from, limit, maxBytes)
		return err
	})
	if err != nil && from < l.StartOffset() { // the start moved over it meanwhile
		err = ErrOffsetOutOfRange{Offset: from, Start: l.StartOffset(), End: l.NextOffset()}
	}
	return dst, err
}

// read is Read of what is not in the tail.
func (v *segView) read(r *reader, dst []byte, from, limit id.Offset, maxBytes int) ([]byte, error) {
	index, err := v.find(func(row *segment.Row) bool { return row.NextOffset() > from })
	if err != nil {
		return dst, err
	}
	err = v.rowsFrom(r, index, func(row *segment.Row, n int64) bool {
		return row.Length > 0 && row.NextOffset() <= limit && (len(r.rows) == 0 || n <= int64(maxBytes)) || row.Length == 0
	})
	if err != nil {
		return dst, err
	}
	return v.bytes(r, dst)
}

// inTail returns the range of the batches from offset from on that are in the tail as a whole. Called with mu.
func (sg *seg) inTail(from, limit id.Offset, maxBytes int) (pos, end id.Position, ok bool) {
	i := sort.Search(len(sg.rows), func(i int) bool { return sg.rows[i].NextOffset() > from })
	if i == len(sg.rows) || i == 0 && sg.rows[0].Offset > from {
		return 0, 0, false
	}
	first := &sg.rows[i]
	if _, ok := sg.tail.get(int64(first.Position), int(first.Length)); !ok || first.NextOffset() > limit {
		return first.Position, first.Position, ok && first.NextOffset() > limit
	}
	// The last row whose batch still fits, by binary search: a tail may have many small batches.
	n := sort.Search(len(sg.rows)-i-1, func(n int) bool {
		row := &sg.rows[i+1+n]
		return row.NextOffset() > limit || int64(row.End()-first.Position) > int64(maxBytes)
	})
	return first.Position, sg.rows[i+n].End(), true
}

// segView is what a reader needs to know of a segment without holding its log's lock. What it says of the bytes below the
// watermark and the rows on disk stays true: they are committed, or read again by whoever truncates.
type segView struct {
	l    *Log
	sg   *seg
	last id.Index
}

// view describes segs[k]. Called with mu.
func (l *Log) view(k int) *segView {
	return &segView{l: l, sg: l.segs[k], last: l.lastOf(k)}
}

// row returns the row of an entry, from memory or from the index.
func (v *segView) row(i id.Index, row *segment.Row) error {
	v.l.mu.Lock()
	if p := v.sg.row(i); p != nil {
		*row = *p
		v.l.mu.Unlock()
		return nil
	}
	// Asked here and now: a checkpoint may have indexed the row, and the evictor dropped it, since the view was made.
	indexed := v.sg.indexed
	v.l.mu.Unlock()
	if i >= indexed {
		return fmt.Errorf("%w: entry %d of %v was truncated meanwhile", ErrUnavailable, i, v.l)
	}
	n := int64(i - v.sg.first)
	b, err := v.l.s.rowBlock(v.l, v.sg, n/segment.RowsPerBlock)
	if err != nil {
		return err
	}
	at := n % segment.RowsPerBlock * segment.RowSize
	if int64(len(b)) < at+segment.RowSize {
		return fmt.Errorf("%w: the index of segment %v of %v ends before entry %d", ErrCorrupt, v.sg.key, v.l, i)
	}
	return v.parseRow(row, b[at:at+segment.RowSize], i)
}

// parseRow takes the row of entry i from the index. One of another log is as bad as one that rotted: files were exchanged.
func (v *segView) parseRow(row *segment.Row, b []byte, i id.Index) error {
	if err := row.Parse(b); err != nil {
		return fmt.Errorf("%w: row of entry %d in segment %v of %v: %w", ErrCorrupt, i, v.sg.key, v.l, err)
	}
	if row.Index != i || segment.StoredOwner(b) != v.l.owner() {
		return fmt.Errorf("%w: row of entry %d in segment %v of %v is of entry %d or of another log: were files exchanged?",
			ErrCorrupt, i, v.sg.key, v.l, row.Index)
	}
	return nil
}

// find returns the first entry whose row satisfies what once true stays true; last+1 if there is none.
func (v *segView) find(ok func(*segment.Row) bool) (id.Index, error) {
	return v.findIn(v.sg.first, v.last+1, ok)
}

// findIn is find where the answer is in [lo, hi].
func (v *segView) findIn(lo, hi id.Index, ok func(*segment.Row) bool) (id.Index, error) {
	var row segment.Row
	for lo < hi {
		mid := lo + (hi-lo)/2
		if err := v.row(mid, &row); err != nil {
			return 0, err
		}
		if ok(&row) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo, nil
}

// rowsFrom collects rows in r.rows from entry i on while take says so; n is the number of bytes up to the row's end.
func (v *segView) rowsFrom(r *reader, i id.Index, take func(row *segment.Row, n int64) bool) error {
	n := int64(0)
	for ; i <= v.last; i++ {
		var row segment.Row
		if err := v.row(i, &row); err != nil {
			if len(r.rows) > 0 {
				return nil // truncated meanwhile: what was found so far is good
			}
			return err
		}
		n += int64(row.Length)
		if !take(&row, n) {
			return nil
		}
		r.rows = append(r.rows, row)
	}
	return nil
}

// bytes appends the bytes of r.rows, which are consecutive, to dst and checks them: from the tail, and what is before it
// from the file.
func (v *segView) bytes(r *reader, dst []byte) ([]byte, error) {
	if len(r.rows) == 0 {
		return dst, nil
	}
	from, to := r.rows[0].Position, r.rows[len(r.rows)-1].End()
	v.l.mu.Lock()
	// The tail, which begins at or below the watermark, not the watermark itself: the latter comes down only when the round of
	// a truncation is complete.
	w := max(min(id.Position(v.sg.tail.start(int64(v.sg.end))), to), from)
	var ok bool
	r.pieces, ok = v.sg.tail.pieces(r.pieces, int64(w), int64(to))
	v.l.mu.Unlock()
	if !ok {
		return dst, fmt.Errorf("%w: entry %d of %v was truncated meanwhile", ErrUnavailable, r.rows[0].Index, v.l)
	}
	n := len(dst)
	if w > from {
		b, err := v.fileBytes(r, from, w)
		if err != nil {
			return dst, err
		}
		dst = append(dst, b...)
	}
	for _, p := range r.pieces {
		dst = append(dst, p.bytes()...)
	}
	at := n
	for i := range r.rows {
		row := &r.rows[i]
		if row.Position >= w {
			break // the tail has not been anywhere but in memory
		}
		if row.Length > 0 && !intact(row, dst[at:at+int(row.Length)]) {
			return dst[:n], v.mismatch(row)
		}
		at += int(row.Length)
	}
	return dst, nil
}

// mismatch says that the bytes of a row are not what was written.
func (v *segView) mismatch(row *segment.Row) error {
	return fmt.Errorf("%w: entry %d, offsets %d to %d, at position %d of segment %v of %v does not match its checksum", ErrCorrupt, row.Index,
		row.Offset, row.NextOffset()-1, row.Position, v.sg.key, v.l)
}

// fileBytes reads [from, to) of the .log into r's buffer.
func (v *segView) fileBytes(r *reader, from, to id.Position) ([]byte, error) {
	s := v.l.s
	o, err := s.files.acquire(v.l, v.sg)
	if err != nil {
		return nil, err
	}
	defer s.files.release(o)
	start := disk.RoundDown(int64(from))
	b := r.aligned(disk.RoundUp(int64(to)) - start)
	n, err := o.log.ReadAt(b, start)
	s.metrics.readDisk.Add(uint64(n))
	if int64(n) < int64(to)-start {
		if err == nil || err == io.EOF {
			err = fmt.Errorf("%w: segment %v of %v ends at %d instead of %d", ErrCorrupt, v.sg.key, v.l, start+int64(n), to)
		}
		return nil, err
	}
	return b[int64(from)-start : int64(to)-start], nil
}

// OffsetAt returns the offset of the first record at or after entry i, so that the high watermark is OffsetAt(commit+1). It
// needs no I/O for entries after the committed ones.
func (l *Log) OffsetAt(i id.Index) id.Offset {
	offset, err := l.lookUpOffset(i)
	if err != nil {
		l.s.o.Logger.Error("reading an index failed", "log", l.String(), "error", err)
	}
	return offset
}

// lookUpOffset is OffsetAt. With an error the offset is that of the segment.
func (l *Log) lookUpOffset(i id.Index) (id.Offset, error) {
	l.mu.Lock()
	if i <= l.start.Index+1 {
		defer l.mu.Unlock()
		return l.start.Offset, nil
	}
	if k := l.segOf(i); i <= l.LastIndex() && l.segs[k].row(i) == nil {
		v := l.view(k)
		l.mu.Unlock()
		var row segment.Row
		if err := v.look(func() error { return v.row(i, &row) }); err != nil && i < l.FirstIndex() {
			return l.lookUpOffset(i) // the start moved over it meanwhile
		} else if err != nil {
			return v.sg.key.Base, err
		}
		return row.Offset, nil
	}
	defer l.mu.Unlock()
	return l.offsetAt(i), nil
}

// offsetAt is OffsetAt for entries whose row is in memory and those after the last. Called with mu.
func (l *Log) offsetAt(i id.Index) id.Offset {
	offset, ok := l.offsetInMemory(i)
	if !ok {
		panic(fmt.Sprintf("wal: %v: the row of entry %d is not in memory", l, i))
	}
	return offset
}

func (l *Log) offsetInMemory(i id.Index) (id.Offset, bool) {
	if i > l.LastIndex() {
		return l.NextOffset(), true
	}
	if i <= l.start.Index {
		return l.start.Offset, true
	}
	if row := l.segs[l.segOf(i)].row(i); row != nil {
		return row.Offset, true
	}
	return id.NoOffset, false
}
