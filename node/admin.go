package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/node/controller"
	"github.com/quorumlog/quorumlog/node/serving"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// admin serves the administrative calls. Every node answers all of them: reads from its own copy of the metadata, and what
// changes the metadata it passes on to the node that leads it.
type admin struct {
	pb.DRPCAdminUnimplementedServer
	node *Node
}

const (
	// controllerRetry is the pause between two looks for a controller.
	controllerRetry = 50 * time.Millisecond
	// defaultTimeout bounds calls that come without a deadline.
	defaultTimeout = 15 * time.Second
)

// forwarded marks the calls made with ctx as passed on by this node.
func forwarded(ctx context.Context) context.Context { return rpc.Forwarded(ctx) }

// isForwarded tells whether another node has passed the call on.
func isForwarded(ctx context.Context) bool { return rpc.IsForwarded(ctx) }

// checkCaller refuses a call that only this node may make.
func (a *admin) checkCaller(ctx context.Context, node id.Node) error {
	if caller := rpc.CallerOf(ctx); caller != nil && !caller.MayBe(node) {
		return kerr.Errorf(kerr.ClusterAuthorizationFailed, "%s is not node %d, and cannot speak for it", caller.Principal, node)
	}
	return nil
}

// atController runs a call where the metadata is led: here, or by forward on the node that leads it. While nobody leads it waits,
// for as long as ctx allows.
func atController[T any](ctx context.Context, n *Node, local func(context.Context) (T, error), forward func(context.Context, pb.DRPCAdminClient) (T, error)) (T, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, defaultTimeout)
		defer cancel()
	}
	for {
		result, err := local(ctx)
		var elsewhere *controller.NotControllerError
		if !errors.As(err, &elsewhere) {
			if err != nil {
				err = serving.Refusal(err)
			}
			return result, err
		}
		if isForwarded(ctx) {
			return result, &kerr.Error{Code: kerr.NotController, Message: elsewhere.Error(), Leader: elsewhere.Leader}
		}
		if address, ok := n.resolve(elsewhere.Leader); ok && elsewhere.Leader != id.NoNode {
			result, err = forward(forwarded(ctx), n.dialer.AdminOf(address, elsewhere.Leader))
			if !worthAnotherController(err) {
				return result, err
			}
		}
		select {
		case <-ctx.Done():
			return result, &kerr.Error{Code: kerr.NotController, Message: elsewhere.Error(), Leader: elsewhere.Leader}
		case <-time.After(controllerRetry):
		}
	}
}

// worthAnotherController tells whether an error of a forwarded call says nothing about the call itself. A broken connection does
// not either, though the call may have taken effect: a topic that was created may then be reported as existing already.
func worthAnotherController(err error) bool {
	if err == nil {
		return false
	}
	switch kerr.CodeOf(err) {
	case kerr.NotController, kerr.NetworkException, kerr.BrokerNotAvailable:
		return true
	case kerr.Unknown:
		var e *kerr.Error
		return !errors.As(err, &e)
	}
	return false
}

// CreateTopic makes a topic and returns when its partitions have leaders, or when the time is over: the topic exists then too.
func (a *admin) CreateTopic(ctx context.Context, r *pb.CreateTopicRequest) (*pb.CreateTopicResponse, error) {
	ctx, cancel := withTimeout(ctx, r.GetTimeoutMs())
	defer cancel()
	return atController(ctx, a.node, func(ctx context.Context) (*pb.CreateTopicResponse, error) {
		return a.createTopic(ctx, r)
	}, func(ctx context.Context, peer pb.DRPCAdminClient) (*pb.CreateTopicResponse, error) {
		return peer.CreateTopic(ctx, r)
	})
}

