package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/rpc"
)

// Client is what producers, consumers and admin calls share: see the package comment.
type Client struct {
	opts   Options
	dialer rpc.Dialer
	cache  metadataCache
	admin  Admin

	unreachableAfter time.Duration // less in tests

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup

	closing sync.Once
	mu      struct {
		sync.Mutex
		closed bool
		users  map[user]struct{} // producers and consumers that are not closed
		err    error             // of Close
	}
}

// user is a Producer or a Consumer.
type user interface{ closeNow() error }

// opened notes that there is another user; false: the client is closed.
func (c *Client) opened(u user) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed {
		return false
	}
	c.mu.users[u] = struct{}{}
	return true
}

func (c *Client) ended(u user) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.mu.users, u)
}

// New returns a client. It does not wait for any node.
func New(o Options) (*Client, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	c := &Client{opts: o.withDefaults(), unreachableAfter: unreachableAfter}
	dialTLS, err := c.opts.dialTLS()
	if err != nil {
		return nil, err
	}
	c.dialer = rpc.Dialer{Timeout: c.opts.DialTimeout, ClientID: c.opts.ClientID, TLS: dialTLS}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.cache.init(c.ctx, &c.opts, &c.dialer, &c.wg)
	c.admin.client = c
	c.mu.users = make(map[user]struct{})
	c.wg.Go(c.cache.run)
	return c, nil
}

// Admin returns the calls for topics and the cluster.
func (c *Client) Admin() *Admin { return &c.admin }

// Close ends everything: admin calls, and the producers and consumers that were not closed before. Close a Producer first: what it still holds
// fails with ErrClosed otherwise.
func (c *Client) Close() error {
	c.closing.Do(func() {
		err := c.close()
		c.mu.Lock()
		c.mu.err = err
		c.mu.Unlock()
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.err
}

func (c *Client) close() error {
	c.mu.Lock()
	c.mu.closed = true
	users := slices.Collect(maps.Keys(c.mu.users))
	c.mu.Unlock()
	var errs []error
	for _, u := range users {
		errs = append(errs, u.closeNow())
	}
	c.cancel()
	c.wg.Wait()
	if err := c.dialer.Close(); err != nil && !errors.Is(err, context.Canceled) {
		errs = append(errs, fmt.Errorf("client: close connections: %w", err))
	}
	return errors.Join(errs...)
}
