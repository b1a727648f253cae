package node

import (
	"context"
	"errors"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// UnregisterNode takes a node out of the metadata: one that is dead, and holds no replicas. The driver then takes its replica out of the
// metadata group.
func (a *admin) UnregisterNode(ctx context.Context, r *pb.UnregisterNodeRequest) (*pb.UnregisterNodeResponse, error) {
	ctx, cancel := withTimeout(ctx, r.GetTimeoutMs())
	defer cancel()
	return atController(ctx, a.node, func(ctx context.Context) (*pb.UnregisterNodeResponse, error) {
		return a.unregisterNode(ctx, id.Node(r.GetNodeId()))
	}, func(ctx context.Context, peer pb.DRPCAdminClient) (*pb.UnregisterNodeResponse, error) {
		return peer.UnregisterNode(ctx, r)
	})
}

func (a *admin) unregisterNode(ctx context.Context, node id.Node) (*pb.UnregisterNodeResponse, error) {
	n := a.node
	if err := n.controller.CheckLeads(); err != nil {
		return nil, err
	}
	command := placement.UnregisterNode{Node: node}
	err := n.controller.View().Check(command)
	if errors.Is(err, placement.ErrUnknownNode) {
		return nil, kerr.Errorf(kerr.BrokerIDNotRegistered, "%v: it may have been removed already", err)
	}
	if err != nil {
		return nil, err
	}
	// A node that lives would go on as if it had a place. This is a guard against a mistyped number, not what safety rests on: a node without
	// replicas has nothing to lose, and its vote on metadata ends with the change of the group.
	registered := n.controller.View().Node(node)
	if registered != nil && n.isUp(ctx, registered) {
		return nil, kerr.Errorf(kerr.PolicyViolation, "node %d is alive at %s: stop it first", node, registered.RPCAddress)
	}
	if _, err := n.controller.Propose(ctx, command); err != nil {
		return nil, err
	}
	n.logger.Info("a node was removed from the cluster", "removed", node)
	return &pb.UnregisterNodeResponse{}, nil
}

// isUp tells whether a registered node lives, as far as can be found out: the gossip hears from it, or it answers. Another store under its
// number is somebody else.
func (n *Node) isUp(ctx context.Context, node *placement.Node) bool {
	if node.ID == n.options.NodeID {
		return true
	}
	if m, ok := n.membership.Member(node.ID); ok && m.StoreID == node.StoreID && !n.isStranger(m) {
		return true
	}
	who, err := n.identify(ctx, node.RPCAddress, node.ID)
	return err == nil && id.Node(who.GetNodeId()) == node.ID && who.GetStoreId() == node.StoreID
}
