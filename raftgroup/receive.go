package raftgroup

import (
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
)

// receive steps a message, on the worker.
func (g *group) receive(from id.Node, m *raftpb.Message) {
	if g.closed || g.broken != nil {
		return
	}
	if !g.knows(from, id.Replica(m.GetFrom())) || !g.acceptable(m) {
		g.turn.n.droppedInvalid.Add(1)
		return
	}
	if !g.letsIn(m) {
		return
	}
	switch m.GetType() {
	case raftpb.MsgVote, raftpb.MsgPreVote:
		g.asked(m)
	case raftpb.MsgVoteResp, raftpb.MsgPreVoteResp:
		g.answered(m)
	case raftpb.MsgSnap:
		g.takeSnapshot(m)
	default:
		_ = g.step(m)
	}
	if m.GetType() == raftpb.MsgAppResp {
		g.offerAnswered(m)
	}
	if m.GetType() == raftpb.MsgAppResp && g.minInSync > 1 && g.onCommit.Len() > 0 && g.broken == nil {
		g.answer() // the last of min.insync.replicas may be later than the majority, when Raft has nothing to say any more
	}
	g.touch()
}

// knows tells whether a replica lives on the node that a message came from, and remembers where one lives that nobody spoke of yet.
func (g *group) knows(from id.Node, sender id.Replica) bool {
	peers := *g.peers.Load()
	if node, known := peers[sender]; known {
		return node == from
	}
	if len(peers) >= maxPeers {
		return false
	}
	g.learnPeers(Member{Replica: sender, Node: from})
	return true
}

// letsIn notes who was heard from, and tells whether Raft is to be shown a message.
func (g *group) letsIn(m *raftpb.Message) bool {
	sender, term := id.Replica(m.GetFrom()), id.Term(m.GetTerm())
	switch m.GetType() {
	case raftpb.MsgApp:
		g.heard(sender, term)
		return !g.shuts(m)
	case raftpb.MsgHeartbeat, raftpb.MsgSnap:
		g.heard(sender, term)
	case raftpb.MsgTimeoutNow:
		if m.GetReject() {
			g.declinedBy(sender, term)
			return false
		}
		if g.env.draining.Load() || g.unfit() {
			g.decline(m)
			return false
		}
	case raftpb.MsgAppResp, raftpb.MsgHeartbeatResp:
		if mb := g.member(sender); mb != nil && term == g.term {
			mb.lastAck = g.turn.now.UnixNano()
		}
		return !g.onlyTellsTerm(m)
	}
	return true
}

// onlyTellsTerm tells a MsgAppResp with which Raft answers a MsgApp or heartbeat of an earlier term, of the present term, from the
// acknowledgement that it looks like: that of entry 0, from before the log's start. For a leader who knows nothing of the follower yet Raft
// would take it, and go on with entry 1, which the log does not have: the follower gets nothing until somebody else leads.
//
// It reaches one who leads again: his MsgApp of term 1 was under way when he was deposed, his request for a vote in term 2 overtook it, and
// by the time the answer comes he leads in term 2.
func (g *group) onlyTellsTerm(m *raftpb.Message) bool {
	return m.GetType() == raftpb.MsgAppResp && !m.GetReject() && id.Term(m.GetTerm()) <= g.term &&
		m.GetIndex() == 0 && g.log.FirstIndex() > 1
}

// acceptable is the part of the check that needs the replica's state.
func (g *group) acceptable(m *raftpb.Message) bool {
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
		if !g.plausible(m) || !g.accusation.hear(from, term, g.turn.ticks, g.env.o.ElectionTicks) {
			return false
		}
		// A leader tells no commit index that this replica has not acknowledged. It did, in an earlier life.
		g.breakDown(errLostEntries{commit: id.Index(m.GetCommit()), last: g.last})
		return true
	case raftpb.MsgAppResp:
		return m.GetReject() || id.Term(m.GetTerm()) != g.term || g.role != Leader || id.Index(m.GetIndex()) <= g.last
	case raftpb.MsgVote, raftpb.MsgPreVote, raftpb.MsgVoteResp, raftpb.MsgPreVoteResp, raftpb.MsgTimeoutNow:
		return !g.accused() // the answers too: it may have asked before it was accused
	case raftpb.MsgReadIndex:
		return g.role == Leader // forwarded on and on otherwise, when two replicas take each other for the leader
	}
	return true
}

// maxLost bounds how many entries a replica is believed to have lost. It would take years to write as many.
const maxLost = 1 << 38

// plausible tells whether a heartbeat that says that the replica lost entries can be true: it is of a member, of the leader of that term,
// and of a log that somebody may have. Who believes it takes this replica out for good.
func (g *group) plausible(m *raftpb.Message) bool {
	from := id.Replica(m.GetFrom())
	if g.member(from) == nil || id.Index(m.GetCommit())-g.last > maxLost {
		return false
	}
	return id.Term(m.GetTerm()) > g.term || g.leader == id.NoReplica || g.leader == from
}
