package native

import (
	"context"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// Guard returns the administrative calls behind an authorizer: which call needs what is in broker.Needs. A node that passes a call on has asked
// its own authorizer for the caller, so what a node calls is not asked again.
//
// Each call is written out. One that is new does not compile before somebody has thought about who may make it.
func Guard(calls pb.DRPCAdminServer, a broker.Authorizer) pb.DRPCAdminServer { return &guard{calls, a} }

type guard struct {
	calls pb.DRPCAdminServer
	a     broker.Authorizer
}

var _ pb.DRPCAdminServer = (*guard)(nil)

// free tells whether nothing is asked for: there is no authorizer, or a node calls.
func (g *guard) free(ctx context.Context) bool { return !g.a.Enabled() || rpc.ByNode(ctx) }

// checked makes the call if the caller may.
func checked[Q, A any](ctx context.Context, g *guard, call, topic string, f func(context.Context, Q) (A, error), q Q) (A, error) {
	if !g.free(ctx) && !broker.Open[call] {
		if err := broker.Require(g.a, rpc.CallerOf(ctx), call, topic); err != nil {
			var none A
			return none, err
		}
	}
	return f(ctx, q)
}

// whereEnabled is checked for calls that say something about permissions, which count for nothing without an authorizer.
func whereEnabled[Q, A any](ctx context.Context, g *guard, call string, f func(context.Context, Q) (A, error), q Q) (A, error) {
	if !g.a.Enabled() && !rpc.ByNode(ctx) {
		var none A
		return none, kerr.Errorf(kerr.SecurityDisabled, "No Authorizer is configured: start the nodes with --authorizer acl and --super-users")
	}
	return checked(ctx, g, call, "", f, q)
}

// Metadata leaves out the topics that the caller may not describe; one that he asks for by name is refused. The configs of a topic are for
// those who may see them.
func (g *guard) Metadata(ctx context.Context, r *pb.MetadataRequest) (*pb.MetadataResponse, error) {
	if g.free(ctx) {
		return g.calls.Metadata(ctx, r)
	}
	c := rpc.CallerOf(ctx)
	asked := &pb.MetadataRequest{NodesOnly: r.GetNodesOnly(), WithIsr: r.GetWithIsr()} // not LocalOnly: that is for nodes
	var refused []*pb.Topic
	for _, name := range r.GetTopics() {
		if err := broker.Require(g.a, c, "Metadata", name); err != nil {
			refused = append(refused, &pb.Topic{Name: name, ErrorCode: int32(kerr.CodeOf(err)), ErrorMessage: err.Error()})
			continue
		}
		asked.Topics = append(asked.Topics, name)
	}
	if len(refused) > 0 && len(asked.Topics) == 0 {
		asked.NodesOnly = true // no name would be all of them
	}
	response, err := g.calls.Metadata(ctx, asked)
	if err != nil {
		return nil, err
	}
	shown := response.Topics[:0]
	for _, t := range response.GetTopics() {
		if g.a.Allowed(c, acl.Describe, acl.Resource{Type: acl.Topic, Name: t.GetName()}) {
			g.hideConfigs(c, t)
			shown = append(shown, t)
		}
	}
	response.Topics = append(shown, refused...)
	return response, nil
}

func (g *guard) hideConfigs(c *broker.Caller, t *pb.Topic) {
	if t != nil && !g.a.Allowed(c, acl.DescribeConfigs, acl.Resource{Type: acl.Topic, Name: t.GetName()}) {
		t.Configs = nil
	}
}

// ListOffsets refuses each partition of a topic that the caller may not describe, and asks for the others.
func (g *guard) ListOffsets(ctx context.Context, r *pb.ListOffsetsRequest) (*pb.ListOffsetsResponse, error) {
	if g.free(ctx) {
		return g.calls.ListOffsets(ctx, r)
	}
	permits := broker.NewPermits(g.a, rpc.CallerOf(ctx))
	asked := &pb.ListOffsetsRequest{}
	answers := make([]*pb.ListOffsetsResponse_Partition, len(r.GetPartitions()))
	for i, q := range r.GetPartitions() {
		err := permits.Topic("ListOffsets", q.GetTopic())
		if err == nil {
			asked.Partitions = append(asked.Partitions, q)
			continue
		}
		answers[i] = &pb.ListOffsetsResponse_Partition{
			Topic: q.GetTopic(), Partition: q.GetPartition(), Offset: -1, Timestamp: -1, Leader: -1,
			ErrorCode: int32(kerr.CodeOf(err)), ErrorMessage: err.Error(),
		}
	}
	response, err := g.calls.ListOffsets(ctx, asked)
	if err != nil {
		return nil, err
	}
	next := 0
	for i := range answers {
		if answers[i] == nil && next < len(response.GetPartitions()) {
			answers[i] = response.GetPartitions()[next]
			next++
		}
	}
	response.Partitions = answers
	return response, nil
}

// CreateTopic shows the configs of the new topic to whoever may see them.
func (g *guard) CreateTopic(ctx context.Context, r *pb.CreateTopicRequest) (*pb.CreateTopicResponse, error) {
	response, err := checked(ctx, g, "CreateTopic", r.GetName(), g.calls.CreateTopic, r)
	if err == nil && !g.free(ctx) {
		g.hideConfigs(rpc.CallerOf(ctx), response.GetTopic())
	}
	return response, err
}

// DeleteTopic implements pb.DRPCAdminServer.
func (g *guard) DeleteTopic(ctx context.Context, r *pb.DeleteTopicRequest) (*pb.DeleteTopicResponse, error) {
	return checked(ctx, g, "DeleteTopic", r.GetName(), g.calls.DeleteTopic, r)
}

// AlterTopicConfig implements pb.DRPCAdminServer.
func (g *guard) AlterTopicConfig(ctx context.Context, r *pb.AlterTopicConfigRequest) (*pb.AlterTopicConfigResponse, error) {
	return checked(ctx, g, "AlterTopicConfig", r.GetName(), g.calls.AlterTopicConfig, r)
}

// InitProducerID implements pb.DRPCAdminServer.
func (g *guard) InitProducerID(ctx context.Context, r *pb.InitProducerIDRequest) (*pb.InitProducerIDResponse, error) {
	return checked(ctx, g, "InitProducerID", "", g.calls.InitProducerID, r)
}

// ClusterStatus implements pb.DRPCAdminServer.
func (g *guard) ClusterStatus(ctx context.Context, r *pb.ClusterStatusRequest) (*pb.ClusterStatusResponse, error) {
	return checked(ctx, g, "ClusterStatus", "", g.calls.ClusterStatus, r)
}

// RegisterNode implements pb.DRPCAdminServer.
func (g *guard) RegisterNode(ctx context.Context, r *pb.RegisterNodeRequest) (*pb.RegisterNodeResponse, error) {
	return checked(ctx, g, "RegisterNode", "", g.calls.RegisterNode, r)
}

// UnregisterNode implements pb.DRPCAdminServer.
func (g *guard) UnregisterNode(ctx context.Context, r *pb.UnregisterNodeRequest) (*pb.UnregisterNodeResponse, error) {
	return checked(ctx, g, "UnregisterNode", "", g.calls.UnregisterNode, r)
}

// Identify implements pb.DRPCAdminServer.
func (g *guard) Identify(ctx context.Context, r *pb.IdentifyRequest) (*pb.IdentifyResponse, error) {
	return checked(ctx, g, "Identify", "", g.calls.Identify, r)
}

// CheckReach implements pb.DRPCAdminServer.
func (g *guard) CheckReach(ctx context.Context, r *pb.CheckReachRequest) (*pb.CheckReachResponse, error) {
	return checked(ctx, g, "CheckReach", "", g.calls.CheckReach, r)
}

// PartitionStatus implements pb.DRPCAdminServer.
func (g *guard) PartitionStatus(ctx context.Context, r *pb.PartitionStatusRequest) (*pb.PartitionStatusResponse, error) {
	return checked(ctx, g, "PartitionStatus", r.GetTopic(), g.calls.PartitionStatus, r)
}

// TransferLeader implements pb.DRPCAdminServer.
func (g *guard) TransferLeader(ctx context.Context, r *pb.TransferLeaderRequest) (*pb.TransferLeaderResponse, error) {
	return checked(ctx, g, "TransferLeader", "", g.calls.TransferLeader, r)
}

// UpgradeCluster implements pb.DRPCAdminServer.
func (g *guard) UpgradeCluster(ctx context.Context, r *pb.UpgradeClusterRequest) (*pb.UpgradeClusterResponse, error) {
	return checked(ctx, g, "UpgradeCluster", "", g.calls.UpgradeCluster, r)
}

// CreateACLs implements pb.DRPCAdminServer.
func (g *guard) CreateACLs(ctx context.Context, r *pb.CreateACLsRequest) (*pb.CreateACLsResponse, error) {
	return whereEnabled(ctx, g, "CreateACLs", g.calls.CreateACLs, r)
}

// DeleteACLs implements pb.DRPCAdminServer.
func (g *guard) DeleteACLs(ctx context.Context, r *pb.DeleteACLsRequest) (*pb.DeleteACLsResponse, error) {
	return whereEnabled(ctx, g, "DeleteACLs", g.calls.DeleteACLs, r)
}

// DescribeACLs implements pb.DRPCAdminServer.
func (g *guard) DescribeACLs(ctx context.Context, r *pb.DescribeACLsRequest) (*pb.DescribeACLsResponse, error) {
	return whereEnabled(ctx, g, "DescribeACLs", g.calls.DescribeACLs, r)
}

// AlterUsers implements pb.DRPCAdminServer.
func (g *guard) AlterUsers(ctx context.Context, r *pb.AlterUsersRequest) (*pb.AlterUsersResponse, error) {
	return checked(ctx, g, "AlterUsers", "", g.calls.AlterUsers, r)
}

// DescribeUsers implements pb.DRPCAdminServer.
func (g *guard) DescribeUsers(ctx context.Context, r *pb.DescribeUsersRequest) (*pb.DescribeUsersResponse, error) {
	return checked(ctx, g, "DescribeUsers", "", g.calls.DescribeUsers, r)
}

// AlterQuotas implements pb.DRPCAdminServer.
func (g *guard) AlterQuotas(ctx context.Context, r *pb.AlterQuotasRequest) (*pb.AlterQuotasResponse, error) {
	return checked(ctx, g, "AlterQuotas", "", g.calls.AlterQuotas, r)
}

// DescribeQuotas implements pb.DRPCAdminServer.
func (g *guard) DescribeQuotas(ctx context.Context, r *pb.DescribeQuotasRequest) (*pb.DescribeQuotasResponse, error) {
	return checked(ctx, g, "DescribeQuotas", "", g.calls.DescribeQuotas, r)
}
