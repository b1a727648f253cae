package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"syscall"

	"github.com/quorumlog/quorumlog/node/internal/simulated"
	"github.com/quorumlog/quorumlog/node/membership"
)

// openGossip starts membership: discovery, address table, hints.
func (n *Node) openGossip(ctx context.Context) error {
	profile := membership.Production
	if n.options.Timing.Gossip == GossipTest {
		profile = membership.Test
	}
	bind, err := n.gossipBind(ctx)
	if err != nil {
		return err
	}
	advertised, err := n.advertisedGossip(ctx, bind)
	if err != nil {
		return err
	}
	keys, err := n.gossipKeys()
	if err != nil {
		return err
	}
	options := membership.Options{
		Cluster: n.options.ClusterName, BindAddress: bind, AdvertiseAddress: advertised, Seeds: n.options.Join, Known: n.knownGossip,
		Self: membership.Self{
			Node: n.options.NodeID, Boot: n.identity.Boot, StoreID: n.identity.StoreID, ClusterID: n.identity.ClusterID,
			RPCAddress: n.advertised(), Rack: n.options.Rack, KafkaAddress: n.advertisedKafka(),
		},
		Keys: keys, OnChange: n.memberChanged, Plausible: n.plausible, MaxStreams: n.shares.gossip, Profile: profile, Logger: n.logger,
	}
	if network, ok := simulated.NetworkOf(ctx); ok {
		options.WrapConn, options.Passes = network.Opened, network.Passes
	}
	m, err := membership.Start(options)
	if err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return listenError("gossip", "--gossip-address", n.options.GossipAddress, err)
		}
		return fmt.Errorf("cannot start gossip on %s: %w", n.options.GossipAddress, err)
	}
	n.membership = m
	n.opened("gossip", ignoreContext(m.Close))
	return nil
}

// gossipBind makes the address to bind one with an IP: gossip goes to the port of exactly one.
func (n *Node) gossipBind(ctx context.Context) (string, error) {
	address, err := n.resolved(ctx, "--gossip-address", n.options.GossipAddress)
	if err == nil && strings.HasPrefix(address, ":") {
		address = "0.0.0.0" + address
	}
	if err == nil {
		err = n.options.checkExposed("--gossip-address", address)
	}
	return address, err
}

// advertisedGossip is the host under which others find gossip when it listens on all addresses: the one under which they find rpc.
func (n *Node) advertisedGossip(ctx context.Context, bind string) (string, error) {
	at, err := netip.ParseAddrPort(bind)
	if err != nil || !at.Addr().IsUnspecified() {
		return "", nil
	}
	host, _, err := splitAddress(n.advertised())
	if err != nil {
		return "", err
	}
	ip, err := n.awaitName(ctx, "--advertised-address", host)
	return ip.String(), err
}

// knownGossip are the gossip addresses of all nodes in the metadata: a partition that outlasts gossip's memory heals only if
// somebody dials across it again.
func (n *Node) knownGossip() []string {
	running := n.running.Load()
	if running == nil {
		return nil
	}
	var addresses []string
	for _, node := range running.View().Nodes() {
		if node.ID != n.options.NodeID {
			addresses = append(addresses, node.GossipAddress)
		}
	}
	return addresses
}

// memberChanged takes gossip's hints. They make things quicker, never right or wrong.
func (n *Node) memberChanged(e membership.Event) {
	switch {
	case e.Err != nil:
		n.duplicated(e)
	case n.running.Load() == nil:
	case e.Kind != membership.Down && n.isStranger(e.Member):
		n.lines.Log(n.logger, slog.LevelError, "gossip: a node of another cluster under the same name: stop it, or give one of the clusters another --cluster-name",
			"peer", e.Node, "rpc", e.Member.RPCAddress, "its_cluster", e.Member.ClusterID, "cluster", n.identity.ClusterID)
	case e.Kind == membership.Up:
		n.peers.Reset(e.Node)
	}
}
