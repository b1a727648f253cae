package placement

import (
	"cmp"
	"slices"

	"github.com/quorumlog/quorumlog/wal/id"
)

// QuorumMember is what the leader of the metadata group knows of one member of it.
type QuorumMember struct {
	Member
	Role     Role
	Alive    bool // for a voter: false only once its node has been away longer than the grace period
	CaughtUp bool // has acknowledged, lately, what was committed then
}

// Role is a member's part in its group.
type Role int

// Voters count for the majority, learners only follow.
const (
	Learner Role = iota
	Voter
)

// QuorumChange is the next change of the metadata group's configuration. All of it is one (joint) configuration change.
type QuorumChange struct {
	Add             []Member // as learners
	Promote, Demote []Member // learners to voters, voters to learners
	Remove          []Member
}

// Empty tells whether nothing has to change.
func (c QuorumChange) Empty() bool {
	return len(c.Add)+len(c.Promote)+len(c.Demote)+len(c.Remove) == 0
}

// VotersFor returns how many voters the metadata group should have with so many nodes: 1, 3 or 5. Two voters are worse than
// one (either of them stops the cluster), four are no better than three.
func VotersFor(nodes int) int {
	switch {
	case nodes >= 5:
		return 5
	case nodes >= 3:
		return 3
	default:
		return 1
	}
}

// PlanQuorum says what to change next in the metadata group so that every registered node has a replica and the right number of them
// votes. It asks for one kind of change at a time and is called again when that is done; the leader of the group calls it.
//
//  1. replicas of nodes that are not registered any more leave, a voter only in exchange for a learner that is ready, or when voters
//     remain; "ready" is alive and caught up;
//  2. learners come for nodes that have no replica in the group, neither theirs nor one from before they were unregistered;
//  3. when enough learners are ready, voters go from 1 to 3 and from 3 to 5 in one step, never through an even number;
//  4. a voter that is gone swaps places with a learner that is ready.
//
// The number of voters never goes down because nodes die: that would let the rest of a split cluster decide alone.
func PlanQuorum(v *View, members []QuorumMember) QuorumChange {
	if v.founder != id.NoNode {
		return QuorumChange{} // the founder, the only voter, is not registered yet: it would count as gone
	}
	registered := v.MetadataMembers()
	var voters, ready, gone []QuorumMember
	for _, m := range members {
		switch {
		case !slices.Contains(registered, m.Member):
			gone = append(gone, m)
		case m.Role == Learner && m.Alive && m.CaughtUp:
			ready = append(ready, m)
		}
		if m.Role == Voter {
			voters = append(voters, m)
		}
	}
	ready = byRackNeed(v, voters, ready)
	if c := planRemoval(gone, voters, ready); !c.Empty() {
		return c
	}
	var c QuorumChange
	for _, m := range registered {
		if !slices.ContainsFunc(members, func(q QuorumMember) bool { return q.Node == m.Node }) {
			c.Add = append(c.Add, m)
		}
	}
	if !c.Empty() {
		return c
	}
	return planVoters(VotersFor(len(registered)), voters, ready)
}

func planRemoval(gone, voters, ready []QuorumMember) QuorumChange {
	learners := slices.DeleteFunc(slices.Clone(gone), func(m QuorumMember) bool { return m.Role == Voter })
	switch {
	case len(learners) > 0:
		return QuorumChange{Remove: membersOf(learners)}
	case len(gone) > 0 && len(ready) > 0:
		return QuorumChange{Promote: membersOf(ready[:1]), Remove: membersOf(gone[:1])}
	case len(gone) > 0 && len(voters) > 1:
		return QuorumChange{Remove: membersOf(gone[:1])}
	}
	return QuorumChange{}
}

func planVoters(target int, voters, ready []QuorumMember) QuorumChange {
	for t := target; t > len(voters); t -= 2 {
		if need := t - len(voters); need <= len(ready) {
			return QuorumChange{Promote: membersOf(ready[:need])}
		}
	}
	dead := slices.IndexFunc(voters, func(m QuorumMember) bool { return !m.Alive })
	switch {
	case len(voters) > target && len(voters) == 4: // the fifth node was unregistered
		return QuorumChange{Demote: membersOf(voters[max(dead, 0):][:1])}
	case dead >= 0 && len(ready) > 0:
		return QuorumChange{Promote: membersOf(ready[:1]), Demote: membersOf(voters[dead : dead+1])}
	}
	return QuorumChange{}
}

