package node

import (
	"context"
	"maps"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"golang.org/x/sync/errgroup"

	"github.com/quorumlog/quorumlog/node/controller"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Version is this release's.
const Version = rpc.Release

const (
	// askTimeout bounds a question to another node for an answer that is incomplete without it.
	askTimeout = time.Second
	// askParallel is how many nodes or partitions are asked at once.
	askParallel = 16
)

// Metadata answers from this node's copy of the metadata, and from what it knows of who leads.
func (a *admin) Metadata(_ context.Context, r *pb.MetadataRequest) (*pb.MetadataResponse, error) {
	n := a.node
	view := n.controller.View()
	response := &pb.MetadataResponse{ClusterId: n.identity.ClusterID, Controller: int32(n.controller.Leader()), MetadataIndex: uint64(view.Index())}
	response.AgeMs = -1
	if age := n.word.age(); age >= 0 {
		response.AgeMs = age.Milliseconds()
	}
	for _, node := range view.Nodes() {
		response.Nodes = append(response.Nodes, n.describeNode(node))
	}
	if r.GetNodesOnly() {
		return response, nil
	}
	for _, t := range named(view, r.GetTopics(), response) {
		topic, known := a.topic(t)
		response.Topics = append(response.Topics, topic)
		if !known { // nobody is to believe that there is no leader: this node was started a moment ago, or a member of the group was
			response.AgeMs = -1
		}
	}
	return response, nil
}

// named returns the topics of these names, all when there are none, and puts the names that no topic has into the response.
func named(view *placement.View, names []string, response *pb.MetadataResponse) []*placement.Topic {
	if len(names) == 0 {
		return view.Topics()
	}
	var topics []*placement.Topic
	for _, name := range names {
		if t := view.Topic(name); t != nil {
			topics = append(topics, t)
			continue
		}
		response.Topics = append(response.Topics, &pb.Topic{
			Name: name, ErrorCode: int32(kerr.UnknownTopicOrPartition), ErrorMessage: "topic " + name + " does not exist",
		})
	}
	return topics
}

func (n *Node) describeNode(node *placement.Node) *pb.Node {
	address, _ := n.resolve(node.ID)
	if node.ID == n.options.NodeID || address == "" {
		address = node.RPCAddress
	}
	return &pb.Node{
		Id: int32(node.ID), RpcAddress: address, GossipAddress: node.GossipAddress, Rack: node.Rack, Alive: n.alive(node.ID), Version: node.Version,
	}
}

// topic describes a topic. Known is false where this node cannot tell yet who leads.
func (a *admin) topic(t *placement.Topic) (topic *pb.Topic, known bool) {
	topic = &pb.Topic{Name: t.Name, Id: t.ID[:], Configs: maps.Clone(t.Configs), ReplicationFactor: int32(t.ReplicationFactor)}
	topic.Partitions = make([]*pb.Partition, len(t.Partitions))
	known = true
	for i, l := range a.node.leaders.Leaders(t, a.node.alive) {
		p := &t.Partitions[i]
		described := &pb.Partition{Partition: int32(p.ID), Group: uint64(p.Group), Leader: int32(l.Node), Epoch: int32(l.Epoch)}
		for _, m := range p.Members {
			described.Replicas = append(described.Replicas, int32(m.Node))
		}
		for _, node := range l.InSync {
			described.Isr = append(described.Isr, int32(node))
		}
		if l.Node == id.NoNode {
			described.ErrorCode = int32(kerr.LeaderNotAvailable)
		}
		known = known && l.Known
		topic.Partitions[i] = described
	}
	return topic, known
}

// ListOffsets answers for the partitions that this node leads.
func (a *admin) ListOffsets(ctx context.Context, r *pb.ListOffsetsRequest) (*pb.ListOffsetsResponse, error) {
	ctx, cancel := withTimeout(ctx, 0)
	defer cancel()
	response := &pb.ListOffsetsResponse{Partitions: make([]*pb.ListOffsetsResponse_Partition, len(r.GetPartitions()))}
	var work errgroup.Group
	work.SetLimit(askParallel)
	for i, q := range r.GetPartitions() {
		work.Go(func() error {
			answer := &pb.ListOffsetsResponse_Partition{Topic: q.GetTopic(), Partition: q.GetPartition(), Offset: int64(id.NoOffset), Timestamp: -1, Leader: int32(id.NoNode)}
			response.Partitions[i] = answer
			if err := a.offset(ctx, q, answer); err != nil {
				e := toRPC(err)
				answer.ErrorCode, answer.ErrorMessage, answer.Leader = int32(e.Code), e.Error(), int32(e.Leader)
			}
			return nil
		})
	}
	_ = work.Wait()
	return response, nil
}

// Timestamps that mean an end of the log, as in Kafka.
const (
	latestOffset   = -1
	earliestOffset = -2
)

func (a *admin) offset(ctx context.Context, q *pb.ListOffsetsRequest_Partition, answer *pb.ListOffsetsResponse_Partition) error {
	_, p, err := a.partition(q.GetTopic(), q.GetPartition())
	if err != nil {
		return err
	}
	open := a.node.replicas.group(p.Group)
	if open == nil || !open.Group().IsLeader() {
		l := a.node.leaders.Leader(p, a.node.alive)
		answer.Epoch = int32(l.Epoch)
		return &kerr.Error{Code: kerr.NotLeaderOrFollower, Leader: l.Node}
	}
	hw, err := open.ConfirmedHighWatermark(ctx)
	if err != nil {
		return err
	}
	_, leader, term := open.Group().Leader()
	answer.Leader, answer.Epoch = int32(leader), int32(id.EpochOf(term))
	switch q.GetTimestamp() {
	case latestOffset:
		answer.Offset = int64(hw)
	case earliestOffset:
		answer.Offset = int64(open.Log().StartOffset())
	default:
		offset, timestamp, ok, err := open.Log().OffsetForTime(q.GetTimestamp(), hw)
		if err != nil {
			return err
		}
		if ok {
			answer.Offset, answer.Timestamp = int64(offset), timestamp
		}
	}
	return nil
}

// PartitionStatus tells what this node's replica knows about its group.
func (a *admin) PartitionStatus(ctx context.Context, r *pb.PartitionStatusRequest) (*pb.PartitionStatusResponse, error) {
	ctx, cancel := withTimeout(ctx, 0)
	defer cancel()
	group, response, err := a.statusOf(r)
	if err != nil {
		return nil, err
	}
	status, err := group.Status(ctx)
	if err != nil {
		return nil, toRPC(err)
	}
	response.Group, response.Replica, response.Role = uint64(status.Group), uint64(status.Replica), status.Role.String()
	if status.Standing == raftgroup.Halted {
		response.Role += ", halted"
	}
	response.Leader, response.Epoch = int32(status.Node), int32(id.EpochOf(status.Term))
	response.HighWatermark, response.LogEndOffset = int64(status.HW), int64(status.LEO)
	response.Commit, response.Applied = uint64(status.Commit), uint64(status.Applied)
	response.Condemned = group.Log().Condemned() != 0
	for _, m := range status.Members {
		ack := int64(-1)
		if m.LastAck >= 0 {
			ack = m.LastAck.Milliseconds()
		}
		response.Members = append(response.Members, &pb.PartitionMember{
			Node: int32(m.Node), Replica: uint64(m.Replica), Match: uint64(m.Match), InSync: m.InSync, Learner: m.Learner, LastAckMs: ack,
		})
		if m.InSync && status.Role == raftgroup.Leader {
			response.Isr = append(response.Isr, int32(m.Node))
		}
	}
	return response, nil
}

func (a *admin) statusOf(r *pb.PartitionStatusRequest) (*raftgroup.Group, *pb.PartitionStatusResponse, error) {
	if r.GetTopic() == controller.Topic {
		return a.node.controller.Group(), &pb.PartitionStatusResponse{}, nil
	}
	t, p, err := a.partition(r.GetTopic(), r.GetPartition())
	if err != nil {
		return nil, nil, err
	}
	if refusal, ok := a.node.replicas.refusal(p.Group); ok {
		return nil, nil, kerr.Errorf(kerr.ReplicaNotAvailable, "node %d's replica of %s-%d is refused, for good, and has to be replaced: %s",
			a.node.options.NodeID, t.Name, p.ID, refusal.Reason)
	}
	open := a.node.replicas.group(p.Group)
	if open == nil {
		return nil, nil, kerr.Errorf(kerr.ReplicaNotAvailable, "node %d has no replica of %s-%d", a.node.options.NodeID, t.Name, p.ID)
	}
	if _, cause := open.Group().Standing(); open.Group().Failed() {
		return nil, nil, kerr.Errorf(kerr.ReplicaNotAvailable, "node %d's replica of %s-%d has stopped: %v",
			a.node.options.NodeID, t.Name, p.ID, cause)
	}
	return open.Group(), &pb.PartitionStatusResponse{LogStartOffset: int64(open.Log().StartOffset())}, nil
}
