package clienttest

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// PauseTime is for how long Pause has a producer send nothing.
const PauseTime = 300 * time.Millisecond

// produce serves one producer.
func (n *node) produce(s *rpc.ProduceStream) error {
	return s.Recv(func(r rpc.ProduceRequest) { n.cluster.handle(n, s, r) }, nil)
}

func (c *Cluster) handle(n *node, s *rpc.ProduceStream, r rpc.ProduceRequest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	answer := func(base id.Offset, err *kerr.Error) {
		if r.Acks == rpc.AcksNone {
			if err != nil {
				s.Fail(err)
			}
			return
		}
		out := rpc.ProduceResponse{Correlation: r.Correlation, BaseOffset: base, Leader: n.id}
		if err != nil {
			out.Code, out.Message, out.Leader, out.Oldest = err.Code, err.Message, err.Leader, err.Oldest
			if t := c.byID[r.Topic]; err.Leader != id.NoNode && t != nil {
				_, out.Epoch = n.leaderLocked(t.partitions[r.Partition])
			}
		}
		s.Send(out)
	}
	t := c.byID[r.Topic]
	if t == nil || int(r.Partition) >= len(t.partitions) {
		answer(id.NoOffset, kerr.Errorf(kerr.UnknownTopicOrPartition, "no such partition"))
		return
	}
	if c.denied[t.name] {
		answer(id.NoOffset, denied(t.name))
		return
	}
	p := t.partitions[r.Partition]
	leader, _ := n.leaderLocked(p)
	notLeader := &kerr.Error{Code: kerr.NotLeaderOrFollower, Message: "not the leader", Leader: leader}
	if n.view != nil && leader == n.id {
		return // it will never be committed here
	}
	if leader != n.id {
		answer(id.NoOffset, notLeader)
		return
	}
	fault := None
	if c.fault != nil {
		fault = c.fault(p.tp, r.Batch)
	}
	switch fault {
	case Refuse:
		notLeader.Leader = id.NoNode
		answer(id.NoOffset, notLeader)
	case RefuseAfter:
		_, _ = c.appendLocked(p, r.Batch)
		notLeader.Leader = id.NoNode
		answer(id.NoOffset, notLeader)
	case Pause:
		s.Throttle(PauseTime)
		answer(c.appendLocked(p, r.Batch))
	case Throttle:
		answer(id.NoOffset, kerr.Errorf(kerr.ThrottlingQuotaExceeded, "too fast"))
	case Drop, DropAfter:
		if fault == DropAfter {
			_, _ = c.appendLocked(p, r.Batch)
		}
		s.Fail(kerr.Errorf(kerr.NetworkException, "injected"))
	case LoseAck:
		_, _ = c.appendLocked(p, r.Batch)
	case Swallow:
	case Discard:
		p.next += id.Offset(batch.Batch(r.Batch).Count())
		answer(p.next-id.Offset(batch.Batch(r.Batch).Count()), nil)
	case Twice:
		_, _ = c.appendLocked(p, r.Batch)
		answer(c.appendLocked(p, r.Batch))
	case Reject:
		answer(id.NoOffset, kerr.Errorf(kerr.InvalidRecord, "rejected by the test"))
	case RejectTime:
		answer(id.NoOffset, kerr.Errorf(kerr.InvalidTimestamp, "rejected by the test"))
	case RejectOld:
		refused := kerr.Errorf(kerr.InvalidTimestamp, "rejected by the test")
		refused.Oldest = OldestTime
		answer(id.NoOffset, refused)
	case MoveLeader, MoveAfter:
		if fault == MoveAfter {
			_, _ = c.appendLocked(p, r.Batch)
		}
		c.moveLocked(p, c.nextLeaderLocked(p))
		if fault == MoveAfter {
			s.Fail(kerr.Errorf(kerr.NetworkException, "injected"))
			return
		}
		notLeader.Leader = p.leader
		answer(id.NoOffset, notLeader)
	default:
		answer(c.appendLocked(p, r.Batch))
	}
}

