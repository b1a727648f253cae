package node

import (
	"context"
	"time"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/node/membership"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Two processes may say that they are the same node: the start before a restart, which is frozen or not quite dead; the same start on a
// copy of the data directory; a stranger. Only the metadata says which one is the node: the one that registered last. It registers with
// its boot epoch, which is larger with each start, and its address. All else follows:
//
//   - A start that is registered is let in, an earlier one is refused: by lanes (rpc.CheckHello) and by the registration itself.
//   - A start is registered if it answers at the address that it registers (checkIncarnation). So nobody else can do it.
//   - A later start is not registered as long as the earlier one answers at its address (stillRuns): it runs on a copy, which has
//     forgotten what the earlier one has acknowledged since. It stops.
//   - Of two that run the same start, the first to register is the node. The other one stops.
//   - Lanes of the process that is registered and lives are taken over by nobody (rpc, displace).
//   - Where the node is, the metadata says, too. Gossip is asked of nodes that the metadata does not know yet, and of starts that
//     cannot have registered yet because nobody has found the others.
//
// A process that is told by a peer that it is not the node asks the metadata (watchIdentity), and stops if it says the same. One peer's word
// stops nobody.

const (
	identityInterval = time.Second
	// doubtInterval is how often a refusal by a peer leads to a question at the most.
	doubtInterval = 5 * time.Second
)

// registered is the boot epoch with which the metadata knows a node, as far as it is here; 0: it does not.
func (n *Node) registered(peer id.Node) uint64 {
	if node := n.tableNode(peer); node != nil {
		return node.BootEpoch
	}
	return 0
}

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

// plausible tells whether what gossip says of a node can be.
func (n *Node) plausible(s membership.Self) bool {
	return rpc.PlausibleBoot(s.Boot, n.registered(s.Node))
}

// checkIncarnation is what the controller makes sure of before it proposes a registration: that the start can be, that it is the one that
// answers at its address, and that the one before it is over. A message alone counts for nothing: one that is forged, with a later start,
// would end the process that is the node, and lock the node out for as many starts.
func (n *Node) checkIncarnation(ctx context.Context, r *pb.RegisterNodeRequest) error {
	node, boot, old := id.Node(r.GetNodeId()), r.GetBootEpoch(), n.tableNode(id.Node(r.GetNodeId()))
	if !rpc.PlausibleBoot(boot, n.registered(node)) {
		return kerr.Errorf(kerr.InvalidRequest, "node %d says that this is its start number %d, which cannot be: start number %d is registered",
			node, boot, n.registered(node))
	}
	if node == n.options.NodeID {
		if r.GetStoreId() == n.identity.StoreID && boot == n.identity.Boot && r.GetRpcAddress() == n.advertised() {
			return nil
		}
		return stillRuns(r, n.identity.Boot, n.advertised())
	}
	who, err := n.dialBack(ctx, node, r.GetStoreId(), r.GetRpcAddress())
	switch {
	case err != nil:
		n.reach.forget(node)
		return kerr.Errorf(kerr.PolicyViolation, "%v", err)
	case who.GetBootEpoch() != boot:
		return stillRuns(r, who.GetBootEpoch(), r.GetRpcAddress())
	case old != nil && old.BootEpoch < boot && old.RPCAddress != r.GetRpcAddress() && n.isThere(ctx, old):
		return stillRuns(r, old.BootEpoch, old.RPCAddress)
	}
	return nil
}

func stillRuns(r *pb.RegisterNodeRequest, boot uint64, address string) error {
	return kerr.Errorf(kerr.DuplicateBrokerRegistration,
		"node %d at %s, start number %d, is refused: start number %d of it answers at %s; one runs on a copy of the other's data directory: "+
			"stop this one and start it with an empty directory and an unused node id", r.GetNodeId(), r.GetRpcAddress(), r.GetBootEpoch(), boot, address)
}

// isThere asks at a node's registered address whether the start that is registered lives. One that still waits for its place does, too.
func (n *Node) isThere(ctx context.Context, node *placement.Node) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	who, err := n.identify(ctx, node.RPCAddress)
	return err == nil && id.Node(who.GetNodeId()) == node.ID && who.GetStoreId() == node.StoreID && who.GetBootEpoch() == node.BootEpoch
}

// answersAs asks at an address whether a certain start of a node answers there.
func (n *Node) answersAs(ctx context.Context, node id.Node, boot uint64, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	status, err := n.dialer.Admin(address).ClusterStatus(broker.Forwarded(ctx), &pb.ClusterStatusRequest{})
	if err != nil || len(status.GetNodes()) == 0 {
		return false
	}
	return id.Node(status.GetAnsweredBy()) == node && status.GetNodes()[0].GetBootEpoch() == boot
}

// duplicated takes gossip's word that two processes say that they are one node. If it is another node, that is no more than news: who starts a
// clone somewhere must not keep all others from starting.
//
// A node that is starting gives way: two that act as the same replicas would break every promise of both. But not to a word alone, which
// anybody can send: the other one has to answer. One that does not serve yet, because it is starting, too, does not; then the registration
// decides.
func (n *Node) duplicated(e membership.Event) {
	other := e.Member
	if e.Node == n.options.NodeID && n.State() == Starting && other.RPCAddress != n.advertised() && n.answersAs(context.Background(), other.Node, other.Boot, other.RPCAddress) {
		n.fail(e.Err)
		return
	}
	n.logger.Error("gossip", "reason", e.Err)
}

// refusedBy notes that a peer takes another process for this node.
func (n *Node) refusedBy(peer id.Node, _ error) {
	select {
	case n.doubts <- peer:
	default:
	}
}

// watchIdentity ends the node when the metadata has another process for it.
func (n *Node) watchIdentity(ctx context.Context) {
	tick := time.NewTicker(identityInterval)
	defer tick.Stop()
	var asked time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if self := n.tableNode(n.options.NodeID); self != nil && self.BootEpoch > n.identity.Boot {
				n.fail(kerr.Errorf(kerr.DuplicateBrokerRegistration,
					"start number %d of node %d is registered, at %s, and this is number %d: it is over, or one of the two runs on a copy of the other's data directory",
					self.BootEpoch, n.options.NodeID, self.RPCAddress, n.identity.Boot))
				return
			}
		case peer := <-n.doubts:
			if address, ok := n.resolve(peer); ok && time.Since(asked) > doubtInterval {
				asked = time.Now()
				if _, err := n.register(ctx, address); kerr.CodeOf(err) == kerr.DuplicateBrokerRegistration {
					n.fail(err)
					return
				}
			}
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
