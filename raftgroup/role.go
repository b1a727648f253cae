package raftgroup

import (
	"go.etcd.io/raft/v3"

	"github.com/quorumlog/quorumlog/wal/id"
)

// LeaderChange tells who leads a group.
type LeaderChange struct {
	Term   id.Term
	Leader id.Replica // NoReplica while none is known
	Node   id.Node    // of Leader, or NoNode
	Role   Role       // of this replica
}

// InSync tells which members keep up with the leader.
type InSync struct {
	Term    id.Term
	Nodes   []id.Node // of the voters in sync, the leader's included
	Lagging int       // members that are not in sync, or do not answer: see Status.Answering
}

// Role is the part a replica plays in the Raft paper's sense. A learner's is Follower.
type Role uint8

// The roles.
const (
	Follower Role = iota
	PreCandidate
	Candidate
	Leader
)

// String names the role.
func (r Role) String() string {
	switch r {
	case Follower:
		return "follower"
	case PreCandidate:
		return "pre-candidate"
	case Candidate:
		return "candidate"
	case Leader:
		return "leader"
	}
	return "unknown role"
}

func roleOf(s raft.StateType) Role {
	switch s {
	case raft.StateLeader:
		return Leader
	case raft.StateCandidate:
		return Candidate
	case raft.StatePreCandidate:
		return PreCandidate
	}
	return Follower
}