// session is one consumer's stream.
type session struct {
	node   *node
	stream *rpc.FetchStream
	wake   chan struct{}

	mu            sync.Mutex
	subscriptions map[uint32]*subscription
}

type subscription struct {
	number    uint32
	topic     id.Topic
	partition id.Partition
	next      id.Offset
	credit    int64
	caughtUp  id.Offset
}

const fetchBytes = 64 << 10

// fetch serves one consumer.
func (n *node) fetch(stream *rpc.FetchStream) error {
	s := &session{node: n, stream: stream, wake: make(chan struct{}, 1), subscriptions: make(map[uint32]*subscription)}
	ctx, cancel := context.WithCancel(stream.Context())
	var push sync.WaitGroup
	push.Go(func() {
		defer cancel()
		s.push(ctx)
	})
	err := stream.Recv(s.receive)
	cancel()
	push.Wait()
	return err
}

func (s *session) receive(c rpc.FetchCommand) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch sub := s.subscriptions[c.Subscription]; {
	case c.Kind == rpc.Subscribe:
		s.subscriptions[c.Subscription] = &subscription{
			number: c.Subscription, topic: c.Topic, partition: c.Partition, next: c.Offset, credit: c.Credit, caughtUp: id.NoOffset,
		}
	case sub == nil:
	case c.Kind == rpc.Credit:
		sub.credit += c.Credit
	default:
		delete(s.subscriptions, c.Subscription)
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return nil
}

func (s *session) push(ctx context.Context) {
	for {
		s.node.cluster.mu.Lock()
		changed := s.node.cluster.changed
		s.node.cluster.mu.Unlock()
		events := s.events()
		for _, e := range events {
			if s.stream.Send(e) != nil {
				return
			}
		}
		if len(events) > 0 {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		case <-changed:
		}
	}
}

// events is one event for each subscription that has one.
func (s *session) events() []rpc.FetchEvent {
	c := s.node.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []rpc.FetchEvent
	for _, sub := range s.subscriptions {
		e := rpc.FetchEvent{Subscription: sub.number, Leader: id.NoNode}
		t := c.byID[sub.topic]
		if t == nil || int(sub.partition) >= len(t.partitions) {
			e.Code = kerr.UnknownTopicOrPartition
			delete(s.subscriptions, sub.number)
			out = append(out, e)
			continue
		}
		p := t.partitions[sub.partition]
		e.HighWatermark, e.LogStart = p.next, p.start
		leader, epoch := s.node.leaderLocked(p)
		switch {
		case c.denied[t.name]:
			e.Code, e.Message = denied(t.name).Code, denied(t.name).Message
			delete(s.subscriptions, sub.number)
		case leader != s.node.id:
			e.Code, e.Leader, e.Epoch = kerr.NotLeaderOrFollower, leader, epoch
			delete(s.subscriptions, sub.number)
		case s.node.view != nil:
			continue // nothing is committed here
		case sub.next < p.start || sub.next > p.next:
			e.Code = kerr.OffsetOutOfRange
			delete(s.subscriptions, sub.number)
		case sub.credit <= 0:
			continue
		case sub.next == p.next:
			if sub.caughtUp == p.next {
				continue
			}
			sub.caughtUp = p.next
		default:
			e.Batches, sub.next = p.read(sub.next, fetchBytes)
			sub.credit -= int64(len(e.Batches))
		}
		out = append(out, e)
	}
	return out
}

// admin answers the administrative calls.
type admin struct {
	pb.DRPCAdminUnimplementedServer
	node *node
}

