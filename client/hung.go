package client

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// maxWitnesses is how many other nodes are asked whether they answer when one does not.
const maxWitnesses = 2

// watching runs one attempt of an administrative call, and gives it up if the node is hung: it takes connections, or does not even that, and answers
// nothing. That is told from a call that takes long, and from a network that is slow, by a call that every node answers at once: if another
// node has answered that and this one has not for as long again, it is hung, and it is asked after all others for a while.
func (c *Client) watching(ctx context.Context, server string, attempt func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	var hung atomic.Bool
	watch.Go(func() {
		if c.hangs(ctx, server) {
			hung.Store(true)
			cancel()
		}
	})
	err := attempt(ctx)
	cancel()
	watch.Wait()
	if err != nil && hung.Load() {
		return kerr.Errorf(kerr.RequestTimedOut, "%s does not answer, and other nodes do", server)
	}
	return err
}

// hangs returns true once it is certain that a node is hung, and false when it is not, or ctx has ended.
func (c *Client) hangs(ctx context.Context, server string) bool {
	if pause(ctx, hedgeDelay) != nil {
		return false
	}
	cache := &c.cache
	var asked sync.WaitGroup
	ctx, cancel := context.WithCancel(ctx)
	defer asked.Wait()
	defer cancel()
	ask := func(server string, answered chan<- struct{}) {
		asked.Go(func() {
			_, err := c.dialer.Admin(server).Metadata(ctx, &pb.MetadataRequest{NodesOnly: true})
			if ctx.Err() == nil && kerr.CodeOf(err) != kerr.RequestTimedOut && kerr.CodeOf(err) != kerr.BrokerNotAvailable {
				answered <- struct{}{} // a refusal is an answer, too
			}
		})
	}
	own, others := make(chan struct{}, 1), make(chan struct{}, maxWitnesses)
	ask(server, own)
	witnesses := 0
	for _, other := range cache.addresses() {
		if other != server && witnesses < maxWitnesses {
			witnesses++
			ask(other, others)
		}
	}
	select {
	case <-own:
		return false
	case <-ctx.Done():
		return false
	case <-others:
	}
	select {
	case <-own:
		return false
	case <-ctx.Done():
		return false
	case <-time.After(hedgeDelay):
	}
	cache.doubtful(server)
	return true
}
