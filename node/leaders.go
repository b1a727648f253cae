package node

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/quorumlog/quorumlog/node/serving"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Version is this release's.
const Version = rpc.Release

const (
	// askTimeout bounds a question to another node for an answer that is incomplete without it.
	askTimeout = time.Second
	// askParallel is how many nodes or partitions are asked at once.
	askParallel = 16
	// leaderCacheFor is how long the answer to "who leads a partition that this node does not hold" is used.
	leaderCacheFor = 100 * time.Millisecond
)

// leaders implements serving.Leaders: by this node's replicas, and by asking others.
type leaders struct{ node *Node }

// Leader implements serving.Leaders.
func (l leaders) Leader(ctx context.Context, p *placement.Partition) serving.Leader {
	node, epoch := l.node.leaderOf(ctx, p)
	return serving.Leader{Node: node, Epoch: epoch}
}

// Leaders implements serving.Leaders.
func (l leaders) Leaders(ctx context.Context, t *placement.Topic) []serving.Leader {
	list := make([]serving.Leader, len(t.Partitions))
	for i, known := range l.node.leadersOf(ctx, t) {
		list[i] = serving.Leader{Node: known.node, Epoch: known.epoch}
	}
	return list
}

// AddISR implements serving.Leaders: it asks each node that leads some of the partitions, once.
func (l leaders) AddISR(ctx context.Context, topics []broker.Topic) {
	byLeader := make(map[id.Node][]string)
	for _, t := range topics {
		for _, p := range t.Partitions {
			if p.Leader != id.NoNode && p.Leader != l.node.options.NodeID && !slices.Contains(byLeader[p.Leader], t.Name) {
				byLeader[p.Leader] = append(byLeader[p.Leader], t.Name)
			}
		}
	}
	var mu sync.Mutex
	isr := make(map[id.Group][]id.Node)
	var ask errgroup.Group
	ask.SetLimit(askParallel)
	for leader, names := range byLeader {
		ask.Go(func() error {
			answer, err := l.askMetadata(ctx, leader, names)
			if err != nil {
				return nil //nolint:nilerr // what a leader does not say is missing in the answer, nothing worse
			}
			mu.Lock()
			defer mu.Unlock()
			for _, t := range answer.GetTopics() {
				for _, p := range t.GetPartitions() {
					var nodes []id.Node
					for _, n := range p.GetIsr() {
						nodes = append(nodes, id.Node(n))
					}
					isr[id.Group(p.GetGroup())] = nodes
				}
			}
			return nil
		})
	}
	_ = ask.Wait()
	for _, t := range topics {
		for i := range t.Partitions {
			if p := &t.Partitions[i]; len(p.ISR) == 0 {
				p.ISR = isr[p.Group]
			}
		}
	}
}

func (l leaders) askMetadata(ctx context.Context, node id.Node, topics []string) (*pb.MetadataResponse, error) {
	address, ok := l.node.resolve(node)
	if !ok {
		return nil, kerr.Errorf(kerr.BrokerNotAvailable, "no address of node %d is known", node)
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return l.node.dialer.Admin(address).Metadata(broker.Forwarded(ctx), &pb.MetadataRequest{Topics: topics, LocalOnly: true})
}

// leader is who leads a partition, as far as somebody knows.
type leader struct {
	node  id.Node
	epoch id.Epoch
}

// leadersOf returns the leader of each partition of a topic.
func (n *Node) leadersOf(ctx context.Context, t *placement.Topic) []leader {
	leaders := make([]leader, len(t.Partitions))
	var ask errgroup.Group
	ask.SetLimit(askParallel)
	for i := range t.Partitions {
		p := &t.Partitions[i]
		if n.replicas.Working(p.Group) != nil {
			leaders[i].node, leaders[i].epoch = n.leaderOf(ctx, p)
			continue
		}
		ask.Go(func() error {
			leaders[i].node, leaders[i].epoch = n.leaderOf(ctx, p)
			return nil
		})
	}
	_ = ask.Wait()
	return leaders
}

// leaderOf returns who leads a partition: from its replica here, else from what one of its members said lately or says now. A
// replica that has stopped knows nothing: answering from it would hide the leader from every client that asks this node.
func (n *Node) leaderOf(ctx context.Context, p *placement.Partition) (id.Node, id.Epoch) {
	if open := n.replicas.Working(p.Group); open != nil {
		_, node, term := open.Group().Leader()
		return node, id.EpochOf(term)
	}
	if known, ok := n.leaders.get(p.Group); ok {
		return known.node, known.epoch
	}
	topic, _ := n.controller.View().Partition(p.Group)
	if topic == nil {
		return id.NoNode, 0
	}
	// The newest word of a majority counts, if there is one, since one of it has voted for whoever leads: in a cut cluster an old leader may
	// answer, too.
	var best leader
	answers := 0
	for _, m := range p.Members {
		if answers > len(p.Members)/2 {
			break
		}
		address, ok := n.resolve(m.Node)
		if !ok || m.Node == n.options.NodeID || !n.alive(m.Node) {
			continue
		}
		if _, lost := n.lost.Load(m.Node); lost {
			continue // gossip may take long to see a cut, and a client waits for this answer to see where else to ask
		}
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		status, err := n.dialer.Admin(address).PartitionStatus(broker.Forwarded(ctx), &pb.PartitionStatusRequest{Topic: topic.Name, Partition: int32(p.ID)})
		cancel()
		if err != nil {
			continue
		}
		answers++
		if said := (leader{id.Node(status.GetLeader()), id.Epoch(status.GetEpoch())}); said.node >= 0 && said.epoch > best.epoch {
			best = said
		}
	}
	if best.epoch > 0 {
		n.leaders.put(p.Group, best)
		return best.node, best.epoch
	}
	return id.NoNode, 0
}

// leaderCache remembers for a moment who leads the partitions that this node does not hold.
type leaderCache struct {
	mu    sync.Mutex
	known map[id.Group]cachedLeader
}

type cachedLeader struct {
	leader
	until time.Time
}

func (c *leaderCache) get(g id.Group) (leader, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known, ok := c.known[g]
	return known.leader, ok && time.Now().Before(known.until)
}

func (c *leaderCache) put(g id.Group, l leader) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil {
		c.known = make(map[id.Group]cachedLeader)
	}
	c.known[g] = cachedLeader{l, time.Now().Add(leaderCacheFor)}
}
