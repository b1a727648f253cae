package node

import (
	"context"
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
	const producers, workers, rounds = 3, 4, 150
	opened := make(chan *rpc.ProduceStream)
	listener, err := rpc.Listen(t.Context(), "127.0.0.1:0")
	require.NoError(t, err)
	server, err := rpc.NewServer(rpc.ServerOptions{Listener: listener, Services: rpc.Services{Produce: func(p *rpc.ProduceStream) error {
		opened <- p
		return p.Recv(func(rpc.ProduceRequest) {}, nil)
	}}})
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Close(context.Background())) }()

	var streams []*produceStream
	var clients sync.WaitGroup
	defer clients.Wait()
	received := make(chan uint64, 1000)
	for range producers {
		c, err := new(rpc.Dialer).DialProduce(t.Context(), server.Addr().String())
		require.NoError(t, err)
		defer c.Close()
		clients.Go(func() { _ = c.Recv(func(r rpc.ProduceResponse) { received <- r.Correlation }) })
		streams = append(streams, &produceStream{stream: <-opened})
	}

	var a answers
	for round := range rounds {
		var all sync.WaitGroup
		for w := range workers {
			all.Go(func() {
				for turn := range 3 {
					s := streams[(round+w*turn)%producers]
					s.stream.Send(rpc.ProduceResponse{Correlation: uint64(round)})
					a.add(s)
					a.flush()
				}
			})
		}
		all.Wait()
		// A client says something every few seconds, to say that it lives, and whatever waits is flushed then: that is too late.
		late := time.After(time.Second)
		for n := range 3 * workers {
			select {
			case got := <-received:
				require.EqualValues(t, round, got)
			case <-late:
				t.Fatalf("round %d: %d of %d answers came", round, n, 3*workers)
			}
		}
	}
}
