package broker

import (
	"context"

	"github.com/quorumlog/quorumlog/wal/id"
)

type forwardedKey struct{}

// Forwarded marks what is asked with ctx as passed on by another node, which was asked by the Caller: a Remote of that one's brought it here. It
// is not passed on again, so that two nodes that each believe the other to be the controller cannot play ping-pong.
func Forwarded(ctx context.Context) context.Context {
	return context.WithValue(ctx, forwardedKey{}, true)
}

// IsForwarded tells whether another node has passed the call on.
func IsForwarded(ctx context.Context) bool { return ctx.Value(forwardedKey{}) != nil }

// Remote is another node, as a broker sees it that passes calls on: there they are Forwarded, for the same Caller.
type Remote interface {
	Changes
	Leaderships
	SecurityChanges
	// ClusterStatus returns what the node says of itself alone.
	ClusterStatus(ctx context.Context, c *Caller) (*ClusterStatus, error)
	// PartitionStatus returns what the node's replica knows about its group.
	PartitionStatus(ctx context.Context, c *Caller, topic string, p id.Partition) (*PartitionStatus, error)
}
