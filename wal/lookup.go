package wal

import (
	"context"
	"errors"
	"sort"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// lookupBytes is how much is read at a time of a segment whose rows do not tell which of its batches has a time.
const lookupBytes = 256 * kib

// timeLookup is one OffsetForTime under way.
type timeLookup struct {
	ts          int64
	from, limit id.Offset
	unpack      int   // bytes that it may still decompress
	read        int64 // bytes that it may still read beside

	// Of the segment under way: its base, its largest timestamp, and that of the one before, -1 if there is none.
	base         id.Offset
	most, before int64
}

// OffsetForTime returns offset and timestamp of the first record in [from, limit) whose timestamp is at least ts (milliseconds); false when
// there is none. Batches of which a part is below from are looked into, too.
//
// A row has the running maximum of its segment, so the first row that reaches ts is that of the first batch that does, in whatever order
// timestamps come. Not so where that batch lies below from: what follows reaches ts by the rows, whether or not it does itself. Then, and where
// a batch has no record as late as it claims, the rest of the segment is read.
//
// What producers claim must not have one lookup read all that there is, or decompress it. Beyond Options.lookupLimit bytes of the one or
// batch.LookupLimit of the other it answers with where it got to, and the largest timestamp there: see [batch.Batch.FirstAt].
//
// A segment that goes while it is looked into is passed over: its records are below the start by now.
func (l *Log) OffsetForTime(ctx context.Context, ts int64, from, limit id.Offset) (id.Offset, int64, bool, error) {
	q := timeLookup{ts: ts, from: from, limit: limit, unpack: batch.LookupLimit, read: l.s.o.lookupLimit}
	for after := id.Index(0); from < limit; {
		v := l.segmentWithTime(after, &q)
		if v == nil {
			break
		}
		if q.read <= 0 {
			return max(q.base, from), q.most, true, nil
		}
		offset, at, ok, err := v.firstAt(ctx, &q)
		if ok || err != nil && v.last >= l.FirstIndex() {
			return offset, at, ok, err
		}
		after = v.sg.first
	}
	return id.NoOffset, -1, false, nil
}

// segmentWithTime returns the first segment whose first entry is above after, which has a timestamp of at least ts and may have records in
// [from, limit); nil: there is none.
func (l *Log) segmentWithTime(after id.Index, q *timeLookup) *segView {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, sg := range l.segs {
		below := k+1 < len(l.segs) && l.segs[k+1].key.Base <= q.from
		if sg.first > after && sg.maxTime >= q.ts && !below && sg.key.Base < q.limit {
			q.base, q.most, q.before = sg.key.Base, sg.maxTime, -1
			if k > 0 {
				q.before = l.segs[k-1].maxTime
			}
			return l.view(k)
		}
	}
	return nil
}

// timeProbes is how many blocks of an index are looked at where its times say, before it is halved.
const timeProbes = 4

// findTime returns the first entry whose row reaches ts, and whose records do not all lie below from; last+1 if there is none. Where times
// grow evenly, as they mostly do, a guess or two find its block of the index, while halving reads ten of a large segment. The guesses are
// few, so that it costs little more with whatever times producers send.
func (v *segView) findTime(q *timeLookup) (id.Index, error) {
	reaches := func(row *segment.Row) bool { return row.MaxTimestamp >= q.ts && row.NextOffset() > q.from }
	lo, hi, early, late := v.sg.first, v.last+1, q.before, q.most
	var row segment.Row
	for n := 0; n < timeProbes && hi-lo > segment.RowsPerBlock && 0 <= early && early < q.ts && q.ts <= late; n++ {
		guess := lo + id.Index(float64(hi-lo-1)*(float64(q.ts-early)/float64(late-early)))
		a := v.sg.first + (guess-v.sg.first)/segment.RowsPerBlock*segment.RowsPerBlock
		a, b := max(a, lo), min(a+segment.RowsPerBlock, hi)-1
		if err := v.row(a, &row); err != nil {
			return 0, err
		}
		if reaches(&row) {
			hi, late = a, row.MaxTimestamp
			continue
		}
		if err := v.row(b, &row); err != nil {
			return 0, err
		}
		if reaches(&row) {
			return v.findIn(a+1, b, reaches)
		}
		lo, early = b+1, row.MaxTimestamp
	}
	return v.findIn(lo, hi, reaches)
}

// firstAt is OffsetForTime for one segment.
func (v *segView) firstAt(ctx context.Context, q *timeLookup) (id.Offset, int64, bool, error) {
	var i id.Index
	err := v.look(func() (err error) {
		i, err = v.findTime(q)
		return err
	})
	if err != nil {
		return id.NoOffset, -1, false, err
	}
	q.read -= disk.BlockSize // of the index, at least
	// The first batch is read alone: nearly always it is the one.
	r := readers.Get().(*reader)
	defer r.done()
	for most := 0; i <= v.last; most = lookupBytes {
		if err := ctx.Err(); err != nil {
			return id.NoOffset, -1, false, err
		}
		err := v.batchesFrom(r, i, most, q.limit)
		if errors.Is(err, ErrUnavailable) || err == nil && len(r.rows) == 0 {
			break // truncated meanwhile, or at limit: nothing that is below it
		} else if err != nil {
			return id.NoOffset, -1, false, err
		}
		q.read -= int64(len(r.data) + segment.RowSize*len(r.rows))
		if offset, at, ok := r.firstAt(q); ok {
			return offset, at, true, nil
		}
		i += id.Index(len(r.rows))
		if row := &r.rows[len(r.rows)-1]; q.read <= 0 && i <= v.last && row.NextOffset() < q.limit {
			return max(row.NextOffset(), q.from), row.MaxTimestamp, true, nil
		}
	}
	return id.NoOffset, -1, false, nil
}

// batchesFrom has r read the batches from entry i on that end at or below limit, as many as maxBytes allow but at least one.
func (v *segView) batchesFrom(r *reader, i id.Index, maxBytes int, limit id.Offset) error {
	r.rows = r.rows[:0]
	err := v.attempt(r, maxBytes, func(maxBytes int) (err error) {
		if err = v.rowsFrom(r, i, func(row *segment.Row, n int64) bool {
			return row.NextOffset() <= limit && (len(r.rows) == 0 || n <= int64(maxBytes))
		}); err == nil {
			r.data, err = v.bytes(r, r.data[:0])
		}
		return err
	})
	r.pieces = release(r.pieces, 0)
	return err
}

// firstAt looks into the batches that were read.
func (r *reader) firstAt(q *timeLookup) (id.Offset, int64, bool) {
	data := r.data
	for k := range r.rows {
		b := batch.Batch(data[:r.rows[k].Length])
		data = data[len(b):]
		if len(b) == 0 {
			continue // a control entry
		}
		if offset, at, ok := b.FirstAt(q.ts, q.from, &q.unpack); ok {
			return offset, at, true
		}
	}
	return id.NoOffset, -1, false
}

// EpochEnd returns the largest leader epoch of the log that is not above epoch, and the offset after its last record: where the next one began,
// or the end of the log. Kafka's rules: false when the log has no epoch as high; an epoch below all of them, the start's included, is answered
// with itself and where the first of them began.
func (l *Log) EpochEnd(epoch id.Epoch) (id.Epoch, id.Offset, bool, error) {
	l.mu.Lock()
	n := len(l.epochs)
	k := sort.Search(n, func(k int) bool { return id.EpochOf(l.epochs[k].term) > epoch })
	if epoch < 0 || n == 0 || k == n && id.EpochOf(l.epochs[n-1].term) < epoch {
		l.mu.Unlock()
		return -1, id.NoOffset, false, nil
	}
	if k > 0 {
		epoch = id.EpochOf(l.epochs[k-1].term)
	}
	if k == n {
		end := l.NextOffset()
		l.mu.Unlock()
		return epoch, end, true, nil
	}
	next := l.epochs[k].first
	l.mu.Unlock()
	end, err := l.lookUpOffset(next)
	if err != nil {
		return -1, id.NoOffset, false, err
	}
	return epoch, end, true, nil
}
