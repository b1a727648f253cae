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
