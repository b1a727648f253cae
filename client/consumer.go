package client

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
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
	spare  bufferPool

	mu struct {
		sync.Mutex
		cursors       map[id.TopicPartition]*cursor
		streams       map[id.Node]*fetchStream
		backoff       map[id.Node]nodeBackoff
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
	k.mu.cursors = make(map[id.TopicPartition]*cursor)
	k.mu.streams = make(map[id.Node]*fetchStream)
	k.mu.backoff = make(map[id.Node]nodeBackoff)
	k.wg.Go(k.keepHouse)
	if !c.opened(k) {
		_ = k.Close()
		return nil, ErrClosed
	}
	return k, nil
}

// Assign adds a partition, to be read from offset, Beginning or End on; if it is assigned already, it moves there. It does
// not wait: a partition that does not exist shows in Poll.
func (c *Consumer) Assign(tp id.TopicPartition, offset id.Offset) error {
	if c.ctx.Err() != nil {
		return ErrClosed
	}
	if offset < Beginning {
		return fmt.Errorf("client: offset %d of %s: use an offset, Beginning or End", offset, tp)
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
	c.mu.cursors[tp] = &cursor{tp: tp, next: offset, assigned: min(offset, 0)}
	poke(c.wake)
	return nil
}

// Unassign removes a partition.
func (c *Consumer) Unassign(tp id.TopicPartition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if cur := c.mu.cursors[tp]; cur != nil {
		c.dropLocked(cur)
	}
}

// Assignment lists the partitions, and the offset at which Poll goes on; Beginning and End until that is known.
func (c *Consumer) Assignment() map[id.TopicPartition]id.Offset {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := make(map[id.TopicPartition]id.Offset, len(c.mu.cursors))
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
func (c *Consumer) Poll(ctx context.Context) (Fetch, error) {
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
		select {
		case <-c.news:
		case <-c.ctx.Done():
			return Fetch{}, ErrClosed
		case <-ctx.Done():
			return Fetch{}, c.because(ctx.Err())
		}
	}
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
	c.mu.streams = make(map[id.Node]*fetchStream)
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
	id.TopicPartition
	// HighWatermark is the offset after the last committed record, as of this fetch.
	HighWatermark id.Offset
	// LogStart is the offset of the first record that the partition holds.
	LogStart id.Offset
	// Next is the offset at which the next fetch of the partition goes on.
	Next id.Offset
	// CaughtUp says that Next has reached HighWatermark.
	CaughtUp bool

	batches []byte    // checked, whole batches
	from    id.Offset // records below are not the caller's
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
