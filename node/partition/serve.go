package partition

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// ErrOutOfRange says that an offset is not part of the partition, any more or yet.
type ErrOutOfRange struct {
	Offset     id.Offset
	Start, End id.Offset // what the partition has: [Start, End)
}

// Error implements error.
func (e *ErrOutOfRange) Error() string {
	return fmt.Sprintf("offset %d is outside of the partition, which has [%d, %d)", e.Offset, e.Start, e.End)
}

// ErrTransactional refuses batches of transactions, of which no view would know that they are not committed.
var ErrTransactional = errors.New("transactions are not supported: produce without a transactional.id")

// Check says whether b may be proposed: everything about a batch that can be known without the log.
func (p *Partition) Check(b []byte, now time.Time) error {
	config := p.config.Load()
	if err := batch.CheckProduce(b, config.MaxMessageBytes); err != nil {
		return err
	}
	header := batch.Batch(b)
	if err := config.checkTimestamps(header, now.UnixMilli()); err != nil {
		return err
	}
	if header.Attributes().Transactional() {
		return ErrTransactional
	}
	return nil
}

// checkTimestamps looks at what a batch's header says of timestamps: at the largest one, for after.max.ms, and at that of the first record, for
// before.max.ms. Kafka looks at each record, for which it has to decompress them: one that is older than the first is found there, and not here.
// Nothing depends on it: what is too old is let go of the sooner. -1 is no timestamp.
func (c *Config) checkTimestamps(header batch.Batch, now int64) error {
	if largest := header.MaxTimestamp(); largest > 0 && largest-now > c.TimestampAfterMS {
		return &TimestampError{Timestamp: largest, Now: now, Limit: c.TimestampAfterMS}
	}
	// Without overflow: now is not negative, and so is the limit.
	if first := header.BaseTimestamp(); first != -1 && first < now-c.TimestampBeforeMS {
		return &TimestampError{Timestamp: first, Now: now, Limit: c.TimestampBeforeMS, First: true}
	}
	return nil
}

// TimestampError refuses a batch for a timestamp in it: a batch.ErrInvalidTimestamp.
type TimestampError struct {
	Timestamp  int64 // milliseconds since 1970, as Now, which is this node's clock
	Now, Limit int64
	First      bool // it is the first record's, and too old; else the largest one, which is too far in the future
}

// Error implements error.
func (e *TimestampError) Error() string {
	if e.First {
		return fmt.Sprintf("%v: %d is more than %d ms behind this node's clock (%d): timestamps are milliseconds since 1970; message.timestamp.before.max.ms of the topic is the limit",
			batch.ErrInvalidTimestamp, e.Timestamp, e.Limit, e.Now)
	}
	return fmt.Sprintf("%v: %d is more than %d ms ahead of this node's clock (%d): timestamps are milliseconds since 1970; message.timestamp.after.max.ms of the topic is the limit",
		batch.ErrInvalidTimestamp, e.Timestamp, e.Limit, e.Now)
}

// Oldest returns the oldest timestamp that is taken, if it is the first record's that is not.
func (e *TimestampError) Oldest() int64 {
	if !e.First {
		return 0
	}
	return e.Now - e.Limit
}

// Unwrap implements errors.Is.
func (e *TimestampError) Unwrap() error { return batch.ErrInvalidTimestamp }

// Read appends to dst batches below a limit from the one that holds offset from on, as many as maxBytes allow but at least one, and
// returns where the limit was. It appends nothing when from is at or above it.
func (p *Partition) Read(dst []byte, from id.Offset, limit ReadLimit, maxBytes int) ([]byte, id.Offset, error) {
	start, end := p.LogStart(), p.Limit(limit) // in this order: it is never below that start
	if from < start {
		return dst, end, &ErrOutOfRange{Offset: from, Start: start, End: end}
	}
	if from >= end {
		return dst, end, nil
	}
	if from < p.start.doubtful() {
		return dst, end, ErrUnsettled
	}
	out, err := p.log.Read(dst, from, end, maxBytes)
	if errors.Is(err, wal.ErrOutOfRange) || errors.Is(err, wal.ErrCompacted) { // the start has moved since
		return dst, end, &ErrOutOfRange{Offset: from, Start: p.LogStart(), End: p.Limit(limit)}
	}
	return out, end, err
}

// ConfirmedHighWatermark returns a high watermark that is at least every one that was shown before the call, by any leader; and so is the
// log start from then on. A new leader's may for a moment lie below what its predecessor has shown; answering "out of range" from it would
// send consumers back to where they began. So only a leader that has confirmed its term (ReadIndex) says so.
//
// It waits for nothing to be applied, which a halted replica never does: what the log had when the term began is committed by then.
func (p *Partition) ConfirmedHighWatermark(ctx context.Context) (id.Offset, error) {
	term, err := p.led()
	if err != nil {
		return 0, err
	}
	named := p.start.doubtful() // in a turn before the term was seen, and not again before it is over
	index, err := p.group.ReadIndex(ctx)
	if err != nil {
		return 0, err
	}
	switch now, err := p.led(); {
	case err != nil:
		return 0, err
	case now != term: // then another one has perhaps answered, and what was named may be gone
		return 0, &raftgroup.NotLeaderError{Leader: id.NoNode}
	}
	p.start.show(named)
	return max(p.log.OffsetAt(index+1), p.HighWatermark()), nil
}

// led returns the term in which this replica leads.
func (p *Partition) led() (id.Term, error) {
	leader, node, term := p.group.Leader()
	if leader != p.group.Replica() {
		return 0, &raftgroup.NotLeaderError{Leader: node}
	}
	return term, nil
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