func (a *admin) Metadata(_ context.Context, r *pb.MetadataRequest) (*pb.MetadataResponse, error) {
	c := a.node.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	c.metadata++
	c.described += len(r.Topics)
	out := &pb.MetadataResponse{ClusterId: c.id, Controller: int32(c.controller), MetadataIndex: c.index, AgeMs: a.node.ageLocked().Milliseconds()}
	if v := a.node.view; v != nil {
		out.MetadataIndex = v.index
	}
	for _, n := range c.nodes {
		out.Nodes = append(out.Nodes, n.describeLocked())
	}
	names := r.Topics
	if len(names) == 0 && !r.NodesOnly {
		for name := range c.topics {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if c.denied[name] {
			out.Topics = append(out.Topics, &pb.Topic{Name: name, ErrorCode: int32(denied(name).Code), ErrorMessage: denied(name).Message})
		} else if t := c.topics[name]; a.node.knowsLocked(t) {
			out.Topics = append(out.Topics, a.node.describeTopicLocked(t))
		} else {
			out.Topics = append(out.Topics, &pb.Topic{Name: name, ErrorCode: int32(kerr.UnknownTopicOrPartition)})
		}
	}
	return out, nil
}

func (n *node) describeLocked() *pb.Node {
	return &pb.Node{Id: int32(n.id), RpcAddress: n.addr, Alive: n.up, Version: "test"}
}

func (n *node) describeTopicLocked(t *topic) *pb.Topic {
	c := n.cluster
	out := &pb.Topic{Name: t.name, Id: t.id[:], Configs: t.configs, ReplicationFactor: int32(t.replicas)}
	for i, p := range t.partitions {
		leader, epoch := n.leaderLocked(p)
		part := &pb.Partition{Partition: int32(i), Leader: int32(leader), Epoch: int32(epoch)}
		for j := range t.replicas {
			r := c.nodes[(i+j)%len(c.nodes)]
			part.Replicas = append(part.Replicas, int32(r.id))
			if r.up {
				part.Isr = append(part.Isr, int32(r.id))
			}
		}
		out.Partitions = append(out.Partitions, part)
	}
	return out
}

// notController refuses what only the controller does.
func (a *admin) notController() error {
	if c := a.node.cluster; c.controller != a.node.id {
		return &kerr.Error{Code: kerr.NotController, Message: "not the controller", Leader: c.controller}
	}
	return nil
}

func (a *admin) CreateTopic(_ context.Context, r *pb.CreateTopicRequest) (*pb.CreateTopicResponse, error) {
	c := a.node.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := a.notController(); err != nil {
		return nil, err
	}
	if c.denied[r.Name] {
		return nil, denied(r.Name)
	}
	live := len(slices.DeleteFunc(slices.Clone(c.nodes), func(n *node) bool { return !n.up }))
	replicas := int(r.ReplicationFactor)
	switch {
	case c.topics[r.Name] != nil:
		return nil, kerr.Errorf(kerr.TopicAlreadyExists, "Topic '%s' already exists.", r.Name)
	case replicas > live:
		return nil, kerr.Errorf(kerr.InvalidReplicationFactor, "Replication factor: %d larger than available brokers: %d.", replicas, live)
	case replicas <= 0:
		replicas = min(3, live)
	}
	t := c.createLocked(r.Name, max(int(r.Partitions), 1), replicas, r.Configs)
	return &pb.CreateTopicResponse{Topic: a.node.describeTopicLocked(t)}, nil
}

func (a *admin) DeleteTopic(_ context.Context, r *pb.DeleteTopicRequest) (*pb.DeleteTopicResponse, error) {
	c := a.node.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := a.notController(); err != nil {
		return nil, err
	}
	t := c.topics[r.Name]
	if t == nil {
		return nil, kerr.Errorf(kerr.UnknownTopicOrPartition, "topic '%s' does not exist", r.Name)
	}
	delete(c.topics, t.name)
	delete(c.byID, t.id)
	c.index++
	c.announceLocked()
	return &pb.DeleteTopicResponse{Id: t.id[:]}, nil
}

func (a *admin) AlterTopicConfig(_ context.Context, r *pb.AlterTopicConfigRequest) (*pb.AlterTopicConfigResponse, error) {
	c := a.node.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := a.notController(); err != nil {
		return nil, err
	}
	t := c.topics[r.Name]
	if t == nil {
		return nil, kerr.Errorf(kerr.UnknownTopicOrPartition, "topic '%s' does not exist", r.Name)
	}
	next := make(map[string]string)
	for k, v := range t.configs {
		next[k] = v
	}
	for k, v := range r.Set {
		if k == "max.message.bytes" {
			if _, err := strconv.Atoi(v); err != nil {
				return nil, kerr.Errorf(kerr.InvalidConfig, "max.message.bytes=%s is not a number", v)
			}
		}
		next[k] = v
	}
	for _, k := range r.Remove {
		delete(next, k)
	}
	t.configs = next
	c.index++
	return &pb.AlterTopicConfigResponse{Configs: next}, nil
}

func (a *admin) ListOffsets(_ context.Context, r *pb.ListOffsetsRequest) (*pb.ListOffsetsResponse, error) {
	c := a.node.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	out := &pb.ListOffsetsResponse{}
	for _, q := range r.Partitions {
		part := &pb.ListOffsetsResponse_Partition{Topic: q.Topic, Partition: q.Partition, Timestamp: -1, Leader: int32(id.NoNode)}
		out.Partitions = append(out.Partitions, part)
		t := c.topics[q.Topic]
		if t == nil || int(q.Partition) >= len(t.partitions) {
			part.ErrorCode, part.Offset = int32(kerr.UnknownTopicOrPartition), -1
			continue
		}
		p := t.partitions[q.Partition]
		leader, epoch := a.node.leaderLocked(p)
		part.Leader, part.Epoch = int32(leader), int32(epoch)
		switch {
		case leader != a.node.id || a.node.view != nil:
			part.ErrorCode, part.Offset = int32(kerr.NotLeaderOrFollower), -1
		case c.denied[q.Topic]:
			part.ErrorCode, part.ErrorMessage, part.Offset = int32(denied(q.Topic).Code), denied(q.Topic).Message, -1
		case q.Timestamp == -2:
			part.Offset = int64(p.start)
		case q.Timestamp >= 0:
			offset, timestamp := p.atTime(q.Timestamp)
			part.Offset, part.Timestamp = int64(offset), timestamp
		default:
			part.Offset = int64(p.next)
		}
	}
	return out, nil
}

func (a *admin) DeleteRecords(_ context.Context, r *pb.DeleteRecordsRequest) (*pb.DeleteRecordsResponse, error) {
	c := a.node.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	out := &pb.DeleteRecordsResponse{}
	for _, q := range r.Partitions {
		part := &pb.DeleteRecordsResponse_Partition{Topic: q.Topic, Partition: q.Partition, LowWatermark: -1, Leader: int32(id.NoNode)}
		out.Partitions = append(out.Partitions, part)
		t := c.topics[q.Topic]
		if t == nil || int(q.Partition) >= len(t.partitions) {
			part.ErrorCode = int32(kerr.UnknownTopicOrPartition)
			continue
		}
		p := t.partitions[q.Partition]
		leader, _ := a.node.leaderLocked(p)
		part.Leader = int32(leader)
		before := id.Offset(q.Offset)
		if before == -1 {
			before = p.next
		}
		switch {
		case len(q.TopicId) > 0 && id.Topic(q.TopicId) != t.id:
			part.ErrorCode = int32(kerr.UnknownTopicID)
		case leader != a.node.id || a.node.view != nil:
			part.ErrorCode = int32(kerr.NotLeaderOrFollower)
		case c.denied[q.Topic]:
			part.ErrorCode, part.ErrorMessage = int32(denied(q.Topic).Code), denied(q.Topic).Message
		case before < 0 || before > p.next:
			part.ErrorCode = int32(kerr.OffsetOutOfRange)
			part.ErrorMessage = fmt.Sprintf("offset %d is outside of the partition, which has [%d, %d)", before, p.start, p.next)
		default:
			p.start = max(p.start, before)
			part.LowWatermark = int64(p.start)
			c.announceLocked()
		}
	}
	return out, nil
}

// atTime is the first record that is not older than a time.
func (p *partition) atTime(at int64) (id.Offset, int64) {
	for rest := p.log; len(rest) > 0; {
		var b batch.Batch
		b, rest, _ = batch.Next(rest)
		for r := b.Records(); r.Next(); {
			if t := r.Record().Timestamp; t >= at && r.Offset() >= p.start {
				return r.Offset(), t
			}
		}
	}
	return id.NoOffset, -1
}

func (a *admin) InitProducerID(ctx context.Context, _ *pb.InitProducerIDRequest) (*pb.InitProducerIDResponse, error) {
	c := a.node.cluster
	c.mu.Lock()
	if a.node.view != nil { // it looks for the controller
		c.mu.Unlock()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	defer c.mu.Unlock()
	if c.producersAsked++; c.noProducers {
		return nil, kerr.Errorf(kerr.ClusterAuthorizationFailed, "User:test may write to no topic")
	}
	c.producers++
	return &pb.InitProducerIDResponse{ProducerId: int64(c.producers)}, nil
}

func (a *admin) ClusterStatus(context.Context, *pb.ClusterStatusRequest) (*pb.ClusterStatusResponse, error) {
	c := a.node.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	out := &pb.ClusterStatusResponse{
		ClusterId: c.id, ClusterName: "test", Controller: int32(c.controller), AnsweredBy: int32(a.node.id),
		Topics: int32(len(c.topics)), FeatureLevel: c.level, FeatureLevelKnown: knownLevel, Metadata: &pb.MetadataQuorum{Leader: int32(c.controller), Term: 7, Commit: 42},
	}
	led := make(map[id.Node]int32)
	for _, t := range c.topics {
		out.Partitions += int32(len(t.partitions))
		for _, p := range t.partitions {
			led[p.leader]++
		}
	}
	for _, n := range c.nodes {
		out.Metadata.Voters = append(out.Metadata.Voters, int32(n.id))
		s := &pb.NodeStatus{
			Node: n.describeLocked(), State: "ready", Protocol: "1", DiskFreeBytes: 5 << 30,
			MinFeatureLevel: 1, MaxFeatureLevel: knownLevel, FsyncClass: rpc.FsyncClassAll, PartitionsLed: led[n.id], Replicas: out.Partitions, AcceptsProduce: true,
		}
		if !n.up {
			s.State, s.ErrorMessage, s.AcceptsProduce = "dead", "connection refused", false
		}
		out.Nodes = append(out.Nodes, s)
	}
	return out, nil
}

func (a *admin) PartitionStatus(_ context.Context, r *pb.PartitionStatusRequest) (*pb.PartitionStatusResponse, error) {
	c := a.node.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.topics[r.Topic]
	if t == nil || int(r.Partition) >= len(t.partitions) {
		return nil, kerr.Errorf(kerr.UnknownTopicOrPartition, "no partition %d of %q", r.Partition, r.Topic)
	}
	p := t.partitions[r.Partition]
	return &pb.PartitionStatusResponse{
		Leader: int32(p.leader), Epoch: int32(p.epoch), HighWatermark: int64(p.next), LogEndOffset: int64(p.next), LogStartOffset: int64(p.start),
		Members: []*pb.PartitionMember{{Node: int32(p.leader), Replica: 1, InSync: true}},
	}, nil
}

func (a *admin) TransferLeader(_ context.Context, r *pb.TransferLeaderRequest) (*pb.TransferLeaderResponse, error) {
	c := a.node.cluster
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.topics[r.Topic]
	if t == nil || int(r.Partition) >= len(t.partitions) {
		return nil, kerr.Errorf(kerr.UnknownTopicOrPartition, "no partition %d of %q", r.Partition, r.Topic)
	}
	p := t.partitions[r.Partition]
	if p.leader != a.node.id {
		return nil, &kerr.Error{Code: kerr.NotLeaderOrFollower, Leader: p.leader}
	}
	c.moveLocked(p, id.Node(r.To))
	return &pb.TransferLeaderResponse{Leader: r.To, Epoch: int32(p.epoch)}, nil
}
