package node

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// fetchBytes is how much of one partition is pushed before the next one has its turn.
	fetchBytes = 256 << 10
	// confirmTimeout bounds the round of heartbeats that must precede OFFSET_OUT_OF_RANGE.
	confirmTimeout = 5 * time.Second
	// maxSubscriptions bounds the partitions of one connection: each costs memory, and a look at each commit of its partition.
	maxSubscriptions = 10_000
)

// fetchSession is one consumer's connection. Its subscriptions push committed batches for as long as the consumer grants
// credit. Two goroutines: the stream's receiver takes commands (never blocking, never sending), and push sends.
type fetchSession struct {
	node   *Node
	stream *rpc.FetchStream
	wake   chan struct{} // capacity 1

	mu            sync.Mutex
	subscriptions map[uint32]*subscription
}

// subscription is one partition that a consumer reads. credit is guarded by the session's mu, the rest belongs to push.
type subscription struct {
	number    uint32
	partition *partition.Partition
	watcher   *partition.Watcher
	credit    int64

	next     id.Offset
	checked  bool      // next is known to be inside the log
	caughtUp id.Offset // the high watermark that the consumer was last told it has reached
}

// fetch serves one consumer until its stream ends.
func (n *Node) fetch(stream *rpc.FetchStream) error {
	s := &fetchSession{node: n, stream: stream, wake: make(chan struct{}, 1), subscriptions: make(map[uint32]*subscription)}
	ctx, cancel := context.WithCancel(stream.Context())
	pushed := make(chan struct{})
	go func() {
		defer close(pushed)
		defer cancel()
		s.push(ctx)
	}()
	err := stream.Recv(s.receive)
	cancel()
	<-pushed
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.subscriptions {
		s.dropLocked(sub)
	}
	return err
}

func (s *fetchSession) receive(c rpc.FetchCommand) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub := s.subscriptions[c.Subscription]
	switch c.Kind {
	case rpc.Subscribe:
		if sub == nil {
			return s.subscribeLocked(c)
		}
	case rpc.Credit:
		if sub != nil {
			sub.credit += c.Credit
			sub.watcher.Rouse()
		}
	case rpc.Unsubscribe:
		if sub != nil {
			s.dropLocked(sub)
		}
	}
	return nil
}

// subscribeLocked adds a subscription. An unknown partition gets one as well, so that push, the only one who sends, says so.
func (s *fetchSession) subscribeLocked(c rpc.FetchCommand) error {
	if len(s.subscriptions) >= maxSubscriptions {
		return kerr.Errorf(kerr.PolicyViolation, "more than %d subscriptions on one connection: open another one", maxSubscriptions)
	}
	sub := &subscription{
		number: c.Subscription, partition: s.node.replicas.find(c.Topic, c.Partition),
		watcher: partition.NewWatcher(s.wake), credit: c.Credit, next: c.Offset, caughtUp: id.NoOffset,
	}
	s.subscriptions[c.Subscription] = sub
	if sub.partition != nil {
		sub.partition.Watch(sub.watcher)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

func (s *fetchSession) dropLocked(sub *subscription) {
	delete(s.subscriptions, sub.number)
	if sub.partition != nil {
		sub.partition.Unwatch(sub.watcher)
	}
}

// push sends what there is to send, one piece of each partition in turn, and sleeps when there is nothing.
func (s *fetchSession) push(ctx context.Context) {
	var ready []*subscription
	for {
		ready = s.ready(ready[:0])
		for len(ready) > 0 {
			more := ready[:0]
			for _, sub := range ready {
				again, err := s.pushOne(ctx, sub)
				if err != nil {
					return // the stream is gone
				}
				if again {
					more = append(more, sub)
				}
			}
			ready = more
		}
		if s.stream.Flush() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
	}
}

func (s *fetchSession) ready(into []*subscription) []*subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sub := range s.subscriptions {
		if sub.watcher.Ready() {
			into = append(into, sub)
		}
	}
	return into
}

// errNothing says that a read found nothing to send.
var errNothing = errors.New("nothing below the high watermark")

// pushOne sends one piece of a partition. It tells whether there may be more; an error is one of the stream.
func (s *fetchSession) pushOne(ctx context.Context, sub *subscription) (again bool, err error) {
	if end := s.ended(ctx, sub); end != nil {
		return false, s.end(sub, end)
	}
	if s.credit(sub) <= 0 {
		return false, nil // roused again by the next credit
	}
	p := sub.partition
	hw := p.HighWatermark()
	if sub.next >= hw {
		if sub.caughtUp == hw || sub.next > hw {
			return false, nil
		}
		sub.caughtUp = hw
		return false, s.stream.Append(rpc.FetchEvent{Subscription: sub.number, HighWatermark: hw, LogStart: p.Log().StartOffset(), Leader: id.NoNode})
	}
	size := 0
	event := rpc.FetchEvent{Subscription: sub.number, HighWatermark: hw, LogStart: p.Log().StartOffset(), Leader: id.NoNode}
	var readErr error
	err = s.stream.AppendRead(event, func(dst []byte) ([]byte, error) {
		before := len(dst)
		out, _, err := p.Read(dst, sub.next, fetchBytes)
		if readErr = err; err != nil {
			return dst, err
		}
		if size = len(out) - before; size == 0 {
			return dst, errNothing
		}
		sub.next, readErr = partition.NextOffset(out[before:])
		return out, readErr
	})
	switch {
	case readErr != nil:
		return false, s.end(sub, readErr)
	case errors.Is(err, errNothing):
		return false, nil
	case err != nil:
		return false, err
	}
	s.spend(sub, int64(size))
	return true, nil
}

// ended returns why a subscription cannot go on here, or nil.
func (s *fetchSession) ended(ctx context.Context, sub *subscription) error {
	p := sub.partition
	if p == nil || p.Closed() {
		return kerr.Errorf(kerr.UnknownTopicOrPartition, "node %d has no replica of the partition", s.node.options.NodeID)
	}
	if !p.Group().IsLeader() {
		_, leader, _ := p.Group().Leader()
		return &kerr.Error{Code: kerr.NotLeaderOrFollower, Leader: leader}
	}
	if sub.checked {
		return nil
	}
	if sub.next < p.Log().StartOffset() || sub.next > p.HighWatermark() {
		confirm, cancel := context.WithTimeout(ctx, confirmTimeout)
		defer cancel()
		if err := p.Confirm(confirm, sub.next); err != nil {
			if ctx.Err() == nil && confirm.Err() != nil {
				return kerr.Errorf(kerr.OffsetNotAvailable, "the leader could not confirm its high watermark within %v", confirmTimeout)
			}
			return err
		}
	}
	sub.checked = true
	return nil
}

// end tells the consumer that a subscription is over and why.
func (s *fetchSession) end(sub *subscription, why error) error {
	s.mu.Lock()
	s.dropLocked(sub)
	s.mu.Unlock()
	e := toRPC(why)
	event := rpc.FetchEvent{Subscription: sub.number, Code: e.Code, Leader: e.Leader, Message: e.Message, HighWatermark: id.NoOffset, LogStart: id.NoOffset}
	if sub.partition != nil {
		event.Leader, event.Epoch = leaderOfRefusal(e, sub.partition.Group())
		event.HighWatermark, event.LogStart = sub.partition.HighWatermark(), sub.partition.Log().StartOffset()
	}
	return s.stream.Append(event)
}

func (s *fetchSession) credit(sub *subscription) int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return sub.credit
}

func (s *fetchSession) spend(sub *subscription, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sub.credit -= bytes
}
