package node

import (
	"context"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// UpgradeCluster raises the feature level of the cluster to one that all nodes know, the highest one if none is named. It is for the
// operator to say that no node will go back to the release before.
func (a *admin) UpgradeCluster(ctx context.Context, r *pb.UpgradeClusterRequest) (*pb.UpgradeClusterResponse, error) {
	ctx, cancel := withTimeout(ctx, r.GetTimeoutMs())
	defer cancel()
	return atController(ctx, a.node, func(ctx context.Context) (*pb.UpgradeClusterResponse, error) {
		response := &pb.UpgradeClusterResponse{}
		_, err := a.node.controller.ProposeFrom(ctx, func(v *placement.View) (placement.Command, error) {
			level := placement.FeatureLevel(r.GetFeatureLevel())
			if level == 0 {
				level = v.KnownToAll()
			}
			response.Was, response.FeatureLevel = int32(v.Level()), int32(level)
			return placement.SetFeatureLevel{Level: level}, nil
		})
		return response, err
	}, func(ctx context.Context, peer pb.DRPCAdminClient) (*pb.UpgradeClusterResponse, error) {
		return peer.UpgradeCluster(ctx, r)
	})
}

// isOldRelease tells whether a registration was refused because of what this release knows: it will be refused as long as it runs.
func isOldRelease(err error) bool { return kerr.CodeOf(err) == kerr.UnsupportedVersion }
