package raftgroup

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Visit is how a goroutine that receives brings what it received: several messages and proposals, and then End, which does what
// little there is to do on this very goroutine. Its methods are those of Host and Group in all else.
type Visit struct{ h *Host }

// Visit begins a visit. It costs nothing, and ends with End; without that, what was brought waits for the next tick.
func (h *Host) Visit() Visit { return Visit{h} }

// Step brings a message: see Host.Step.
func (v Visit) Step(from id.Node, group id.Group, m *raftpb.Message, data Loan) {
	v.h.step(from, group, m, data)
}

// Propose brings a proposal: see Group.Propose.
func (v Visit) Propose(g *Group, p *Proposal) { g.propose(p) }

// End returns when everything that was brought is in somebody's hands. It does not block, but may work for a turn or so; locks that
// the Transport, a Machine, Proposal.Done or Options.TurnDone take must not be held.
func (v Visit) End() {
	for _, w := range v.h.workers {
		w.visit()
	}
}

// Step takes a message from another node. It owns m and everything in it from then on, since Raft's answers share its scalars;
// but the data of its entries is kept by data, of which Step takes over one reference (nil: by the collector), and is not looked
// at any more when that is released. What is no valid message for an open replica is dropped and counted.
func (h *Host) Step(from id.Node, group id.Group, m *raftpb.Message, data Loan) {
	if g := h.step(from, group, m, data); g != nil {
		g.w.nudge()
	}
}

// step leaves a message in the inbox of the group that it is for and returns that, or drops it.
func (h *Host) step(from id.Node, group id.Group, m *raftpb.Message, data Loan) *Group {
	g := h.Group(group)
	if g == nil || uint64(g.replica) != m.GetTo() || g.failed.Load() || g.mute.Load() {
		h.droppedUnknown.Add(1)
	} else if h.queueMessage(g, from, m, data) {
		return g
	}
	if data != nil {
		data.Release()
	}
	return nil
}

// queueMessage tells whether the message, and with it the reference, is on its way to the group's worker.
func (h *Host) queueMessage(g *Group, from id.Node, m *raftpb.Message, data Loan) bool {
	n := &g.turn.n
	bytes, ok := checkMessage(m)
	if !ok || m.GetFrom() == uint64(g.replica) {
		h.droppedInvalid.Add(1)
		return false
	}
	n.received.Add(1)
	if !g.w.in.message(event{kind: evMessage, group: &g.group, from: from, message: m, data: data}, bytes) {
		n.droppedFull.Add(1)
		return false
	}
	return true
}
