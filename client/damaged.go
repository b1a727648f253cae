package client

import (
	"fmt"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// damage is a batch whose bytes have changed.
type damage struct {
	offset, next id.Offset // what it claims to hold
	bounded      bool      // what follows it confirms that
	err          error
}

func (d *damage) Error() string { return d.err.Error() }

// Unwrap returns the cause.
func (d *damage) Unwrap() error { return d.err }

// checkBatches makes sure that b is whole batches with good checksums which go on at offset want. It returns the offset after
// the last good one, and how many bytes those are; batches that end below want are no error.
func checkBatches(b []byte, want id.Offset) (next id.Offset, good int, err error) {
	next = want
	size := len(b)
	for first := true; len(b) > 0; {
		one, rest, err := batch.Next(b)
		if err != nil {
			return next, size - len(b), err
		}
		if err := batch.Check(one); err != nil {
			return next, size - len(b), damaged(one, rest, next, err)
		}
		b = rest
		if one.NextOffset() <= want && first {
			continue
		}
		if base := one.BaseOffset(); base > next || base < next && !first {
			return next, size - len(b) - len(one), fmt.Errorf("client: a batch of offsets %d to %d came where offset %d was due", base, one.LastOffset(), next)
		}
		next, first = one.NextOffset(), false
	}
	return next, size, nil
}

// damaged describes a batch in which offset due is. Its header may be what is damaged, and with a wrong end either records would be left out in
// silence or the same batch asked for for ever. It is believed if the number of records agrees, and the batch behind it, if there is one.
func damaged(one batch.Batch, rest []byte, due id.Offset, cause error) error {
	d := &damage{offset: due, next: one.NextOffset(), err: cause}
	d.bounded = one.BaseOffset() <= due && d.next > due && one.Count() == one.LastOffsetDelta()+1
	if len(rest) > 0 {
		behind, _, err := batch.Next(rest)
		d.bounded = d.bounded && err == nil && behind.BaseOffset() == d.next
	}
	return d
}
