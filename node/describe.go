package node

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"golang.org/x/sync/errgroup"

	"github.com/quorumlog/quorumlog/node/controller"
	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/node/serving"
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
	// leaderCacheFor is how long the answer to "who leads a partition that this node does not hold" is used.
	leaderCacheFor = 100 * time.Millisecond
)

// Metadata answers from this node's copy of the metadata.
func (a *admin) Metadata(ctx context.Context, r *pb.MetadataRequest) (*pb.MetadataResponse, error) {
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
		response.Topics = append(response.Topics, a.topic(ctx, t))
	}
	if r.GetWithIsr() && !r.GetLocalOnly() {
		a.addISR(ctx, response)
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

func (a *admin) topic(ctx context.Context, t *placement.Topic) *pb.Topic {
	topic := &pb.Topic{Name: t.Name, Id: t.ID[:], Configs: maps.Clone(t.Configs), ReplicationFactor: int32(t.ReplicationFactor)}
	leaders := a.node.leadersOf(ctx, t)
	for i := range t.Partitions {
		p := &t.Partitions[i]
		described := &pb.Partition{Partition: int32(p.ID), Group: uint64(p.Group), Leader: int32(leaders[i].node), Epoch: int32(leaders[i].epoch)}
		for _, m := range p.Members {
			described.Replicas = append(described.Replicas, int32(m.Node))
		}
		if open := a.node.replicas.Group(p.Group); open != nil && open.Group().IsLeader() {
			described.Isr = a.isr(ctx, open)
		}
		if described.Leader == int32(id.NoNode) {
			described.ErrorCode = int32(kerr.LeaderNotAvailable)
		}
		topic.Partitions = append(topic.Partitions, described)
	}
	return topic
}

// isr lists the nodes in sync, as the leader sees them, in the order of the assignment.
func (a *admin) isr(ctx context.Context, p *partition.Partition) []int32 {
	status, err := p.Group().Status(ctx)
	if err != nil {
		return nil
	}
	var list []int32
	for _, m := range status.Members {
		if m.InSync {
			list = append(list, int32(m.Node))
		}
	}
	return list
}

// addISR asks each node that leads partitions of the response for their ISR, once.
func (a *admin) addISR(ctx context.Context, response *pb.MetadataResponse) {
	byLeader := make(map[id.Node][]string)
	for _, t := range response.GetTopics() {
		for _, p := range t.GetPartitions() {
			leader := id.Node(p.GetLeader())
			if leader != id.NoNode && leader != a.node.options.NodeID && !slices.Contains(byLeader[leader], t.GetName()) {
				byLeader[leader] = append(byLeader[leader], t.GetName())
			}
		}
	}
	var mu sync.Mutex
	isr := make(map[uint64][]int32)
	var ask errgroup.Group
	ask.SetLimit(askParallel)
	for leader, names := range byLeader {
		ask.Go(func() error {
			answer, err := a.askMetadata(ctx, leader, names)
			if err != nil {
				return nil //nolint:nilerr // what a leader does not say is missing in the answer, nothing worse
			}
			mu.Lock()
			defer mu.Unlock()
			for _, t := range answer.GetTopics() {
				for _, p := range t.GetPartitions() {
					if len(p.GetIsr()) > 0 {
						isr[p.GetGroup()] = p.GetIsr()
					}
				}
			}
			return nil
		})
	}
	_ = ask.Wait()
	for _, t := range response.GetTopics() {
		for _, p := range t.GetPartitions() {
			if known := isr[p.GetGroup()]; len(p.GetIsr()) == 0 {
				p.Isr = known
			}
		}
	}
}

func (a *admin) askMetadata(ctx context.Context, node id.Node, topics []string) (*pb.MetadataResponse, error) {
	address, ok := a.node.resolve(node)
	if !ok {
		return nil, kerr.Errorf(kerr.BrokerNotAvailable, "no address of node %d is known", node)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return a.node.dialer.Admin(address).Metadata(ctx, &pb.MetadataRequest{Topics: topics, LocalOnly: true})
}

// leader is who leads a partition, as far as somebody knows.
type leader struct {
	node  id.Node
	epoch id.Epoch
}

// leadersOf returns the leader of each partition of a topic.
func (n *Node) leadersOf(ctx context.Context, t *placement.Topic) []leader {
	leaders := make([]leader, len(t.Partitions))
	var ask errgroup.Group
	ask.SetLimit(askParallel)
	for i := range t.Partitions {
		p := &t.Partitions[i]
		if n.replicas.Working(p.Group) != nil {
			leaders[i].node, leaders[i].epoch = n.leaderOf(ctx, p)
			continue
		}
		ask.Go(func() error {
			leaders[i].node, leaders[i].epoch = n.leaderOf(ctx, p)
			return nil
		})
	}
	_ = ask.Wait()
	return leaders
}

// leaderOf returns who leads a partition: from its replica here, else from what one of its members said lately or says now. A
// replica that has stopped knows nothing: answering from it would hide the leader from every client that asks this node.
func (n *Node) leaderOf(ctx context.Context, p *placement.Partition) (id.Node, id.Epoch) {
	if open := n.replicas.Working(p.Group); open != nil {
		_, node, term := open.Group().Leader()
		return node, id.EpochOf(term)
	}
	if known, ok := n.leaders.get(p.Group); ok {
		return known.node, known.epoch
	}
	topic, _ := n.controller.View().Partition(p.Group)
	if topic == nil {
		return id.NoNode, 0
	}
	// The newest word of a majority counts, if there is one, since one of it has voted for whoever leads: in a cut cluster an old leader may
	// answer, too.
	var best leader
	answers := 0
	for _, m := range p.Members {
		if answers > len(p.Members)/2 {
			break
		}
		address, ok := n.resolve(m.Node)
		if !ok || m.Node == n.options.NodeID || !n.alive(m.Node) {
			continue
		}
		if _, lost := n.lost.Load(m.Node); lost {
			continue // gossip may take long to see a cut, and a client waits for this answer to see where else to ask
		}
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		status, err := n.dialer.Admin(address).PartitionStatus(ctx, &pb.PartitionStatusRequest{Topic: topic.Name, Partition: int32(p.ID)})
		cancel()
		if err != nil {
			continue
		}
		answers++
		if said := (leader{id.Node(status.GetLeader()), id.Epoch(status.GetEpoch())}); said.node >= 0 && said.epoch > best.epoch {
			best = said
		}
	}
	if best.epoch > 0 {
		n.leaders.put(p.Group, best)
		return best.node, best.epoch
	}
	return id.NoNode, 0
}

// leaderCache remembers for a moment who leads the partitions that this node does not hold.
type leaderCache struct {
	mu    sync.Mutex
	known map[id.Group]cachedLeader
}

type cachedLeader struct {
	leader
	until time.Time
}

func (c *leaderCache) get(g id.Group) (leader, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.known[g]
	return known.leader, ok && time.Now().Before(known.until)
}

func (c *leaderCache) put(g id.Group, l leader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = make(map[id.Group]cachedLeader)
	}
	c.known[g] = cachedLeader{l, time.Now().Add(leaderCacheFor)}
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
				e := serving.Refusal(err)
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
	open := a.node.replicas.Group(p.Group)
	if open == nil || !open.Group().IsLeader() {
		leader, epoch := a.node.leaderOf(ctx, p)
		answer.Epoch = int32(epoch)
		return &kerr.Error{Code: kerr.NotLeaderOrFollower, Leader: leader}
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
		return nil, serving.Refusal(err)
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
	if refusal, ok := a.node.replicas.Refusal(p.Group); ok {
		return nil, nil, kerr.Errorf(kerr.ReplicaNotAvailable, "node %d's replica of %s-%d is refused, for good, and has to be replaced: %s",
			a.node.options.NodeID, t.Name, p.ID, refusal.Reason)
	}
	open := a.node.replicas.Group(p.Group)
	if open == nil {
		return nil, nil, kerr.Errorf(kerr.ReplicaNotAvailable, "node %d has no replica of %s-%d", a.node.options.NodeID, t.Name, p.ID)
	}
	if _, cause := open.Group().Standing(); open.Group().Failed() {
		return nil, nil, kerr.Errorf(kerr.ReplicaNotAvailable, "node %d's replica of %s-%d has stopped: %v",
			a.node.options.NodeID, t.Name, p.ID, cause)
	}
	return open.Group(), &pb.PartitionStatusResponse{LogStartOffset: int64(open.Log().StartOffset())}, nil
}
