package simulated

import (
	"context"
	"net/netip"
)

// Resolver looks a host name up.
type Resolver func(ctx context.Context, host string) ([]netip.Addr, error)

type resolverKey struct{}

// WithResolver returns a context for node.Start in which r finds the addresses that the node listens on.
func WithResolver(ctx context.Context, r Resolver) context.Context {
	return context.WithValue(ctx, resolverKey{}, r)
}

// ResolverOf returns the resolver that WithResolver put into the context.
func ResolverOf(ctx context.Context) (Resolver, bool) {
	r, ok := ctx.Value(resolverKey{}).(Resolver)
	return r, ok
}
