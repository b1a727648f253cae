package simulated

import (
	"context"
	"net"
)

// Network is what lies between a node and the others. Both methods are called for everything that the node itself begins; what
// others begin goes through theirs.
type Network interface {
	// Opened takes over a connection that the node has just opened and returns what the node is given in its place.
	Opened(net.Conn) (net.Conn, error)
	// Passes tells whether a packet from the node arrives at an address.
	Passes(address string) bool
}

type networkKey struct{}

// WithNetwork returns a context for node.Start that puts n between the node and the others.
func WithNetwork(ctx context.Context, n Network) context.Context {
	return context.WithValue(ctx, networkKey{}, n)
}

// NetworkOf returns the network that WithNetwork put into the context.
func NetworkOf(ctx context.Context) (Network, bool) {
	n, ok := ctx.Value(networkKey{}).(Network)
	return n, ok
}