func (a *admin) createTopic(ctx context.Context, r *pb.CreateTopicRequest) (*pb.CreateTopicResponse, error) {
	c := a.node.controller
	if err := c.CheckLeads(); err != nil { // before anybody is dialled: what the controller has found out counts
		return nil, err
	}
	// A cluster that has just been founded registers its first node in a moment.
	_ = c.Await(ctx, func(v *placement.View) bool { return len(v.Nodes()) > 0 })
	reached := a.node.reachable(ctx)
	spec := placement.TopicSpec{
		Name: r.GetName(), Partitions: int(r.GetPartitions()), ReplicationFactor: int(r.GetReplicationFactor()), Configs: r.GetConfigs(),
	}
	if spec.ReplicationFactor == -1 { // Kafka's word for the default
		spec.ReplicationFactor = 0
	}
	if spec.Partitions == 0 {
		spec.Partitions = 1
	}
	plan := func(v *placement.View) (placement.Command, error) {
		// What is put on a node whose disk takes no records has a replica less from the beginning, which is better than no topic.
		spec.Nodes = v.Candidates(func(node id.Node) bool { return reached(node) && a.node.takesLeaderships(node) })
		command, err := v.PlanTopic(spec, id.NewTopic())
		if errors.Is(err, placement.ErrInvalidReplicationFactor) {
			spec.Nodes = v.Candidates(reached)
			command, err = v.PlanTopic(spec, id.NewTopic())
		}
		return command, err
	}
	if r.GetValidateOnly() {
		command, err := plan(c.View())
		if err != nil {
			return nil, err
		}
		return &pb.CreateTopicResponse{}, c.View().Check(command)
	}
	result, err := c.ProposeFrom(ctx, plan)
	if err != nil {
		return nil, err
	}
	topic := result.(*placement.Topic)
	a.awaitLeaders(ctx, topic)
	return &pb.CreateTopicResponse{Topic: a.topic(ctx, topic)}, nil
}

