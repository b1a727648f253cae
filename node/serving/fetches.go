package serving

import (
	"context"
	"time"

	"github.com/quorumlog/quorumlog/node/fetching"
	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// fetcher is what one connection reads: a session of package fetching, with the broker's words for what it says.
type fetcher struct {
	broker  *Broker
	session *fetching.Session
	permits *broker.Permits // of Serve
	sink    sink            // of the present Serve
}

// OpenFetcher implements broker.Fetches.
func (b *Broker) OpenFetcher(c *broker.Caller) broker.Fetcher {
	return &fetcher{broker: b, session: b.o.Fetching.NewSession(), permits: broker.NewPermits(b.o.Authorizer, c)}
}

// Subscribe implements broker.Fetcher. Who asks for what is not here, or is not for him, gets a subscription as well, so that Serve, which alone
// says anything, says so.
func (f *fetcher) Subscribe(s broker.Subscription) error {
	want := fetching.Subscription{ID: fetching.ID(s.ID), Limit: partition.ToHighWatermark, Offset: s.Offset, Credit: s.Credit}
	if p := f.broker.o.Replicas.Find(s.Topic, s.Partition); p != nil {
		want.Partition = p
		if f.broker.o.Authorizer.Enabled() {
			want.May = func() *kerr.Error { return f.permits.Topic("Fetch", p.TopicPartition.Topic) }
		}
	}
	return coded(f.session.Subscribe(want))
}

// Credit implements broker.Fetcher.
func (f *fetcher) Credit(which broker.SubscriptionID, bytes int64) error {
	return coded(f.session.Credit(fetching.ID(which), bytes))
}

// Unsubscribe implements broker.Fetcher.
func (f *fetcher) Unsubscribe(which broker.SubscriptionID) { f.session.Unsubscribe(fetching.ID(which)) }

// Serve implements broker.Fetcher.
func (f *fetcher) Serve(s broker.FetchSink) (bool, error) {
	f.sink.FetchSink = s
	return f.session.Serve(&f.sink)
}

// ServeEnded implements broker.Fetcher.
func (f *fetcher) ServeEnded(s broker.FetchSink) error {
	f.sink.FetchSink = s
	return f.session.ServeEnded(&f.sink)
}

// Throttle implements broker.Fetcher: quotas are package quota's.
func (f *fetcher) Throttle() time.Duration { return 0 }

// Wait implements broker.Fetcher.
func (f *fetcher) Wait(ctx context.Context) error { return f.session.Wait(ctx) }

// Close implements broker.Fetcher.
func (f *fetcher) Close() { f.session.Close() }

// sink translates what a session says.
type sink struct{ broker.FetchSink }

// Append implements fetching.Sink.
func (s *sink) Append(e fetching.Event) error { return s.FetchSink.Append(eventOf(e)) }

// AppendRead implements fetching.Sink.
func (s *sink) AppendRead(e fetching.Event, read func(dst []byte) ([]byte, error)) error {
	return s.FetchSink.AppendRead(eventOf(e), read)
}

func eventOf(e fetching.Event) broker.FetchEvent {
	event := broker.FetchEvent{Subscription: broker.SubscriptionID(e.Subscription), HighWatermark: e.Limit, LogStart: e.LogStart, Leader: id.NoNode}
	if e.Err != nil {
		event.Err = Refusal(e.Err)
		event.Leader, event.Epoch = leaderOfRefusal(event.Err, groupOf(e.Partition))
	}
	return event
}

// groupOf returns the Raft group of a partition that has one, else nil.
func groupOf(p fetching.Partition) *raftgroup.Group {
	if p, ok := p.(*partition.Partition); ok {
		return p.Group()
	}
	return nil
}
