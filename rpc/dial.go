package rpc

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"storj.io/drpc/drpcconn"
	"storj.io/drpc/drpcpool"
)

// Dialer opens the client's ends of streams. The zero value works. It owns the pool of administrative connections.
type Dialer struct {
	Timeout  time.Duration                    // of a dial and the stream's hello, 1 s by default; the context may be shorter
	ClientID string                           // told to servers for their logs
	WrapConn func(net.Conn) (net.Conn, error) // applied to each connection before anything is written (TLS)

	cluster  atomic.Pointer[string] // that administrative calls are meant for; nil: whichever it is
	versions Versions               // other than Spoken only in tests

	mu   sync.Mutex
	pool *drpcpool.Pool[string, *drpcconn.Conn]
}

// MeansCluster has nodes of other clusters refuse all administrative calls that begin from now on, with kerr.InconsistentClusterID.
func (d *Dialer) MeansCluster(clusterID string) { d.cluster.Store(&clusterID) }

func (d *Dialer) spoken() Versions {
	if d.versions == (Versions{}) {
		return Spoken
	}
	return d.versions
}

// DialProduce opens a produce stream. ctx bounds the opening, not the stream.
func (d *Dialer) DialProduce(ctx context.Context, addr string) (*ProduceConn, error) {
	c := &ProduceConn{}
	var err error
	c.client, err = d.openClient(ctx, addr, rpcProduce, &c.limits)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// DialFetch opens a fetch stream. ctx bounds the opening, not the stream.
func (d *Dialer) DialFetch(ctx context.Context, addr string) (*FetchConn, error) {
	c := &FetchConn{}
	var err error
	c.client, err = d.openClient(ctx, addr, rpcFetch, &c.limits)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Close closes the pooled connections. Streams are closed by their own Close.
func (d *Dialer) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.pool == nil {
		return nil
	}
	err := d.pool.Close()
	d.pool = nil
	return err
}
