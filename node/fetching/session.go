package fetching

import (
	"context"
	"math"
	"sync"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// ID names a subscription on its session. The consumer chooses it, and uses it once.
type ID uint32

// Subscription is what a consumer asks for.
type Subscription struct {
	ID        ID
	Partition Partition // nil: this node has no replica of what was asked for, and the consumer is told so
	Limit     partition.ReadLimit
	Offset    id.Offset // of the first record
	Credit    int64     // bytes of batches to begin with
	// May is asked by Serve before each thing that is said, and ends the subscription with its error: whoever may read now may not for ever.
	// nil: there is nothing to ask.
	May func() *kerr.Error
}

// Session is what one consumer waits for.
type Session struct {
	hub *Hub

	// roused are the places that something happened to, chained by place.below. Turns of workers push to it, and take no lock for it.
	roused atomic.Pointer[place]
	// wake has a token when something may have become ready since somebody has last looked.
	wake chan struct{}

	mu            sync.Mutex // held for moments
	closed        bool
	subscriptions map[ID]*subscription
	places        map[placeKey]*place
	ready         list
}

// subscription is a partition that a consumer reads.
type subscription struct {
	id    ID
	place *place // nil: there is no such partition here

	// Guarded by the session's mu.
	on             *list // its state
	before, behind *subscription
	gone           bool
	counted        bool // against the node's budget
	credit         int64

	// Of whoever has it from the ready list.
	refusal      error // why it cannot begin; nil: it can
	may          func() *kerr.Error
	offset       id.Offset // of the next record
	checked      bool      // offset is known to be inside the log
	caughtUp     id.Offset // the limit that the consumer was last told it has reached
	confirmation *confirmation
}

// place is a partition with what one session has subscribed there, as far as it is read to one limit.
type place struct {
	session   *Session
	partition Partition
	limit     partition.ReadLimit
	waiter    partition.Waiter // in its partition's lists while somebody is waiting, idle or confirming here

	queued atomic.Bool // in session.roused
	below  *place

	asking *confirmation // the last. Guarded by Hub.mu

	// Guarded by the session's mu.
	subscriptions             int
	waiting, idle, confirming list
}

type placeKey struct {
	partition Partition
	limit     partition.ReadLimit
}

// NewSession returns a session without subscriptions.
func (h *Hub) NewSession() *Session {
	return &Session{
		hub: h, wake: make(chan struct{}, 1),
		subscriptions: make(map[ID]*subscription), places: make(map[placeKey]*place),
	}
}

// Subscribe adds a subscription. An error is one of the session, which cannot go on: whatever is wrong with a subscription is said in the
// event that ends it.
func (s *Session) Subscribe(want Subscription) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosing
	case s.subscriptions[want.ID] != nil:
		return nil
	case len(s.subscriptions) >= maxSubscriptions:
		return kerr.Errorf(kerr.PolicyViolation, "more than %d subscriptions on one connection: open another one", maxSubscriptions)
	case want.Credit < 0:
		return badCredit(want.Credit)
	}
	sub := &subscription{id: want.ID, credit: want.Credit, offset: want.Offset, caughtUp: id.NoOffset, may: want.May}
	s.subscriptions[want.ID] = sub
	sub.refusal = s.hub.admit()
	sub.counted = sub.refusal == nil
	switch {
	case sub.refusal != nil:
	case want.Partition == nil:
		sub.refusal = s.hub.noReplica()
	default:
		sub.place = s.placeLocked(placeKey{want.Partition, want.Limit})
		sub.place.subscriptions++
	}
	s.ready.push(sub)
	s.poke()
	return nil
}

// Credit lets the consumer have so many bytes more.
func (s *Session) Credit(of ID, bytes int64) error {
	if bytes < 0 {
		return badCredit(bytes)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.subscriptions[of]
	if sub == nil {
		return nil // it has ended meanwhile
	}
	sub.credit += min(bytes, math.MaxInt64-max(sub.credit, 0))
	if sub.credit > 0 && sub.place != nil && sub.on == &sub.place.idle {
		sub.leave()
		s.ready.push(sub)
		s.poke()
	}
	return nil
}

func badCredit(bytes int64) error {
	return kerr.Errorf(kerr.InvalidRequest, "a credit of %d bytes", bytes)
}

// Unsubscribe ends a subscription. What is being said to it is still said.
func (s *Session) Unsubscribe(which ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub := s.subscriptions[which]; sub != nil {
		s.dropLocked(sub)
	}
}

// Close ends all subscriptions. Nobody is in Serve any more.
func (s *Session) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, sub := range s.subscriptions {
		s.dropLocked(sub)
	}
}

// Wait returns when there may be something to serve, or ctx ends.
func (s *Session) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-s.wake:
		return nil
	}
}

func (s *Session) poke() {
	select {
	case s.wake <- struct{}{}:
	default: // it has not looked since the last one
	}
}

// Rouse implements partition.Rouser: something happened to the partition, or to who waits for it. It takes no lock.
func (p *place) Rouse() {
	if p.queued.Swap(true) {
		return
	}
	s := p.session
	below := s.roused.Load()
	for p.below = below; !s.roused.CompareAndSwap(below, p); p.below = below { // from then on p.below is the taker's, and the next one's
		below = s.roused.Load()
	}
	// Whoever takes the places takes all of them, so the token of the first is enough.
	if below == nil {
		s.poke()
	}
}

func (s *Session) placeLocked(key placeKey) *place {
	p := s.places[key]
	if p == nil {
		p = &place{session: s, partition: key.partition, limit: key.limit}
		p.waiter.Rouser = p
		s.places[key] = p
	}
	return p
}

// dropLocked ends a subscription, wherever it is.
func (s *Session) dropLocked(sub *subscription) {
	if sub.gone {
		return
	}
	sub.gone = true
	sub.leave()
	delete(s.subscriptions, sub.id)
	if sub.counted {
		s.hub.subscriptions.Add(-1)
	}
	p := sub.place
	if p == nil {
		return
	}
	if p.subscriptions--; p.subscriptions == 0 {
		p.partition.StopWaiting(&p.waiter)
		delete(s.places, placeKey{p.partition, p.limit})
	}
}
