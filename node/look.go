package node

import (
	"context"
	"fmt"
	"time"

	"github.com/quorumlog/quorumlog/node/membership"
)

const (
	// restartLook bounds how long a restart waits for the first answer of gossip. Addresses where nobody listens answer at once; a host
	// that is down does not.
	restartLook = time.Second
	// ownPatience is how long a node that finds only nodes of another cluster waits for one of its own.
	ownPatience = 5 * time.Second
)

// firstLook waits until gossip has looked for the others once.
func (n *Node) firstLook(ctx context.Context, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-n.membership.Looked():
	case <-timer.C:
	case <-ctx.Done():
	}
}

// lookAround is what a node of a cluster does before it acts as the replicas it holds: it makes sure that it is where it belongs, and
// that it is the only one.
func (n *Node) lookAround(ctx context.Context) error {
	n.firstLook(ctx, restartLook)
	select {
	case err := <-n.fatal: // this node's id is in use
		return err
	default:
	}
	for _, former := range n.membership.Former() {
		if n.stillThere(ctx, former) {
			return &membership.DuplicateError{Node: n.options.NodeID, One: former, Other: membership.Member{
				Self:          membership.Self{StoreID: n.identity.StoreID, RPCAddress: n.advertised()},
				GossipAddress: n.membership.Address(),
			}}
		}
	}
	stranger, alone := n.onlyStrangers()
	if !alone {
		return nil
	}
	n.logger.Info("waiting for a member of the own cluster", "cluster", n.identity.ClusterID, "found", stranger.ClusterID, "at", stranger.RPCAddress)
	tick := time.NewTicker(joinInterval)
	defer tick.Stop()
	for deadline := time.Now().Add(ownPatience); time.Now().Before(deadline); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		if stranger, alone = n.onlyStrangers(); !alone {
			return nil
		}
	}
	return fmt.Errorf("%s belongs to cluster %s, but node %d at %s is part of cluster %s: correct --join or --cluster-name, or start this node with an empty data directory",
		n.options.DataDir, n.identity.ClusterID, stranger.Node, stranger.RPCAddress, stranger.ClusterID)
}

// onlyStrangers tells whether all nodes of a cluster that gossip knows are of another one, and names one.
func (n *Node) onlyStrangers() (stranger membership.Member, only bool) {
	for _, m := range n.membership.Members() {
		switch m.ClusterID {
		case "":
		case n.identity.ClusterID:
			return m, false
		default:
			stranger, only = m, true
		}
	}
	return stranger, only
}

// stillThere asks an earlier start of this node whether it lives. It must not, unless its data directory was copied while it ran: gossip
// takes a few seconds to notice that a node was killed.
func (n *Node) stillThere(ctx context.Context, former membership.Member) bool {
	if former.RPCAddress == n.advertised() {
		return false // this process has the port now
	}
	return n.answersAs(ctx, former.Node, former.Boot, former.RPCAddress)
}
