package node

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Inject has the node receive a message as if another had sent it.
func (n *Node) Inject(from id.Node, g id.Group, m *raftpb.Message) { n.host.Step(from, g, m, nil) }
