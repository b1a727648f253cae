package node

import (
	"context"
	"errors"

	"github.com/quorumlog/quorumlog/node/controller"
	"github.com/quorumlog/quorumlog/node/serving"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/native"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// peerCalls are what nodes ask each other about themselves (native.Peers): who answers here, and a place in the metadata. reach.go has the
// calls that dial back.
type peerCalls struct{ node *Node }

var _ native.Peers = (*peerCalls)(nil)

// atController makes a call of another node's where the metadata is led.
func atController[T any](
	ctx context.Context, n *Node, local func(context.Context) (T, error), forward func(context.Context, pb.DRPCAdminClient) (T, error),
) (T, error) {
	return serving.AtController(ctx, n.resolve, local, func(ctx context.Context, address string) (T, error) {
		return forward(ctx, n.dialer.Admin(address))
	})
}

// RegisterNode gives a node its place in the metadata, or takes its addresses after a start.
func (a *peerCalls) RegisterNode(ctx context.Context, r *pb.RegisterNodeRequest) (*pb.RegisterNodeResponse, error) {
	return atController(ctx, a.node, func(ctx context.Context) (*pb.RegisterNodeResponse, error) {
		return a.registerNode(ctx, r)
	}, func(ctx context.Context, peer pb.DRPCAdminClient) (*pb.RegisterNodeResponse, error) {
		return peer.RegisterNode(ctx, r)
	})
}

func (a *peerCalls) registerNode(ctx context.Context, r *pb.RegisterNodeRequest) (*pb.RegisterNodeResponse, error) {
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
func (a *peerCalls) enterNode(ctx context.Context, command placement.RegisterNode, vouched func() error) (placement.Registered, error) {
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
