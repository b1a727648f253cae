package client

// Client is what producers, consumers and admin calls share: see the package comment.
type Client struct {
	opts  Options
	admin Admin
}

// New returns a client. It does not wait for any node.
func New(o Options) (*Client, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	c := &Client{opts: o.withDefaults()}
	c.admin.client = c
	return c, nil
}

// Admin returns the calls for topics and the cluster.
func (c *Client) Admin() *Admin { return &c.admin }

// Close closes the connections. Producers and consumers are closed by their owners, before.
func (c *Client) Close() error { return nil }
