package rpc

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"storj.io/drpc/drpcpool"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Dialer opens the client's ends of streams. The zero value works. It owns the pool of administrative connections.
type Dialer struct {
	Timeout  time.Duration                    // of a dial and the stream's hello, 1 s by default; the context may be shorter
	ClientID string                           // told to servers for their logs
	WrapConn func(net.Conn) (net.Conn, error) // applied to each connection before anything is written
	// TLS, when not nil, says how the other side has to show who it is, and how this one does. node is who is meant; id.NoNode: whoever
	// serves the address.
	TLS func(addr string, node id.Node) *tls.Config

	cluster  atomic.Pointer[string] // that administrative calls are meant for; nil: whichever it is
	versions Versions               // other than Spoken only in tests

	mu       sync.Mutex
	refusals map[target]refusal // the last of each
	pool     *drpcpool.Pool[target, adminLink]
}

// target is whom a connection is to.
type target struct {
	addr string
	node id.Node // id.NoNode: whoever serves the address
}

// MeansCluster has nodes of other clusters refuse all administrative calls that begin from now on, with kerr.InconsistentClusterID.
func (d *Dialer) MeansCluster(clusterID string) { d.cluster.Store(&clusterID) }

func (d *Dialer) spoken() Versions {
	if d.versions == (Versions{}) {
		return Spoken
	}
	return d.versions
}

// refusal is why the other side of TLS did not believe this one.
type refusal struct {
	err  error
	when time.Time
}

const (
	refusalCounts = 2 * time.Second
	maxRefusals   = 256
)

func (d *Dialer) noteRefusal(to target, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refusals == nil || len(d.refusals) >= maxRefusals {
		d.refusals = make(map[target]refusal)
	}
	d.refusals[to] = refusal{err, time.Now()}
}

// lost is what has become of a connection. drpc often has only its end, even if the other side has said a moment before why.
func (d *Dialer) lost(to target, err error) error {
	d.mu.Lock()
	r, ok := d.refusals[to]
	d.mu.Unlock()
	if _, said := fromWire(err); ok && !said && time.Since(r.when) < refusalCounts {
		return &kerr.Error{Code: kerr.NetworkException, Message: fmt.Sprintf("%s does not believe this side's certificate: %v", to.addr, r.err), Leader: id.NoNode}
	}
	return lost(to.addr, err)
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
