package node

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quorumlog/quorumlog/node/membership"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Two clusters under one name are worse than none: each acknowledges, and one of them has to be thrown away. So nobody founds because he
// hears nothing: a founder whose disk was lost is told --bootstrap by its unit file still, and may be cut off, or start before all others.
//
//   - Bootstrap founds once every node of Join has said, itself and just now, that it belongs to no cluster. If one belongs to a cluster,
//     the node joins that. If one does not answer, the node waits.
//   - Several may be told to found. The one with the lowest id does, and the others join it: each needs the answer of all others, who say
//     that they mean to found, too. That is a rule without votes, and needs no memory: whoever is not the lowest never founds while the
//     lowest is named in its Join. So at most one of those founds whose Joins name each other.
//   - Format founds without asking. It is somebody's word, given once, for a directory that has never been used; it is no option of a node,
//     so that no start script says it again over an empty disk.

// foundOrJoin is the start of a node that may found a cluster. It returns once the node has a place in one.
func (n *Node) foundOrJoin(ctx context.Context) error {
	said := seldom{logger: n.logger}
	tick := time.NewTicker(joinInterval)
	defer tick.Stop()
	for {
		p := n.pollPeers(ctx)
		switch {
		case p.others == 0:
			return fmt.Errorf("nobody to ask whether there is a cluster already: --bootstrap needs --join with the gossip addresses of the "+
				"other first nodes; to found a cluster with this node alone, run once: quorumlog format --node-id %d --data-dir %s --cluster-name %s",
				n.options.NodeID, n.options.DataDir, n.options.ClusterName)
		case p.member != nil:
			n.logger.Info("there is a cluster already: this node joins it",
				"cluster", p.member.ClusterID, "member", p.member.Node, "at", p.member.RPCAddress)
			return n.askForPlace(ctx)
		case len(p.missing) == 0 && p.before == nil:
			n.identity.ClusterID, n.identity.Founder = newClusterID(), true
			n.logger.Info("founding a cluster", "cluster", n.identity.ClusterID)
			return nil
		case len(p.missing) == 0:
			said.info(fmt.Sprintf("waiting for node %d at %s to found cluster %q: its id is lower",
				p.before.Node, p.before.RPCAddress, n.options.ClusterName))
		default:
			if err := n.membership.Foreign(); err != nil {
				return err
			}
			said.info(fmt.Sprintf("waiting for all nodes of --join before cluster %q is founded: %s; start them, take out who does not exist, "+
				"or found with this node alone by quorumlog format", n.options.ClusterName, strings.Join(p.missing, "; ")))
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("gave up founding a cluster: %w", ctx.Err())
		case err := <-n.fatal:
			return err
		case <-tick.C:
		}
	}
}

// poll is what the others say.
type poll struct {
	others  int                // addresses of Join that are not this node's
	missing []string           // who has not answered, and why
	member  *membership.Member // one that belongs to a cluster
	before  *membership.Member // one that founds before this node does
}

// pollPeers asks all that gossip knows of. Gossip alone would not do: what it says of a node may be from before that got its place.
func (n *Node) pollPeers(ctx context.Context) poll {
	members := n.membership.Members() // who comes in a moment is asked the next time
	seeds := n.membership.Seeds(ctx, members)
	p := poll{others: seeds.Others}
	for _, seed := range seeds.Silent {
		p.missing = append(p.missing, seed+" is not heard of")
	}
	answers := make([]*pb.IdentifyResponse, len(members))
	errs := make([]error, len(members))
	var ask errgroup.Group
	ask.SetLimit(askParallel)
	for i, m := range members {
		ask.Go(func() error {
			answers[i], errs[i] = n.identify(ctx, m.RPCAddress, m.Node)
			return nil
		})
	}
	_ = ask.Wait()
	for i := range members {
		m := &members[i]
		err := errs[i]
		if err == nil && id.Node(answers[i].GetNodeId()) != m.Node {
			err = fmt.Errorf("node %d answers there", answers[i].GetNodeId())
		}
		switch {
		case m.ClusterID != "":
			p.member = m
		case err != nil:
			p.missing = append(p.missing, fmt.Sprintf("node %d at %s does not answer (%v)", m.Node, m.RPCAddress, err))
		case answers[i].GetClusterId() != "":
			m.ClusterID = answers[i].GetClusterId()
			p.member = m
		case answers[i].GetFounding() && m.Node < n.options.NodeID:
			p.before = m
		}
	}
	return p
}
