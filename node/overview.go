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
		response.Nodes, response.Leaders = []*pb.NodeStatus{n.selfStatus(ctx)}, n.leadersHere()
		return response, nil
	}
	answers := make(leaderViews, len(view.Nodes()))
	var ask errgroup.Group
	ask.SetLimit(askParallel)
	for i, node := range view.Nodes() {
		ask.Go(func() error {
			answers[i].node = node.ID
			response.Nodes[i], answers[i].leaders = a.nodeStatus(ctx, node)
			return nil
		})
	}
	_ = ask.Wait()
	refused := int32(0)
	for _, s := range response.Nodes {
		response.UnderReplicated += s.GetUnderReplicated()
		refused = max(refused, s.GetRefusedReplicas())
	}
	response.UnderReplicated = max(response.UnderReplicated, refused) // a leader may need a moment to notice
	response.Leaderless, response.LeaderUnknown = answers.count(view, n.alive)
	response.Metadata = a.quorum(ctx, view)
	return response, nil
}

// leaderViews are what the nodes know of who leads.
type leaderViews []leaderView

type leaderView struct {
	node    id.Node
	leaders map[id.Group]id.Node // of the partitions that it has replicas of; nil: it did not answer
}

// count returns how many partitions have no leader, and of how many that is not known. Only who leads a partition is sure of it; but where
// a node does not answer in time, its followers know whether they hear from it as their leader.
func (v leaderViews) count(view *placement.View, alive func(id.Node) bool) (leaderless, unknown int32) {
	for _, t := range view.Topics() {
		for i := range t.Partitions {
			switch known, led := v.leads(&t.Partitions[i], alive); {
			case !known:
				unknown++
			case !led:
				leaderless++
			}
		}
	}
	return leaderless, unknown
}

func (v leaderViews) leads(p *placement.Partition, alive func(id.Node) bool) (known, led bool) {
	answered := func(n id.Node) bool {
		return slices.ContainsFunc(v, func(a leaderView) bool { return a.node == n && a.leaders != nil })
	}
	some, silent, followed := false, false, false // some member answered; one that did not seems alive, or is followed by one that did
	for _, m := range p.Members {
		for _, a := range v {
			switch leader, ok := a.leaders[p.Group]; {
			case a.node != m.Node:
			case a.leaders == nil:
				silent = silent || alive(m.Node)
			case ok && leader == m.Node:
				return true, true
			default:
				some = true
				followed = followed || ok && leader != id.NoNode && !answered(leader)
			}
		}
	}
	return !followed && (some || !silent), false
}

// leadersHere is what this node knows of who leads.
func (n *Node) leadersHere() []*pb.PartitionLeader {
	var list []*pb.PartitionLeader
	for _, p := range n.replicas.All() {
		if !p.Group().Failed() {
			_, leader, _ := p.Group().Leader()
			list = append(list, &pb.PartitionLeader{Group: uint64(p.Group().ID()), Leader: int32(leader)})
		}
	}
	return list
}

func viewOf(leaders []*pb.PartitionLeader) map[id.Group]id.Node {
	known := make(map[id.Group]id.Node, len(leaders))
	for _, l := range leaders {
		known[id.Group(l.GetGroup())] = id.Node(l.GetLeader())
	}
	return known
}

// nodeStatus returns what a node says of itself, or what is known where it does not answer, and whom it takes for leaders; nil: no answer.
func (a *admin) nodeStatus(ctx context.Context, node *placement.Node) (*pb.NodeStatus, map[id.Group]id.Node) {
	n := a.node
	if node.ID == n.options.NodeID {
		return n.selfStatus(ctx), viewOf(n.leadersHere())
	}
	status := &pb.NodeStatus{
		Node: n.describeNode(node), State: "dead", BootEpoch: node.BootEpoch, MinFeatureLevel: int32(node.MinLevel), MaxFeatureLevel: int32(node.MaxLevel),
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, err := n.dialer.AdminOf(status.GetNode().GetRpcAddress(), node.ID).ClusterStatus(forwarded(ctx), &pb.ClusterStatusRequest{})
	if err != nil || len(answer.GetNodes()) != 1 {
		status.ErrorMessage = "does not answer"
		if n.alive(node.ID) {
			status.State = "silent" // it may work as well as ever for producers
		}
		if err != nil {
			status.ErrorMessage = err.Error()
		}
		return status, nil
	}
	own := answer.GetNodes()[0]
	own.Node.Alive = true
	return own, viewOf(answer.GetLeaders())
}

// selfStatus is what this node says about itself.
func (n *Node) selfStatus(ctx context.Context) *pb.NodeStatus {
	self := n.controller.View().Node(n.options.NodeID)
	if self == nil {
		self = &placement.Node{ID: n.options.NodeID, RPCAddress: n.advertised(), Version: Version}
	}
	status := &pb.NodeStatus{
		Node: n.describeNode(self), State: n.stateText(), Protocol: fmt.Sprintf("quorumlog/%d", rpc.Protocol), DiskFreeBytes: n.freeBytes(), FsyncClass: n.fsyncClass(),
		BootEpoch: n.identity.Boot, AcceptsProduce: n.acceptsProduce(), MetricsAddress: n.metricsAddress(),
		RefusedReplicas: int32(n.replicas.RefusedCount()),
		MinFeatureLevel: int32(placement.OldestLevel), MaxFeatureLevel: int32(placement.SupportedLevel),
	}
	status.ErrorMessage = n.trouble()
	for _, p := range n.replicas.All() {
		status.Replicas++
		if !p.Group().IsLeader() {
			continue
		}
		status.PartitionsLed++
		if s, err := p.Group().Status(ctx); err == nil && s.Answering() < len(s.Members) {
			status.UnderReplicated++
		}
	}
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
