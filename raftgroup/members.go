package raftgroup

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
)

// EncodeConfState returns the State.ConfState of a log that is created with these voters and learners.
func EncodeConfState(voters, learners []id.Replica) []byte { return nil }

// Change is one step of a membership change.
type Change struct {
	Type    raftpb.ConfChangeType // raftpb.ConfChangeAddNode, ...AddLearnerNode, ...RemoveNode
	Replica id.Replica
	Node    id.Node // where it lives; not needed to remove
}

// ConfChange builds a membership change, with the nodes of new members in its Context. One change is done at once, several
// go through a joint configuration that is left by itself.
func ConfChange(changes ...Change) *raftpb.ConfChangeV2 { return nil }
