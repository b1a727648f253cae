package serving

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	// pieceBytes is how much of one partition is read before the next one has its turn.
	pieceBytes = 256 << 10
	// confirmTimeout bounds the round of heartbeats that must precede OFFSET_OUT_OF_RANGE.
	confirmTimeout = 5 * time.Second
	// maxSubscriptions bounds the partitions of one connection: each costs memory, and a look at each commit of its partition.
	maxSubscriptions = 10_000
)

// fetcher is what one connection reads. Its subscriptions are sent committed batches for as long as their consumer grants credit.
type fetcher struct {
	broker *Broker
	caller *broker.Caller
	wake   chan struct{} // capacity 1

	// Of Serve: whether the caller may read, still; whose turn it is in this round, of whom the first have had theirs, and who comes again in the next one.
	permits      *broker.Permits
	ready, again []*subscription
	served       int

	mu            sync.Mutex
	subscriptions map[broker.SubscriptionID]*subscription
}

// subscription is one partition that a consumer reads. credit is guarded by the fetcher's mu, the rest belongs to Serve.
type subscription struct {
	id        broker.SubscriptionID
	partition *partition.Partition
	watcher   *partition.Watcher
	credit    int64

	next     id.Offset
	checked  bool      // next is known to be inside the log
	caughtUp id.Offset // the high watermark that the consumer was last told it has reached
}

// OpenFetcher implements broker.Fetches.
func (b *Broker) OpenFetcher(c *broker.Caller) broker.Fetcher {
	return &fetcher{
		broker: b, caller: c, permits: broker.NewPermits(b.o.Authorizer, c), wake: make(chan struct{}, 1),
		subscriptions: make(map[broker.SubscriptionID]*subscription),
	}
}

// Subscribe implements broker.Fetcher. An unknown partition gets a subscription as well, so that Serve, which alone says anything, says so.
func (f *fetcher) Subscribe(want broker.Subscription) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.subscriptions[want.ID] != nil {
		return nil
	}
	if len(f.subscriptions) >= maxSubscriptions {
		return kerr.Errorf(kerr.PolicyViolation, "more than %d subscriptions on one connection: open another one", maxSubscriptions)
	}
	sub := &subscription{
		id: want.ID, partition: f.broker.o.Replicas.Find(want.Topic, want.Partition),
		watcher: partition.NewWatcher(f.wake), credit: want.Credit, next: want.Offset, caughtUp: id.NoOffset,
	}
	f.subscriptions[want.ID] = sub
	if sub.partition != nil {
		sub.partition.Watch(sub.watcher)
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
	return nil
}

// Credit implements broker.Fetcher.
func (f *fetcher) Credit(which broker.SubscriptionID, bytes int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if sub := f.subscriptions[which]; sub != nil {
		sub.credit += bytes
		sub.watcher.Rouse()
	}
	return nil
}

// Unsubscribe implements broker.Fetcher.
func (f *fetcher) Unsubscribe(which broker.SubscriptionID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if sub := f.subscriptions[which]; sub != nil {
		f.dropLocked(sub)
	}
}

// Close implements broker.Fetcher.
func (f *fetcher) Close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, sub := range f.subscriptions {
		f.dropLocked(sub)
	}
}

func (f *fetcher) dropLocked(sub *subscription) {
	delete(f.subscriptions, sub.id)
	if sub.partition != nil {
		sub.partition.Unwatch(sub.watcher)
	}
}

// Serve implements broker.Fetcher.
func (f *fetcher) Serve(ctx context.Context, sink broker.FetchSink) (bool, error) {
	if f.served == len(f.ready) {
		f.ready, f.again, f.served = f.again, f.ready[:0], 0
	}
	if len(f.ready) == 0 {
		f.lookForReady()
	}
	if len(f.ready) == 0 {
		return false, nil
	}
	sub := f.ready[f.served]
	f.served++
	again, err := f.serveOne(ctx, sink, sub)
	if again {
		f.again = append(f.again, sub)
	}
	return true, err
}

// Throttle implements broker.Fetcher: quotas are package quota's.
func (f *fetcher) Throttle() time.Duration { return 0 }

// Wait implements broker.Fetcher.
func (f *fetcher) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.wake:
		return nil
	}
}

func (f *fetcher) lookForReady() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, sub := range f.subscriptions {
		if sub.watcher.Ready() {
			f.ready = append(f.ready, sub)
		}
	}
}

// errNothing says that a read found nothing to send.
var errNothing = errors.New("nothing below the high watermark")

// serveOne says one thing about a subscription. It tells whether there may be more; an error is the sink's.
func (f *fetcher) serveOne(ctx context.Context, sink broker.FetchSink, sub *subscription) (again bool, err error) {
	if end := f.ended(ctx, sub); end != nil {
		return false, f.end(sink, sub, end)
	}
	if f.credit(sub) <= 0 {
		return false, nil // roused again by the next credit
	}
	p := sub.partition
	hw := p.HighWatermark()
	event := broker.FetchEvent{Subscription: sub.id, HighWatermark: hw, LogStart: p.Log().StartOffset(), Leader: id.NoNode}
	if sub.next >= hw {
		if sub.caughtUp == hw || sub.next > hw {
			return false, nil
		}
		sub.caughtUp = hw
		return false, sink.Append(event)
	}
	size := 0
	var readErr error
	err = sink.AppendRead(event, func(dst []byte) ([]byte, error) {
		before := len(dst)
		out, _, err := p.Read(dst, sub.next, pieceBytes)
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
		return false, f.end(sink, sub, readErr)
	case errors.Is(err, errNothing):
		return false, nil
	case err != nil:
		return false, err
	}
	f.spend(sub, int64(size))
	return true, nil
}

// ended returns why a subscription cannot go on here, or nil.
func (f *fetcher) ended(ctx context.Context, sub *subscription) error {
	p := sub.partition
	if p == nil || p.Closed() {
		return kerr.Errorf(kerr.UnknownTopicOrPartition, "node %d has no replica of the partition", f.broker.o.Node)
	}
	if err := f.permits.Topic("Fetch", p.TopicPartition.Topic); err != nil {
		return err
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

// end says that a subscription is over and why.
func (f *fetcher) end(sink broker.FetchSink, sub *subscription, why error) error {
	f.mu.Lock()
	f.dropLocked(sub)
	f.mu.Unlock()
	event := broker.FetchEvent{Subscription: sub.id, Err: Refusal(why), HighWatermark: id.NoOffset, LogStart: id.NoOffset}
	event.Leader = event.Err.Leader
	if sub.partition != nil {
		event.Leader, event.Epoch = leaderOfRefusal(event.Err, sub.partition.Group())
		event.HighWatermark, event.LogStart = sub.partition.HighWatermark(), sub.partition.Log().StartOffset()
	}
	return sink.Append(event)
}

func (f *fetcher) credit(sub *subscription) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return sub.credit
}

func (f *fetcher) spend(sub *subscription, bytes int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sub.credit -= bytes
}
