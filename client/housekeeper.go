package client

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// scanInterval is how often timeouts are looked for while there is anything in the producer.
	scanInterval = 100 * time.Millisecond
	// idleScans is after how many scans without traffic the housekeeper goes to sleep.
	idleScans = 20
	// stallAfter is how long a batch is in flight before the housekeeper asks whether its leader still leads: a frozen node
	// breaks no connection.
	stallAfter = time.Second
	// dialDoubt is how long a dial may take before somebody is asked whether that node still leads.
	dialDoubt = 500 * time.Millisecond

	nodeBackoffMin = 50 * time.Millisecond
	nodeBackoffMax = time.Second
)

// housekeeper is the goroutine of a producer that finds streams for queues without one, ends lingers and watches timeouts.
type housekeeper struct {
	producer *Producer
	wake     chan struct{} // capacity 1
	asleep   atomic.Bool   // sleeps until somebody calls busy
	traffic  atomic.Bool   // since the last scan

	mu struct {
		sync.Mutex
		homeless []*queue // each has homeless set
		lingers  []linger // in order of due
		renewing bool     // a goroutine allocates a producer id
	}
}

// linger is the end of the linger of an open batch. All lingers of a producer are equally long, so a queue holds them in order.
type linger struct {
	queue  *queue
	serial uint64
	due    time.Time
}

// nodeBackoff is since when a node may be dialled again.
type nodeBackoff struct {
	until time.Time
	delay time.Duration
	cause error // what the last stream to it ended with; nil: there is one
}

func (h *housekeeper) init(p *Producer) {
	h.producer = p
	h.wake = make(chan struct{}, 1)
}

func (h *housekeeper) poke() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// busy is called for each record: timeouts have to be watched.
func (h *housekeeper) busy() {
	if !h.traffic.Load() {
		h.traffic.Store(true)
	}
	if h.asleep.Load() && h.asleep.CompareAndSwap(true, false) {
		h.poke()
	}
}

// pressure is called when Produce is about to block for memory: nothing may linger then.
func (h *housekeeper) pressure() {
	for _, q := range h.producer.allQueues() {
		q.makeDue(0)
	}
}

// take puts a queue that has work and no stream into the list. Called with the queue's mutex.
func (h *housekeeper) take(q *queue) {
	h.mu.Lock()
	h.mu.homeless = append(h.mu.homeless, q)
	h.mu.Unlock()
	h.poke()
}

// linger makes the open batch with the given serial due at a time.
func (h *housekeeper) linger(q *queue, serial uint64, due time.Time) {
	h.mu.Lock()
	first := len(h.mu.lingers) == 0
	h.mu.lingers = append(h.mu.lingers, linger{q, serial, due})
	h.mu.Unlock()
	if first {
		h.poke()
	}
}

// run is the goroutine.
func (h *housekeeper) run() {
	p := h.producer
	timer := time.NewTimer(0)
	defer timer.Stop()
	var lastScan time.Time
	idle := 0
	for {
		changed := p.client.cache.changed()
		now := time.Now()
		next := h.endLingers(now)
		if now.Sub(lastScan) >= scanInterval {
			lastScan = now
			h.scan(now)
			if idle++; h.traffic.Swap(false) || p.budget.used.Load() > 0 {
				idle = 0
			}
		}
		next = earlier(next, h.findHomes(now))
		if h.sleeps(idle) {
			next = now.Add(time.Hour)
		} else {
			next = earlier(next, lastScan.Add(scanInterval))
		}
		timer.Reset(time.Until(next))
		select {
		case <-p.ctx.Done():
			return
		case <-changed:
		case <-h.wake:
			idle = 0
		case <-timer.C:
		}
		h.asleep.Store(false)
	}
}

// sleeps decides whether to stop scanning. Traffic that begins while it decides is seen by one of the two sides: busy sets
// traffic before it looks at asleep, and here it is the other way round.
func (h *housekeeper) sleeps(idle int) bool {
	if idle < idleScans {
		return false
	}
	h.asleep.Store(true)
	if h.traffic.Load() {
		h.asleep.Store(false)
		return false
	}
	return true
}

func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// endLingers makes the batches due whose time has come, and returns when the next one is; zero when there is none.
func (h *housekeeper) endLingers(now time.Time) time.Time {
	for {
		h.mu.Lock()
		if len(h.mu.lingers) == 0 {
			h.mu.lingers = nil
			h.mu.Unlock()
			return time.Time{}
		}
		l := h.mu.lingers[0]
		if l.due.After(now) {
			h.mu.Unlock()
			return l.due
		}
		h.mu.lingers[0] = linger{}
		h.mu.lingers = h.mu.lingers[1:]
		h.mu.Unlock()
		l.queue.makeDue(l.serial)
	}
}

// findHomes gives streams to the queues without one, as far as their leaders are known, and returns when to try again.
func (h *housekeeper) findHomes(now time.Time) (again time.Time) {
	h.mu.Lock()
	queues := h.mu.homeless
	h.mu.homeless = nil
	h.mu.Unlock()
	if len(queues) == 0 {
		return time.Time{}
	}
	p := h.producer
	if p.idempotent() && p.identity.Load() == nil && slices.ContainsFunc(queues, (*queue).needsIdentity) {
		h.allocateIdentity()
	}
	known := p.client.cache.current.Load()
	h.updateTopics()
	var left []*queue
	for _, q := range queues {
		when, homed := h.findHome(q, known, now)
		if !homed {
			left = append(left, q)
			again = earlier(again, when)
		}
	}
	h.mu.Lock()
	h.mu.homeless = append(left, h.mu.homeless...)
	h.mu.Unlock()
	return again
}

