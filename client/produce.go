package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// NewProducer returns a producer. It dials when there is something to send.
func (c *Client) NewProducer(o ProducerOptions) (*Producer, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	p := &Producer{client: c, opts: o.withDefaults()}
	p.ctx, p.cancel = context.WithCancel(c.ctx)
	p.takes, p.refuse = context.WithCancel(p.ctx)
	p.caller.init()
	p.budget.init(p.opts.BufferBytes)
	p.topics.Store(&map[string]*producerTopic{})
	p.mu.streams = make(map[id.Node]*stream)
	p.mu.backoff = make(map[id.Node]nodeBackoff)
	p.house.init(p)
	p.wg.Go(p.house.run)
	go p.caller.run() // until end has handed over the last callbacks
	if !c.opened(p) {
		_ = p.closeNow()
		return nil, ErrClosed
	}
	return p, nil
}

// Produce hands over a record. It returns as soon as the record is in a batch; done, unless it is nil, is called once with
// the outcome, from the one goroutine of the producer that calls all callbacks. The callbacks of a partition are called in the order
// of its records. One that blocks holds back the others, and, once BufferBytes wait for them, Produce; the connections go on. So a callback
// must wait neither for Flush or Close of its producer nor, with a context that does not end, for Produce.
//
// Produce blocks while BufferBytes are waiting, or while the topic's partitions are not known yet.
//
// An error means that the record was not taken and that done will not be called.
func (p *Producer) Produce(ctx context.Context, r Record, done func(Ack)) error {
	if p.takes.Err() != nil {
		return ErrClosed
	}
	t := (*p.topics.Load())[r.Topic]
	if t == nil {
		var err error
		if t, err = p.addTopic(ctx, r.Topic); err != nil {
			return err
		}
	}
	q, err := t.choose(p, &r)
	if err != nil {
		return err
	}
	now := time.Now()
	if r.Timestamp == 0 {
		r.Timestamp = now.UnixMilli()
	}
	record := batch.Record{Timestamp: r.Timestamp, Key: r.Key, Value: r.Value, Headers: r.Headers}
	charge := chargeOf(&record)
	if limit := t.maxMessageBytes.Load(); charge > limit {
		if err := checkSize(t.name, &record, limit); err != nil {
			return err
		}
	}
	if !p.budget.tryAcquire(charge) {
		if err := p.budget.acquire(ctx, p.takes.Done(), charge, p.house.pressure); err != nil {
			return fmt.Errorf("client: %d bytes wait for their acknowledgement (BufferBytes %d): %w", p.budget.used.Load(), p.opts.BufferBytes, err)
		}
	}
	told := recordCallback{call: done, timestamp: r.Timestamp, opaque: r.Opaque}
	for err := q.add(now, record, charge, r.Partition.named, told); err != nil; err = q.add(now, record, charge, r.Partition.named, told) {
		if q, err = t.chooseAgain(ctx, p, &r, err); err != nil {
			p.budget.release(charge)
			return err
		}
	}
	return nil
}

func checkSize(topic string, r *batch.Record, limit int64) error {
	var empty batch.Builder
	if size := empty.LenWith(*r); int64(size) > limit {
		return &RecordTooLargeError{Topic: topic, Size: size, Limit: int(limit)}
	}
	return nil
}

// Flush sends what waits and returns when every record that was produced before the call has its outcome, or when ctx ends.
// The outcomes themselves go to the callbacks.
func (p *Producer) Flush(ctx context.Context) error {
	f := &flush{done: make(chan struct{})}
	f.open.Store(1)
	p.moving.RLock()
	for _, q := range p.allQueues() {
		q.flush(f)
	}
	p.moving.RUnlock()
	f.finish()
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("client: flush: records without outcome are left: %w", p.client.cache.because(ctx.Err()))
	}
}

// Close flushes, then stops the producer. Records that have no outcome when ctx ends fail with ErrClosed. All callbacks have returned when Close
// does; only one that is still blocked a second after ctx has ended is left alone, with those behind it: then Close says so. Close may be
// called more than once, by several goroutines, and before or after that of the Client, which is the same as Close with a context that has ended.
func (p *Producer) Close(ctx context.Context) error {
	p.refuse()
	err := p.Flush(ctx)
	return errors.Join(err, p.end(ctx))
}

// closeNow is Close for a client that is closed.
func (p *Producer) closeNow() error {
	p.refuse()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return p.end(ctx)
}

// end stops everything, gives what is left its outcome, and waits for the callbacks.
func (p *Producer) end(ctx context.Context) error {
	p.ending.Do(func() {
		p.cancel()
		p.mu.Lock()
		streams := p.mu.streams
		p.mu.streams = make(map[id.Node]*stream)
		p.mu.Unlock()
		for _, s := range streams {
			s.fail(ErrClosed)
		}
		p.wg.Wait()
		p.mu.Lock()
		p.mu.closed = true
		queues := p.mu.queues
		p.mu.Unlock()
		for _, q := range queues {
			q.close(ErrClosed)
		}
		p.caller.finish()
		p.client.ended(p)
	})
	select {
	case <-p.caller.done:
		return nil
	case <-ctx.Done():
	}
	select {
	case <-p.caller.done:
		return nil
	case <-time.After(callbackGrace):
		return errCallbackBlocks
	}
}

// callbackGrace is for how long Close waits for callbacks once its context has ended.
const callbackGrace = time.Second

var errCallbackBlocks = errors.New("client: the producer is closed, but a callback blocks: those behind it are called when it has returned")
