package native

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"
	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// appends is a broker that keeps nothing: do decides what becomes of a batch.
type appends struct {
	do     func(a *broker.Append)
	opened chan *opened
}

// opened is an appender, and what it was opened with.
type opened struct {
	appends  *appends
	caller   *broker.Caller
	answered func()

	mu   sync.Mutex
	ends int
}

func (b *appends) OpenAppender(c *broker.Caller, answered func()) broker.Appender {
	o := &opened{appends: b, caller: c, answered: answered}
	b.opened <- o
	return o
}

func (o *opened) Append(a *broker.Append) { o.appends.do(a) }

func (o *opened) End() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ends++
}

// serveProduce serves produce streams over the broker and returns a client's end of one.
func serveProduce(t testing.TB, b *appends) (*opened, *rpc.ProduceConn) {
	t.Helper()
	b.opened = make(chan *opened, 1)
	listener, err := rpc.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	server, err := rpc.NewServer(rpc.ServerOptions{Listener: listener, Services: rpc.Services{Produce: Produce(b)}})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close(context.Background())) })
	c, err := (&rpc.Dialer{ClientID: "tester"}).DialProduce(t.Context(), server.Addr().String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return <-b.opened, c
}

// receive has the answers of a connection delivered, and then why it ended.
func receive(c *rpc.ProduceConn) (answers chan rpc.ProduceResponse, ended chan error) {
	answers, ended = make(chan rpc.ProduceResponse, 100), make(chan error, 1)
	go func() { ended <- c.Recv(func(r rpc.ProduceResponse) { answers <- r }) }()
	return answers, ended
}

func next[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(10 * time.Second):
		t.Fatal("nothing comes")
		panic("unreachable")
	}
}

var topic = id.Topic{1, 2, 3}

// TestProduce: what a client sends is what the broker is asked, what the broker says is what the client is told.
func TestProduce(t *testing.T) {
	t.Cleanup(leaktest.AfterTest(t))
	type asked struct {
		topic     id.Topic
		partition id.Partition
		acks      broker.Acks
		timeout   time.Duration
		batch     string
	}
	got := make(chan asked, 10)
	b := &appends{do: func(a *broker.Append) {
		got <- asked{a.Topic, a.Partition, a.Acks, a.Timeout, string(a.Batch)}
		if a.Data == nil || a.Memory < len(a.Batch) {
			t.Errorf("a batch of %d bytes is in memory of %d bytes, kept by %v", len(a.Batch), a.Memory, a.Data)
		}
		switch a.Partition {
		case 0:
			a.BaseOffset, a.Leader, a.Epoch = 40, 2, 7
		case 1:
			a.Err, a.BaseOffset, a.Leader, a.Epoch = &kerr.Error{Code: kerr.NotLeaderOrFollower, Message: "ask another", Leader: 1}, id.NoOffset, 3, 8
		}
		a.Done(a)
	}}
	o, c := serveProduce(t, b)
	require.Equal(t, "tester", o.caller.ClientID)
	require.Equal(t, broker.Anonymous, o.caller.Principal)
	require.True(t, o.caller.Host.IsLoopback())
	answers, ended := receive(c)

	for p := range id.Partition(2) {
		require.NoError(t, c.Send(rpc.ProduceRequest{
			Correlation: 100 + uint64(p), Topic: topic, Partition: p, Acks: rpc.AcksAll, Timeout: 3 * time.Second, Batch: fmt.Appendf(nil, "batch %d", p),
		}))
	}
	require.NoError(t, c.Flush())
	require.Equal(t, asked{topic, 0, broker.AcksAll, 3 * time.Second, "batch 0"}, next(t, got))
	require.Equal(t, asked{topic, 1, broker.AcksAll, 3 * time.Second, "batch 1"}, next(t, got))
	require.Equal(t, rpc.ProduceResponse{Correlation: 100, BaseOffset: 40, Leader: 2, Epoch: 7}, next(t, answers))
	require.Equal(t, rpc.ProduceResponse{
		Correlation: 101, Code: kerr.NotLeaderOrFollower, BaseOffset: id.NoOffset, Leader: 3, Epoch: 8, Message: "ask another",
	}, next(t, answers))

	// Nobody waits for the answer to acks=0, unless there is something wrong.
	require.NoError(t, c.Send(rpc.ProduceRequest{Topic: topic, Acks: rpc.AcksNone, Batch: []byte("batch")}))
	require.NoError(t, c.Send(rpc.ProduceRequest{Correlation: 102, Topic: topic, Acks: rpc.AcksLeader, Batch: []byte("batch")}))
	require.NoError(t, c.Flush())
	require.EqualValues(t, 102, next(t, answers).Correlation)
	require.NoError(t, c.Send(rpc.ProduceRequest{Topic: topic, Partition: 1, Acks: rpc.AcksNone, Batch: []byte("batch")}))
	require.NoError(t, c.Flush())
	require.Equal(t, kerr.NotLeaderOrFollower, kerr.CodeOf(next(t, ended)))
	o.mu.Lock()
	defer o.mu.Unlock()
	require.Positive(t, o.ends)
}

// TestProduceIsAnsweredLater: an answer that comes in a turn of its own is with the client when the turn has ended.
func TestProduceIsAnsweredLater(t *testing.T) {
	t.Cleanup(leaktest.AfterTest(t))
	waiting := make(chan *broker.Append, 10)
	b := &appends{do: func(a *broker.Append) { waiting <- a }}
	o, c := serveProduce(t, b)
	answers, _ := receive(c)
	for n := range uint64(3) {
		require.NoError(t, c.Send(rpc.ProduceRequest{Correlation: n, Topic: topic, Acks: rpc.AcksAll, Batch: []byte("batch")}))
	}
	require.NoError(t, c.Flush())
	for range 3 {
		a := next(t, waiting)
		a.Done(a)
	}
	o.answered()
	for n := range uint64(3) {
		require.Equal(t, n, next(t, answers).Correlation)
	}
}

// TestProduceAllocatesNothing: a batch costs no allocation on its way from the wire to the broker and back.
func TestProduceAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops at random under the race detector")
	}
	b := &appends{do: func(a *broker.Append) {
		a.BaseOffset = 1
		a.Done(a)
	}}
	_, c := serveProduce(t, b)
	answered := make(chan struct{}, 1)
	go func() { _ = c.Recv(func(rpc.ProduceResponse) { answered <- struct{}{} }) }()
	r := rpc.ProduceRequest{Topic: topic, Acks: rpc.AcksAll, Batch: make([]byte, 1<<10)}
	round := func() {
		r.Correlation++
		if err := c.Send(r); err != nil {
			t.Error(err)
		}
		if err := c.Flush(); err != nil {
			t.Error(err)
		}
		<-answered
	}
	for range 100 {
		round()
	}
	require.LessOrEqual(t, testing.AllocsPerRun(2000, round), 0.0)
}

// BenchmarkProduce is a batch's way from the wire to a broker that keeps nothing, and its answer's back, one at a time.
func BenchmarkProduce(bench *testing.B) {
	b := &appends{do: func(a *broker.Append) { a.Done(a) }}
	_, c := serveProduce(bench, b)
	answered := make(chan struct{}, 1)
	go func() { _ = c.Recv(func(rpc.ProduceResponse) { answered <- struct{}{} }) }()
	r := rpc.ProduceRequest{Topic: topic, Acks: rpc.AcksAll, Batch: make([]byte, 1<<10)}
	bench.ReportAllocs()
	for bench.Loop() {
		if c.Send(r) != nil || c.Flush() != nil {
			bench.Fatal("the stream is over")
		}
		<-answered
	}
}
