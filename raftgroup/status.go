package raftgroup

import (
	"time"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Status is a replica's view of its group. What is said of other members is known to the leader only.
type Status struct {
	Group   id.Group
	Replica id.Replica
	Role    Role
	Term    id.Term
	Leader  id.Replica // NoReplica while none is known
	Node    id.Node    // of Leader
	Commit  id.Index
	Applied id.Index
	Last    id.Index
	HW, LEO id.Offset
	// Joint tells that a membership change is half done.
	Joint bool
	// Standing says whether the replica works, and Trouble why not.
	Standing Standing
	Trouble  error
	Members  []MemberStatus
}

// MemberStatus is one member of a group.
type MemberStatus struct {
	Replica id.Replica
	Node    id.Node // NoNode when it is not known
	Learner bool
	Match   id.Index      // how far its log is known to equal the leader's
	InSync  bool          // voters only
	Alive   bool          // was heard from within the election timeout
	LastAck time.Duration // since it was last heard from; negative: never
}

// InSync counts the voters in sync.
func (s Status) InSync() int {
	n := 0
	for _, m := range s.Members {
		if m.InSync {
			n++
		}
	}
	return n
}

// Answering counts the voters in sync that still answer. One that does not keeps its place among those in sync for a while; whoever looks
// at the cluster wants to know at once.
func (s Status) Answering() int {
	n := 0
	for _, m := range s.Members {
		if m.InSync && m.Alive {
			n++
		}
	}
	return n
}
