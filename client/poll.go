package client

import (
	"context"
	"fmt"
	"slices"
	"time"
)

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
