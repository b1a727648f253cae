package node

import (
	"slices"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Inject has the node receive a message as if another had sent it.
func (n *Node) Inject(from id.Node, g id.Group, m *raftpb.Message) { n.host.Step(from, g, m, nil) }

// Dialled returns of how many nodes this one knows, as the controller, whether it reaches them.
func (n *Node) Dialled() int {
	n.reach.mu.Lock()
	defer n.reach.mu.Unlock()
	return len(n.reach.known)
}

// Calls returns how many administrative calls the node has served.
func (n *Node) Calls() uint64 { return n.server.Metrics().Calls }

// Turns returns how many turns the node's workers have taken.
func (n *Node) Turns() uint64 { return n.host.Metrics().Turns }

// LogsIn lists the partitions of which the node has a replica in a data directory.
func (n *Node) LogsIn(dir string) (names []string) {
	for _, l := range n.stores.Logs() {
		if l.Store().Dir() == dir {
			names = append(names, l.Name())
		}
	}
	slices.Sort(names)
	return names
}

// Partition returns the replica of a topic's first partition that the node holds, or nil.
func (n *Node) Partition(topic string) *partition.Partition {
	for _, p := range n.replicas.All() {
		if p.TopicPartition.Topic == topic && p.TopicPartition.Partition == 0 {
			return p
		}
	}
	return nil
}
