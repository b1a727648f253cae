package client

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/wal/batch"
)

// Consumer reads assigned partitions. Within one consumer no record comes twice and none is left out. It belongs to one
// goroutine; Close may be called from any.
type Consumer struct {
	client *Client
	opts   ConsumerOptions

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{} // capacity 1: the housekeeper has something to do
	news   chan struct{} // capacity 1: Poll has
	// patience is Poll's: when it looks next whether anybody is there. nil: it has not waited yet.
	patience *time.Timer
	spare    bufferPool

	mu struct {
		sync.Mutex
		cursors       map[TopicPartition]*cursor
		streams       map[NodeID]*fetchStream
		backoff       map[NodeID]nodeBackoff
		deliveries    []*delivery // in the order of their arrival
		handedOut     *delivery   // by the last Poll
		held          int64       // bytes of those
		reserved      int64       // bytes that may be on their way
		thirsty       []*cursor   // wait for room, the longest first; each has queued set
		subscriptions uint32      // given out so far
		asked         time.Time   // for metadata, because of silence
	}
}

// NewConsumer returns a consumer without partitions.
func (c *Client) NewConsumer(o ConsumerOptions) (*Consumer, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	k := &Consumer{client: c, opts: o.withDefaults(), wake: make(chan struct{}, 1), news: make(chan struct{}, 1)}
	k.ctx, k.cancel = context.WithCancel(c.ctx)
	k.mu.cursors = make(map[TopicPartition]*cursor)
	k.mu.streams = make(map[NodeID]*fetchStream)
	k.mu.backoff = make(map[NodeID]nodeBackoff)
	k.wg.Go(k.keepHouse)
	if !c.opened(k) {
		_ = k.Close()
		return nil, ErrClosed
	}
	return k, nil
}

// Assign adds a partition, to be read from offset, Beginning or End on; if it is assigned already, it moves there. It does
// not wait: a partition that does not exist shows in Poll.
func (c *Consumer) Assign(tp TopicPartition, offset Offset) error {
	if offset < Beginning {
		return fmt.Errorf("client: offset %d of %s: use an offset, Beginning or End", offset, tp)
	}
	return c.assign(&cursor{tp: tp, next: offset})
}

// AssignAtTime is Assign from the first record on whose timestamp is t or later, to the millisecond; from End on, if there is none. Older
// records may be among those that follow: timestamps are the producers' to set.
func (c *Consumer) AssignAtTime(tp TopicPartition, t time.Time) error {
	return c.assign(&cursor{tp: tp, next: AtTime, time: millis(t)})
}

func (c *Consumer) assign(cur *cursor) error {
	tp := cur.tp
	if c.ctx.Err() != nil {
		return ErrClosed
	}
	if tp.Partition < 0 {
		return fmt.Errorf("%w %s", ErrUnknownPartition, tp)
	}
	c.client.cache.want(tp.Topic)
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.mu.cursors[tp]; old != nil {
		c.dropLocked(old)
	}
	cur.assigned, cur.born = min(cur.next, 0), time.Now()
	c.mu.cursors[tp] = cur
	poke(c.wake)
	return nil
}

// Unassign removes a partition.
func (c *Consumer) Unassign(tp TopicPartition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cur := c.mu.cursors[tp]; cur != nil {
		c.dropLocked(cur)
	}
}

// Assignment lists the partitions, and the offset at which Poll goes on; Beginning, End and AtTime until that is known.
func (c *Consumer) Assignment() map[TopicPartition]Offset {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[TopicPartition]Offset, len(c.mu.cursors))
	for tp, cur := range c.mu.cursors {
		out[tp] = cur.next
	}
	for _, d := range slices.Backward(c.mu.deliveries) {
		if c.mu.cursors[d.cursor.tp] == d.cursor && (d.err == nil || d.goesOn) {
			out[d.cursor.tp] = d.from
		}
	}
	return out
}

// Poll waits for records of any partition, or for the news that a partition has no more for now (Fetch.CaughtUp). What it
// returns is valid until the next call. Errors about one partition are a *PartitionError or an *OutOfRangeError: that
// partition is no longer assigned, the others go on. A *BatchError is about one batch: its partition goes on behind it.
//
// When no node has answered for 5 s, that is an ErrNoNodeReachable. Nothing is lost by it: the consumer keeps trying, and Poll may be called
// again.
func (c *Consumer) Poll(ctx context.Context) (Fetch, error) {
	var began time.Time // of the wait; zero: there was none yet
	for {
		if c.ctx.Err() != nil {
			return Fetch{}, ErrClosed
		}
		d, assigned := c.take()
		switch {
		case d != nil && d.err != nil:
			return Fetch{}, d.err
		case d != nil:
			return d.fetch(), nil
		case !assigned:
			return Fetch{}, ErrNotAssigned
		}
		if began.IsZero() {
			began = time.Now()
		}
		if look := c.client.unreachableAfter / 5; c.patience == nil {
			c.patience = time.NewTimer(look)
		} else {
			c.patience.Reset(look)
		}
		select {
		case <-c.news:
		case <-c.patience.C:
			if err := c.unreachable(began); err != nil {
				return Fetch{}, err
			}
		case <-c.ctx.Done():
			return Fetch{}, ErrClosed
		case <-ctx.Done():
			return Fetch{}, c.ended(ctx.Err())
		}
	}
}

