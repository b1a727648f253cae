package wal

import (
	"errors"
	"sort"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// lookupBytes is how much is read at a time of a segment whose rows do not tell which of its batches has a time.
const lookupBytes = 256 * kib

// OffsetForTime returns offset and timestamp of the first record in [from, limit) whose timestamp is at least ts (milliseconds); false when
// there is none. Batches of which a part is below from are looked into, too.
//
// A row has the running maximum of its segment, so the first row that reaches ts is that of the first batch that does, in whatever order
// timestamps come. Not so where that batch lies below from: what follows reaches ts by the rows, whether or not it does itself. Then, and where
// a batch has no record as late as it claims, the rest of the segment is read.
//
// It decompresses batch.LookupLimit bytes at most, however many batches claim times that they do not have: see [batch.Batch.FirstAt] for what
// the answer is then.
//
// A segment that goes while it is looked into is passed over: its records are below the start by now.
func (l *Log) OffsetForTime(ts int64, from, limit id.Offset) (id.Offset, int64, bool, error) {
	budget := batch.LookupLimit
	for base := id.NoOffset; ; {
		v := l.segmentWithTime(base, ts, from, limit)
		if v == nil {
			return id.NoOffset, -1, false, nil
		}
		offset, at, ok, err := v.firstAt(ts, from, limit, &budget)
		if ok || err != nil && v.last >= l.FirstIndex() {
			return offset, at, ok, err
		}
		base = v.sg.key.Base
	}
}

// segmentWithTime returns the first segment after the one that begins at base which has a timestamp of at least ts and may have records
// in [from, limit); nil: there is none.
func (l *Log) segmentWithTime(base id.Offset, ts int64, from, limit id.Offset) *segView {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k, sg := range l.segs {
		below := k+1 < len(l.segs) && l.segs[k+1].key.Base <= from
		if sg.key.Base > base && sg.maxTime >= ts && !below && sg.key.Base < limit {
			return l.view(k)
		}
	}
	return nil
}

// firstAt is OffsetForTime for one segment.
func (v *segView) firstAt(ts int64, from, limit id.Offset, budget *int) (id.Offset, int64, bool, error) {
	var i id.Index
	err := v.look(func() (err error) {
		i, err = v.find(func(row *segment.Row) bool { return row.MaxTimestamp >= ts && row.NextOffset() > from })
		return err
	})
	if err != nil {
		return id.NoOffset, -1, false, err
	}
	// The first batch is read alone: nearly always it is the one.
	r := readers.Get().(*reader)
	defer r.done()
	for most := 0; i <= v.last; most = lookupBytes {
		r.rows = r.rows[:0]
		err := v.attempt(r, most, func(maxBytes int) (err error) {
			if err = v.rowsFrom(r, i, func(row *segment.Row, n int64) bool {
				return row.NextOffset() <= limit && (len(r.rows) == 0 || n <= int64(maxBytes))
			}); err == nil {
				r.data, err = v.bytes(r, r.data[:0])
			}
			return err
		})
		r.pieces = release(r.pieces, 0)
		if errors.Is(err, ErrUnavailable) || err == nil && len(r.rows) == 0 {
			break // truncated meanwhile, or at limit: nothing that is below it
		} else if err != nil {
			return id.NoOffset, -1, false, err
		}
		data := r.data
		for k := range r.rows {
			b := batch.Batch(data[:r.rows[k].Length])
			data = data[len(b):]
			if len(b) == 0 {
				continue // a control entry
			}
			if offset, at, ok := b.FirstAt(ts, from, budget); ok {
				return offset, at, true, nil
			}
		}
		i += id.Index(len(r.rows))
	}
	return id.NoOffset, -1, false, nil
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
