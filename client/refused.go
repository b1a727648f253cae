package client

import (
	"fmt"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// RecordError says that a record was refused for what it is. The records that were sent with it are not concerned.
type RecordError struct {
	TopicPartition
	Timestamp int64  // of the record, Unix milliseconds
	Key       []byte // of the record
	Err       error  // the node's refusal
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("client: the record of %s with timestamp %d (%s) and key %s is refused: %v",
		e.TopicPartition, e.Timestamp, time.UnixMilli(e.Timestamp).UTC().Format(time.RFC3339), quoteKey(e.Key), e.Err)
}

// Unwrap returns the node's refusal.
func (e *RecordError) Unwrap() error { return e.Err }

// quoteKey is a key for people, cut short.
func quoteKey(key []byte) string {
	const most = 64
	switch {
	case key == nil:
		return "none"
	case len(key) > most:
		return fmt.Sprintf("%q...", key[:most])
	}
	return fmt.Sprintf("%q", key)
}

// splitLocked takes a batch in flight apart that a node has refused for the timestamp of a record. A node looks at the largest one only, and
// refuses what is beyond a limit that only it knows: so the records with that timestamp are those that fail for certain. What comes before and
// behind them goes again, each run as a batch of its own in the same place. Nothing of the batch was written, or will be.
//
// It ends: every refusal takes at least one record away. It ends soon also where all records are bad, as those of a program that takes microseconds
// for milliseconds: a part that is refused again is halved, and what is later still in the others is not sent any more.
func (q *queue) splitLocked(b *pending) {
	again := b.origin != 0
	if !again {
		b.origin = b.serial
	}
	q.late = lateness{origin: b.origin, from: b.builder.MaxTimestamp(), cause: b.cause}
	most := b.count()
	if again {
		most = (most + 1) / 2
	}
	q.flight.replace(b, q.cutLocked(b, most))
	q.draining = true
	q.restart = q.producer.idempotent()
}

// lateness is from which timestamp on the records of what was one batch are refused.
type lateness struct {
	origin uint64 // its serial
	from   int64
	cause  error
}

// tooLateLocked tells whether a part of a batch that was split has records which are known by now to be refused.
func (q *queue) tooLateLocked(b *pending) bool {
	return b.origin != 0 && b.origin == q.late.origin && !b.sequenced && !b.doubt && b.builder.MaxTimestamp() >= q.late.from
}

// cutLocked takes a batch apart, into the records that are too late, which have their outcome, and runs of at most so many of the others.
func (q *queue) cutLocked(b *pending, most int) (parts pendingList) {
	var part *pending
	b.each(func(r batch.Record, done recordCallback) {
		bad := r.Timestamp >= q.late.from
		if part == nil || part.done || bad || part.count() >= most {
			part = newPending(b.created)
			part.origin, part.pinned, part.due, part.cause = b.origin, b.pinned, true, q.late.cause
			part.inherit(b)
			parts.pushBack(part)
		}
		part.append(r, chargeOf(&r), done)
		if bad {
			key := append([]byte(nil), r.Key...)
			if r.Key == nil {
				key = nil
			}
			part.endLocked(id.NoOffset, &RecordError{TopicPartition: q.tp, Timestamp: r.Timestamp, Key: key, Err: q.late.cause})
		}
	})
	for _, f := range b.flushes {
		f.finish()
	}
	b.release()
	return parts
}

// splits tells of a refusal that concerns single records.
func splits(code kerr.Code) bool { return code == kerr.InvalidTimestamp }

// replace puts a list in the place of one of the elements.
func (l *pendingList) replace(old *pending, by pendingList) {
	all := l.take()
	for b := all.popFront(); b != nil; b = all.popFront() {
		if b != old {
			l.pushBack(b)
			continue
		}
		for n := by.popFront(); n != nil; n = by.popFront() {
			l.pushBack(n)
		}
	}
}
