package batch

import "github.com/quorumlog/quorumlog/wal/id"

// FirstAt returns offset and timestamp of the first record at or after offset from whose timestamp is at least ts (milliseconds); false when
// there is none. Of a batch whose records cannot be read (it is the producer who compressed them) nobody can say which one it is: it is
// answered for as a whole, with its first offset from from on and its largest timestamp, so that nothing is left out.
func (b Batch) FirstAt(ts int64, from id.Offset) (id.Offset, int64, bool) {
	if b.MaxTimestamp() < ts || b.NextOffset() <= from {
		return id.NoOffset, -1, false
	}
	r := b.Records()
	for r.Next() {
		if at := r.Record().Timestamp; at >= ts && r.Offset() >= from {
			return r.Offset(), at, true
		}
	}
	if r.Err() != nil {
		return max(b.BaseOffset(), from), b.MaxTimestamp(), true
	}
	return id.NoOffset, -1, false
}
