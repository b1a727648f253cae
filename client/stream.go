package client

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/id"
)

// stream is one connection of a producer to one node, from the dial to the first error: then its queues leave it, and the next
// attempt is another stream. It has two goroutines: run dials and sends, receive only receives.
type stream struct {
	producer *Producer
	node     id.Node
	addr     string
	began    time.Time
	ctx      context.Context // ends when the stream fails
	cancel   context.CancelFunc
	wake     chan struct{} // capacity 1: the list has grown, or the window
	conn     atomic.Pointer[rpc.ProduceConn]
	answers  atomic.Uint64
	window   int64 // bytes that may be unanswered

	mu struct {
		sync.Mutex
		ready      []*queue // with work, each at most once
		spare      []*queue
		unanswered map[uint64]attemptOf // by correlation
		bytes      int64                // of those
		err        error                // failed, why
	}
}

// attemptOf is a batch that was sent. It holds a reference to the batch.
type attemptOf struct {
	queue *queue
	batch *pending
	bytes int64
}

func newStream(p *Producer, node id.Node, addr string) *stream {
	s := &stream{producer: p, node: node, addr: addr, began: time.Now(), wake: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancel(p.ctx)
	s.mu.unanswered = make(map[uint64]attemptOf)
	return s
}

// push puts a queue into the list of those with work. Called with the queue's mutex.
func (s *stream) push(q *queue) {
	s.mu.Lock()
	s.mu.ready = append(s.mu.ready, q)
	s.mu.Unlock()
	poke(s.wake)
}

// run dials, then sends what the queues hold until the stream fails.
func (s *stream) run() {
	conn, err := s.dial()
	if err != nil {
		s.fail(err)
		return
	}
	s.producer.wg.Go(func() {
		err := conn.Recv(s.answer)
		s.fail(fmt.Errorf("node %d at %s: %w", s.node, s.addr, err))
	})
	defer conn.Close()
	for {
		select {
		case <-s.ctx.Done():
			return
		case <-s.wake:
		}
		if !s.pause(conn) {
			return
		}
		if err := s.sendReady(conn); err != nil {
			s.fail(fmt.Errorf("node %d at %s: %w", s.node, s.addr, err))
			return
		}
	}
}

// pause waits for as long as the node wants to be sent nothing, because this client is over its quota; false: the stream has failed.
func (s *stream) pause(conn *rpc.ProduceConn) bool {
	for throttle := conn.Throttled(); throttle > 0; throttle = conn.Throttled() {
		wait := time.NewTimer(throttle)
		select {
		case <-wait.C:
		case <-s.ctx.Done():
			wait.Stop()
			return false
		}
	}
	return true
}

func (s *stream) dial() (*rpc.ProduceConn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.producer.client.opts.DialTimeout)
	defer cancel()
	conn, err := s.producer.client.dialer.DialProduce(ctx, s.addr)
	if err != nil {
		return nil, fmt.Errorf("node %d at %s: %w", s.node, s.addr, err)
	}
	limits := conn.Limits()
	if limits.Node != s.node {
		return nil, errors.Join(s.producer.client.cache.misplaced(s.addr, limits.Node, s.node), conn.Close())
	}
	s.window = int64(limits.InFlightBytes)
	s.conn.Store(conn)
	s.producer.reached(s.node)
	return conn, nil
}

// streamTo returns the stream to a node and opens it if need be; nil: not before wait has passed.
func (p *Producer) streamTo(l leader, now time.Time) (s *stream, wait time.Duration) {
	p.mu.Lock()
	old := p.mu.streams[l.node]
	if old != nil && old.addr == l.addr {
		p.mu.Unlock()
		return old, 0
	}
	s, wait = p.openLocked(l, now)
	p.mu.Unlock()
	if old != nil {
		old.fail(fmt.Errorf("node %d is at %s now", l.node, l.addr))
	}
	return s, wait
}

