package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// returns fails the test if f does not return.
func returns(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(testTime):
		t.Fatalf("%s does not return", what)
	}
}

// TestClientIsClosedFirst: what its producers hold has its outcome then, and they can still be closed.
func TestClientIsClosedFirst(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	cluster.SetFault(func(id.TopicPartition, batch.Batch) clienttest.Fault { return clienttest.Swallow })
	p, err := c.NewProducer(client.ProducerOptions{})
	require.NoError(t, err)
	k, err := c.NewConsumer(client.ConsumerOptions{})
	require.NoError(t, err)
	require.NoError(t, k.Assign(tp("test", 0), 0))
	a := newAcks()
	require.NoError(t, p.Produce(testContext(t), client.Record{Topic: "test", Value: []byte("v")}, a.callback("v")))
	polled := make(chan error, 1)
	go func() {
		for {
			if _, err := k.Poll(context.Background()); err != nil {
				polled <- err
				return
			}
		}
	}()
	returns(t, "Client.Close", func() { require.NoError(t, c.Close()) })
	require.ErrorIs(t, a.failed["v"], client.ErrClosed, "no outcome although Close has returned")
	require.ErrorIs(t, p.Produce(testContext(t), client.Record{Topic: "test"}, nil), client.ErrClosed)
	require.ErrorIs(t, <-polled, client.ErrClosed)
	for range 2 {
		returns(t, "Producer.Close", func() { require.NoError(t, p.Close(context.Background())) })
		returns(t, "Flush", func() { require.NoError(t, p.Flush(context.Background())) })
		returns(t, "Consumer.Close", func() { require.NoError(t, k.Close()) })
		returns(t, "Client.Close", func() { require.NoError(t, c.Close()) })
	}
	_, err = c.NewProducer(client.ProducerOptions{})
	require.ErrorIs(t, err, client.ErrClosed)
	_, err = c.NewConsumer(client.ConsumerOptions{})
	require.ErrorIs(t, err, client.ErrClosed)
}

// TestCloseWhileProduceWaits: for a topic that is not there yet, and for room.
func TestCloseWhileProduceWaits(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	var swallowed atomic.Int32
	cluster.SetFault(func(id.TopicPartition, batch.Batch) clienttest.Fault {
		swallowed.Add(1)
		return clienttest.Swallow
	})
	p, err := c.NewProducer(client.ProducerOptions{BufferBytes: 1000})
	require.NoError(t, err)
	produced := make(chan error, 2)
	go func() { produced <- p.Produce(context.Background(), client.Record{Topic: "late"}, nil) }()
	go func() {
		for {
			if err := p.Produce(context.Background(), client.Record{Topic: "test", Value: make([]byte, 200)}, nil); err != nil {
				produced <- err
				return
			}
		}
	}()
	waitFor(t, "the producer to ask for the topic, and to have sent", func() bool { return cluster.MetadataRequests() > 2 && swallowed.Load() > 0 })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, p.Close(ctx), context.DeadlineExceeded)
	cluster.CreateTopic("late", 1, nil)
	for range 2 {
		require.ErrorIs(t, <-produced, client.ErrClosed)
	}
}

