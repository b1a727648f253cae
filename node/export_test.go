package node

import (
	"go.etcd.io/raft/v3/raftpb"

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
