package rpc

import (
	"context"
	"net/netip"

	"github.com/quorumlog/quorumlog/rpc/broker"
)

// whoCalls returns who is at the other end. Nobody has to show who he is: everybody may be a node.
func (c *conn) whoCalls() *broker.Caller {
	from, _ := netip.ParseAddrPort(c.RemoteAddr().String())
	return &broker.Caller{Principal: broker.Anonymous, Host: from.Addr().Unmap(), ClientID: c.client, Peer: true}
}

// Caller returns who produces.
func (p *ProduceStream) Caller() *broker.Caller { return p.conn.whoCalls() }

// Caller returns who consumes.
func (s *FetchStream) Caller() *broker.Caller { return s.conn.whoCalls() }

type callerKey struct{}

// CallerOf returns who makes the administrative call whose handler has this context.
func CallerOf(ctx context.Context) *broker.Caller {
	if s, ok := ctx.Value(callerKey{}).(*conn); ok {
		return s.whoCalls()
	}
	return &broker.Caller{Principal: broker.Anonymous}
}

// CallerKind is on whose behalf a dialer calls.
type CallerKind int

const (
	// ForClient is somebody who uses the cluster.
	ForClient CallerKind = iota
	// ForNode is a node of it, for itself or for a client whose permissions it has checked.
	ForNode
)

// nodeKey is the metadata of an administrative call of a node.
const nodeKey = "quorumlog-node"

// ByNode tells whether a node of the cluster makes the administrative call with this context: it says so, and can be one. Where nodes have no
// certificates everybody can.
func ByNode(ctx context.Context) bool { return Metadata(ctx, nodeKey) != "" && CallerOf(ctx).Peer }
