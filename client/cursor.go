package client

import (
	"fmt"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// cursor is the place in one assigned partition. It is guarded by the consumer's mutex. Assigning a partition anew makes a new
// cursor: what is left of the old one is told from it by its address.
type cursor struct {
	tp   id.TopicPartition
	next id.Offset // of the next record to arrive; Beginning, End or AtTime: to be resolved
	time int64     // with AtTime: which

	resolving    bool // a goroutine asks what Beginning or End is
	stream       *fetchStream
	subscription uint32
	epoch        id.Epoch  // of the leader that stream goes to
	topicID      id.Topic  // as subscribed
	heard        time.Time // last event

	credit int64 // given with the subscription
	owed   int64 // taken from it by what Poll has given back since

	notBefore time.Time // no new subscription before, unless a newer leader is known
	delay     time.Duration
	damaged   int // answers in a row that could not be used

	caughtUp bool // the last delivery said so
	failed   bool // an error is on its way to Poll
}

// delivery is what one event brought.
type delivery struct {
	cursor       *cursor
	subscription uint32
	batches      []byte // from the consumer's spare buffers
	from, next   id.Offset
	hw, start    id.Offset
	err          error
}

func (d *delivery) fetch() Fetch {
	return Fetch{
		TopicPartition: d.cursor.tp, HighWatermark: d.hw, LogStart: d.start, Next: d.next,
		CaughtUp: d.next >= d.hw, batches: d.batches, from: d.from,
	}
}

// deliverLocked puts something into the list of Poll.
func (c *Consumer) deliverLocked(d *delivery) {
	c.mu.deliveries = append(c.mu.deliveries, d)
	poke(c.news)
}

// failLocked reports an error of a partition and stops it.
func (c *Consumer) failLocked(cur *cursor, err error) {
	c.leaveLocked(cur)
	cur.failed = true
	c.deliverLocked(&delivery{cursor: cur, err: err})
}

// finishLocked takes back what Poll had given out, and lets the node send as much again.
func (c *Consumer) finishLocked(d *delivery) {
	n := int64(len(d.batches))
	c.spare.put(d.batches)
	d.batches = nil
	cur := d.cursor
	if cur.stream == nil || cur.subscription != d.subscription || n == 0 {
		return
	}
	if cur.owed += n; cur.owed >= cur.credit/4 {
		cur.stream.command(rpc.FetchCommand{Kind: rpc.Credit, Subscription: cur.subscription, Credit: cur.owed})
		cur.owed = 0
	}
}

// dropLocked ends an assignment.
func (c *Consumer) dropLocked(cur *cursor) {
	c.leaveLocked(cur)
	delete(c.mu.cursors, cur.tp)
}

// leaveLocked ends a subscription, if there is one.
func (c *Consumer) leaveLocked(cur *cursor) {
	if s := cur.stream; s != nil {
		delete(s.subscriptions, cur.subscription)
		s.command(rpc.FetchCommand{Kind: rpc.Unsubscribe, Subscription: cur.subscription})
		cur.stream = nil
	}
}

// minCredit is the least credit of a subscription, however many there are: less would cost more messages than it saves memory.
const minCredit = 256 << 10

// subscribeLocked asks the leader for everything from the cursor on.
func (c *Consumer) subscribeLocked(cur *cursor, s *fetchStream, l leader, now time.Time) {
	c.mu.subscriptions++
	cur.stream, cur.subscription, cur.epoch, cur.topicID, cur.heard = s, c.mu.subscriptions, l.epoch, l.topic, now
	cur.credit, cur.owed, cur.caughtUp = max(c.opts.MaxBytes/int64(len(c.mu.cursors)), minCredit), 0, false
	s.subscriptions[cur.subscription] = cur
	s.command(rpc.FetchCommand{
		Kind: rpc.Subscribe, Subscription: cur.subscription, Topic: l.topic, Partition: cur.tp.Partition,
		Offset: cur.next, Credit: cur.credit,
	})
}

// unsubscribedLocked handles the end of a subscription that the node ended, or whose answers are of no use.
func (c *Consumer) unsubscribedLocked(cur *cursor, pause time.Duration) {
	c.leaveLocked(cur)
	cur.notBefore = time.Now().Add(pause)
	poke(c.wake)
}

func (cur *cursor) nextDelay() time.Duration {
	cur.delay = min(max(2*cur.delay, retryDelay), retryDelayMax)
	return cur.delay
}

// checkBatches makes sure that b is whole batches with good checksums which go on at offset want. It returns the offset after
// the last; batches that end below want are no error.
func checkBatches(b []byte, want id.Offset) (next id.Offset, err error) {
	next = want
	for first := true; len(b) > 0; {
		var one batch.Batch
		if one, b, err = batch.Next(b); err != nil {
			return next, err
		}
		if err := batch.Check(one); err != nil {
			return next, err
		}
		if one.NextOffset() <= want && first {
			continue
		}
		if base := one.BaseOffset(); base > next || base < next && !first {
			return next, fmt.Errorf("client: a batch of offsets %d to %d came where offset %d was due", base, one.LastOffset(), next)
		}
		next, first = one.NextOffset(), false
	}
	return next, nil
}

// bufferPool keeps the buffers of fetches: a handful of sizes, as many as were in use at a time.
type bufferPool struct{ pool sync.Pool }

// copyOf returns a copy of b in a buffer of the pool.
func (p *bufferPool) copyOf(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	if old, ok := p.pool.Get().(*[]byte); ok {
		return append((*old)[:0], b...)
	}
	return append([]byte(nil), b...)
}

func (p *bufferPool) put(b []byte) {
	if cap(b) > 0 {
		p.pool.Put(&b)
	}
}
