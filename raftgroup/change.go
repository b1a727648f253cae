package raftgroup

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// proposeChange proposes the change that waits. Its index is known: see canPropose.
func (g *group) proposeChange() {
	c := g.change
	m := &raftpb.Message{Type: raftpb.MsgProp.Enum(), Entries: []*raftpb.Entry{
		{Type: raftpb.EntryConfChangeV2.Enum(), Data: mustMarshal(c.cc)},
	}}
	err := g.step(m)
	switch {
	case err != nil:
		g.endChange(ErrProposalDropped)
		return
	case m.Entries[0].GetType() == raftpb.EntryNormal: // what Raft puts there instead of a change that it refuses
		g.endChange(ErrConfChangeRefused)
	default:
		c.proposed, c.index, c.term = true, g.last+1, g.term
	}
}

func (g *group) endChange(err error) {
	if g.change != nil {
		g.change.result <- err
		g.change = nil
	}
}

// changeApplied sees every entry that was applied.
func (g *group) changeApplied(index id.Index, term id.Term, kind wal.EntryKind) {
	c := g.change
	if c == nil || !c.proposed {
		return
	}
	if index == c.index && (term != c.term || kind != wal.KindConfChangeV2) {
		g.endChange(ErrConfChangeRefused)
		return
	}
	if index >= c.index && len(g.confState.VotersOutgoing) == 0 {
		g.endChange(nil)
	}
}

// applyConfChange changes the configuration as a committed entry says.
func (g *group) applyConfChange(kind wal.EntryKind, data []byte) bool {
	var cc raftpb.ConfChangeI
	var err error
	if kind == wal.KindConfChange {
		v1 := &raftpb.ConfChange{}
		err, cc = proto.Unmarshal(data, v1), v1
	} else {
		v2 := &raftpb.ConfChangeV2{}
		err, cc = proto.Unmarshal(data, v2), v2
	}
	if err != nil {
		g.breakDown(fmt.Errorf("decode membership change: %w", err))
		return false
	}
	if members, err := decodeMembers(cc.AsV2().GetContext()); err == nil {
		for _, m := range members {
			if m.Replica != g.replica {
				g.learnPeers(m)
			}
		}
	}
	var cs *raftpb.ConfState
	g.guard(func() { cs = g.rn.ApplyConfChange(cc) })
	if g.broken != nil || cs == nil {
		g.confUnknown = true
		return false
	}
	g.confState, g.confBytes = cs, mustMarshal(cs)
	g.order = orderOf(membersInOrder(g.order), votersOf(cs))
	g.rebuildMembers()
	if g.role == Leader {
		g.refreshInSync()
	}
	return true
}
