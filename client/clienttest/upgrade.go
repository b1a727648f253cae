package clienttest

import (
	"cmp"
	"context"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/rpc/pb"
)

// knownLevel is the highest feature level that the nodes know.
const knownLevel = 2

func (a *admin) UpgradeCluster(_ context.Context, r *pb.UpgradeClusterRequest) (*pb.UpgradeClusterResponse, error) {
	c := a.node.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	out := &pb.UpgradeClusterResponse{Was: c.level, FeatureLevel: cmp.Or(r.GetFeatureLevel(), knownLevel)}
	if out.GetFeatureLevel() > knownLevel {
		return nil, kerr.Errorf(kerr.UnsupportedVersion, "feature level %d is not known to node 1", out.GetFeatureLevel())
	}
	c.level = out.GetFeatureLevel()
	return out, nil
}