// byRackNeed sorts learners so that each one that is taken from the front is in the rack with the fewest voters, and among those
// on the node with the lowest id.
func byRackNeed(v *View, voters, ready []QuorumMember) []QuorumMember {
	count := make(map[string]int)
	rack := func(m QuorumMember) string {
		if n := v.Node(m.Node); n != nil {
			return n.Rack
		}
		return ""
	}
	for _, m := range voters {
		if m.Alive {
			count[rack(m)]++
		}
	}
	left := slices.Clone(ready)
	sorted := make([]QuorumMember, 0, len(left))
	for len(left) > 0 {
		best := 0
		for i := range left {
			if cmp.Or(cmp.Compare(count[rack(left[i])], count[rack(left[best])]), cmp.Compare(left[i].Node, left[best].Node)) < 0 {
				best = i
			}
		}
		count[rack(left[best])]++
		sorted = append(sorted, left[best])
		left = slices.Delete(left, best, best+1)
	}
	return sorted
}

func membersOf(q []QuorumMember) []Member {
	members := make([]Member, len(q))
	for i := range q {
		members[i] = q[i].Member
	}
	return members
}

// LeaderState is what is known of a group's leader.
type LeaderState struct {
	Group    id.Group
	Leader   id.Replica   // NoReplica: none
	CaughtUp []id.Replica // voters, as the leader sees them, that have everything that was committed lately
}

// Transfer asks a group's leader to hand over.
type Transfer struct {
	Group    id.Group
	From, To Member
}

// MaxLeaderImbalance is the share of the partitions which prefer a node but are led by others, above which PlanLeaders acts
// (leader.imbalance.per.broker.percentage).
const MaxLeaderImbalance = 0.10

// PlanLeaders lists transfers of leadership back to preferred leaders, at most limit of them, for nodes whose imbalance is above
// MaxLeaderImbalance. Only voters that are caught up and whose node is alive get leadership: a transfer to any other would stop the
// partition while it catches up. Nodes take turns in the list, so that a limit does not favour one of them. Groups that are not in
// states, or have no leader, are left alone.
func PlanLeaders(v *View, states []LeaderState, alive func(id.Node) bool, limit int) []Transfer {
	type balance struct {
		preferred, away int
		wanted          []Transfer
	}
	byNode := make(map[id.Node]*balance)
	for _, s := range states {
		_, p := v.Partition(s.Group)
		if p == nil || s.Leader == id.NoReplica {
			continue
		}
		to := p.Preferred()
		b := byNode[to.Node]
		if b == nil {
			b = &balance{}
			byNode[to.Node] = b
		}
		b.preferred++
		if s.Leader == to.Replica {
			continue
		}
		b.away++
		from := slices.IndexFunc(p.Members, func(m Member) bool { return m.Replica == s.Leader })
		if from >= 0 && alive(to.Node) && slices.Contains(s.CaughtUp, to.Replica) {
			b.wanted = append(b.wanted, Transfer{Group: s.Group, From: p.Members[from], To: to})
		}
	}
	var turns [][]Transfer
	for _, n := range v.nodes {
		if b := byNode[n.ID]; b != nil && float64(b.away) > MaxLeaderImbalance*float64(b.preferred) {
			slices.SortFunc(b.wanted, func(x, y Transfer) int { return cmp.Compare(x.Group, y.Group) })
			turns = append(turns, b.wanted)
		}
	}
	return takeTurns(turns, limit)
}

func takeTurns(turns [][]Transfer, limit int) []Transfer {
	var list []Transfer
	for i := 0; ; i++ {
		some := false
		for _, t := range turns {
			if i < len(t) && len(list) < limit {
				list = append(list, t[i])
				some = true
			}
		}
		if !some {
			return list
		}
	}
}
