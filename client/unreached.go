package client

import (
	"fmt"
	"time"
)

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

// ended is the error of a Poll whose context has ended: with the reason, if that is that nobody is there, or not who is looked for.
func (c *Consumer) ended(err error) error {
	if since, _ := c.client.cache.unreachable(); since.IsZero() || c.connected() {
		return c.because(err)
	}
	return fmt.Errorf("client: poll: %w", c.client.cache.because(err))
}

// because adds to err why some partition is not read, if one is not.
func (c *Consumer) because(err error) error {
	known := c.client.cache.current.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	for tp, cur := range c.mu.cursors {
		l, ok := known.leader(tp)
		if !ok {
			return c.client.cache.because(err)
		}
		cause := c.client.cache.foreign(l.addr)
		if cause == nil && (cur.stream == nil || cur.stream.conn.Load() == nil) {
			cause = c.mu.backoff[l.node].cause
		}
		if cause != nil {
			return fmt.Errorf("%w (%s: %w)", err, tp, cause)
		}
	}
	return err
}
