package node

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// ClusterStatus describes the cluster as this node sees it; every other node that seems alive is asked about itself.
func (a *admin) ClusterStatus(ctx context.Context, _ *pb.ClusterStatusRequest) (*pb.ClusterStatusResponse, error) {
	ctx, cancel := withTimeout(ctx, 0)
	defer cancel()
	n := a.node
	view := n.controller.View()
	response := &pb.ClusterStatusResponse{
		ClusterId: n.identity.ClusterID, ClusterName: n.options.ClusterName, Controller: int32(n.controller.Leader()),
		AnsweredBy: int32(n.options.NodeID), Topics: int32(len(view.Topics())), Nodes: make([]*pb.NodeStatus, len(view.Nodes())),
		FeatureLevel: int32(view.Level()), FeatureLevelKnown: int32(view.KnownToAll()),
	}
	for _, t := range view.Topics() {
		response.Partitions += int32(len(t.Partitions))
	}
	if isForwarded(ctx) {
		response.Nodes = []*pb.NodeStatus{n.selfStatus()}
		return response, nil
	}
	var ask errgroup.Group
	ask.SetLimit(askParallel)
	for i, node := range view.Nodes() {
		ask.Go(func() error {
			response.Nodes[i] = a.nodeStatus(ctx, node)
			return nil
		})
	}
	_ = ask.Wait()
	refused := int32(0)
	for _, s := range response.Nodes {
		refused = max(refused, s.GetRefusedReplicas())
	}
	count := n.leaders.Count(view, n.alive)
	response.UnderReplicated = max(int32(count.UnderReplicated), refused) // a leader may need a moment to notice
	response.Leaderless, response.LeaderUnknown = int32(count.Leaderless), int32(count.Unknown)
	response.Metadata = a.quorum(ctx, view)
	return response, nil
}

// nodeStatus returns what a node says of itself, or what is known where it does not answer.
func (a *admin) nodeStatus(ctx context.Context, node *placement.Node) *pb.NodeStatus {
	n := a.node
	if node.ID == n.options.NodeID {
		return n.selfStatus()
	}
	status := &pb.NodeStatus{
		Node: n.describeNode(node), State: "dead", BootEpoch: node.BootEpoch, MinFeatureLevel: int32(node.MinLevel), MaxFeatureLevel: int32(node.MaxLevel),
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, err := n.dialer.Admin(status.GetNode().GetRpcAddress()).ClusterStatus(forwarded(ctx), &pb.ClusterStatusRequest{})
	if err != nil || len(answer.GetNodes()) != 1 {
		status.ErrorMessage = "does not answer"
		if n.alive(node.ID) {
			status.State = "silent" // it may work as well as ever for producers
		}
		if err != nil {
			status.ErrorMessage = err.Error()
		}
		return status
	}
	own := answer.GetNodes()[0]
	own.Node.Alive = true
	return own
}

// selfStatus is what this node says about itself.
func (n *Node) selfStatus() *pb.NodeStatus {
	self := n.controller.View().Node(n.options.NodeID)
	if self == nil {
		self = &placement.Node{ID: n.options.NodeID, RPCAddress: n.advertised(), Version: Version}
	}
	status := &pb.NodeStatus{
		Node: n.describeNode(self), State: n.stateText(), Protocol: fmt.Sprintf("quorumlog/%d", rpc.Protocol), DiskFreeBytes: n.freeBytes(), FsyncClass: n.fsyncClass(),
		BootEpoch: n.identity.Boot, AcceptsProduce: n.acceptsProduce(), MetricsAddress: n.metricsAddress(),
		RefusedReplicas: int32(n.replicas.refusedCount()),
		MinFeatureLevel: int32(placement.OldestLevel), MaxFeatureLevel: int32(placement.SupportedLevel),
	}
	status.ErrorMessage = n.trouble()
	for _, p := range n.replicas.all() {
		status.Replicas++
		if p.Group().IsLeader() {
			status.PartitionsLed++
		}
	}
	status.UnderReplicated = int32(n.leaders.Lagging())
	return status
}

// quorum describes the metadata group. Only its leader knows the configuration in full; elsewhere it is asked.
func (a *admin) quorum(ctx context.Context, view *placement.View) *pb.MetadataQuorum {
	group := a.node.controller.Group()
	status, err := group.Status(ctx)
	if err != nil {
		return &pb.MetadataQuorum{Leader: int32(id.NoNode)}
	}
	q := &pb.MetadataQuorum{Leader: int32(status.Node), Term: uint64(status.Term), Commit: uint64(status.Commit)}
	nodeOf := make(map[id.Replica]id.Node)
	for _, m := range view.MetadataMembers() {
		nodeOf[m.Replica] = m.Node
	}
	for _, m := range status.Members {
		node, ok := nodeOf[m.Replica]
		if !ok {
			node = m.Node
		}
		if m.Learner {
			q.Learners = append(q.Learners, int32(node))
		} else {
			q.Voters = append(q.Voters, int32(node))
		}
	}
	slices.Sort(q.Voters)
	slices.Sort(q.Learners)
	return q
}
