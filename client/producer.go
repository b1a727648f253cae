package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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

	ctx    context.Context // ends once everything has its outcome, or Close does not wait for that any longer
	cancel context.CancelFunc
	wg     sync.WaitGroup // streams and housekeeper
	ending sync.Once

	moving      sync.RWMutex    // held while batches move between queues: Flush would not find them
	takes       context.Context // ends when Close begins: no more records
	refuse      context.CancelFunc
	caller      caller
	budget      budget
	topics      atomic.Pointer[map[string]*producerTopic] // replaced under mu
	identity    atomic.Pointer[identity]                  // nil: to be allocated
	correlation atomic.Uint64
	house       housekeeper

	mu struct {
		sync.Mutex
		closed  bool     // no more queues
		queues  []*queue // of all topics
		streams map[id.Node]*stream
		backoff map[id.Node]nodeBackoff
	}
}

// producerTopic is what a producer keeps of a topic.
type producerTopic struct {
	name            string
	maxMessageBytes atomic.Int64
	id              id.Topic                 // whose partitions queues are; guarded by Producer.mu
	queues          atomic.Pointer[[]*queue] // by partition; shrinks only when the topic is created again
	sticky          atomic.Int32             // partition of records without a key, until its batch is full
}

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

func (p *Producer) idempotent() bool { return p.opts.Acks == AcksAll }

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
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(p.takes, cancel)()
	meta, err := p.client.cache.topic(ctx, name)
	switch {
	case p.takes.Err() != nil:
		return nil, ErrClosed
	case err != nil:
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return nil, ErrClosed
	}
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

// updateTopicLocked takes over partitions that were added and the limit of the size. It returns whether the topic is another one, with fewer.
func (p *Producer) updateTopicLocked(t *producerTopic, meta *topicMeta) (fewer bool) {
	t.maxMessageBytes.Store(int64(meta.maxMessageBytes))
	queues := *t.queues.Load()
	if t.id != meta.id && len(meta.partitions) < len(queues) {
		return len(meta.partitions) > 0
	}
	t.id = meta.id
	if len(meta.partitions) <= len(queues) {
		return false
	}
	for i := len(queues); i < len(meta.partitions); i++ {
		q := newQueue(p, t, id.Partition(i))
		queues = append(queues[:i:i], q)
		p.mu.queues = append(p.mu.queues, q)
	}
	t.queues.Store(&queues)
	return false
}

// forgetTopic makes the next Produce ask for the topic anew, and ends what is on its way to this one with err.
func (p *Producer) forgetTopic(t *producerTopic, err error) {
	p.mu.Lock()
	known := *p.topics.Load()
	if known[t.name] == t {
		next := maps.Clone(known)
		delete(next, t.name)
		p.topics.Store(&next)
	}
	p.mu.Unlock()
	for _, q := range *t.queues.Load() {
		q.close(err)
	}
}

// remove takes queues out of the list of all that are closed and have called all their callbacks back: Flush waits for those. The list is
// replaced, since others go through the old one.
func (p *Producer) remove(over []*queue) {
	if len(over) == 0 {
		return
	}
	gone := make(map[*queue]bool, len(over))
	for _, q := range over {
		gone[q] = true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.queues = slices.DeleteFunc(slices.Clone(p.mu.queues), func(q *queue) bool { return gone[q] })
}

// choose returns the queue of the partition that a record goes to.
func (t *producerTopic) choose(p *Producer, r *Record) (*queue, error) {
	queues := *t.queues.Load()
	switch {
	case len(queues) == 0:
		p.client.cache.requestFor(t.name)
		return nil, fmt.Errorf("%w: none of topic %q is known yet", ErrUnknownPartition, t.name)
	case r.Partition.named:
		n := r.Partition.partition
		if int(n) >= len(queues) {
			p.client.cache.requestFor(t.name)
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
