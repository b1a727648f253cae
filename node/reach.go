package node

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/node/serving"
	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// A node that reaches the others, and that nobody reaches (a wrong --advertised-address, a firewall), looks alive to the gossip and would
// be a replica that never answers. So the controller dials back under the address that a node advertises, and looks who answers:
//
//   - A new node gets no place before it is reached. It asks again, so a firewall may be mended while it waits. No id is used up, and no
//     learner is left behind.
//   - A new start of a node that has a place is not registered before it is reached, or one forged message could register a start that is
//     none. Until then the metadata has the start before. It follows and votes all the same, and is not ready.
//   - A node gets no new replicas as long as the last word about it is that it was not reached, and it says so itself: it asks the controller
//     after each start, and then again and again, seldom once it is reached.
//
// What the controller has found out is kept by it alone, in memory. Another one dials for itself, when it first has to know.

const (
	// reachRetry is the pause before the controller is asked again by a node that is not reached; it doubles up to reachInterval, which is
	// also how often one asks that is.
	reachRetry    = time.Second
	reachInterval = 30 * time.Second
	// ownController is how long a node looks for the controller by itself, before it asks through others. It leaves time to dial back.
	ownController = identifyTimeout + time.Second
)

// dialBack returns who answers at the address, if that is the node with this store. It is bounded in time and holds no lock.
func (n *Node) dialBack(ctx context.Context, node id.Node, store, address string) (*pb.IdentifyResponse, error) {
	who, err := n.whoAnswers(ctx, address, node)
	switch {
	case errors.Is(err, errTooBusy):
		return nil, fmt.Errorf("node %d cannot dial node %d at %s now: %w", n.options.NodeID, node, address, err)
	case err != nil:
		return nil, fmt.Errorf("node %d cannot reach node %d at %s, the address that it advertises (%w): correct its --advertised-address, or open the port",
			n.options.NodeID, node, address, err)
	case id.Node(who.GetNodeId()) != node || who.GetStoreId() != store:
		return nil, fmt.Errorf("where node %d says that it is, at %s, node %d finds node %d with store %s: correct its --advertised-address",
			node, address, n.options.NodeID, who.GetNodeId(), who.GetStoreId())
	case who.GetClusterId() != "" && who.GetClusterId() != n.identity.ClusterID:
		return nil, fmt.Errorf("node %d at %s belongs to cluster %s, this is cluster %s", node, address, who.GetClusterId(), n.identity.ClusterID)
	}
	return who, nil
}

var errTooBusy = errors.New("too many others ask to be dialled")

// whoAnswers dials an address for all who ask at that moment: anybody may. Addresses of registered nodes are few; those that a stranger may
// have made up wait for each other, and for nobody else.
func (n *Node) whoAnswers(ctx context.Context, address string, node id.Node) (*pb.IdentifyResponse, error) {
	if !n.isNodeAddress(address) {
		select {
		case n.reach.asking <- struct{}{}:
			defer func() { <-n.reach.asking }()
		default:
			return nil, errTooBusy
		}
		limited, cancel := context.WithTimeout(ctx, identifyTimeout)
		defer cancel()
		select {
		case n.reach.dialling <- struct{}{}:
			defer func() { <-n.reach.dialling }()
		case <-limited.Done():
			return nil, errTooBusy
		}
		return n.identify(limited, address, node)
	}
	answer, err, _ := n.reach.asked.Do(fmt.Sprint(address, " ", node), func() (any, error) {
		return n.identify(context.WithoutCancel(ctx), address, node) // whoever asked first may be gone before the others
	})
	who, _ := answer.(*pb.IdentifyResponse)
	return who, err
}

func (n *Node) isNodeAddress(address string) bool {
	return slices.ContainsFunc(n.controller.View().Nodes(), func(node *placement.Node) bool { return node.RPCAddress == address })
}

// reachable tells which of the registered nodes are reached. Those of which nothing is known yet are dialled now. Of those that the gossip has
// not heard of it asks only if the others are fewer than wanted: the gossip of nodes that were just started finds them a moment later than
// clients do, and a node that is dead may take as long as a dial does.
func (n *Node) reachable(ctx context.Context, wanted int) (fit func(id.Node) bool) {
	var heard, silent []*placement.Node
	for _, node := range n.controller.View().Nodes() {
		if n.alive(node.ID) {
			heard = append(heard, node)
		} else {
			silent = append(silent, node)
		}
	}
	reached := n.reachedOf(ctx, heard)
	if len(reached) < wanted {
		maps.Copy(reached, n.reachedOf(ctx, silent))
	}
	return func(node id.Node) bool { return reached[node] }
}

// reachedOf returns those of the nodes that are reached. All are dialled at once.
func (n *Node) reachedOf(ctx context.Context, nodes []*placement.Node) map[id.Node]bool {
	reached := make(map[id.Node]bool)
	var mu sync.Mutex
	var dials sync.WaitGroup
	for _, node := range nodes {
		dials.Go(func() {
			if n.isReached(ctx, node) {
				mu.Lock()
				defer mu.Unlock()
				reached[node.ID] = true
			}
		})
	}
	dials.Wait()
	return reached
}

func (n *Node) isReached(ctx context.Context, node *placement.Node) bool {
	if node.ID == n.options.NodeID {
		return true
	}
	known, ok := n.reach.get(node)
	if !ok || known.err == nil && !n.alive(node.ID) { // what was reached once, and is not heard of, may be gone
		_, known.err = n.dialBack(ctx, node.ID, node.StoreID, node.RPCAddress)
		n.reach.put(node, known.err)
	}
	return known.err == nil
}

