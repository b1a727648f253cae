package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// unreachableAfter is after how long without an answer of any node Poll says so. A cluster that is restarted as a whole is back before.
const unreachableAfter = 5 * time.Second

// reach is since when no node has answered. It is guarded by the cache's mutex.
type reach struct {
	heard time.Time // when a node answered last, with whatever
	since time.Time // when the first refresh began that nobody has answered, nor any one after it; zero: the last one was
	err   error     // what the last one failed with
}

func (r *reach) answered(now time.Time) { *r = reach{heard: now} }

// refreshed notes the end of a refresh that had no result.
func (r *reach) refreshed(began time.Time, err error) {
	if err == nil || r.heard.After(began) {
		return
	}
	r.err = err
	if r.since.IsZero() {
		r.since = began
	}
}

// isAnswer tells whether an error is what a node said, rather than that none was reached.
func isAnswer(err error) bool {
	var refused *kerr.Error
	if !errors.As(err, &refused) {
		return errors.Is(err, ErrWrongCluster)
	}
	switch refused.Code {
	case kerr.BrokerNotAvailable, kerr.NetworkException, kerr.RequestTimedOut:
		return false
	}
	return true
}

// unreachable returns since when no node has answered, and why; zero: one has.
func (m *metadataCache) unreachable() (since time.Time, cause error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.reach.since, m.mu.reach.err
}

// unreachable returns an error when no node has answered for a while, nor since began.
func (c *Consumer) unreachable(began time.Time) error {
	since, cause := c.client.cache.unreachable()
	if since.IsZero() {
		return nil
	}
	if since.Before(began) {
		since = began
	}
	silent := time.Since(since)
	if silent < c.client.unreachableAfter || c.connected() {
		return nil
	}
	return fmt.Errorf("%w for %v: %w", ErrNoNodeReachable, silent.Round(100*time.Millisecond), cause)
}

// connected tells whether a node from which the consumer reads is there.
func (c *Consumer) connected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.mu.streams {
		if conn := s.conn.Load(); conn != nil && conn.Silent() <= frozenAfter {
			return true
		}
	}
	return false
}

// because is the error of a Poll whose context has ended: with the reason, if that is that nobody is there.
func (c *Consumer) because(ctx context.Context) error {
	if since, _ := c.client.cache.unreachable(); since.IsZero() || c.connected() {
		return ctx.Err()
	}
	return fmt.Errorf("client: poll: %w", c.client.cache.because(ctx.Err()))
}