func (p *Producer) openLocked(l leader, now time.Time) (s *stream, wait time.Duration) {
	if b := p.mu.backoff[l.node]; now.Before(b.until) {
		return nil, b.until.Sub(now)
	}
	if p.ctx.Err() != nil {
		return nil, time.Hour
	}
	s = newStream(p, l.node, l.addr)
	p.mu.streams[l.node] = s
	p.wg.Go(s.run)
	return s, 0
}

// failed tells whether the stream has ended. A queue that joins it after a look at this, under its own mutex, is found by fail.
func (s *stream) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.err != nil
}

// connected tells whether the dial has succeeded.
func (s *stream) connected() bool { return s.conn.Load() != nil }

// sendReady sends one batch of each queue in turn until no queue has work left, or the window is full.
func (s *stream) sendReady(conn *rpc.ProduceConn) error {
	for {
		queues := s.takeReady()
		if len(queues) == 0 {
			return conn.Flush()
		}
		for i, q := range queues {
			if s.full() {
				s.putBack(queues[i:])
				return conn.Flush()
			}
			if conn.Throttled() > 0 {
				s.putBack(queues[i:])
				poke(s.wake) // run pauses before it looks again
				return conn.Flush()
			}
			if err := s.sendOne(conn, q); err != nil {
				return err
			}
		}
	}
}

func (s *stream) takeReady() []*queue {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := s.mu.ready
	s.mu.ready, s.mu.spare = s.mu.spare[:0], out
	return out
}

// putBack returns queues to the head of the list, because the window is full. The answers that make room again may all have come
// since the sender looked, and have found an empty list and nobody to wake: so it looks once more.
func (s *stream) putBack(queues []*queue) {
	s.mu.Lock()
	s.mu.ready = append(append(make([]*queue, 0, len(queues)+len(s.mu.ready)), queues...), s.mu.ready...)
	s.mu.Unlock()
	if !s.full() {
		poke(s.wake)
	}
}

// full tells whether the node has no room for another batch. One batch always has.
func (s *stream) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.bytes > 0 && s.window > 0 && s.mu.bytes+int64(s.producer.opts.BatchBytes) > s.window
}

// sendOne sends the next batch of a queue. The queue's mutex is not held while the batch is encoded or written.
func (s *stream) sendOne(conn *rpc.ProduceConn, q *queue) error {
	q.mu.Lock()
	if q.stream != s {
		q.mu.Unlock()
		return nil
	}
	q.listed = false
	b := q.takeLocked()
	if b == nil {
		q.calledLocked()
		q.mu.Unlock()
		return nil
	}
	if b.wire == nil && !s.encodeLocked(q, b) {
		q.signalLocked()
		q.mu.Unlock()
		return nil
	}
	correlation, ok := s.registerLocked(q, b)
	topic, wire := q.topicID, b.wire
	q.signalLocked()
	q.calledLocked()
	q.mu.Unlock()
	if !ok {
		return nil
	}
	acks := s.producer.opts.Acks
	err := conn.Send(rpc.ProduceRequest{
		Correlation: correlation,
		Topic:       topic,
		Partition:   q.tp.Partition,
		Acks:        acks.wire(),
		Timeout:     s.producer.client.opts.RequestTimeout,
		Batch:       wire,
	})
	if acks == AcksNone {
		q.sentUnasked(b, err)
		return err
	}
	b.release()
	return err
}

// encodeLocked encodes a batch that was taken from the queue, with the mutex released meanwhile. False: the batch was taken
// back in that time.
func (s *stream) encodeLocked(q *queue, b *pending) bool {
	q.sending = b
	b.retain()
	trailer := b.trailer(s.producer.opts.Compression)
	q.mu.Unlock()
	wire, err := b.encode(trailer)
	q.mu.Lock()
	defer b.release()
	recalled := q.recalled
	q.sending, q.recalled = nil, false
	switch {
	case b.done:
	case err != nil && !recalled:
		b.endLocked(id.NoOffset, err)
	case b.trailer(s.producer.opts.Compression) == trailer:
		b.wire = wire
	}
	return !recalled
}

