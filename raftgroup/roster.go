package raftgroup

import (
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/tracker"

	"github.com/quorumlog/quorumlog/raftgroup/insync"
	"github.com/quorumlog/quorumlog/wal/id"
)

// rebuildMembers makes g.members those of the configuration, keeping what is known of those that stay.
func (g *group) rebuildMembers() {
	old := g.members
	g.members = nil
	at := func(r uint64) *member {
		for i := range g.members {
			if g.members[i].replica == id.Replica(r) {
				return &g.members[i]
			}
		}
		m := member{replica: id.Replica(r), lastAck: g.turn.now.UnixNano()}
		for i := range old {
			if old[i].replica == m.replica {
				m.lastAck, m.inSync, m.declined, m.told = old[i].lastAck, old[i].inSync, old[i].declined, old[i].told
			}
		}
		g.members = append(g.members, m)
		return &g.members[len(g.members)-1]
	}
	for _, v := range g.confState.Voters {
		at(v).seat |= insync.Incoming
	}
	for _, v := range g.confState.VotersOutgoing {
		at(v).seat |= insync.Outgoing
	}
	for _, l := range g.confState.Learners {
		at(l)
	}
}

func (g *group) member(r id.Replica) *member {
	for i := range g.members {
		if g.members[i].replica == r {
			return &g.members[i]
		}
	}
	return nil
}

// nodeOf returns where a replica lives.
func (g *group) nodeOf(r id.Replica) id.Node {
	if r == id.NoReplica {
		return id.NoNode
	}
	if r == g.replica {
		return g.env.o.Node
	}
	if n, ok := (*g.peers.Load())[r]; ok {
		return n
	}
	return id.NoNode
}

func (g *group) learnPeers(members ...Member) {
	next := g.peers.Load().with(members...)
	g.peers.Store(&next)
}

// isVoter tells whether r is a voter in either half of the configuration.
func (g *group) isVoter(r id.Replica) bool {
	m := g.member(r)
	return m != nil && m.voter()
}

// alive tells whether a member was heard from lately, and since its node was reported down.
func (g *group) alive(m *member) bool {
	if m.replica == g.replica {
		return true
	}
	if at, down := g.turn.down[g.nodeOf(m.replica)]; down && m.lastAck <= at {
		return false
	}
	return g.turn.now.UnixNano()-m.lastAck < int64(g.env.o.ElectionTicks)*int64(g.env.o.TickInterval)
}

// eachProgress visits what Raft knows of the members.
func (g *group) eachProgress(visit func(*member, *tracker.Progress)) {
	if g.rn == nil || g.broken != nil {
		return
	}
	g.rn.WithProgress(func(r uint64, _ raft.ProgressType, pr tracker.Progress) {
		if m := g.member(id.Replica(r)); m != nil {
			visit(m, &pr)
		}
	})
}

// conditionOf returns what the node of a member can do for the group.
func (g *group) conditionOf(r id.Replica) Condition {
	c := g.turn.condition
	if r != g.replica {
		p := g.turn.conditions[g.nodeOf(r)]
		if p == nil {
			return Good
		}
		c = p.condition
	}
	if c == Full && g.vital {
		return Good
	}
	return c
}
