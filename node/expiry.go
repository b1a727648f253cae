package node

import (
	"context"
	"time"
)

const (
	// expiryInterval is how often a node looks whether producers are to be forgotten; with a short expiry more often.
	expiryInterval = time.Minute
	expiryLooks    = 64 // looks to an expiry, at least
)

// expireProducers has the partitions that this node leads forget producers that have been silent for long.
func (n *Node) expireProducers(ctx context.Context) {
	after := n.options.Timing.ProducerExpiry
	tick := time.NewTicker(min(expiryInterval, after/expiryLooks+1))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, p := range n.replicas.All() {
			p.Expire(after)
		}
	}
}