// awaitLeaders waits until every partition of the topic has a leader, or ctx ends. Producers that come at once find it then.
func (a *admin) awaitLeaders(ctx context.Context, t *placement.Topic) {
	for {
		missing := 0
		for i := range t.Partitions {
			if leader, _ := a.node.leaderOf(ctx, &t.Partitions[i]); leader == id.NoNode {
				missing++
			}
		}
		if missing == 0 {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// alive tells whether a node seems to be up: a hint, good enough to choose where new replicas go.
func (n *Node) alive(node id.Node) bool {
	if node == n.options.NodeID {
		return true
	}
	_, ok := n.membership.Member(node)
	return ok
}

// DeleteTopic removes a topic. Its data goes as the nodes learn of it.
func (a *admin) DeleteTopic(ctx context.Context, r *pb.DeleteTopicRequest) (*pb.DeleteTopicResponse, error) {
	ctx, cancel := withTimeout(ctx, r.GetTimeoutMs())
	defer cancel()
	return atController(ctx, a.node, func(ctx context.Context) (*pb.DeleteTopicResponse, error) {
		result, err := a.node.controller.Propose(ctx, placement.DeleteTopic{Name: r.GetName()})
		if err != nil {
			return nil, err
		}
		topic := result.(*placement.Topic).ID
		return &pb.DeleteTopicResponse{Id: topic[:]}, nil
	}, func(ctx context.Context, peer pb.DRPCAdminClient) (*pb.DeleteTopicResponse, error) {
		return peer.DeleteTopic(ctx, r)
	})
}

// AlterTopicConfig sets configs of a topic and takes others back to their defaults.
func (a *admin) AlterTopicConfig(ctx context.Context, r *pb.AlterTopicConfigRequest) (*pb.AlterTopicConfigResponse, error) {
	ctx, cancel := withTimeout(ctx, r.GetTimeoutMs())
	defer cancel()
	return atController(ctx, a.node, func(ctx context.Context) (*pb.AlterTopicConfigResponse, error) {
		result, err := a.node.controller.ProposeFrom(ctx, func(v *placement.View) (placement.Command, error) {
			command := placement.AlterTopicConfig{Name: r.GetName(), Set: r.GetSet(), Remove: r.GetRemove()}
			if t := v.Topic(r.GetName()); t != nil {
				command.ID = t.ID // the configs are checked for this one
			}
			return command, nil
		})
		if err != nil {
			return nil, err
		}
		return &pb.AlterTopicConfigResponse{Configs: maps.Clone(result.(*placement.Topic).Configs)}, nil
	}, func(ctx context.Context, peer pb.DRPCAdminClient) (*pb.AlterTopicConfigResponse, error) {
		return peer.AlterTopicConfig(ctx, r)
	})
}

// RegisterNode gives a node its place in the metadata, or takes its addresses after a start.
func (a *admin) RegisterNode(ctx context.Context, r *pb.RegisterNodeRequest) (*pb.RegisterNodeResponse, error) {
	if err := a.checkCaller(ctx, id.Node(r.GetNodeId())); err != nil {
		return nil, err
	}
	return atController(ctx, a.node, func(ctx context.Context) (*pb.RegisterNodeResponse, error) {
		return a.registerNode(ctx, r)
	}, func(ctx context.Context, peer pb.DRPCAdminClient) (*pb.RegisterNodeResponse, error) {
		return peer.RegisterNode(ctx, r)
	})
}

func (a *admin) registerNode(ctx context.Context, r *pb.RegisterNodeRequest) (*pb.RegisterNodeResponse, error) {
	n := a.node
	switch {
	case r.GetProtocol() < uint32(rpc.Spoken.Oldest): // a node that is too new for this one refuses it itself
		return nil, kerr.Errorf(kerr.UnsupportedVersion, "node %d (release %s) speaks protocol %d, the cluster speaks %s: upgrade node %d",
			r.GetNodeId(), r.GetVersion(), r.GetProtocol(), rpc.Spoken, r.GetNodeId())
	case r.GetClusterId() != "" && r.GetClusterId() != n.identity.ClusterID:
		return nil, kerr.Errorf(kerr.InconsistentClusterID,
			"node %d belongs to cluster %s, this is cluster %s: check --join and --cluster-name, or start the node with an empty data directory",
			r.GetNodeId(), r.GetClusterId(), n.identity.ClusterID)
	}
	if err := checkDialable(r.GetRpcAddress()); err != nil {
		return nil, kerr.Errorf(kerr.InvalidRequest, "node %d advertises an address that is none: %v", r.GetNodeId(), err)
	}
	registered, err := a.enterNode(ctx, placement.RegisterNode{
		Node: id.Node(r.GetNodeId()), StoreID: r.GetStoreId(), BootEpoch: r.GetBootEpoch(), RPCAddress: r.GetRpcAddress(),
		GossipAddress: r.GetGossipAddress(), Rack: r.GetRack(), Version: r.GetVersion(),
		MinLevel: placement.FeatureLevel(r.GetMinFeatureLevel()), MaxLevel: placement.FeatureLevel(r.GetMaxFeatureLevel()),
		MetadataReplica: id.Replica(r.GetMetadataReplica()),
	}, func() error { return n.checkIncarnation(ctx, r) })
	if err != nil {
		return nil, err
	}
	response := &pb.RegisterNodeResponse{
		ClusterId: n.identity.ClusterID, MetadataReplica: uint64(registered.MetadataReplica),
		Seed: &pb.MetadataSeed{
			Index: uint64(controller.Start.Index), Term: uint64(controller.Start.Term), Offset: int64(controller.Start.Offset),
			ConfState: raftgroup.EncodeConfState([]id.Replica{placement.FoundingReplica}, nil),
		},
	}
	view := n.controller.View()
	for _, m := range view.MetadataMembers() {
		response.Members = append(response.Members, &pb.MetadataMember{Replica: uint64(m.Replica), Node: int32(m.Node), RpcAddress: view.Node(m.Node).RPCAddress})
	}
	return response, nil
}

// enterNode brings a registration into the metadata. What would be refused there is not worth a call back, and what one start of a node says
// again changes nothing: the first word of it was vouched for.
func (a *admin) enterNode(ctx context.Context, command placement.RegisterNode, vouched func() error) (placement.Registered, error) {
	c := a.node.controller
	if err := c.CheckLeads(); err != nil {
		return placement.Registered{}, err
	}
	view := c.View()
	if err := view.Check(command); err != nil && !errors.Is(err, placement.ErrNotFounded) {
		return placement.Registered{}, err
	}
	if old := view.Node(command.Node); old != nil && old.BootEpoch == command.BootEpoch {
		return placement.Registered{Node: old.ID, MetadataReplica: old.MetadataReplica}, nil
	}
	if err := vouched(); err != nil {
		return placement.Registered{}, err
	}
	result, err := c.Propose(ctx, command)
	if err != nil {
		return placement.Registered{}, err
	}
	return result.(placement.Registered), nil
}

// InitProducerID hands out a producer id that nobody else gets.
func (a *admin) InitProducerID(ctx context.Context, _ *pb.InitProducerIDRequest) (*pb.InitProducerIDResponse, error) {
	producer, err := a.node.controller.AllocateProducer(ctx, func(ctx context.Context, command placement.AllocateProducerIDs) (placement.ProducerIDs, error) {
		return a.allocate(ctx, command)
	})
	if err != nil {
		return nil, err
	}
	return &pb.InitProducerIDResponse{ProducerId: int64(producer)}, nil
}

// allocate gets a block of producer ids. The controller's own call for one id of its block is what other nodes ask it for, so a
// block that is forwarded has one id.
func (a *admin) allocate(ctx context.Context, command placement.AllocateProducerIDs) (placement.ProducerIDs, error) {
	return atController(ctx, a.node, func(ctx context.Context) (placement.ProducerIDs, error) {
		result, err := a.node.controller.Propose(ctx, command)
		if err != nil {
			return placement.ProducerIDs{}, err
		}
		return result.(placement.ProducerIDs), nil
	}, func(ctx context.Context, peer pb.DRPCAdminClient) (placement.ProducerIDs, error) {
		response, err := peer.InitProducerID(ctx, &pb.InitProducerIDRequest{})
		return placement.ProducerIDs{First: id.Producer(response.GetProducerId()), Count: 1}, err
	})
}

// TransferLeader hands the leadership of a partition to a replica on another node, or on the preferred one when none is named.
func (a *admin) TransferLeader(ctx context.Context, r *pb.TransferLeaderRequest) (*pb.TransferLeaderResponse, error) {
	ctx, cancel := withTimeout(ctx, 0)
	defer cancel()
	t, p, err := a.partition(r.GetTopic(), r.GetPartition())
	if err != nil {
		return nil, err
	}
	to := p.Preferred()
	if r.GetTo() >= 0 {
		m, ok := p.On(id.Node(r.GetTo()))
		if !ok {
			return nil, kerr.Errorf(kerr.InvalidRequest, "node %d has no replica of %s-%d: choose one of its replicas", r.GetTo(), t.Name, p.ID)
		}
		to = m
	}
	open := a.node.replicas.Group(p.Group)
	if open == nil || !open.Group().IsLeader() {
		leader, _ := a.node.leaderOf(ctx, p)
		address, ok := a.node.resolve(leader)
		if !ok || isForwarded(ctx) || leader == a.node.options.NodeID {
			return nil, &kerr.Error{Code: kerr.NotLeaderOrFollower, Leader: leader}
		}
		return a.node.dialer.AdminOf(address, leader).TransferLeader(forwarded(ctx), r)
	}
	if err := open.Group().TransferLeader(ctx, to.Replica); err != nil {
		return nil, fmt.Errorf("leadership of %s-%d stays: %w", t.Name, p.ID, err)
	}
	_, leader, term := open.Group().Leader()
	return &pb.TransferLeaderResponse{Leader: int32(leader), Epoch: int32(id.EpochOf(term))}, nil
}

// partition finds a partition by name.
func (a *admin) partition(topic string, number int32) (*placement.Topic, *placement.Partition, error) {
	t := a.node.controller.View().Topic(topic)
	if t == nil {
		return nil, nil, kerr.Errorf(kerr.UnknownTopicOrPartition, "topic %q does not exist", topic)
	}
	if number < 0 || int(number) >= len(t.Partitions) {
		return nil, nil, kerr.Errorf(kerr.UnknownTopicOrPartition, "topic %q has partitions 0 to %d, there is no %d", topic, len(t.Partitions)-1, number)
	}
	return t, &t.Partitions[number], nil
}

func withTimeout(ctx context.Context, ms int32) (context.Context, context.CancelFunc) {
	d := time.Duration(ms) * time.Millisecond
	if d <= 0 {
		d = defaultTimeout
	}
	return context.WithTimeout(ctx, d)
}
