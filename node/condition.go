package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// What the node's disk allows it to do. The host of the groups judges that, and hands over what the node leads (raftgroup/condition.go);
// here it is told to the peers, who give the node no leaderships and no records meanwhile, and to whoever runs the node.

const (
	// conditionInterval is how often the node looks how its disk is.
	conditionInterval = 100 * time.Millisecond
	// conditionReminder is how often the log says that it still is no better.
	conditionReminder = time.Minute
)

// watchCondition tells everybody what the disk allows, when that changes.
func (n *Node) watchCondition(ctx context.Context) {
	tick := time.NewTicker(conditionInterval)
	defer tick.Stop()
	last, said := raftgroup.Good, time.Now()
	for {
		c := n.host.Condition()
		n.peers.SetHealth(rpc.Health(c))
		if c != last || c != raftgroup.Good && time.Since(said) >= conditionReminder {
			n.sayCondition(c)
			last, said = c, time.Now()
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (n *Node) sayCondition(c raftgroup.Condition) {
	switch c {
	case raftgroup.Good:
		n.logger.Info("the disk is well: the node takes records and leaderships again")
	case raftgroup.Full:
		m := n.host.Metrics()
		space := n.stores.Space()
		n.logger.Warn("the disk is full: the node takes no records, and hands the partitions over that it leads; delete topics or free space "+
			"otherwise, and it goes on by itself", "dir", space.Dir, "free", space.Free, "leads", m.Leading, "dropped", m.DroppedNoSpace)
	default:
		m := n.host.Metrics()
		dir, waiting := n.stores.Slow()
		n.logger.Warn("the disk does not answer: the node hands over what it leads; look at the disk (kernel log, smartctl), and the node "+
			"goes on by itself when writes come back in time", "dir", dir, "waiting", waiting.Round(time.Millisecond), "leads", m.Leading, "dropped", m.DroppedBehind)
	}
}

// conditionError says why the node should be sent no records, and what to do; nil: it should.
func (n *Node) conditionError() error {
	if failure := n.failure.Load(); failure != nil {
		return fmt.Errorf("the node cannot go on: %w", *failure)
	}
	switch n.host.Condition() {
	case raftgroup.Good:
		return nil
	case raftgroup.Full:
		return fmt.Errorf("disk full: %v: free some space", n.stores.Space())
	}
	dir, waiting := n.stores.Slow()
	if waiting > 0 {
		return fmt.Errorf("disk does not answer since %s (%s)", time.Now().Add(-waiting).Format(time.RFC3339), dir)
	}
	return fmt.Errorf("disk did not answer in time a moment ago (%s)", dir)
}

// leaderError says what has no leader that this node hears of: of what it holds, and the metadata. A node that is cut off from its peers is
// told so by its own replicas, leaders too, within two election timeouts. Replicas that stopped for good hear of nobody, and are said
// elsewhere.
func (n *Node) leaderError() error {
	if n.controller.Leader() == id.NoNode {
		return errors.New("no leader of the metadata is known: can this node reach its peers?")
	}
	view := n.controller.View()
	held, leaderless, example := 0, 0, id.TopicPartition{}
	for _, p := range n.replicas.All() {
		topic, _ := view.Partition(p.Group().ID())
		if topic == nil || p.Group().Failed() { // about to be deleted, or useless
			continue
		}
		held++
		if _, leader, _ := p.Group().Leader(); leader == id.NoNode {
			leaderless, example = leaderless+1, id.TopicPartition{Topic: topic.Name, Partition: p.Partition}
		}
	}
	if leaderless > 0 {
		return fmt.Errorf("no leader is known of %d of the %d partitions that this node has replicas of, %s for one", leaderless, held, example)
	}
	return nil
}

// freeBytes is what is free where least is.
func (n *Node) freeBytes() int64 { return n.stores.Space().Free }

// stateText is the state in one or two words, for people.
func (n *Node) stateText() string {
	if n.failure.Load() != nil {
		return "failed"
	}
	c := n.host.Condition()
	if s := n.State(); s != Ready || c == raftgroup.Good {
		return s.String()
	}
	return "disk " + c.String()
}

// acceptsProduce tells whether there is room for records.
func (n *Node) acceptsProduce() bool {
	return n.host.Condition() == raftgroup.Good && n.stores.Pressure() != wal.PressureNoSpace
}

// takesLeaderships tells whether a node seems to be up, with a disk that can take records.
func (n *Node) takesLeaderships(node id.Node) bool {
	return n.alive(node) && n.host.ConditionOf(node) == raftgroup.Good
}

// Health implements rpc.PeerHandler.
func (in *inbound) Health(from id.Node, h rpc.Health) {
	if in.known(from) {
		in.host.NodeCondition(from, min(raftgroup.Condition(h), raftgroup.Stalled))
	}
}
