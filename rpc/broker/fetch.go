package broker

import (
	"context"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Fetches is where records go out.
type Fetches interface {
	// OpenFetcher begins what one connection reads. Close it when nobody is in Serve any more.
	OpenFetcher(c *Caller) Fetcher
}

// SubscriptionID names a subscription on its connection. The client chooses it, and uses it once.
type SubscriptionID uint32

// Subscription is a partition that is to be read.
type Subscription struct {
	ID        SubscriptionID
	Topic     id.Topic
	Partition id.Partition
	Offset    id.Offset // of the first record
	Credit    int64     // bytes of batches to begin with
}

// Fetcher is what one connection reads, and waits for. Whoever receives what the client asks for calls Subscribe, Credit and Unsubscribe, none of
// which blocks; whoever sends calls Serve and Wait. A connection that pushes serves while there is anything to say; a long poll, as Kafka's,
// serves until there is enough, waits until its time is over, and leaves the rest for the next one.
type Fetcher interface {
	// Subscribe adds a subscription. An error is one of the connection, which cannot go on; what is wrong with a subscription is said in the
	// event that ends it.
	Subscribe(Subscription) error
	// Credit lets so many bytes more be read. A batch that is larger than the credit left is read whole, and makes it negative.
	Credit(which SubscriptionID, bytes int64) error
	// Unsubscribe ends a subscription. What is being said to it is still said.
	Unsubscribe(which SubscriptionID)
	// Serve says one thing, if there is any, and at most a piece of one partition: subscriptions take turns. False: Wait. An error is the
	// sink's.
	Serve(sink FetchSink) (more bool, err error)
	// ServeEnded says of what could be served only what ends a subscription, such as a leader that has moved.
	ServeEnded(sink FetchSink) error
	// Throttle is how long nothing else is to be served from now on: the client was sent more than its quota.
	Throttle() time.Duration
	// Wait returns nil when there may be something to serve.
	Wait(ctx context.Context) error
	Close()
}

// FetchSink takes what a Fetcher has to say. Its methods may block, which holds the Fetcher back. Their errors end it.
type FetchSink interface {
	// Append takes an event without records.
	Append(FetchEvent) error
	// AppendRead takes an event with the batches that read appends to what it is given, which saves a copy. If read fails nothing is said,
	// and its error is returned as it is.
	AppendRead(e FetchEvent, read func(dst []byte) ([]byte, error)) error
}

// FetchEvent is what is said about a subscription. Without an error and without batches: it has caught up, at HighWatermark.
type FetchEvent struct {
	Subscription  SubscriptionID
	HighWatermark id.Offset   // id.NoOffset where there is no replica
	LogStart      id.Offset   // likewise, and while a new leader does not know it yet
	Err           *kerr.Error // the subscription is over, and why
	// With kerr.NotLeaderOrFollower: who leads instead, as far as is known.
	Leader id.Node
	Epoch  id.Epoch
}
