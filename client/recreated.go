package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// ErrTopicRecreated marks what belonged to a topic that was deleted, and whose name another one has now: the offset at which a consumer was, or a
// record on its way to a partition that the new topic does not have. It is an ErrUnknownTopic as well.
var ErrTopicRecreated = fmt.Errorf("%w: it was deleted, and another one was created under its name", ErrUnknownTopic)

// vacated is what a queue is closed with whose partition the new topic of the name does not have.
type vacated struct {
	settled chan struct{} // closed when the topic has its new queues
	err     error
}

func (v *vacated) Error() string { return v.err.Error() }

// Unwrap returns what a record fails with that cannot go elsewhere.
func (v *vacated) Unwrap() error { return v.err }

// chooseAgain is choose for a record that a queue did not take. Any other refusal than that the partition is gone is the end of it.
func (t *producerTopic) chooseAgain(ctx context.Context, p *Producer, r *Record, refusal error) (*queue, error) {
	var gone *vacated
	if !errors.As(refusal, &gone) {
		return nil, refusal
	}
	select {
	case <-gone.settled:
		return t.choose(p, r)
	case <-p.takes.Done():
		return nil, ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// recreated gives a topic that was created again with fewer partitions its queues. What waited for the partitions that are gone goes to the
// others, where the producer had chosen the partition; what had been told its partition fails, and so does what may have been written to the
// old topic already. Only the housekeeper calls it.
//
// The order: the queues that go are closed first, and Produce waits for the new ones, so that nothing overtakes what is moved.
func (p *Producer) recreated(t *producerTopic, meta *topicMeta) {
	queues := *t.queues.Load()
	kept, gone := queues[:len(meta.partitions):len(meta.partitions)], queues[len(meta.partitions):]
	settled := make(chan struct{})
	defer close(settled)
	p.moving.Lock()
	defer p.moving.Unlock()
	var moved []*pending
	for _, q := range gone {
		moved = append(moved, q.vacate(&vacated{settled, &PartitionError{
			TopicPartition: q.tp, Err: fmt.Errorf("%w %d: %w, with partitions 0 to %d", ErrUnknownPartition, q.tp.Partition, ErrTopicRecreated, len(kept)-1),
		}})...)
	}
	for _, b := range moved {
		t.move(p, b, kept)
	}
	p.client.opts.Logger.Info("the topic was created again with fewer partitions", "topic", t.name, "partitions", len(kept), "moved batches", len(moved))
	p.mu.Lock()
	defer p.mu.Unlock()
	t.id = meta.id
	t.queues.Store(&kept)
}

// vacate closes a queue and returns what goes elsewhere.
func (q *queue) vacate(why *vacated) (movable []*pending) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.err = why
	q.stream, q.listed = nil, false
	q.putBackLocked()
	if q.open != nil {
		q.waiting.pushBack(q.open)
		q.open = nil
	}
	all := q.waiting.take()
	for b := all.popFront(); b != nil; b = all.popFront() {
		switch {
		case b.done:
		case b.doubt:
			b.endLocked(id.NoOffset, q.unacknowledged(b))
		case b.pinned:
			b.endLocked(id.NoOffset, why.err)
		default:
			movable = append(movable, b)
			continue
		}
		q.ended.pushBack(b)
	}
	q.calledLocked()
	return movable
}

// move takes a batch apart: its records go to the queues of the partitions that they would be given now. It is no queue's any more, and nobody
// changes it; the sender may still be reading it.
func (t *producerTopic) move(p *Producer, b *pending, queues []*queue) {
	b.each(func(r batch.Record, done recordCallback) {
		at := id.Partition(int(t.sticky.Load()) % len(queues))
		if r.Key != nil {
			at = partitionOf(r.Key, len(queues))
		}
		queues[at].adopt(b, r, done)
	})
	for _, f := range b.flushes {
		f.finish()
	}
	b.release()
}

// each calls f for each record of the batch, with its callback, in order.
func (b *pending) each(f func(r batch.Record, done recordCallback)) {
	wire, err := b.builder.Finish(nil, batch.Plain(batch.None))
	if err != nil {
		panic(fmt.Sprintf("client: a batch that was built cannot be read: %v", err))
	}
	callbacks := b.callbacks
	records := wire.Records()
	for n := int32(0); records.Next(); n++ {
		var done recordCallback
		if len(callbacks) > 0 && callbacks[0].record == n {
			done, callbacks = callbacks[0], callbacks[1:]
		}
		f(records.Record(), done)
	}
	if err := records.Err(); err != nil {
		panic(fmt.Sprintf("client: a batch that was built cannot be read: %v", err))
	}
}

// adopt is add for a record of a batch that is taken apart. It waits from the time on at which that was made, and the same calls of Flush wait
// for it.
func (q *queue) adopt(from *pending, r batch.Record, done recordCallback) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.open != nil && q.open.builder.LenWith(r) > q.batchLimit() {
		q.closeOpenLocked()
	}
	if q.open == nil {
		q.open = newPending(from.created)
	}
	b := q.open
	b.append(r, chargeOf(&r), done)
	if from.created.Before(b.created) {
		b.created = from.created
	}
	b.inherit(from)
	b.due = true // it has lingered
	if q.err != nil {
		q.open = nil
		b.endLocked(id.NoOffset, q.err)
		q.ended.pushBack(b)
		q.calledLocked()
		return
	}
	q.signalLocked()
}

// inherit has the calls of Flush that wait for a batch wait for one that has records of it, too.
func (b *pending) inherit(from *pending) {
	for _, f := range from.flushes {
		f.once(b)
	}
}

// append adds a record that is alone responsible for charge bytes of the budget.
func (b *pending) append(r batch.Record, charge int64, done recordCallback) {
	if done.call != nil {
		done.record = int32(b.builder.Count())
		b.callbacks = append(b.callbacks, done)
	}
	b.builder.Append(r)
	b.charge += charge
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
