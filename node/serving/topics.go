package serving

import (
	"context"
	"maps"

	"github.com/quorumlog/quorumlog/node/controller"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Metadata implements broker.Topics.
func (b *Broker) Metadata(_ context.Context, _ *broker.Caller, q broker.MetadataQuery) (*broker.Metadata, error) {
	view := b.o.Controller.View()
	m := &broker.Metadata{ClusterID: b.o.ClusterID, Controller: b.o.Controller.Leader(), Index: view.Index(), Age: b.o.Age()}
	for _, node := range view.Nodes() {
		m.Nodes = append(m.Nodes, b.describeNode(node))
	}
	describe := func(t *placement.Topic) {
		topic, known := b.describeTopic(t)
		m.Topics = append(m.Topics, topic)
		if !known { // nobody is to believe that there is no leader: this node was started a moment ago, or a member of the group was
			m.Age = -1
		}
	}
	if q.All {
		for _, t := range view.Topics() {
			describe(t)
		}
	}
	for _, name := range q.Topics {
		if t := view.Topic(name); t != nil {
			describe(t)
		} else {
			m.Topics = append(m.Topics, broker.Topic{Name: name, Err: kerr.Errorf(kerr.UnknownTopicOrPartition, "topic %s does not exist", name)})
		}
	}
	for _, topic := range q.IDs {
		if t := view.TopicByID(topic); t != nil {
			describe(t)
		} else {
			m.Topics = append(m.Topics, broker.Topic{ID: topic, Err: kerr.Errorf(kerr.UnknownTopicID, "no topic has the id %s", topic)})
		}
	}
	return m, nil
}

func (b *Broker) describeNode(node *placement.Node) broker.Node {
	address, _ := b.o.Nodes.Resolve(node.ID)
	if node.ID == b.o.Node || address == "" {
		address = node.RPCAddress
	}
	return broker.Node{
		ID: node.ID, RPCAddress: address, GossipAddress: node.GossipAddress, Rack: node.Rack, Version: node.Version, Alive: b.o.Nodes.Alive(node.ID),
		KafkaAddress: b.o.Nodes.KafkaAddress(node.ID),
	}
}

// describeTopic describes a topic. Known is false where this node cannot tell yet who leads.
func (b *Broker) describeTopic(t *placement.Topic) (topic broker.Topic, known bool) {
	topic = broker.Topic{Name: t.Name, ID: t.ID, Configs: maps.Clone(t.Configs), ReplicationFactor: t.ReplicationFactor}
	topic.Partitions = make([]broker.Partition, len(t.Partitions))
	known = true
	for i, l := range b.o.Leaders.Leaders(t) {
		p := &t.Partitions[i]
		described := broker.Partition{ID: p.ID, Group: p.Group, Leader: l.Node, Epoch: l.Epoch, ISR: l.InSync}
		for _, m := range p.Members {
			described.Replicas = append(described.Replicas, m.Node)
		}
		known = known && l.Known
		topic.Partitions[i] = described
	}
	return topic, known
}

// partition finds a partition by name.
func (b *Broker) partition(topic string, number id.Partition) (*placement.Topic, *placement.Partition, error) {
	t := b.o.Controller.View().Topic(topic)
	if t == nil {
		return nil, nil, kerr.Errorf(kerr.UnknownTopicOrPartition, "topic %q does not exist", topic)
	}
	if number < 0 || int(number) >= len(t.Partitions) {
		return nil, nil, kerr.Errorf(kerr.UnknownTopicOrPartition, "topic %q has partitions 0 to %d, there is no %d", topic, len(t.Partitions)-1, number)
	}
	return t, &t.Partitions[number], nil
}

// PartitionStatus implements broker.Topics.
func (b *Broker) PartitionStatus(ctx context.Context, _ *broker.Caller, topic string, p id.Partition) (*broker.PartitionStatus, error) {
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	group, start, err := b.groupOf(topic, p)
	if err != nil {
		return nil, err
	}
	s, err := group.Status(ctx)
	if err != nil {
		return nil, coded(err)
	}
	status := &broker.PartitionStatus{
		Group: s.Group, Replica: s.Replica, Role: s.Role.String(), Leader: s.Node, Epoch: id.EpochOf(s.Term),
		HighWatermark: s.HW, LogStart: start, LogEnd: s.LEO, Commit: s.Commit, Applied: s.Applied, Condemned: group.Log().Condemned() != 0,
	}
	if s.Standing == raftgroup.Halted {
		status.Role += ", halted"
	}
	for _, m := range s.Members {
		status.Members = append(status.Members, broker.Member{
			Node: m.Node, Replica: m.Replica, Match: m.Match, InSync: m.InSync, Learner: m.Learner, LastAck: m.LastAck,
		})
		if m.InSync && s.Role == raftgroup.Leader {
			status.ISR = append(status.ISR, m.Node)
		}
	}
	return status, nil
}

// groupOf returns the group of a replica that works, and where its log begins: id.NoOffset while it does not know.
func (b *Broker) groupOf(topic string, number id.Partition) (*raftgroup.Group, id.Offset, error) {
	if topic == controller.Topic {
		return b.o.Controller.Group(), 0, nil
	}
	t, p, err := b.partition(topic, number)
	if err != nil {
		return nil, 0, err
	}
	if refusal, ok := b.o.Replicas.Refusal(p.Group); ok {
		return nil, 0, kerr.Errorf(kerr.ReplicaNotAvailable, "node %d's replica of %s-%d is refused, for good, and has to be replaced: %s",
			b.o.Node, t.Name, p.ID, refusal.Reason)
	}
	open := b.o.Replicas.Group(p.Group)
	if open == nil {
		return nil, 0, kerr.Errorf(kerr.ReplicaNotAvailable, "node %d has no replica of %s-%d", b.o.Node, t.Name, p.ID)
	}
	if _, cause := open.Group().Standing(); open.Group().Failed() {
		return nil, 0, kerr.Errorf(kerr.ReplicaNotAvailable, "node %d's replica of %s-%d has stopped: %v", b.o.Node, t.Name, p.ID, cause)
	}
	return open.Group(), open.ShownStart(), nil
}
