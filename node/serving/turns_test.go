package serving

import (
	"context"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"
	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/rpc"
)

// TestEveryAnswerIsFlushed has several workers answer the same producers and end their turns at once. Each answer must be written by the
// end of the turns: nothing comes later that would take it along.
func TestEveryAnswerIsFlushed(t *testing.T) {
	defer leaktest.AfterTest(t)()
	const producers, workers, each, rounds, turnsEach = 3, 4, 2, 300, 2
	opened := make(chan *rpc.ProduceStream)
	listener, err := rpc.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	server, err := rpc.NewServer(rpc.ServerOptions{Listener: listener, Services: rpc.Services{Produce: func(p *rpc.ProduceStream) error {
		opened <- p
		return p.Recv(func(rpc.ProduceRequest) {}, nil)
	}}})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close(context.Background())) }()

	var streams []*rpc.ProduceStream
	var appenders []*appender
	var clients sync.WaitGroup
	defer clients.Wait()
	received := make(chan uint64, 1000)
	for range producers {
		c, err := new(rpc.Dialer).DialProduce(t.Context(), server.Addr().String())
		require.NoError(t, err)
		defer c.Close()
		clients.Go(func() { _ = c.Recv(func(r rpc.ProduceResponse) { received <- r.Correlation }) })
		stream := <-opened
		streams = append(streams, stream)
		appenders = append(appenders, &appender{answered: stream.Flush})
	}

	var turns Turns
	for round := range rounds {
		var all sync.WaitGroup
		for w := range workers {
			all.Go(func() {
				for turn := range turnsEach {
					for i := range each {
						at := (round + w*turn + i) % producers
						streams[at].Send(rpc.ProduceResponse{Correlation: uint64(round)})
						turns.add(appenders[at])
						for range (round * (w + 1)) % 200 { // the others are at the beginning of their flush now, or at its end
							turns.some.Load()
						}
					}
					turns.Done()
				}
			})
		}
		all.Wait()
		// A client says something every few seconds, to say that it lives, and whatever waits is flushed then: that is too late.
		late := time.After(time.Second)
		for n := range turnsEach * each * workers {
			select {
			case got := <-received:
				require.EqualValues(t, round, got)
			case <-late:
				t.Fatalf("round %d: %d of %d answers came", round, n, turnsEach*each*workers)
			}
		}
	}
}

// TestFlushSaysFirstThatNothingWaits: who adds a stream after a flush has looked is not taken for having been there before.
func TestFlushSaysFirstThatNothingWaits(t *testing.T) {
	var turns Turns
	turns.some.Store(true)
	turns.mu.Lock()
	flushed := make(chan struct{})
	go func() {
		turns.Done()
		close(flushed)
	}()
	for deadline := time.Now().Add(time.Second); turns.some.Load() && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	require.False(t, turns.some.Load(), "it is cleared after the look")
	turns.mu.Unlock()
	<-flushed
}
