package client

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Producer puts records into partitions. With acks=all, the default, it is idempotent: whatever fails and is tried again on
// the way, a record is written once, and the records of a partition stay in the order in which they were produced.
type Producer struct {
	client *Client
	opts   ProducerOptions

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // streams and housekeeper

	closing     atomic.Bool
	budget      budget
	topics      atomic.Pointer[map[string]*producerTopic] // replaced under mu
	identity    atomic.Pointer[identity]                  // nil: to be allocated
	correlation atomic.Uint64
	house       housekeeper

	mu struct {
		sync.Mutex
		queues  []*queue // of all topics
		streams map[id.Node]*stream
		backoff map[id.Node]nodeBackoff
	}
}

// producerTopic is what a producer keeps of a topic.
type producerTopic struct {
	name            string
	maxMessageBytes atomic.Int64
	queues          atomic.Pointer[[]*queue] // by partition; only grows
	sticky          atomic.Int32             // partition of records without a key, until its batch is full
}

// NewProducer returns a producer. It dials when there is something to send.
func (c *Client) NewProducer(o ProducerOptions) (*Producer, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if c.ctx.Err() != nil {
		return nil, ErrClosed
	}
	p := &Producer{client: c, opts: o.withDefaults()}
	p.ctx, p.cancel = context.WithCancel(c.ctx)
	p.budget.init(p.opts.BufferBytes)
	p.topics.Store(&map[string]*producerTopic{})
	p.mu.streams = make(map[id.Node]*stream)
	p.mu.backoff = make(map[id.Node]nodeBackoff)
	p.house.init(p)
	p.wg.Go(p.house.run)
	return p, nil
}

func (p *Producer) idempotent() bool { return p.opts.Acks == AcksAll }

// Produce hands over a record. It returns as soon as the record is in a batch; done, unless it is nil, is called once with
// the outcome, from a goroutine of the producer that it must not block. The callbacks of a partition are called in the order
// of its records. Produce blocks while BufferBytes are waiting, or while the topic's partitions are not known yet.
//
// An error means that the record was not taken and that done will not be called.
func (p *Producer) Produce(ctx context.Context, r Record, done func(Ack)) error {
	if p.closing.Load() {
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
		if err := p.budget.acquire(ctx, p.ctx.Done(), charge, p.house.pressure); err != nil {
			return fmt.Errorf("client: %d bytes wait for their acknowledgement (BufferBytes %d): %w", p.budget.used.Load(), p.opts.BufferBytes, err)
		}
	}
	if err := q.add(now, record, charge, recordCallback{call: done, timestamp: r.Timestamp, opaque: r.Opaque}); err != nil {
		p.budget.release(charge)
		return err
	}
	return nil
}

// recordOverhead is an upper bound of what a record costs beside its bytes, and a header beside its own.
const (
	recordOverhead = 36
	headerOverhead = 10
)

// chargeOf is an upper bound of the record's size in a batch of its own.
func chargeOf(r *batch.Record) int64 {
	n := batch.HeaderSize + recordOverhead + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += headerOverhead + len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return int64(n)
}

func checkSize(topic string, r *batch.Record, limit int64) error {
	var empty batch.Builder
	if size := empty.LenWith(*r); int64(size) > limit {
		return &RecordTooLargeError{Topic: topic, Size: size, Limit: int(limit)}
	}
	return nil
}

// addTopic waits until a topic is known, and makes its queues.
func (p *Producer) addTopic(ctx context.Context, name string) (*producerTopic, error) {
	meta, err := p.client.cache.topic(ctx, name)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	known := *p.topics.Load()
	if t := known[name]; t != nil {
		return t, nil
	}
	t := &producerTopic{name: name}
	t.queues.Store(&[]*queue{})
	p.updateTopicLocked(t, meta)
	next := maps.Clone(known)
	next[name] = t
	p.topics.Store(&next)
	return t, nil
}

// updateTopicLocked takes over partitions that were added and the limit of the size.
func (p *Producer) updateTopicLocked(t *producerTopic, meta *topicMeta) {
	t.maxMessageBytes.Store(int64(meta.maxMessageBytes))
	queues := *t.queues.Load()
	if len(meta.partitions) <= len(queues) {
		return
	}
	for i := len(queues); i < len(meta.partitions); i++ {
		q := newQueue(p, t, id.Partition(i))
		queues = append(queues[:i:i], q)
		p.mu.queues = append(p.mu.queues, q)
	}
	t.queues.Store(&queues)
}

// forgetTopic makes the next Produce ask for the topic anew. Its queues are closed by the caller.
func (p *Producer) forgetTopic(t *producerTopic) {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := *p.topics.Load()
	if known[t.name] != t {
		return
	}
	next := maps.Clone(known)
	delete(next, t.name)
	p.topics.Store(&next)
	kept := p.mu.queues[:0:0]
	for _, q := range p.mu.queues {
		if q.topic != t {
			kept = append(kept, q)
		}
	}
	p.mu.queues = kept
}

// choose returns the queue of the partition that a record goes to.
func (t *producerTopic) choose(p *Producer, r *Record) (*queue, error) {
	queues := *t.queues.Load()
	switch {
	case r.Partition.named:
		n := r.Partition.partition
		if int(n) >= len(queues) {
			p.client.cache.request()
		}
		if n < 0 || int(n) >= len(queues) {
			return nil, fmt.Errorf("%w %d: topic %q has partitions 0 to %d", ErrUnknownPartition, n, t.name, len(queues)-1)
		}
		return queues[n], nil
	case r.Key != nil:
		return queues[partitionOf(r.Key, len(queues))], nil
	}
	return queues[int(t.sticky.Load())%len(queues)], nil
}

// turn makes records without a key go to the next partition that has a leader, now that the batch in partition from is closed.
func (t *producerTopic) turn(p *Producer, from id.Partition) {
	queues := *t.queues.Load()
	if len(queues) < 2 || t.sticky.Load() != int32(from) {
		return
	}
	known := p.client.cache.current.Load()
	next := (int(from) + 1) % len(queues)
	for i := range queues {
		candidate := (int(from) + 1 + i) % len(queues)
		if _, ok := known.leader(queues[candidate].tp); ok {
			next = candidate
			break
		}
	}
	t.sticky.CompareAndSwap(int32(from), int32(next))
}

// allQueues is a snapshot of the queues of all topics.
func (p *Producer) allQueues() []*queue {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.queues
}

// Flush sends what waits and returns when every record that was produced before the call has its outcome, or when ctx ends.
// The outcomes themselves go to the callbacks.
func (p *Producer) Flush(ctx context.Context) error {
	f := &flush{done: make(chan struct{})}
	f.open.Store(1)
	for _, q := range p.allQueues() {
		q.flush(f)
	}
	f.finish()
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("client: flush: records without outcome are left: %w", p.client.cache.because(ctx.Err()))
	}
}

// Close flushes, then stops the producer. Records that have no outcome when ctx ends fail with ErrClosed.
func (p *Producer) Close(ctx context.Context) error {
	if p.closing.Swap(true) {
		p.wg.Wait()
		return nil
	}
	err := p.Flush(ctx)
	p.cancel()
	p.mu.Lock()
	streams := p.mu.streams
	p.mu.streams = make(map[id.Node]*stream)
	p.mu.Unlock()
	for _, s := range streams {
		s.fail(ErrClosed)
	}
	p.wg.Wait()
	for _, q := range p.allQueues() {
		q.close(ErrClosed)
	}
	return err
}
