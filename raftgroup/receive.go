package raftgroup

import (
	"math"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup/command"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// maxTerm is the largest term that a leader epoch can say.
const maxTerm = math.MaxInt32

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
	} else if g.queueMessage(from, m, data) {
		return g
	}
	if data != nil {
		data.Release()
	}
	return nil
}

// queueMessage tells whether the message, and with it the reference, is on its way to the group's worker.
func (g *Group) queueMessage(from id.Node, m *raftpb.Message, data Loan) bool {
	h := g.h
	n := &g.w.n
	if m.GetType() == raftpb.MsgSnap {
		n.droppedSnapshots.Add(1)
		return false
	}
	bytes, ok := checkMessage(m)
	if !ok || m.GetFrom() == uint64(g.replica) {
		h.droppedInvalid.Add(1)
		return false
	}
	n.received.Add(1)
	if !g.w.in.message(event{kind: evMessage, group: g, from: from, message: m, data: data}, bytes) {
		n.droppedFull.Add(1)
		return false
	}
	return true
}

// checkMessage tells whether m can be shown to Raft, as far as that can be told without the replica's state, and the weight of
// a MsgApp. Raft trusts what it is given: it panics on a heartbeat context of four bytes and on a gap between entries.
func checkMessage(m *raftpb.Message) (bytes int64, ok bool) {
	if !ordinaryReplica(m.GetFrom()) || m.GetTerm() > maxTerm || max(m.GetIndex(), m.GetCommit()) > math.MaxUint64/2 || m.GetSnapshot() != nil || len(m.GetResponses()) > 0 {
		return 0, false
	}
	switch m.GetType() {
	case raftpb.MsgReadIndex:
		return 0, m.GetTerm() == 0 && isReadContext(m)
	case raftpb.MsgReadIndexResp:
		return 0, m.GetTerm() > 0 && isReadContext(m)
	case raftpb.MsgApp:
		return checkEntries(m)
	}
	if m.GetTerm() == 0 || len(m.GetEntries()) > 0 {
		return 0, false
	}
	context := len(m.GetContext())
	switch m.GetType() {
	case raftpb.MsgHeartbeat, raftpb.MsgHeartbeatResp:
		return 0, context == 0 || context == 8
	case raftpb.MsgAppResp, raftpb.MsgVoteResp, raftpb.MsgPreVoteResp, raftpb.MsgTimeoutNow:
		return 0, true
	case raftpb.MsgVote, raftpb.MsgPreVote:
		return 0, context <= 32
	}
	return 0, false // local messages, and what this package never sends
}

// ordinaryReplica tells whether r is the id of a replica, and none of those that Raft keeps for itself.
func ordinaryReplica(r uint64) bool { return r != 0 && r < math.MaxUint64-1 }

func isReadContext(m *raftpb.Message) bool {
	e := m.GetEntries()
	return len(e) == 1 && len(e[0].GetData()) == 8 && e[0].GetType() == raftpb.EntryNormal
}

// checkEntries checks a MsgApp: entries follow each other, and every batch and command is whole. A frame's checksum does not replace the
// batch's own: a leader that reads a damaged disk sends a perfect frame.
func checkEntries(m *raftpb.Message) (bytes int64, ok bool) {
	term, index, last := m.GetTerm(), m.GetIndex(), m.GetLogTerm()
	if term == 0 || last > term {
		return 0, false
	}
	bytes = smallMessageBytes // not 0: one without entries must not overtake those with entries that it builds on
	for _, e := range m.GetEntries() {
		index++
		if e == nil || e.GetIndex() != index || e.GetTerm() < last || e.GetTerm() > term {
			return 0, false
		}
		last = e.GetTerm()
		bytes += int64(len(e.GetData())) + smallMessageBytes
		if e.GetType() == raftpb.EntryNormal && !whole(e.GetData()) {
			return 0, false
		}
	}
	return bytes, true
}

// whole checks what an ordinary entry carries.
func whole(data []byte) bool {
	if command.Is(data) {
		_, err := command.Parse(data)
		return err == nil
	}
	return len(data) == 0 || batch.Check(data) == nil
}

