// Package simulated lets tests of whole nodes put another disk under them and another network between them. It is internal because
// nobody else should: the disk and the network of a real node are the operating system's.
package simulated

import (
	"context"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// Disk is what a node stores its data on.
type Disk struct {
	Files  disk.FS
	Pebble vfs.FS
}

type key struct{}

// WithDisk returns a context for node.Start that puts the node's data on d.
func WithDisk(ctx context.Context, d Disk) context.Context { return context.WithValue(ctx, key{}, d) }

// DiskOf returns the disk that WithDisk put into the context.
func DiskOf(ctx context.Context) (Disk, bool) {
	d, ok := ctx.Value(key{}).(Disk)
	return d, ok
}