// Identify says who this node is.
func (a *peerCalls) Identify(context.Context, *pb.IdentifyRequest) (*pb.IdentifyResponse, error) {
	n := a.node
	return &pb.IdentifyResponse{
		NodeId: int32(n.options.NodeID), StoreId: n.identity.StoreID, BootEpoch: n.identity.Boot, ClusterId: n.identity.ClusterID,
	}, nil
}

// CheckReach dials a registered node from where the metadata is led.
func (a *peerCalls) CheckReach(ctx context.Context, r *pb.CheckReachRequest) (*pb.CheckReachResponse, error) {
	if err := a.checkCaller(ctx, id.Node(r.GetNodeId())); err != nil {
		return nil, err
	}
	return atController(ctx, a.node, func(ctx context.Context) (*pb.CheckReachResponse, error) {
		return a.checkReach(ctx, r)
	}, func(ctx context.Context, peer pb.DRPCAdminClient) (*pb.CheckReachResponse, error) {
		return peer.CheckReach(ctx, r)
	})
}

func (a *peerCalls) checkReach(ctx context.Context, r *pb.CheckReachRequest) (*pb.CheckReachResponse, error) {
	n := a.node
	if err := n.controller.CheckLeads(); err != nil {
		return nil, err
	}
	if r.GetClusterId() != n.identity.ClusterID {
		return nil, kerr.Errorf(kerr.InconsistentClusterID, "node %d belongs to cluster %s, this is cluster %s",
			r.GetNodeId(), r.GetClusterId(), n.identity.ClusterID)
	}
	view := n.controller.View()
	node := view.Node(id.Node(r.GetNodeId()))
	switch {
	case view.Removed(id.Replica(r.GetMetadataReplica())):
		return nil, kerr.Errorf(kerr.BrokerIDNotRegistered,
			"node %d was removed from this cluster: start it with an empty data directory and an unused node id to make it a new node", r.GetNodeId())
	case node == nil || node.StoreID != r.GetStoreId() || node.RPCAddress != r.GetRpcAddress():
		// Whoever asks is behind, or nobody that is known: no reason to dial an address that he names.
		return nil, kerr.Errorf(kerr.InvalidRequest, "node %d at %s is not registered", r.GetNodeId(), r.GetRpcAddress())
	}
	response := &pb.CheckReachResponse{By: int32(n.options.NodeID)}
	if node.ID == n.options.NodeID {
		return response, nil // it would not lead if the others did not reach it
	}
	_, err := n.dialBack(ctx, node.ID, node.StoreID, node.RPCAddress)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err() // who asked is gone: that says nothing about the address
	}
	n.reach.put(node, err)
	if err != nil {
		response.ErrorMessage = err.Error()
	}
	return response, nil
}

// keepReached asks the controller for the life of the node whether it is reached, and says so where it is not. It notices as well that the
// node was removed: the metadata does not come to it any more.
func (n *Node) keepReached(ctx context.Context) {
	said := seldom{logger: n.logger}
	for pause := reachRetry; ; {
		response, err := n.askReach(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case isRemoved(err):
			n.fail(err)
			return
		case err != nil: // nobody leads, or it is too busy: nothing is known
			n.logger.Debug("the controller does not say whether it reaches this node", "reason", err)
			pause = reachRetry
		case response.GetErrorMessage() != "":
			reason := errors.New(response.GetErrorMessage())
			n.unreached.Store(&reason)
			said.warn("the others do not reach this node: it gets no replicas until they do", "reason", reason)
			pause = min(2*pause, reachInterval)
		default:
			if n.unreached.Swap(nil) != nil {
				n.logger.Info("the others reach this node now", "at", n.advertised(), "dialled_by", response.GetBy())
			}
			pause = reachInterval
			said.over()
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

func (n *Node) askReach(ctx context.Context) (*pb.CheckReachResponse, error) {
	r := &pb.CheckReachRequest{
		NodeId: int32(n.options.NodeID), StoreId: n.identity.StoreID, ClusterId: n.identity.ClusterID, RpcAddress: n.advertised(),
		MetadataReplica: uint64(n.controller.Group().Replica()),
	}
	return askAnyController(ctx, n, func(ctx context.Context) (*pb.CheckReachResponse, error) {
		return (&peerCalls{node: n}).CheckReach(ctx, r)
	}, func(ctx context.Context, member pb.DRPCAdminClient) (*pb.CheckReachResponse, error) {
		return member.CheckReach(ctx, r)
	})
}

// askAnyController makes a call at the controller: as this node knows it, or, if it knows none, through any other member. A node that is
// not part of the metadata group any more hears of no leader.
func askAnyController[T any](
	ctx context.Context, n *Node, own func(context.Context) (T, error), through func(context.Context, pb.DRPCAdminClient) (T, error),
) (T, error) {
	limited, cancel := context.WithTimeout(ctx, ownController)
	result, err := own(limited)
	cancel()
	if kerr.CodeOf(err) != kerr.NotController {
		return result, err
	}
	for _, m := range n.membership.Members() {
		if m.ClusterID != n.identity.ClusterID {
			continue
		}
		limited, cancel := context.WithTimeout(ctx, registerTimeout)
		answer, e := through(limited, n.dialer.AdminOf(m.RPCAddress, m.Node))
		cancel()
		if e == nil || !serving.WorthAnotherController(e) {
			return answer, e
		}
	}
	return result, err
}

// isRemoved tells whether the controller has said that this node was unregistered.
func isRemoved(err error) bool { return kerr.CodeOf(err) == kerr.BrokerIDNotRegistered }

// unreachedError says that the others do not reach this node, and why; nil: they do, as far as it knows. It is no reason not to be ready:
// where only nodes that are ready get a name, nobody would ever reach it.
func (n *Node) unreachedError() error {
	if e := n.unreached.Load(); e != nil {
		return *e
	}
	return nil
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
