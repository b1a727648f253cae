package serving

import (
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

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
		s.Nodes, s.LeadersSeen = []broker.NodeStatus{b.selfStatus(ctx)}, b.leadersHere()
		return s, nil
	}
	s.Nodes = make([]broker.NodeStatus, len(view.Nodes()))
	answers := make(leaderViews, len(view.Nodes()))
	var ask errgroup.Group
	ask.SetLimit(askParallel)
	for i, node := range view.Nodes() {
		ask.Go(func() error {
			answers[i].node = node.ID
			s.Nodes[i], answers[i].leaders = b.nodeStatus(ctx, c, node)
			return nil
		})
	}
	_ = ask.Wait()
	refused := 0
	for _, n := range s.Nodes {
		s.UnderReplicated += n.UnderReplicated
		refused = max(refused, n.RefusedReplicas)
	}
	s.UnderReplicated = max(s.UnderReplicated, refused) // a leader may need a moment to notice
	s.Leaderless, s.LeaderUnknown = answers.count(view, b.o.Nodes.Alive)
	s.Metadata = b.quorum(ctx, view)
	return s, nil
}

// leaderViews are what the nodes know of who leads.
type leaderViews []leaderView

type leaderView struct {
	node    id.Node
	leaders map[id.Group]id.Node // of the partitions that it has replicas of; nil: it did not answer
}

// count returns how many partitions have no leader, and of how many that is not known. Only who leads a partition is sure of it; but where
// a node does not answer in time, its followers know whether they hear from it as their leader.
func (v leaderViews) count(view *placement.View, alive func(id.Node) bool) (leaderless, unknown int) {
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
func (b *Broker) leadersHere() map[id.Group]id.Node {
	known := make(map[id.Group]id.Node)
	for _, p := range b.o.Replicas.All() {
		if !p.Group().Failed() {
			_, known[p.Group().ID()], _ = p.Group().Leader()
		}
	}
	return known
}

// nodeStatus returns what a node says of itself, or what is known where it does not answer, and whom it takes for leaders; nil: no answer.
func (b *Broker) nodeStatus(ctx context.Context, c *broker.Caller, node *placement.Node) (broker.NodeStatus, map[id.Group]id.Node) {
	if node.ID == b.o.Node {
		return b.selfStatus(ctx), b.leadersHere()
	}
	status := broker.NodeStatus{
		Node: b.describeNode(node), State: "dead", BootEpoch: node.BootEpoch,
		OldestFeatureLevel: broker.FeatureLevel(node.MinLevel), SupportedFeatureLevel: broker.FeatureLevel(node.MaxLevel),
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	answer, err := b.o.Nodes.Remote(status.RPCAddress).ClusterStatus(broker.Forwarded(ctx), c)
	if err != nil || len(answer.Nodes) != 1 {
		status.Trouble = "does not answer"
		if b.o.Nodes.Alive(node.ID) {
			status.State = "silent" // it may work as well as ever for producers
		}
		if err != nil {
			status.Trouble = err.Error()
		}
		return status, nil
	}
	own := answer.Nodes[0]
	own.Alive = true
	return own, answer.LeadersSeen
}

// selfStatus is what this node says about itself.
func (b *Broker) selfStatus(ctx context.Context) broker.NodeStatus {
	status := b.o.Self()
	if self := b.o.Controller.View().Node(b.o.Node); self != nil {
		status.Node = b.describeNode(self)
	}
	for _, p := range b.o.Replicas.All() {
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
func (b *Broker) quorum(ctx context.Context, view *placement.View) broker.Quorum {
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
	return q
}
