package client

import (
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// splitLocked takes a batch in flight apart that a node has refused for the timestamp of a record. Either the node looked at the largest one, and
// refuses what is beyond a limit that only it knows: so the records with that timestamp are those that fail for certain. Or it looked at that of the
// first record, and has said which is the oldest one that it takes. What comes before and behind these records goes again, each run as a batch of
// its own in the same place. Nothing of the batch was written, or will be.
//
// It ends: every refusal takes at least one record away. It ends soon also where all records are bad, as those of a program that takes microseconds
// for milliseconds: a part that is refused again is halved, and what is later still in the others is not sent any more.
func (q *queue) splitLocked(b *pending, oldest int64) {
	again := b.origin != 0
	if !again {
		b.origin = b.serial
	}
	q.late = lateness{origin: b.origin, from: b.builder.MaxTimestamp(), cause: b.cause}
	if first := b.builder.BaseTimestamp(); oldest != 0 && first < oldest && first != batch.NoTimestamp {
		q.late.tooOld, q.late.from = true, oldest
	}
	most := b.count()
	if again {
		most = (most + 1) / 2
	}
	q.flight.replace(b, q.cutLocked(b, most))
	q.draining = true
	q.restart = q.producer.idempotent()
}

// lateness is which records of what was one batch are refused.
type lateness struct {
	origin uint64 // its serial
	tooOld bool   // those before from; else those from there on
	from   int64
	cause  error
}

func (l *lateness) refuses(timestamp int64) bool {
	if l.tooOld {
		return timestamp < l.from && timestamp != batch.NoTimestamp
	}
	return timestamp >= l.from
}

// tooLateLocked tells whether a part of a batch that was split has records which are known by now to be refused.
func (q *queue) tooLateLocked(b *pending) bool {
	if b.origin == 0 || b.origin != q.late.origin || b.sequenced || b.doubt {
		return false
	}
	if q.late.tooOld {
		return q.late.refuses(b.builder.BaseTimestamp())
	}
	return q.late.refuses(b.builder.MaxTimestamp())
}

// cutLocked takes a batch apart, into the records that are refused, which have their outcome, and runs of at most so many of the others.
func (q *queue) cutLocked(b *pending, most int) (parts pendingList) {
	var part *pending
	b.each(func(r batch.Record, done recordCallback) {
		bad := q.late.refuses(r.Timestamp)
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
