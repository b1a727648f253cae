package partition

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// ErrOutOfRange says that an offset is not, and in this history of the log was never, part of the partition.
type ErrOutOfRange struct {
	Offset     id.Offset
	Start, End id.Offset // what the partition has: [Start, End)
}

// Error implements error.
func (e *ErrOutOfRange) Error() string {
	return fmt.Sprintf("offset %d is outside of the partition, which has [%d, %d)", e.Offset, e.Start, e.End)
}

// maxTimestampAhead is how far in the future a record may claim to be (message.timestamp.after.max.ms, KIP-937). Microseconds sent
// as milliseconds would otherwise keep a partition from ever expiring anything.
const maxTimestampAhead = time.Hour

// ErrTransactional refuses batches of transactions, of which no view would know that they are not committed.
var ErrTransactional = errors.New("transactions are not supported: produce without a transactional.id")

// Check says whether b may be proposed: everything about a batch that can be known without the log.
func (p *Partition) Check(b []byte, now time.Time) error {
	if err := batch.CheckProduce(b, p.config.Load().MaxMessageBytes); err != nil {
		return err
	}
	header := batch.Batch(b)
	if latest := now.Add(maxTimestampAhead).UnixMilli(); header.MaxTimestamp() > latest {
		return fmt.Errorf("%w: %d is more than %v ahead of this node's clock (%d): timestamps are milliseconds since 1970",
			batch.ErrInvalidTimestamp, header.MaxTimestamp(), maxTimestampAhead, now.UnixMilli())
	}
	if header.Attributes().Transactional() {
		return ErrTransactional
	}
	return nil
}

// Read appends to dst batches below a limit from the one that holds offset from on, as many as maxBytes allow but at least one, and
// returns where the limit was. It appends nothing when from is at or above it.
func (p *Partition) Read(dst []byte, from id.Offset, limit ReadLimit, maxBytes int) ([]byte, id.Offset, error) {
	end := p.Limit(limit)
	if from >= end {
		return dst, end, nil
	}
	out, err := p.log.Read(dst, from, end, maxBytes)
	if errors.Is(err, wal.ErrOutOfRange) {
		return dst, end, &ErrOutOfRange{Offset: from, Start: p.log.StartOffset(), End: end}
	}
	return out, end, err
}

// ConfirmedHighWatermark returns a high watermark that is at least every one that was shown before the call, by any leader. A new leader's
// high watermark may for a moment lie below what its predecessor has shown; answering "out of range" from it would send consumers back
// to where they began. So only a leader that has confirmed its term (ReadIndex) says so.
func (p *Partition) ConfirmedHighWatermark(ctx context.Context) (id.Offset, error) {
	index, err := p.group.ReadIndex(ctx)
	if err != nil {
		return 0, err
	}
	return max(p.log.OffsetAt(index+1), p.HighWatermark()), nil
}

// NextOffset returns the offset after the last record of the batches, which stand one behind the other.
func NextOffset(batches []byte) (id.Offset, error) {
	next := id.NoOffset
	for len(batches) > 0 {
		b, rest, err := batch.Next(batches)
		if err != nil {
			return id.NoOffset, fmt.Errorf("stored batches cannot be read: %w", err)
		}
		next, batches = b.NextOffset(), rest
	}
	return next, nil
}
