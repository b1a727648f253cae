package rpc

import (
	"context"
	"net"
	"time"

	"github.com/quorumlog/quorumlog/rpc/pb"
)

// Dialer opens the client's ends of streams. The zero value works. It owns the pool of administrative connections.
type Dialer struct {
	Timeout  time.Duration                    // of a dial and the stream's hello, 1 s by default; the context may be shorter
	ClientID string                           // told to servers for their logs
	WrapConn func(net.Conn) (net.Conn, error) // applied to each connection before anything is written (TLS)
}

// DialProduce opens a produce stream. ctx bounds the opening, not the stream.
func (d *Dialer) DialProduce(ctx context.Context, addr string) (*ProduceConn, error) {
	return nil, errStub
}

// DialFetch opens a fetch stream. ctx bounds the opening, not the stream.
func (d *Dialer) DialFetch(ctx context.Context, addr string) (*FetchConn, error) { return nil, errStub }

// Admin returns a client for the administrative calls of the node at addr. It dials when it is called, keeps a few
// connections, sends the context's deadline along and returns refusals as *Error.
func (d *Dialer) Admin(addr string) pb.DRPCAdminClient { return nil }

// Close closes the pooled connections. Streams are closed by their own Close.
func (d *Dialer) Close() error { return nil }