// registerLocked puts a batch that is ready to be written among those in flight; false when that is not to be, because things
// have changed while it was encoded.
func (s *stream) registerLocked(q *queue, b *pending) (correlation uint64, ok bool) {
	switch {
	case b.done:
		q.ended.pushBack(b)
		return 0, false
	case q.err != nil:
		b.endLocked(id.NoOffset, q.err)
		q.ended.pushBack(b)
		return 0, false
	case q.stream != s || q.draining:
		q.waiting.pushFront(b)
		return 0, false
	}
	b.attempts++
	b.sentAt = time.Now()
	if s.producer.opts.Acks == AcksNone {
		q.sending = b
		return 0, true
	}
	correlation = s.producer.correlation.Add(1)
	size := int64(len(b.wire))
	s.mu.Lock()
	if s.mu.err != nil {
		s.mu.Unlock()
		q.waiting.pushFront(b) // the stream's end is about to reach the queue
		return 0, false
	}
	s.mu.unanswered[correlation] = attemptOf{q, b, size}
	s.mu.bytes += size
	s.mu.Unlock()
	b.correlation = correlation
	b.references.Add(2) // the table's and the sender's
	q.flight.pushBack(b)
	return correlation, true
}

// sentUnasked ends a batch that is not answered.
func (q *queue) sentUnasked(b *pending, err error) {
	q.mu.Lock()
	q.sending = nil
	b.endLocked(id.NoOffset, err)
	q.ended.pushBack(b)
	q.signalLocked()
	q.calledLocked()
	q.mu.Unlock()
}

// answer hands an answer to its queue.
func (s *stream) answer(r rpc.ProduceResponse) {
	s.mu.Lock()
	a, ok := s.mu.unanswered[r.Correlation]
	if !ok {
		s.mu.Unlock()
		return
	}
	delete(s.mu.unanswered, r.Correlation)
	s.mu.bytes -= a.bytes
	waits := len(s.mu.ready) > 0
	s.mu.Unlock()
	s.answers.Add(1)
	a.queue.answered(a.batch, r.Correlation, &r)
	a.batch.release()
	if waits {
		poke(s.wake)
	}
}

// fail ends the stream and takes the queues away from it.
func (s *stream) fail(err error) {
	s.mu.Lock()
	if s.mu.err != nil {
		s.mu.Unlock()
		return
	}
	s.mu.err = err
	unanswered := s.mu.unanswered
	s.mu.unanswered = nil
	s.mu.ready = nil
	s.mu.Unlock()
	s.cancel()
	if conn := s.conn.Load(); conn != nil {
		_ = conn.Close() // it is broken already, or nobody is interested any more
	}
	s.producer.streamFailed(s, err)
	for _, a := range unanswered {
		a.batch.release()
	}
}

// streamFailed takes the queues away from a stream, and keeps for how long its node is left alone.
func (p *Producer) streamFailed(s *stream, cause error) {
	p.mu.Lock()
	if p.mu.streams[s.node] == s {
		delete(p.mu.streams, s.node)
	}
	p.mu.backoff[s.node] = p.mu.backoff[s.node].after(cause, s.answers.Load() > 0)
	queues := p.mu.queues
	closing := p.ctx.Err() != nil
	p.mu.Unlock()
	if !closing {
		p.client.opts.Logger.Info("stream to a node has ended", "node", s.node, "error", cause)
		if s.connected() {
			p.client.cache.urgent(s.node)
		} else {
			p.client.cache.doubt(s.node)
		}
	}
	for _, q := range queues {
		q.lost(s, cause)
	}
}

// lost handles the end of a stream.
func (q *queue) lost(s *stream, cause error) {
	q.mu.Lock()
	if q.stream != s {
		q.mu.Unlock()
		return
	}
	now := time.Now()
	q.interruptLocked(now, cause)
	q.detachLocked(now, 0)
	q.calledLocked()
	q.mu.Unlock()
}
