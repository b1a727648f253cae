package client

import (
	"context"
	"errors"
	"fmt"
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
}

// New returns a client. It does not wait for any node.
func New(o Options) (*Client, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	c := &Client{opts: o.withDefaults(), unreachableAfter: unreachableAfter}
	c.dialer = rpc.Dialer{Timeout: c.opts.DialTimeout, ClientID: c.opts.ClientID}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.cache.init(c)
	c.admin.client = c
	c.wg.Go(c.cache.run)
	return c, nil
}

// Admin returns the calls for topics and the cluster.
func (c *Client) Admin() *Admin { return &c.admin }

// Close closes the connections for admin calls. Producers and consumers are closed by their owners, before.
func (c *Client) Close() error {
	if c.ctx.Err() != nil {
		return nil
	}
	c.cancel()
	c.wg.Wait()
	if err := c.dialer.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("client: close connections: %w", err)
	}
	return nil
}