// TestCloseAtAnyTime closes things in any order, more than once, while they are used. Each record that was taken is called back once, and none
// after Close.
func TestCloseAtAnyTime(t *testing.T) {
	waits(t)
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 3))
			cluster, _ := newCluster(t, 2)
			c := newClient(t, cluster.Servers(), 200*time.Millisecond)
			cluster.CreateTopic("test", 4, nil)
			if seed%2 == 0 {
				faults := rand.New(rand.NewPCG(seed, 4)) // the hook is called with the cluster locked
				cluster.SetFault(func(id.TopicPartition, batch.Batch) clienttest.Fault {
					return []clienttest.Fault{clienttest.None, clienttest.None, clienttest.LoseAck, clienttest.Drop}[faults.IntN(4)]
				})
			}
			p, err := c.NewProducer(client.ProducerOptions{BatchBytes: 300, BufferBytes: 10_000})
			require.NoError(t, err)
			k, err := c.NewConsumer(client.ConsumerOptions{})
			require.NoError(t, err)
			for i := range 4 {
				require.NoError(t, k.Assign(tp("test", i), 0))
			}
			var taken, called atomic.Int64
			var closed atomic.Bool
			var users, closers sync.WaitGroup
			for range 3 {
				users.Go(func() {
					for i := 0; ; i++ {
						err := p.Produce(context.Background(), client.Record{Topic: "test", Partition: client.At(id.Partition(i % 4)), Value: make([]byte, 50)}, func(client.Ack) {
							called.Add(1)
							if closed.Load() {
								t.Error("a callback after Close")
							}
						})
						if err != nil {
							if !errors.Is(err, client.ErrClosed) {
								t.Error(err)
							}
							return
						}
						taken.Add(1)
					}
				})
			}
			users.Go(func() {
				for {
					if _, err := k.Poll(context.Background()); err != nil {
						if !errors.Is(err, client.ErrClosed) {
							t.Error(err)
						}
						return
					}
				}
			})
			waitFor(t, "some callbacks", func() bool { return called.Load() > 100 })
			users.Go(func() { _ = p.Flush(context.Background()) })
			closeProducer := func() {
				ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
				defer cancel()
				if err := p.Close(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				closed.Store(true)
			}
			closes := []func(){closeProducer, closeProducer, func() { _ = k.Close() }, func() { _ = k.Close() }, func() { _ = c.Close() }, func() { _ = c.Close() }}
			random.Shuffle(len(closes), func(i, j int) { closes[i], closes[j] = closes[j], closes[i] })
			for _, f := range closes {
				closers.Go(f)
			}
			returns(t, "some Close", closers.Wait)
			returns(t, "Produce, Poll or Flush", users.Wait)
			if taken.Load() != called.Load() {
				t.Errorf("%d records were taken, %d callbacks called", taken.Load(), called.Load())
			}
		})
	}
}

// TestCallbackThatBlocks: it holds back the callbacks behind it, and Produce once the buffer is full, and nothing else.
func TestCallbackThatBlocks(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 2, nil)
	p := newProducer(t, c, client.ProducerOptions{BatchBytes: 300, BufferBytes: 100_000})
	ctx := testContext(t)
	unblock := make(chan struct{})
	release := sync.OnceFunc(func() { close(unblock) })
	defer release()
	require.NoError(t, p.Produce(ctx, client.Record{Topic: "test", Partition: client.At(1)}, func(client.Ack) { <-unblock }))
	a := newAcks()
	var values []string
	send := func(ctx context.Context) error {
		v := fmt.Sprintf("%06d", len(values))
		err := p.Produce(ctx, client.Record{Topic: "test", Partition: client.At(0), Value: []byte(v)}, a.callback(v))
		if err == nil {
			values = append(values, v)
		}
		return err
	}
	for range 300 {
		require.NoError(t, send(ctx))
	}
	waitFor(t, "all to be written", func() bool { return len(cluster.Values(tp("test", 0))) == 300 })
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	var err error
	for err == nil && len(values) < 100_000 {
		err = send(short)
	}
	require.ErrorIs(t, err, context.DeadlineExceeded, "Produce goes on although nobody takes the outcomes")
	release()
	require.NoError(t, p.Flush(ctx))
	require.Empty(t, a.failed)
	if !slices.Equal(a.order, values) {
		t.Errorf("%d callbacks for %d records, or out of order", len(a.order), len(values))
	}
}

// TestCloseWithACallbackThatBlocks: Close says so, and what is behind that callback comes when it has returned.
func TestCloseWithACallbackThatBlocks(t *testing.T) {
	cluster, _ := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	c, err := client.New(client.Options{Servers: cluster.Servers()})
	require.NoError(t, err)
	p, err := c.NewProducer(client.ProducerOptions{BatchBytes: 100})
	require.NoError(t, err)
	unblock, blocked, behind := make(chan struct{}), make(chan struct{}), make(chan client.Ack, 1)
	require.NoError(t, p.Produce(testContext(t), client.Record{Topic: "test"}, func(client.Ack) { close(blocked); <-unblock }))
	require.NoError(t, p.Produce(testContext(t), client.Record{Topic: "test"}, func(a client.Ack) { behind <- a }))
	<-blocked
	returns(t, "Client.Close", func() { require.ErrorContains(t, c.Close(), "callback blocks") })
	close(unblock)
	<-behind
	require.NoError(t, p.Close(context.Background()))
}
