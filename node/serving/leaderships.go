package serving

import (
	"context"
	"fmt"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TransferLeader implements broker.Leaderships.
func (b *Broker) TransferLeader(ctx context.Context, c *broker.Caller, t broker.Transfer) (id.Node, id.Epoch, error) {
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	topic, p, err := b.partition(t.Topic, t.Partition)
	if err != nil {
		return id.NoNode, 0, err
	}
	to := p.Preferred()
	if t.To >= 0 {
		m, ok := p.On(t.To)
		if !ok {
			return id.NoNode, 0, kerr.Errorf(kerr.InvalidRequest, "node %d has no replica of %s-%d: choose one of its replicas", t.To, topic.Name, p.ID)
		}
		to = m
	}
	open := b.o.Replicas.Group(p.Group)
	if open == nil || !open.Group().IsLeader() {
		leader := b.o.Leaders.Leader(p).Node
		address, ok := b.o.Nodes.Resolve(leader)
		if !ok || broker.IsForwarded(ctx) || leader == b.o.Node {
			return id.NoNode, 0, &kerr.Error{Code: kerr.NotLeaderOrFollower, Leader: leader}
		}
		node, epoch, err := b.o.Nodes.Remote(leader, address).TransferLeader(ctx, c, t)
		return node, epoch, coded(err)
	}
	if err := open.Group().TransferLeader(ctx, to.Replica); err != nil {
		e := Refusal(err)
		return id.NoNode, 0, &kerr.Error{Code: e.Code, Leader: e.Leader, Message: fmt.Sprintf("leadership of %s-%d stays: %v", topic.Name, p.ID, err)}
	}
	_, leader, term := open.Group().Leader()
	return leader, id.EpochOf(term), nil
}
