package broker

import "context"

type forwardedKey struct{}

// Forwarded marks what is asked with ctx as passed on by a node: whoever gets it does not pass it on again, so that two nodes that each
// believe the other to be the controller cannot play ping-pong. Protocols between nodes carry the mark.
func Forwarded(ctx context.Context) context.Context {
	if IsForwarded(ctx) {
		return ctx
	}
	return context.WithValue(ctx, forwardedKey{}, true)
}

// IsForwarded tells whether another node has passed the call on.
func IsForwarded(ctx context.Context) bool { return ctx.Value(forwardedKey{}) != nil }

// Remote is another node, as one that passes calls on to it knows it: see Forwarded. Only peers may pass on.
type Remote interface {
	Changes
	Leaderships
	// ClusterStatus returns what the node says of itself alone.
	ClusterStatus(ctx context.Context, c *Caller) (*ClusterStatus, error)
}
