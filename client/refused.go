package client

import (
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// splitLocked takes a batch in flight apart that a node has refused for the timestamp of a record. A node looks at the largest one only, and
// refuses what is beyond a limit that only it knows: so the records with that timestamp are those that fail for certain. What comes before and
// behind them goes again, each run as a batch of its own in the same place. Nothing of the batch was written, or will be.
//
// It ends: every refusal takes at least one record away.
func (q *queue) splitLocked(b *pending) {
	latest := b.builder.MaxTimestamp()
	var parts pendingList
	var part *pending
	b.each(func(r batch.Record, done recordCallback) {
		bad := r.Timestamp == latest
		if part == nil || part.done || bad {
			part = newPending(b.created)
			part.pinned, part.due = b.pinned, true
			part.inherit(b)
			parts.pushBack(part)
		}
		part.append(r, chargeOf(&r), done)
		if bad {
			key := append([]byte(nil), r.Key...)
			if r.Key == nil {
				key = nil
			}
			part.endLocked(id.NoOffset, &RecordError{TopicPartition: q.tp, Timestamp: r.Timestamp, Key: key, Err: b.cause})
		}
	})
	q.flight.replace(b, parts)
	for _, f := range b.flushes {
		f.finish()
	}
	b.release()
	q.draining = true
	q.restart = q.producer.idempotent()
}

// splits tells of a refusal that concerns single records.
func splits(code kerr.Code) bool { return code == kerr.InvalidTimestamp }