// unreachable returns an error when no node has answered for a while, nor since began.
func (c *Consumer) unreachable(began time.Time) error {
	since, cause := c.client.cache.unreachable()
	if since.IsZero() {
		return nil
	}
	if since.Before(began) {
		since = began
	}
	silent := time.Since(since)
	if silent < c.client.unreachableAfter || c.connected() {
		return nil
	}
	return fmt.Errorf("%w for %v: %w", ErrNoNodeReachable, silent.Round(100*time.Millisecond), cause)
}

// connected tells whether a node from which the consumer reads is there.
func (c *Consumer) connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.mu.streams {
		if conn := s.conn.Load(); conn != nil && conn.Silent() <= frozenAfter {
			return true
		}
	}
	return false
}

// ended is the error of a Poll whose context has ended: with the reason, if that is that nobody is there, or not who is looked for.
func (c *Consumer) ended(err error) error {
	if since, _ := c.client.cache.unreachable(); since.IsZero() || c.connected() {
		return c.because(err)
	}
	return fmt.Errorf("client: poll: %w", c.client.cache.because(err))
}

// take gives the delivery of the last Poll back and removes the next one from the list; nil: there is none.
func (c *Consumer) take() (d *delivery, assigned bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if last := c.mu.handedOut; last != nil {
		c.mu.handedOut = nil
		c.finishLocked(last)
	}
	for len(c.mu.deliveries) > 0 {
		d := c.mu.deliveries[0]
		c.mu.deliveries[0] = nil
		c.mu.deliveries = c.mu.deliveries[1:]
		switch {
		case c.mu.cursors[d.cursor.tp] != d.cursor:
			c.returnLocked(d) // of an assignment that has ended
		case d.err != nil:
			if !d.goesOn {
				delete(c.mu.cursors, d.cursor.tp)
			}
			return d, true
		default:
			c.mu.handedOut = d
			return d, true
		}
	}
	return nil, len(c.mu.cursors) > 0
}

// Close stops the consumer. Poll returns ErrClosed from then on. It may be called more than once, and before or after that of the Client.
func (c *Consumer) Close() error {
	defer c.client.ended(c)
	c.cancel()
	c.mu.Lock()
	streams := c.mu.streams
	c.mu.streams = make(map[NodeID]*fetchStream)
	c.mu.Unlock()
	for _, s := range streams {
		s.fail(ErrClosed)
	}
	c.wg.Wait()
	return nil
}

func (c *Consumer) closeNow() error { return c.Close() }

// Fetch is a run of records of one partition.
type Fetch struct {
	TopicPartition
	// HighWatermark is the offset after the last committed record, as of this fetch.
	HighWatermark Offset
	// LogStart is the offset of the first record that the partition holds.
	LogStart Offset
	// Next is the offset at which the next fetch of the partition goes on.
	Next Offset
	// CaughtUp says that Next has reached HighWatermark.
	CaughtUp bool

	batches []byte // checked, whole batches
	from    Offset // records below are not the caller's
}

// String returns where the fetch is, and what the partition holds: orders-3 up to 42 (17000 bytes, high watermark 50).
func (f Fetch) String() string {
	return fmt.Sprintf("%s up to %d (%d bytes, high watermark %d)", f.TopicPartition, f.Next, len(f.batches), f.HighWatermark)
}

// Bytes is the size of the batches.
func (f Fetch) Bytes() int { return len(f.batches) }

// Records yields the records in order. A *BatchError stands for those of a batch that cannot be decompressed or read to its end; whoever goes
// on gets what follows it. Key, Value and Headers are valid until the next Poll.
func (f Fetch) Records() iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		m := Message{TopicPartition: f.TopicPartition}
		for rest := f.batches; len(rest) > 0; {
			var b batch.Batch
			var err error
			if b, rest, err = batch.Next(rest); err != nil {
				yield(Message{}, &PartitionError{f.TopicPartition, err})
				return
			}
			if b.NextOffset() <= f.from {
				continue
			}
			// A reader of its own for each batch: what it decompresses has to last until the next Poll.
			var r batch.Reader
			for r.Reset(b, batch.DefaultLimit); r.Next(); {
				if m.Offset = r.Offset(); m.Offset < f.from {
					continue
				}
				record := r.Record()
				m.Timestamp, m.Key, m.Value, m.Headers = record.Timestamp, record.Key, record.Value, slices.Clone(record.Headers)
				if !yield(m, nil) {
					return
				}
			}
			if err := r.Err(); err != nil {
				if !yield(Message{}, &BatchError{f.TopicPartition, max(r.Offset()+1, f.from), b.NextOffset(), err}) {
					return
				}
			}
		}
	}
}

// poke sends to a channel of capacity 1 unless it is full: whoever receives looks at everything anyway.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
