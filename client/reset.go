package client

import (
	"fmt"
	"time"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/id"
)

// maxDamaged is how many unusable answers in a row it takes before Poll reports them.
const maxDamaged = 5

// outOfRangeLocked handles an offset that the log does not have, as the policy says.
func (c *Consumer) outOfRangeLocked(cur *cursor, e rpc.FetchEvent) {
	wanted := cur.next
	switch c.opts.OnOutOfRange {
	case ResetEarliest:
		cur.next = e.LogStart
	case ResetLatest:
		cur.next = e.HighWatermark
	default:
		c.failLocked(cur, &OutOfRangeError{TopicPartition: cur.tp, Offset: wanted, Start: e.LogStart, End: e.HighWatermark})
		return
	}
	c.client.opts.Logger.Info("offset out of range, reset", "partition", cur.tp.String(), "offset", wanted, "to", cur.next)
	c.unsubscribedLocked(cur, cur.nextDelay())
}

// recreatedLocked handles a topic that was deleted and created again: the offset is one of a log that is gone. It may exist in the new one as
// well, and everything below it would be left out without a word. As long as Poll has returned nothing, Beginning and End are those of the
// new topic.
func (c *Consumer) recreatedLocked(cur *cursor) {
	old := cur.next
	switch {
	case cur.assigned < 0:
		cur.next = cur.assigned
	case c.opts.OnOutOfRange == ResetEarliest:
		cur.next = Beginning
	case c.opts.OnOutOfRange == ResetLatest:
		cur.next = End
	default:
		c.failLocked(cur, &PartitionError{cur.tp, fmt.Errorf("%w: offset %d of %q is not one of the new topic's: assign it again, from where it is to be read", ErrTopicRecreated, old, cur.tp.Topic)})
		return
	}
	cur.topicID, cur.caughtUp, cur.notBefore = id.Topic{}, false, time.Time{}
	c.client.opts.Logger.Info("the topic was deleted and created again, reset", "partition", cur.tp.String(), "offset", old, "policy", c.opts.OnOutOfRange)
}

// damagedLocked handles an answer with a bad checksum or a gap: asked again, it may come out right. If it does not, the batch is reported and
// left out; where its end is not certain, the partition is.
func (c *Consumer) damagedLocked(cur *cursor, hw id.Offset, err error) {
	c.client.opts.Logger.Warn("an answer cannot be used", "partition", cur.tp.String(), "error", err)
	if cur.damaged++; cur.damaged < maxDamaged {
		c.unsubscribedLocked(cur, cur.nextDelay())
		return
	}
	d, ok := err.(*damage) //nolint:errorlint // nobody wraps it
	if !ok || !d.bounded || d.next > hw {
		c.failLocked(cur, &PartitionError{cur.tp, err})
		return
	}
	c.leaveLocked(cur)
	c.deliverLocked(&delivery{cursor: cur, goesOn: true, from: d.offset, err: &BatchError{cur.tp, d.offset, d.next, d.err}})
	cur.next, cur.damaged, cur.assigned, cur.caughtUp = d.next, 0, 0, false
	poke(c.wake)
}
