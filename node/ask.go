package node

import (
	"context"
	"time"

	"github.com/quorumlog/quorumlog/node/membership"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	joinInterval    = 200 * time.Millisecond
	registerTimeout = 5 * time.Second
	registerRetry   = 200 * time.Millisecond
)

const (
	// askTimeout bounds a question to another node for an answer that is incomplete without it.
	askTimeout = time.Second
	// askParallel is how many nodes are asked at once.
	askParallel = 16
	// probeTimeout bounds the question whether an earlier start of a node is still there.
	probeTimeout = time.Second
)

// identify asks who serves an address, where node is expected. With TLS nobody else is asked.
func (n *Node) identify(ctx context.Context, address string, node id.Node) (*pb.IdentifyResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, identifyTimeout)
	defer cancel()
	return n.dialer.AdminOf(address, node).Identify(ctx, &pb.IdentifyRequest{})
}

// identifyTimeout bounds the question who serves an address, dial included.
const identifyTimeout = 3 * time.Second

// register asks another node for a place in the cluster, or to take this start's addresses.
func (n *Node) register(ctx context.Context, address string, at id.Node) (*pb.RegisterNodeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, registerTimeout)
	defer cancel()
	return n.dialer.AdminOf(address, at).RegisterNode(ctx, n.registration())
}

func (n *Node) registration() *pb.RegisterNodeRequest {
	replica := id.NoReplica
	if running := n.running.Load(); running != nil {
		replica = running.Group().Replica()
	}
	return &pb.RegisterNodeRequest{
		ClusterName: n.options.ClusterName, NodeId: int32(n.options.NodeID), StoreId: n.identity.StoreID, BootEpoch: n.identity.Boot,
		RpcAddress: n.advertised(), GossipAddress: n.membership.Address(), Rack: n.options.Rack, Version: Version,
		ClusterId: n.identity.ClusterID, Protocol: uint32(rpc.Protocol), MetadataReplica: uint64(replica),
		MinFeatureLevel: int32(placement.OldestLevel), MaxFeatureLevel: int32(placement.SupportedLevel),
	}
}

// isStranger tells whether a member belongs to another cluster. Not before the node has a cluster itself.
func (n *Node) isStranger(m membership.Member) bool {
	return m.ClusterID != "" && m.ClusterID != n.identity.ClusterID
}

// registered is the boot epoch with which the metadata knows a node, as far as it is here; 0: it does not.
func (n *Node) registered(peer id.Node) uint64 {
	if node := n.tableNode(peer); node != nil {
		return node.BootEpoch
	}
	return 0
}

// isRegistered tells whether the metadata has this start of the node, and so all that was in it before.
func (n *Node) isRegistered() bool { return n.registered(n.options.NodeID) >= n.identity.Boot }

func (n *Node) tableNode(peer id.Node) *placement.Node {
	if running := n.running.Load(); running != nil {
		return running.View().Node(peer)
	}
	return nil
}

// addresses returns where a peer may be, the likeliest first.
func (n *Node) addresses(peer id.Node) []string {
	m, gossips := n.membership.Member(peer)
	gossips = gossips && m.RPCAddress != "" && !n.isStranger(m)
	known := n.tableNode(peer)
	switch {
	case known == nil && gossips:
		return []string{m.RPCAddress}
	case known == nil:
		return nil
	case gossips && m.StoreID == known.StoreID && m.Boot > known.BootEpoch && m.RPCAddress != known.RPCAddress:
		return []string{known.RPCAddress, m.RPCAddress} // all nodes may have moved at once: then none can register
	}
	return []string{known.RPCAddress}
}

// resolve returns where a peer is.
func (n *Node) resolve(peer id.Node) (string, bool) {
	if all := n.addresses(peer); len(all) > 0 {
		return all[0], true
	}
	return "", false
}

// alive tells whether a node seems to be up: a hint, good enough to choose where new replicas go.
func (n *Node) alive(node id.Node) bool {
	if node == n.options.NodeID {
		return true
	}
	_, ok := n.membership.Member(node)
	return ok
}