// findHome is findHomes for one queue.
func (h *housekeeper) findHome(q *queue, known *metadata, now time.Time) (again time.Time, homed bool) {
	p := h.producer
	if q.gone() {
		return time.Time{}, true
	}
	l, ok := known.leader(q.tp)
	if !ok {
		if err := p.client.cache.absent(q.tp.Topic); err != nil {
			p.forgetTopic(q.topic, err)
			return time.Time{}, true
		}
		p.client.cache.want(q.tp.Topic) // it may have been given up
		p.client.cache.requestFor(q.tp.Topic)
		return now.Add(refreshInterval), false
	}
	if pause := q.pauseBefore(l, now); pause > 0 {
		return now.Add(pause), false
	}
	s, wait := p.streamTo(l, now)
	if s == nil {
		// Perhaps it is dead and somebody else leads by now.
		p.client.cache.requestFor(q.tp.Topic)
		return now.Add(min(wait, refreshInterval)), false
	}
	return now.Add(refreshInterval), q.attach(s, l)
}

// pauseBefore is how long the queue does not want to be sent to leader l.
func (q *queue) pauseBefore(l leader, now time.Time) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if l.epoch > q.epoch && !q.firm {
		return 0
	}
	return q.notBefore.Sub(now)
}

// updateTopics takes over partitions that were added, or are gone.
func (h *housekeeper) updateTopics() {
	p := h.producer
	var shrunk []*producerTopic
	p.mu.Lock()
	known := p.client.cache.current.Load() // not before: a topic that was added since would be taken for one that was created again
	for name, t := range *p.topics.Load() {
		if meta := known.topics[name]; meta != nil && p.updateTopicLocked(t, meta) {
			shrunk = append(shrunk, t)
		}
	}
	p.mu.Unlock()
	for _, t := range shrunk {
		p.recreated(t, known.topics[t.name])
	}
}

// gone tells whether the queue is closed, and takes it out of the list then.
func (q *queue) gone() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.err != nil {
		q.homeless = false
	}
	return q.err != nil
}

// over tells whether the queue is closed and nobody waits for anything of it.
func (q *queue) over() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.err != nil && !q.calls && q.sending == nil
}

// scan watches the timeouts of everything in flight.
func (h *housekeeper) scan(now time.Time) {
	p := h.producer
	known := p.client.cache.current.Load()
	h.updateTopics()
	patience := p.client.opts.RequestTimeout * 6 / 5 // the node's own patience is RequestTimeout
	var over []*queue
	defer func() { p.remove(over) }()
	for _, q := range p.allQueues() {
		if q.over() {
			over = append(over, q)
			continue
		}
		q.expire(now)
		s, since, epoch := q.stalledSince()
		if s == nil {
			continue
		}
		l, ok := known.leader(q.tp)
		moved := ok && l.supersedes(s.node, s.addr, epoch)
		switch {
		case since.IsZero() && moved: // nothing is in flight
			q.lost(s, fmt.Errorf("node %d at %s leads no more, but node %d at %s", s.node, s.addr, l.node, l.addr))
		case since.IsZero():
			if !s.connected() && now.Sub(s.began) > dialDoubt {
				p.client.cache.requestFor(q.tp.Topic)
			}
		case now.Sub(since) > patience:
			s.fail(fmt.Errorf("node %d at %s: no answer within %v", s.node, s.addr, patience))
		case now.Sub(since) > stallAfter && moved:
			q.lost(s, fmt.Errorf("node %d at %s does not answer, and node %d at %s leads now", s.node, s.addr, l.node, l.addr))
		case now.Sub(since) > stallAfter:
			p.client.cache.requestFor(q.tp.Topic)
		}
	}
}

// allocateIdentity starts the allocation of a producer id, unless it is under way.
func (h *housekeeper) allocateIdentity() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.mu.renewing {
		return
	}
	h.mu.renewing = true
	p := h.producer
	p.wg.Go(func() {
		producer, epoch, err := p.client.admin.initProducerID(p.ctx)
		if err == nil {
			p.identity.Store(&identity{producer, epoch})
		} else if p.ctx.Err() == nil {
			p.client.opts.Logger.Warn("no producer id", "error", err)
			p.identityRefused(err)
			_ = pause(p.ctx, identityPause)
		}
		h.mu.Lock()
		h.mu.renewing = false
		h.mu.Unlock()
		h.poke()
	})
}

// renewIdentity makes the producer ask for another id, if it still has the one that is of no more use.
func (p *Producer) renewIdentity(old id.Producer) {
	if given := p.identity.Load(); given != nil && given.producer == old {
		p.identity.CompareAndSwap(given, nil)
	}
	p.house.poke()
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

// streamFailed takes the queues away from a stream, and keeps for how long its node is left alone.
func (p *Producer) streamFailed(s *stream, cause error) {
	p.mu.Lock()
	if p.mu.streams[s.node] == s {
		delete(p.mu.streams, s.node)
	}
	b := p.mu.backoff[s.node]
	if s.answers.Load() > 0 {
		b.delay = 0
	}
	b.delay = min(max(2*b.delay, nodeBackoffMin), nodeBackoffMax)
	b.until = time.Now().Add(b.delay/2 + rand.N(b.delay/2))
	b.cause = cause
	p.mu.backoff[s.node] = b
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
