package native

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"
	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// fetcher is a broker that says what the test wants, one thing after the other.
type fetcher struct {
	caller *broker.Caller
	asked  chan any
	wake   chan struct{}
	closed chan struct{}

	mu     sync.Mutex
	says   []func(broker.FetchSink) error
	ends   []func(broker.FetchSink) error // what ServeEnded says
	refuse error

	throttled atomic.Int64 // a time.Duration
}

type credit struct {
	which broker.SubscriptionID
	bytes int64
}

func (f *fetcher) OpenFetcher(c *broker.Caller) broker.Fetcher {
	f.caller = c
	return f
}

func (f *fetcher) Subscribe(s broker.Subscription) error {
	f.asked <- s
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.refuse
}

func (f *fetcher) Credit(which broker.SubscriptionID, bytes int64) error {
	f.asked <- credit{which, bytes}
	return nil
}

func (f *fetcher) Unsubscribe(which broker.SubscriptionID) { f.asked <- which }

func (f *fetcher) Serve(sink broker.FetchSink) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.says) == 0 {
		return false, nil
	}
	say := f.says[0]
	f.says = f.says[1:]
	return true, say(sink)
}

func (f *fetcher) ServeEnded(sink broker.FetchSink) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, say := range f.ends {
		if err := say(sink); err != nil {
			return err
		}
	}
	f.ends = nil
	return nil
}

func (f *fetcher) Throttle() time.Duration { return time.Duration(f.throttled.Load()) }

func (f *fetcher) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-f.wake:
		return nil
	}
}

func (f *fetcher) Close() { close(f.closed) }

func (f *fetcher) say(all ...func(broker.FetchSink) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.says = append(f.says, all...)
	f.wake <- struct{}{}
}

// serveFetch serves fetch streams over the broker and returns a client's end of one.
func serveFetch(t *testing.T) (*fetcher, *rpc.FetchConn) {
	t.Helper()
	f := &fetcher{asked: make(chan any, 10), wake: make(chan struct{}, 10), closed: make(chan struct{})}
	listener, err := rpc.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	server, err := rpc.NewServer(rpc.ServerOptions{Listener: listener, Services: rpc.Services{Fetch: Fetch(f)}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close(context.Background())) })
	c, err := (&rpc.Dialer{ClientID: "tester"}).DialFetch(t.Context(), server.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return f, c
}

// TestFetch: what a client asks is what the broker is asked, what the broker says is what the client is told, and the fetcher is closed when
// the client goes.
func TestFetch(t *testing.T) {
	t.Cleanup(leaktest.AfterTest(t))
	f, c := serveFetch(t)
	events := make(chan rpc.FetchEvent, 10)
	go func() {
		_ = c.Recv(func(e rpc.FetchEvent) {
			e.Batches = append([]byte(nil), e.Batches...) // they are the callback's
			events <- e
		})
	}()
	require.NoError(t, c.Send(
		rpc.FetchCommand{Kind: rpc.Subscribe, Subscription: 7, Topic: topic, Partition: 2, Offset: 5, Credit: 1000},
		rpc.FetchCommand{Kind: rpc.Credit, Subscription: 7, Credit: 300},
		rpc.FetchCommand{Kind: rpc.Unsubscribe, Subscription: 7},
	))
	require.Equal(t, broker.Subscription{ID: 7, Topic: topic, Partition: 2, Offset: 5, Credit: 1000}, next(t, f.asked))
	require.Equal(t, credit{7, 300}, next(t, f.asked))
	require.Equal(t, broker.SubscriptionID(7), next(t, f.asked))
	require.Equal(t, "tester", f.caller.ClientID)

	event := broker.FetchEvent{Subscription: 7, HighWatermark: 20, LogStart: 3, Leader: id.NoNode}
	over := broker.FetchEvent{
		Subscription: 8, HighWatermark: id.NoOffset, LogStart: id.NoOffset, Leader: 2, Epoch: 9,
		Err: &kerr.Error{Code: kerr.NotLeaderOrFollower, Message: "ask another", Leader: 1},
	}
	f.say(
		func(s broker.FetchSink) error {
			return s.AppendRead(event, func(dst []byte) ([]byte, error) { return append(dst, "batches"...), nil })
		},
		func(s broker.FetchSink) error {
			nothing := kerr.Errorf(kerr.Unknown, "nothing")
			require.Equal(t, error(nothing), s.AppendRead(event, func(dst []byte) ([]byte, error) { return dst, nothing }))
			return nil
		},
		func(s broker.FetchSink) error { return s.Append(event) },
		func(s broker.FetchSink) error { return s.Append(over) },
	)
	want := rpc.FetchEvent{Subscription: 7, HighWatermark: 20, LogStart: 3, Leader: id.NoNode, Batches: []byte("batches")}
	require.Equal(t, want, next(t, events))
	want.Batches = nil
	require.Equal(t, want, next(t, events))
	require.Equal(t, rpc.FetchEvent{
		Subscription: 8, Code: kerr.NotLeaderOrFollower, HighWatermark: id.NoOffset, LogStart: id.NoOffset, Leader: 2, Epoch: 9, Message: "ask another",
	}, next(t, events))

	require.NoError(t, c.Close())
	next(t, f.closed)
}

// TestFetchRefused: an error of Subscribe ends the connection.
func TestFetchRefused(t *testing.T) {
	t.Cleanup(leaktest.AfterTest(t))
	f, c := serveFetch(t)
	f.mu.Lock()
	f.refuse = kerr.Errorf(kerr.PolicyViolation, "too many")
	f.mu.Unlock()
	ended := make(chan error, 1)
	go func() { ended <- c.Recv(func(rpc.FetchEvent) {}) }()
	require.NoError(t, c.Send(rpc.FetchCommand{Kind: rpc.Subscribe, Subscription: 7}))
	require.Equal(t, kerr.PolicyViolation, kerr.CodeOf(next(t, ended)))
	next(t, f.closed)
}

// TestThrottledConsumer is told that it is sent nothing, is sent nothing, and is served again soon after its quota allows it.
func TestThrottledConsumer(t *testing.T) {
	t.Cleanup(leaktest.AfterTest(t))
	f, c := serveFetch(t)
	events, ended := make(chan rpc.FetchEvent, 10), make(chan struct{})
	go func() {
		defer close(ended)
		_ = c.Recv(func(e rpc.FetchEvent) { events <- e })
	}()
	f.throttled.Store(int64(time.Hour))
	f.say(func(s broker.FetchSink) error { return s.Append(broker.FetchEvent{Subscription: 7}) })
	require.Eventually(t, func() bool { return c.Throttled() > 59*time.Minute }, 10*time.Second, time.Millisecond)
	require.Empty(t, events)
	f.mu.Lock()
	f.ends = append(f.ends, func(s broker.FetchSink) error {
		return s.Append(broker.FetchEvent{Subscription: 8, Err: kerr.Errorf(kerr.NotLeaderOrFollower, "it has moved")})
	})
	f.mu.Unlock()
	require.EqualValues(t, 8, next(t, events).Subscription) // what has ended is said meanwhile
	require.Empty(t, events)
	f.throttled.Store(0)
	require.EqualValues(t, 7, next(t, events).Subscription)
	_ = c.Close()
	<-ended
}
