package native

import (
	"context"
	"time"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
)

// consumer is one consumer's stream. Two goroutines: the stream's receiver takes commands (never blocking, never sending), and push sends.
type consumer struct {
	stream  *rpc.FetchStream
	fetcher broker.Fetcher
}

// Fetch returns the service of fetch streams over a broker.
func Fetch(b broker.Fetches) func(*rpc.FetchStream) error {
	return func(stream *rpc.FetchStream) error {
		c := &consumer{stream: stream, fetcher: b.OpenFetcher(stream.Caller())}
		defer c.fetcher.Close()
		ctx, cancel := context.WithCancel(stream.Context())
		pushed := make(chan struct{})
		go func() {
			defer close(pushed)
			defer cancel()
			c.push(ctx)
		}()
		err := stream.Recv(c.receive)
		cancel()
		<-pushed
		return err
	}
}

func (c *consumer) receive(r rpc.FetchCommand) error {
	which := broker.SubscriptionID(r.Subscription)
	switch r.Kind {
	case rpc.Subscribe:
		return c.fetcher.Subscribe(broker.Subscription{ID: which, Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Credit: r.Credit})
	case rpc.Credit:
		return c.fetcher.Credit(which, r.Credit)
	case rpc.Unsubscribe:
		c.fetcher.Unsubscribe(which)
	}
	return nil
}

// push sends what there is to send, and sleeps when there is nothing.
func (c *consumer) push(ctx context.Context) {
	for {
		more, err := c.serve(ctx)
		for more && err == nil {
			more, err = c.serve(ctx)
		}
		if err != nil || c.stream.Flush() != nil {
			return // the stream is gone
		}
		if c.fetcher.Wait(ctx) != nil {
			return
		}
	}
}

// throttleLook is how long a throttled consumer waits until the next look: its quota may have been raised.
const throttleLook = time.Second

// serve says one thing, if there is any and the consumer is within its quota. It is told when it is not, and for how long; meanwhile it hears
// of what has ended, or it would learn of a leader that has moved when its quota allows.
func (c *consumer) serve(ctx context.Context) (more bool, err error) {
	for throttle := c.fetcher.Throttle(); throttle > 0; throttle = c.fetcher.Throttle() {
		if err := c.fetcher.ServeEnded(c); err != nil {
			return false, err
		}
		if err := c.stream.Throttle(throttle); err != nil {
			return false, err
		}
		wait := time.NewTimer(min(throttle, throttleLook))
		select {
		case <-wait.C:
		case <-ctx.Done():
			wait.Stop()
			return false, ctx.Err()
		}
	}
	return c.fetcher.Serve(c)
}

// Append implements broker.FetchSink.
func (c *consumer) Append(e broker.FetchEvent) error { return c.stream.Append(eventOf(e)) }

// AppendRead implements broker.FetchSink.
func (c *consumer) AppendRead(e broker.FetchEvent, read func(dst []byte) ([]byte, error)) error {
	return c.stream.AppendRead(eventOf(e), read)
}

func eventOf(e broker.FetchEvent) rpc.FetchEvent {
	out := rpc.FetchEvent{
		Subscription: uint32(e.Subscription), HighWatermark: e.HighWatermark, LogStart: e.LogStart, Leader: e.Leader, Epoch: e.Epoch,
	}
	if e.Err != nil {
		out.Code, out.Message = e.Err.Code, e.Err.Message
	}
	return out
}
