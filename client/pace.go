package client

import (
	"math/rand/v2"
	"time"
)

const (
	// refreshInterval is the least time between two refreshes: what bounds the load when many partitions lose their leader. As long as
	// refreshes bring nothing new it grows to a troubleShare-th of how long that has lasted, and to refreshIntervalMax at most, and by
	// up to a quarter more: clients that have lost the same leader shall not go on asking in step.
	refreshInterval    = 50 * time.Millisecond
	refreshIntervalMax = time.Second
	troubleShare       = 6
	// hedgeDelay is after how long without an answer the next node is asked as well: a frozen node answers nothing at all.
	hedgeDelay = 250 * time.Millisecond
	// dialDoubt is how long a dial may take before somebody is asked whether that node still leads.
	dialDoubt = 500 * time.Millisecond

	retryDelay    = 20 * time.Millisecond
	retryDelayMax = 400 * time.Millisecond

	nodeBackoffMin = 50 * time.Millisecond
	nodeBackoffMax = time.Second
)

// retryAfter is the pause after one more failure with a partition: last is the one before, 0 if there was none.
func retryAfter(last time.Duration) time.Duration { return min(max(2*last, retryDelay), retryDelayMax) }

// nodeBackoff is since when a node may be dialled again.
type nodeBackoff struct {
	until time.Time
	delay time.Duration
	cause error // what the last stream to it ended with; nil: there is one
}

// after is the backoff that follows the end of a stream. healthy: it was of use before.
func (b nodeBackoff) after(cause error, healthy bool) nodeBackoff {
	if healthy {
		b.delay = 0
	}
	b.delay = min(max(2*b.delay, nodeBackoffMin), nodeBackoffMax)
	b.until = time.Now().Add(b.delay/2 + rand.N(b.delay/2))
	b.cause = cause
	return b
}
