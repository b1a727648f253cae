package native

import (
	"context"
	"time"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// remote is another node to pass calls on to. How much time is left travels with the call, and who made it.
type remote struct{ calls pb.DRPCAdminClient }

// Remote returns the node behind a client of its administrative calls.
func Remote(calls pb.DRPCAdminClient) broker.Remote { return remote{calls} }

// timeLeft is what a request says of how long it may take.
func timeLeft(ctx context.Context) int32 {
	due, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return int32(max(min(time.Until(due).Milliseconds(), 1<<31-1), 1))
}

// CreateTopic implements broker.Changes.
func (r remote) CreateTopic(ctx context.Context, c *broker.Caller, t broker.NewTopic) (*broker.Topic, error) {
	response, err := r.calls.CreateTopic(rpc.PassOn(ctx, c), &pb.CreateTopicRequest{
		Name: t.Name, Partitions: int32(t.Partitions), ReplicationFactor: int32(t.ReplicationFactor), Configs: t.Configs, TimeoutMs: timeLeft(ctx),
		ValidateOnly: t.ValidateOnly,
	})
	if err != nil || response.GetTopic() == nil {
		return nil, err
	}
	return fromTopic(response.GetTopic()), nil
}

// DeleteTopic implements broker.Changes.
func (r remote) DeleteTopic(ctx context.Context, c *broker.Caller, name string) (id.Topic, error) {
	response, err := r.calls.DeleteTopic(rpc.PassOn(ctx, c), &pb.DeleteTopicRequest{Name: name, TimeoutMs: timeLeft(ctx)})
	return fromTopicID(response.GetId()), err
}

// AlterTopicConfig implements broker.Changes.
func (r remote) AlterTopicConfig(ctx context.Context, c *broker.Caller, change broker.ConfigChange) (map[string]string, error) {
	response, err := r.calls.AlterTopicConfig(rpc.PassOn(ctx, c), &pb.AlterTopicConfigRequest{Name: change.Topic, Set: change.Set, Remove: change.Remove, TimeoutMs: timeLeft(ctx)})
	return response.GetConfigs(), err
}

// InitProducerID implements broker.Changes.
func (r remote) InitProducerID(ctx context.Context, c *broker.Caller) (id.Producer, error) {
	response, err := r.calls.InitProducerID(rpc.PassOn(ctx, c), &pb.InitProducerIDRequest{})
	if err != nil {
		return id.NoProducer, err
	}
	return id.Producer(response.GetProducerId()), nil
}

// UpgradeCluster implements broker.Changes.
func (r remote) UpgradeCluster(ctx context.Context, c *broker.Caller, level broker.FeatureLevel) (broker.Upgrade, error) {
	response, err := r.calls.UpgradeCluster(rpc.PassOn(ctx, c), &pb.UpgradeClusterRequest{FeatureLevel: int32(level), TimeoutMs: timeLeft(ctx)})
	return broker.Upgrade{Was: broker.FeatureLevel(response.GetWas()), Is: broker.FeatureLevel(response.GetFeatureLevel())}, err
}

// UnregisterNode implements broker.Changes.
func (r remote) UnregisterNode(ctx context.Context, c *broker.Caller, node id.Node) error {
	_, err := r.calls.UnregisterNode(rpc.PassOn(ctx, c), &pb.UnregisterNodeRequest{NodeId: int32(node), TimeoutMs: timeLeft(ctx)})
	return err
}

// TransferLeader implements broker.Leaderships.
func (r remote) TransferLeader(ctx context.Context, c *broker.Caller, t broker.Transfer) (id.Node, id.Epoch, error) {
	response, err := r.calls.TransferLeader(rpc.PassOn(ctx, c), &pb.TransferLeaderRequest{Topic: t.Topic, Partition: int32(t.Partition), To: int32(t.To)})
	if err != nil {
		return id.NoNode, 0, err
	}
	return id.Node(response.GetLeader()), id.Epoch(response.GetEpoch()), nil
}

// ClusterStatus implements broker.Remote.
func (r remote) ClusterStatus(ctx context.Context, c *broker.Caller) (*broker.ClusterStatus, error) {
	response, err := r.calls.ClusterStatus(rpc.PassOn(ctx, c), &pb.ClusterStatusRequest{})
	if err != nil {
		return nil, err
	}
	return fromOwnStatus(response), nil
}

// PartitionStatus implements broker.Remote.
func (r remote) PartitionStatus(ctx context.Context, c *broker.Caller, topic string, p id.Partition) (*broker.PartitionStatus, error) {
	response, err := r.calls.PartitionStatus(rpc.PassOn(ctx, c), &pb.PartitionStatusRequest{Topic: topic, Partition: int32(p)})
	if err != nil {
		return nil, err
	}
	return fromPartitionStatus(response), nil
}
