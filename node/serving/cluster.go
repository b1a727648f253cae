package serving

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/quorumlog/quorumlog/node/controller"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/wal/id"
)

// ClusterStatus implements broker.Cluster.
func (b *Broker) ClusterStatus(ctx context.Context, c *broker.Caller) (*broker.ClusterStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	view := b.o.Controller.View()
	s := &broker.ClusterStatus{
		ClusterID: b.o.ClusterID, ClusterName: b.o.ClusterName, Controller: b.o.Controller.Leader(), AnsweredBy: b.o.Node, Topics: len(view.Topics()),
		FeatureLevel: broker.FeatureLevel(view.Level()), FeatureLevelKnownToAll: broker.FeatureLevel(view.KnownToAll()),
	}
	for _, t := range view.Topics() {
		s.Partitions += len(t.Partitions)
	}
	if broker.IsForwarded(ctx) {
		s.Nodes = []broker.NodeStatus{b.selfStatus()}
		return s, nil
	}
	s.Nodes = make([]broker.NodeStatus, len(view.Nodes()))
	var ask errgroup.Group
	ask.SetLimit(askParallel)
	for i, node := range view.Nodes() {
		ask.Go(func() error {
			s.Nodes[i] = b.nodeStatus(ctx, c, node)
			return nil
		})
	}
	_ = ask.Wait()
	refused := 0
	for _, n := range s.Nodes {
		refused = max(refused, n.RefusedReplicas)
	}
	count := b.o.Leaders.Count(view)
	s.UnderReplicated = max(count.UnderReplicated, refused) // a leader may need a moment to notice
	s.Leaderless, s.LeaderUnknown = count.Leaderless, count.Unknown
	s.Metadata = b.quorum(ctx, c, view)
	return s, nil
}

// nodeStatus returns what a node says of itself, or what is known where it does not answer.
func (b *Broker) nodeStatus(ctx context.Context, c *broker.Caller, node *placement.Node) broker.NodeStatus {
	if node.ID == b.o.Node {
		return b.selfStatus()
	}
	status := broker.NodeStatus{
		Node: b.describeNode(node), State: "dead", BootEpoch: node.BootEpoch,
		OldestFeatureLevel: broker.FeatureLevel(node.MinLevel), SupportedFeatureLevel: broker.FeatureLevel(node.MaxLevel),
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, err := b.o.Nodes.Remote(node.ID, status.RPCAddress).ClusterStatus(ctx, c)
	if err != nil || len(answer.Nodes) != 1 {
		status.Trouble = "does not answer"
		if b.o.Nodes.Alive(node.ID) {
			status.State = "silent" // it may work as well as ever for producers
		}
		if err != nil {
			status.Trouble = err.Error()
		}
		return status
	}
	own := answer.Nodes[0]
	own.Alive = true
	return own
}

// selfStatus is what this node says about itself.
func (b *Broker) selfStatus() broker.NodeStatus {
	status := b.o.Self()
	if self := b.o.Controller.View().Node(b.o.Node); self != nil {
		status.Node = b.describeNode(self)
	}
	for _, p := range b.o.Replicas.All() {
		status.Replicas++
		if p.Group().IsLeader() {
			status.PartitionsLed++
		}
	}
	status.UnderReplicated = b.o.Leaders.Lagging()
	return status
}

// quorum describes the metadata group. Only its leader knows how far the others are; elsewhere it is asked.
func (b *Broker) quorum(ctx context.Context, c *broker.Caller, view *placement.View) broker.Quorum {
	status, err := b.o.Controller.Group().Status(ctx)
	if err != nil {
		return broker.Quorum{Leader: id.NoNode}
	}
	q := broker.Quorum{Leader: status.Node, Term: status.Term, Commit: status.Commit}
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
			q.Learners = append(q.Learners, node)
		} else {
			q.Voters = append(q.Voters, node)
		}
	}
	slices.Sort(q.Voters)
	slices.Sort(q.Learners)
	for _, m := range b.progress(ctx, c, q.Leader) {
		if node, ok := nodeOf[m.Replica]; ok {
			m.Node = node
		}
		q.Progress = append(q.Progress, m)
	}
	return q
}

// progress returns the members of the metadata group in the words of its leader; none if he cannot be asked.
func (b *Broker) progress(ctx context.Context, c *broker.Caller, leader id.Node) []broker.Member {
	ask := b.PartitionStatus
	if leader != b.o.Node {
		address, ok := b.o.Nodes.Resolve(leader)
		if !ok {
			return nil
		}
		ask = b.o.Nodes.Remote(leader, address).PartitionStatus
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	status, err := ask(ctx, c, controller.Topic, 0)
	if err != nil || status.Leader != leader { // another one leads by now
		return nil
	}
	return status.Members
}
