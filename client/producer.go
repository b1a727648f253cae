package client

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

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

func (p *Producer) idempotent() bool { return p.opts.Acks == AcksAll }

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
