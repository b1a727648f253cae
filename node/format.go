package node

import (
	"context"
	"errors"
	"fmt"
)

// ErrFormatted is the refusal to format a data directory that belongs to a cluster.
var ErrFormatted = errors.New("belongs to a cluster already")

// Format makes the data directory of o that of the founder of a new cluster, and returns the cluster's id. It fails with ErrFormatted the
// second time. A node of any Founding then starts on it; nobody is asked whether there is a cluster of that name.
func Format(ctx context.Context, o Options) (clusterID string, err error) {
	o = o.withDefaults()
	if err := o.Validate(); err != nil {
		return "", err
	}
	shares, err := shareFiles(openFiles())
	if err != nil {
		return "", err
	}
	n := newNode(o, shares)
	defer func() { err = errors.Join(err, n.closeParts(context.WithoutCancel(ctx))) }()
	if err := n.openDirectory(ctx); err != nil {
		return "", err
	}
	if n.identity.ClusterID != "" {
		return "", fmt.Errorf("%s %w: node %d of cluster %q, id %s",
			o.DataDir, ErrFormatted, n.identity.NodeID, n.identity.Cluster, n.identity.ClusterID)
	}
	if err := n.openStore(ctx); err != nil { // which notes whose it is, before the directory can belong to a cluster
		return "", err
	}
	n.identity.ClusterID, n.identity.Cluster, n.identity.Founder = newClusterID(), o.ClusterName, true
	return n.identity.ClusterID, n.identity.store(n.files, o.DataDir)
}