// receive steps a message, on the worker.
func (g *Group) receive(from id.Node, m *raftpb.Message) {
	if g.closed || g.broken != nil {
		return
	}
	sender := id.Replica(m.GetFrom())
	if node, known := (*g.peers.Load())[sender]; !known {
		if len(*g.peers.Load()) >= maxPeers {
			g.w.n.droppedInvalid.Add(1)
			return
		}
		g.learnPeers(Member{Replica: sender, Node: from})
	} else if node != from {
		g.w.n.droppedInvalid.Add(1)
		return
	}
	if !g.acceptable(m) {
		g.w.n.droppedInvalid.Add(1)
		return
	}
	switch m.GetType() {
	case raftpb.MsgApp:
		g.heard(sender, id.Term(m.GetTerm()))
		if g.shuts(m) {
			return
		}
	case raftpb.MsgHeartbeat:
		g.heard(sender, id.Term(m.GetTerm()))
	case raftpb.MsgTimeoutNow:
		if m.GetReject() {
			g.declinedBy(sender, id.Term(m.GetTerm()))
			return
		}
		if g.h.draining.Load() || g.unfit() {
			g.decline(m)
			return
		}
	case raftpb.MsgAppResp, raftpb.MsgHeartbeatResp:
		if mb := g.member(sender); mb != nil && id.Term(m.GetTerm()) == g.term {
			mb.lastAck = g.w.now.UnixNano()
		}
	}
	switch m.GetType() {
	case raftpb.MsgVote, raftpb.MsgPreVote:
		g.asked(m)
	case raftpb.MsgVoteResp, raftpb.MsgPreVoteResp:
		g.answered(m)
	default:
		_ = g.step(m)
	}
	if m.GetType() == raftpb.MsgAppResp && g.minInSync > 1 && g.onCommit.len() > 0 && g.broken == nil {
		g.answer() // the last of min.insync.replicas may be later than the majority, when Raft has nothing to say any more
	}
	g.touch()
}

// acceptable is the part of the check that needs the replica's state.
func (g *Group) acceptable(m *raftpb.Message) bool {
	from, term := id.Replica(m.GetFrom()), id.Term(m.GetTerm())
	if term > g.term+maxTermAhead {
		return false
	}
	switch m.GetType() {
	case raftpb.MsgHeartbeat:
		if id.Index(m.GetCommit()) <= g.last {
			if term >= g.term {
				g.accusation = accusation{}
			}
			return true
		}
		if term < g.term {
			return true
		}
		if !g.plausible(m) || !g.accusation.hear(from, term, g.w.ticks, g.h.o.ElectionTicks) {
			return false
		}
		// A leader tells no commit index that this replica has not acknowledged. It did, in an earlier life.
		g.breakDown(errLostEntries{commit: id.Index(m.GetCommit()), last: g.last})
		return true
	case raftpb.MsgAppResp:
		return m.GetReject() || id.Term(m.GetTerm()) != g.term || g.role != Leader || id.Index(m.GetIndex()) <= g.last
	case raftpb.MsgVote, raftpb.MsgPreVote, raftpb.MsgTimeoutNow:
		return !g.accused()
	case raftpb.MsgReadIndex:
		return g.role == Leader // forwarded on and on otherwise, when two replicas take each other for the leader
	}
	return true
}

// maxLost bounds how many entries a replica is believed to have lost. It would take years to write as many.
const maxLost = 1 << 38

// plausible tells whether a heartbeat that says that the replica lost entries can be true: it is of a member, of the leader of that term,
// and of a log that somebody may have. Who believes it takes this replica out for good.
func (g *Group) plausible(m *raftpb.Message) bool {
	from := id.Replica(m.GetFrom())
	if g.member(from) == nil || id.Index(m.GetCommit())-g.last > maxLost {
		return false
	}
	return id.Term(m.GetTerm()) > g.term || g.leader == id.NoReplica || g.leader == from
}
