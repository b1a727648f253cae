package native

import (
	"context"
	"time"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// admin serves the administrative calls over a broker.
type admin struct {
	pb.DRPCAdminUnimplementedServer
	broker broker.Broker
	peers  Peers
}

// defaultTimeout bounds calls whose request names no time.
const defaultTimeout = 15 * time.Second

func withTimeout(ctx context.Context, ms int32) (context.Context, context.CancelFunc) {
	d := time.Duration(ms) * time.Millisecond
	if d <= 0 {
		d = defaultTimeout
	}
	return context.WithTimeout(ctx, d)
}

// Metadata implements pb.DRPCAdminServer.
func (a *admin) Metadata(ctx context.Context, r *pb.MetadataRequest) (*pb.MetadataResponse, error) {
	var q broker.MetadataQuery
	if !r.GetNodesOnly() {
		q.Topics, q.All = r.GetTopics(), len(r.GetTopics()) == 0
	}
	m, err := a.broker.Metadata(ctx, rpc.CallerOf(ctx), q)
	if err != nil {
		return nil, err
	}
	response := &pb.MetadataResponse{ClusterId: m.ClusterID, Controller: int32(m.Controller), MetadataIndex: uint64(m.Index), AgeMs: milliseconds(m.Age)}
	for _, n := range m.Nodes {
		response.Nodes = append(response.Nodes, toNode(n))
	}
	for _, t := range m.Topics {
		response.Topics = append(response.Topics, toTopic(t))
	}
	return response, nil
}

// CreateTopic implements pb.DRPCAdminServer.
func (a *admin) CreateTopic(ctx context.Context, r *pb.CreateTopicRequest) (*pb.CreateTopicResponse, error) {
	ctx, cancel := withTimeout(ctx, r.GetTimeoutMs())
	defer cancel()
	t := broker.NewTopic{
		Name: r.GetName(), Partitions: int(r.GetPartitions()), ReplicationFactor: int(r.GetReplicationFactor()), Configs: r.GetConfigs(),
		ValidateOnly: r.GetValidateOnly(),
	}
	if t.ReplicationFactor == -1 { // Kafka's word for the default
		t.ReplicationFactor = 0
	}
	topic, err := a.broker.CreateTopic(ctx, rpc.CallerOf(ctx), t)
	if err != nil || topic == nil {
		return &pb.CreateTopicResponse{}, err
	}
	return &pb.CreateTopicResponse{Topic: toTopic(*topic)}, nil
}

// DeleteTopic implements pb.DRPCAdminServer.
func (a *admin) DeleteTopic(ctx context.Context, r *pb.DeleteTopicRequest) (*pb.DeleteTopicResponse, error) {
	ctx, cancel := withTimeout(ctx, r.GetTimeoutMs())
	defer cancel()
	topic, err := a.broker.DeleteTopic(ctx, rpc.CallerOf(ctx), r.GetName())
	return &pb.DeleteTopicResponse{Id: topic[:]}, err
}

// AlterTopicConfig implements pb.DRPCAdminServer.
func (a *admin) AlterTopicConfig(ctx context.Context, r *pb.AlterTopicConfigRequest) (*pb.AlterTopicConfigResponse, error) {
	ctx, cancel := withTimeout(ctx, r.GetTimeoutMs())
	defer cancel()
	configs, err := a.broker.AlterTopicConfig(ctx, rpc.CallerOf(ctx), broker.ConfigChange{Topic: r.GetName(), Set: r.GetSet(), Remove: r.GetRemove()})
	return &pb.AlterTopicConfigResponse{Configs: configs}, err
}

// ListOffsets implements pb.DRPCAdminServer.
func (a *admin) ListOffsets(ctx context.Context, r *pb.ListOffsetsRequest) (*pb.ListOffsetsResponse, error) {
	queries := make([]broker.OffsetQuery, 0, len(r.GetPartitions()))
	for _, q := range r.GetPartitions() {
		queries = append(queries, broker.OffsetQuery{Topic: q.GetTopic(), Partition: id.Partition(q.GetPartition()), Time: q.GetTimestamp()})
	}
	response := &pb.ListOffsetsResponse{}
	for i, o := range a.broker.ListOffsets(ctx, rpc.CallerOf(ctx), queries) {
		answer := &pb.ListOffsetsResponse_Partition{
			Topic: queries[i].Topic, Partition: int32(queries[i].Partition),
			Offset: int64(o.Offset), Timestamp: o.Timestamp, Leader: int32(o.Leader), Epoch: int32(o.Epoch),
		}
		if o.Err != nil {
			answer.ErrorCode, answer.ErrorMessage = int32(o.Err.Code), o.Err.Error()
		}
		response.Partitions = append(response.Partitions, answer)
	}
	return response, nil
}

// OffsetForLeaderEpoch implements pb.DRPCAdminServer.
func (a *admin) OffsetForLeaderEpoch(ctx context.Context, r *pb.OffsetForLeaderEpochRequest) (*pb.OffsetForLeaderEpochResponse, error) {
	queries := make([]broker.EpochQuery, 0, len(r.GetPartitions()))
	for _, q := range r.GetPartitions() {
		queries = append(queries, broker.EpochQuery{Topic: q.GetTopic(), Partition: id.Partition(q.GetPartition()), Epoch: id.Epoch(q.GetEpoch())})
	}
	response := &pb.OffsetForLeaderEpochResponse{}
	for i, e := range a.broker.OffsetForLeaderEpoch(ctx, rpc.CallerOf(ctx), queries) {
		answer := &pb.OffsetForLeaderEpochResponse_Partition{
			Topic: queries[i].Topic, Partition: int32(queries[i].Partition), Epoch: int32(e.Epoch), EndOffset: int64(e.End), Leader: int32(e.Leader),
		}
		if e.Err != nil {
			answer.ErrorCode, answer.ErrorMessage = int32(e.Err.Code), e.Err.Error()
		}
		response.Partitions = append(response.Partitions, answer)
	}
	return response, nil
}

// DeleteRecords implements pb.DRPCAdminServer.
func (a *admin) DeleteRecords(ctx context.Context, r *pb.DeleteRecordsRequest) (*pb.DeleteRecordsResponse, error) {
	ctx, cancel := withTimeout(ctx, r.GetTimeoutMs())
	defer cancel()
	deletions := make([]broker.Deletion, 0, len(r.GetPartitions()))
	for _, d := range r.GetPartitions() {
		if n := len(d.GetTopicId()); n != 0 && n != len(id.Topic{}) { // or it would count as not given
			return nil, kerr.Errorf(kerr.InvalidRequest, "a topic id has %d bytes, not %d", len(id.Topic{}), n)
		}
		deletions = append(deletions, broker.Deletion{
			Topic: d.GetTopic(), TopicID: fromTopicID(d.GetTopicId()), Partition: id.Partition(d.GetPartition()), Before: id.Offset(d.GetOffset()),
		})
	}
	response := &pb.DeleteRecordsResponse{}
	for i, low := range a.broker.DeleteRecords(ctx, rpc.CallerOf(ctx), deletions) {
		answer := &pb.DeleteRecordsResponse_Partition{
			Topic: deletions[i].Topic, Partition: int32(deletions[i].Partition), LowWatermark: int64(low.Offset), Leader: int32(low.Leader),
		}
		if low.Err != nil {
			answer.ErrorCode, answer.ErrorMessage = int32(low.Err.Code), low.Err.Error()
		}
		response.Partitions = append(response.Partitions, answer)
	}
	return response, nil
}

// InitProducerID implements pb.DRPCAdminServer.
func (a *admin) InitProducerID(ctx context.Context, _ *pb.InitProducerIDRequest) (*pb.InitProducerIDResponse, error) {
	producer, err := a.broker.InitProducerID(ctx, rpc.CallerOf(ctx))
	return &pb.InitProducerIDResponse{ProducerId: int64(producer)}, err
}

// ClusterStatus implements pb.DRPCAdminServer.
func (a *admin) ClusterStatus(ctx context.Context, _ *pb.ClusterStatusRequest) (*pb.ClusterStatusResponse, error) {
	s, err := a.broker.ClusterStatus(ctx, rpc.CallerOf(ctx))
	if err != nil {
		return nil, err
	}
	return toClusterStatus(s), nil
}

// UpgradeCluster implements pb.DRPCAdminServer.
func (a *admin) UpgradeCluster(ctx context.Context, r *pb.UpgradeClusterRequest) (*pb.UpgradeClusterResponse, error) {
	ctx, cancel := withTimeout(ctx, r.GetTimeoutMs())
	defer cancel()
	u, err := a.broker.UpgradeCluster(ctx, rpc.CallerOf(ctx), broker.FeatureLevel(r.GetFeatureLevel()))
	return &pb.UpgradeClusterResponse{Was: int32(u.Was), FeatureLevel: int32(u.Is)}, err
}

// UnregisterNode implements pb.DRPCAdminServer.
func (a *admin) UnregisterNode(ctx context.Context, r *pb.UnregisterNodeRequest) (*pb.UnregisterNodeResponse, error) {
	ctx, cancel := withTimeout(ctx, r.GetTimeoutMs())
	defer cancel()
	return &pb.UnregisterNodeResponse{}, a.broker.UnregisterNode(ctx, rpc.CallerOf(ctx), id.Node(r.GetNodeId()))
}

// TransferLeader implements pb.DRPCAdminServer.
func (a *admin) TransferLeader(ctx context.Context, r *pb.TransferLeaderRequest) (*pb.TransferLeaderResponse, error) {
	to := id.Node(r.GetTo())
	if to < 0 {
		to = id.NoNode
	}
	leader, epoch, err := a.broker.TransferLeader(ctx, rpc.CallerOf(ctx), broker.Transfer{Topic: r.GetTopic(), Partition: id.Partition(r.GetPartition()), To: to})
	return &pb.TransferLeaderResponse{Leader: int32(leader), Epoch: int32(epoch)}, err
}

// PartitionStatus implements pb.DRPCAdminServer.
func (a *admin) PartitionStatus(ctx context.Context, r *pb.PartitionStatusRequest) (*pb.PartitionStatusResponse, error) {
	s, err := a.broker.PartitionStatus(ctx, rpc.CallerOf(ctx), r.GetTopic(), id.Partition(r.GetPartition()))
	if err != nil {
		return nil, err
	}
	return toPartitionStatus(s), nil
}

// RegisterNode implements pb.DRPCAdminServer.
func (a *admin) RegisterNode(ctx context.Context, r *pb.RegisterNodeRequest) (*pb.RegisterNodeResponse, error) {
	return a.peers.RegisterNode(ctx, r)
}

// Identify implements pb.DRPCAdminServer.
func (a *admin) Identify(ctx context.Context, r *pb.IdentifyRequest) (*pb.IdentifyResponse, error) {
	return a.peers.Identify(ctx, r)
}

// CheckReach implements pb.DRPCAdminServer.
func (a *admin) CheckReach(ctx context.Context, r *pb.CheckReachRequest) (*pb.CheckReachResponse, error) {
	return a.peers.CheckReach(ctx, r)
}
