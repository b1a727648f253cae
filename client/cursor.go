package client

import (
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/id"
)

// cursor is the place in one assigned partition. It is guarded by the consumer's mutex. Assigning a partition anew makes a new
// cursor: what is left of the old one is told from it by its address.
type cursor struct {
	tp   id.TopicPartition
	born time.Time // when it was assigned
	next id.Offset // of the next record to arrive; Beginning, End or AtTime: to be resolved
	time int64     // with AtTime: which

	assigned     id.Offset // Beginning, End or AtTime, if that was assigned and nothing has been delivered since
	resolving    bool      // a goroutine asks what Beginning or End is
	stream       *fetchStream
	subscription uint32
	epoch        id.Epoch  // of the leader that stream goes to
	topicID      id.Topic  // as subscribed
	heard        time.Time // last event

	allotment

	notBefore time.Time // no new subscription before, unless a newer leader is known
	delay     time.Duration
	firm      bool // not before for a newer leader either
	damaged   int  // answers in a row that could not be used

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
	goesOn       bool // with err: the partition stays assigned
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
	c.mu.held += int64(len(d.batches))
	poke(c.news)
}

// failLocked reports an error of a partition and stops it.
func (c *Consumer) failLocked(cur *cursor, err error) {
	c.leaveLocked(cur)
	cur.failed = true
	c.deliverLocked(&delivery{cursor: cur, err: err})
}

// finishLocked takes back what Poll had given out: there is room for more.
func (c *Consumer) finishLocked(d *delivery) {
	c.returnLocked(d)
	c.allotLocked()
}

// dropLocked ends an assignment.
func (c *Consumer) dropLocked(cur *cursor) {
	c.leaveLocked(cur)
	delete(c.mu.cursors, cur.tp)
	c.discardLocked(cur)
	c.allotLocked()
}

// leaveLocked ends a subscription, if there is one.
func (c *Consumer) leaveLocked(cur *cursor) {
	if s := cur.stream; s != nil {
		delete(s.subscriptions, cur.subscription)
		s.command(rpc.FetchCommand{Kind: rpc.Unsubscribe, Subscription: cur.subscription})
	}
	c.detachLocked(cur)
}

// subscribeLocked asks the leader for everything from the cursor on. The cursor was admitted.
func (c *Consumer) subscribeLocked(cur *cursor, s *fetchStream, l leader, now time.Time) {
	c.mu.subscriptions++
	cur.stream, cur.subscription, cur.epoch, cur.topicID, cur.heard = s, c.mu.subscriptions, l.epoch, l.topic, now
	cur.granted, cur.caughtUp = c.targetLocked(cur), false
	c.expectLocked(cur, false)
	s.subscriptions[cur.subscription] = cur
	s.command(rpc.FetchCommand{
		Kind: rpc.Subscribe, Subscription: cur.subscription, Topic: l.topic, Partition: cur.tp.Partition,
		Offset: cur.next, Credit: cur.granted,
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
