package client

import (
	"context"
	"fmt"

	"github.com/quorumlog/quorumlog/rpc/pb"
)

// LevelChange is what UpgradeCluster did to the feature level.
type LevelChange struct {
	Was int `json:"was"`
	Is  int `json:"feature_level"`
}

// UpgradeCluster raises the feature level of the cluster, to the highest that all its nodes know when level is 0. It is refused while a registered
// node does not know the level, and there is no way back.
func (a *Admin) UpgradeCluster(ctx context.Context, level int) (LevelChange, error) {
	var change LevelChange
	req := &pb.UpgradeClusterRequest{FeatureLevel: int32(level), TimeoutMs: int32(a.client.opts.RequestTimeout.Milliseconds())}
	if int(req.FeatureLevel) != level { // what is left of it may be a level
		return change, fmt.Errorf("client: upgrade cluster: there is no feature level %d", level)
	}
	err := a.call(ctx, "upgrade cluster", func(ctx context.Context, c pb.DRPCAdminClient, _ attempt) error {
		resp, err := c.UpgradeCluster(ctx, req)
		change = LevelChange{Was: int(resp.GetWas()), Is: int(resp.GetFeatureLevel())}
		return err
	})
	return change, err
}
