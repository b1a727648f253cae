package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/node/controller"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// joinCluster gives the data directory a cluster if it has none: by founding one, or by asking a member for a place.
func (n *Node) joinCluster(ctx context.Context) error {
	if n.identity.ClusterID != "" {
		return n.lookAround(ctx)
	}
	if n.options.Founding != Bootstrap && len(n.options.Join) == 0 {
		return fmt.Errorf("data directory %s belongs to no cluster: start this node with --join HOST:GOSSIPPORT of nodes of the cluster; "+
			"the first nodes of a new cluster with --bootstrap and --join, or the first one after quorumlog format", n.options.DataDir)
	}
	leave, err := n.openLobby()
	if err != nil {
		return err
	}
	if n.options.Founding == Bootstrap {
		err = n.foundOrJoin(ctx)
	} else {
		err = n.askForPlace(ctx)
	}
	// From here on nobody is told any more that this node belongs to no cluster.
	if err := errors.Join(err, leave()); err != nil {
		return err
	}
	n.identity.Cluster = n.options.ClusterName
	if err := n.identity.store(n.files, n.options.DataDir); err != nil {
		return err
	}
	return n.membership.SetClusterID(n.identity.ClusterID)
}

// metadataReplicaKey holds the replica of the metadata group that this node was given, from when it got its place until the
// replica's log exists.
const metadataReplicaKey = "node/metadata-replica"

// askForPlace registers with the cluster through any member that gossip knows, until one answers.
func (n *Node) askForPlace(ctx context.Context) error {
	said := seldom{logger: n.logger}
	say := func(format string, args ...any) { said.info(fmt.Sprintf(format, args...)) }
	tick := time.NewTicker(joinInterval)
	defer tick.Stop()
	for {
		asked := false
		for _, m := range n.membership.Members() {
			if m.Node == n.options.NodeID || m.ClusterID == "" {
				continue
			}
			asked = true
			response, err := n.register(ctx, m.RPCAddress, m.Node)
			if err == nil {
				n.identity.ClusterID = response.GetClusterId()
				return n.store.Set(metadataReplicaKey, fmt.Appendf(nil, "%d", response.GetMetadataReplica()))
			}
			if code := kerr.CodeOf(err); code == kerr.DuplicateBrokerRegistration || code == kerr.InconsistentClusterID || code == kerr.InvalidRequest ||
				isOldRelease(err) {
				return err
			}
			say("waiting for a place in the cluster: node %d at %s says: %v", m.Node, m.RPCAddress, err)
		}
		if err := n.membership.Foreign(); err != nil && !asked {
			return err
		}
		if !asked {
			say("waiting for a member of cluster %q to answer at %s", n.options.ClusterName, strings.Join(n.options.Join, ", "))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gave up joining a cluster: %w", ctx.Err())
		case err := <-n.fatal:
			return err
		case <-tick.C:
		}
	}
}

// openController opens the metadata replica, creating its log the first time.
func (n *Node) openController(ctx context.Context) error {
	log, err := n.metadataLog(ctx)
	if err != nil {
		return err
	}
	var found *placement.FoundCluster
	if n.identity.Founder {
		found = &placement.FoundCluster{ClusterID: n.identity.ClusterID, Name: n.options.ClusterName, Founder: n.options.NodeID, Level: placement.SupportedLevel}
	}
	n.controller, err = controller.Open(controller.Options{
		Node: n.options.NodeID, Host: n.host, Log: log, Members: []raftgroup.Member{{Replica: log.Replica(), Node: n.options.NodeID}},
		Replicas: n.replicas, Logger: n.logger, Found: found, Fatal: n.fail, VoterGrace: n.options.Timing.VoterGrace,
	})
	if err != nil {
		return err
	}
	n.running.Store(n.controller)
	n.opened("controller", func(context.Context) error { n.controller.Close(); return nil })
	return nil
}

func (n *Node) metadataLog(ctx context.Context) (*wal.Log, error) {
	for _, l := range n.store.Logs() {
		if l.Group() == id.MetadataGroup {
			return l, nil
		}
	}
	for _, r := range n.store.Refused() {
		if r.Group == id.MetadataGroup {
			return nil, fmt.Errorf("the metadata replica lost what it had acknowledged (%s): this node must come back with an empty data directory and an unused node id", r.Reason)
		}
	}
	replica := placement.FoundingReplica
	if !n.identity.Founder {
		text, err := n.store.Get(metadataReplicaKey)
		if err != nil {
			return nil, fmt.Errorf("the data directory belongs to cluster %s and has no metadata replica: it is damaged; start this node with an empty one and an unused node id: %w",
				n.identity.ClusterID, err)
		}
		if _, err := fmt.Sscan(string(text), &replica); err != nil {
			return nil, fmt.Errorf("the number of the metadata replica cannot be read: %w", err)
		}
	}
	return controller.CreateLog(ctx, n.store, replica)
}

// keepRegistered tells the cluster this start's addresses, and then moves the node to ready: once it has applied its own
// registration it knows what it should hold. From the registration on it looks whether the others reach the node.
func (n *Node) keepRegistered(ctx context.Context) {
	said := seldom{logger: n.logger}
	for {
		err := n.registerSelf(ctx)
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return
		}
		if kerr.CodeOf(err) == kerr.DuplicateBrokerRegistration || isRemoved(err) || isOldRelease(err) {
			n.fail(err)
			return
		}
		pause := registerRetry
		if kerr.CodeOf(err) == kerr.PolicyViolation { // it was dialled
			n.unreached.Store(&err)
			said.warn("the others do not reach this node: this start is not registered until they do", "reason", err)
			pause = reachRetry
		} else {
			said.info("not registered yet; it is tried again", "reason", err)
		}
		if !sleep(ctx, pause) {
			return
		}
	}
	var reaching sync.WaitGroup
	defer reaching.Wait()
	reaching.Go(func() { n.keepReached(ctx) }) // not after the rest: the metadata may come only once the node is reached
	current := func(v *placement.View) bool {
		self := v.Node(n.options.NodeID)
		if self == nil || self.BootEpoch < n.identity.Boot {
			return false
		}
		for _, p := range v.ReplicasOn(n.options.NodeID) {
			if n.replicas.Group(p.Group) == nil && !n.replicas.IsRefused(p.Group) && !n.replicas.IsOffline(p.Group) {
				return false
			}
		}
		return true
	}
	for !current(n.controller.View()) {
		if !sleep(ctx, joinInterval) {
			return
		}
	}
	if n.state.CompareAndSwap(int32(Starting), int32(Ready)) {
		n.logger.Info("node ready", "replicas", len(n.replicas.All()))
	}
}

func (n *Node) registerSelf(ctx context.Context) error {
	_, err := askAnyController(ctx, n, func(ctx context.Context) (*pb.RegisterNodeResponse, error) {
		return (&peerCalls{node: n}).RegisterNode(ctx, n.registration())
	}, func(ctx context.Context, member pb.DRPCAdminClient) (*pb.RegisterNodeResponse, error) {
		return member.RegisterNode(ctx, n.registration())
	})
	return err
}

// isOldRelease tells whether a registration was refused because of what this release knows: it will be refused as long as it runs.
func isOldRelease(err error) bool { return kerr.CodeOf(err) == kerr.UnsupportedVersion }
