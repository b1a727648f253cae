package fetching

import (
	"errors"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Event is what a consumer is told about a subscription. Without an error and without records: it has caught up.
type Event struct {
	Subscription ID
	Partition    Partition // nil: there is none here
	Limit        id.Offset // before which it may read; id.NoOffset without a partition
	LogStart     id.Offset // likewise; id.NoOffset as well while only a quorum knows
	Err          error     // why it has ended
}

// Sink takes what a session has to say. Its methods are called in Serve and may block, which holds the session back. Their errors end it.
type Sink interface {
	// Append takes an event without records.
	Append(Event) error
	// AppendRead takes an event with the batches that read appends to what it is given, which saves a copy. If read fails, nothing is
	// said, and its error is returned as it is.
	AppendRead(e Event, read func(dst []byte) ([]byte, error)) error
}

// outcome is where a subscription goes when it was served.
type outcome uint8

const (
	again   outcome = iota // there may be more
	wait                   // for records
	rest                   // until there is credit
	confirm                // ask a quorum
	over
)

// Serve says one thing to the first subscription that is ready. It returns false when there is none: then Wait. An error is the sink's.
func (s *Session) Serve(sink Sink) (bool, error) {
	sub, credit := s.take()
	if sub == nil {
		return false, nil
	}
	v := visit{subscription: sub, credit: credit}
	err := v.serve(sink, s.hub)
	s.settle(&v)
	return true, err
}

// ServeEnded says to those of the ready subscriptions that cannot go on here that they are over, and why, and nothing else: for somebody who
// is to be sent no records for a while, which may be minutes. Their order stays.
func (s *Session) ServeEnded(sink Sink) error {
	s.mu.Lock()
	s.gatherLocked()
	n := s.ready.len
	s.mu.Unlock()
	for range n {
		sub, _ := s.take()
		if sub == nil {
			return nil
		}
		v := visit{subscription: sub} // without credit
		err := v.serve(sink, s.hub)
		s.settle(&v)
		if err != nil {
			return err
		}
	}
	return nil
}

// take takes the first of the ready subscriptions, after all that has become ready so far was put behind those that were.
func (s *Session) take() (sub *subscription, credit int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gatherLocked()
	sub = s.ready.first
	if sub == nil {
		return nil, 0
	}
	sub.leave()
	return sub, sub.credit
}

// gatherLocked puts all that has become ready behind what was.
func (s *Session) gatherLocked() {
	if s.roused.Load() == nil {
		return
	}
	for p := s.roused.Swap(nil); p != nil; {
		below := p.below
		p.queued.Store(false) // before the look: what comes in between queues it again
		p.lookLocked()
		p = below
	}
}

// lookLocked finds whom the news of a place concern.
func (p *place) lookLocked() {
	ready := &p.session.ready
	p.waiting.moveTo(ready)
	// They stand in the order of the rounds that they wait for.
	for sub := p.confirming.first; sub != nil && sub.confirmation.done.Load(); sub = p.confirming.first {
		sub.leave()
		ready.push(sub)
	}
	if p.idle.len+p.confirming.len == 0 {
		return
	}
	p.partition.AwaitMove(&p.waiter) // before the look
	p.endIfMovedLocked()
}

// endIfMovedLocked has everybody find out that he has to go elsewhere, with or without credit.
func (p *place) endIfMovedLocked() {
	if p.partition.Closed() || !p.partition.Leads() {
		ready := &p.session.ready
		p.waiting.moveTo(ready)
		p.idle.moveTo(ready)
		p.confirming.moveTo(ready)
	}
}

// settle puts a subscription where its visit has left it, unless it has ended meanwhile. Whatever could have roused it there and came
// before it was there is found by the look at the end.
func (s *Session) settle(v *visit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := v.subscription
	sub.credit -= int64(v.sent)
	p := sub.place
	switch {
	case sub.gone:
	case v.outcome == over:
		s.dropLocked(sub)
	case v.outcome == again, v.outcome == rest && sub.credit > 0: // it came meanwhile
		s.ready.push(sub)
	case v.outcome == wait:
		p.waiting.push(sub)
		p.partition.AwaitRecords(&p.waiter, p.limit)
		if p.partition.Limit(p.limit) != v.limit {
			sub.leave()
			s.ready.push(sub)
		}
		p.endIfMovedLocked()
	case v.outcome == rest:
		p.idle.push(sub)
		p.partition.AwaitMove(&p.waiter)
		p.endIfMovedLocked()
	case v.outcome == confirm:
		p.confirming.push(sub)
		sub.confirmation = s.hub.confirm(p)
		p.partition.AwaitMove(&p.waiter)
		p.endIfMovedLocked()
	}
}

// visit is one turn of a subscription.
type visit struct {
	*subscription
	credit  int64
	outcome outcome
	limit   id.Offset // as it was when there was nothing below it
	sent    int       // bytes of batches
}

// serve says at most one thing.
func (v *visit) serve(sink Sink, hub *Hub) error {
	if err := v.ended(hub); err != nil {
		v.outcome = over
		return sink.Append(v.event(err))
	}
	p := v.place.partition
	switch {
	case v.outcome == confirm:
		return nil
	case v.credit <= 0:
		v.outcome = rest
		return nil
	}
	v.limit = p.Limit(v.place.limit)
	if v.offset < v.limit {
		return v.read(sink)
	}
	v.outcome = wait
	if v.caughtUp == v.limit || v.offset > v.limit {
		return nil
	}
	v.caughtUp = v.limit
	e := v.event(nil)
	e.Limit = v.limit
	return sink.Append(e)
}

// errNothing says that a read found nothing to send.
var errNothing = errors.New("nothing below the limit")

// read sends a piece, no more than there is credit for if batches allow.
func (v *visit) read(sink Sink) error {
	var failed error
	err := sink.AppendRead(v.event(nil), func(dst []byte) ([]byte, error) {
		before := len(dst)
		out, _, err := v.place.partition.Read(dst, v.offset, v.place.limit, int(min(v.credit, pieceBytes)))
		next := v.offset
		switch {
		case err != nil:
		case len(out) == before:
			err = errNothing
		default:
			next, err = partition.NextOffset(out[before:])
		}
		if failed = err; err != nil {
			return dst, err
		}
		v.offset, v.sent = next, len(out)-before
		return out, nil
	})
	switch {
	case failed == nil:
		return err
	case errors.Is(failed, errNothing): // the log is being closed, or the replica is: somebody says so
		v.outcome = wait
		return nil
	case v.offset < v.place.partition.LogStart(), errors.Is(failed, partition.ErrUnsettled):
		// The start has passed him by, or may have. Only a quorum knows how far it has come, as for those who begin below it: see ended.
		v.checked, v.confirmation, v.outcome = false, nil, confirm
		return nil
	}
	v.outcome = over
	return sink.Append(v.event(failed))
}

// ended returns why a subscription cannot go on here, or nil. The outcome is confirm when only a quorum knows.
func (v *visit) ended(hub *Hub) error {
	if v.refusal != nil {
		return v.refusal
	}
	if v.may != nil {
		if err := v.may(); err != nil {
			return err
		}
	}
	p := v.place.partition
	switch {
	case p.Closed():
		return hub.noReplica()
	case !p.Leads():
		return &kerr.Error{Code: kerr.NotLeaderOrFollower, Leader: id.NoNode}
	case v.checked:
		return nil
	}
	c := v.confirmation
	if c == nil || !c.done.Load() { // the second: it was roused by a move, which was none after all
		if v.offset < p.LogStart() || v.offset > p.HighWatermark() {
			v.outcome = confirm
			return nil
		}
		v.checked, v.confirmation = true, nil
		return nil
	}
	if c.err != nil {
		return c.err
	}
	if start := p.LogStart(); v.offset < start || v.offset > c.hw {
		return &partition.ErrOutOfRange{Offset: v.offset, Start: start, End: c.hw}
	}
	v.checked, v.confirmation = true, nil
	return nil
}

func (h *Hub) noReplica() error {
	return kerr.Errorf(kerr.UnknownTopicOrPartition, "node %d has no replica of the partition", h.o.Node)
}

func (s *subscription) event(err error) Event {
	e := Event{Subscription: s.id, Limit: id.NoOffset, LogStart: id.NoOffset, Err: err}
	if s.place != nil {
		e.Partition = s.place.partition
		e.LogStart = e.Partition.ShownStart() // first: the limit is never below it
		e.Limit = e.Partition.Limit(s.place.limit)
	}
	if gone := (*partition.ErrOutOfRange)(nil); errors.As(err, &gone) {
		e.LogStart = gone.Start // where he may begin again
	}
	return e
}
