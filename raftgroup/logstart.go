package raftgroup

import (
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// A full follower takes no batches, and so it does not get what stands behind them either: the command by which the log start moves, the one
// entry that would free its space. Batches are pressed on full disks only where nothing commits without them, and within an allowance. A
// single full follower misses as many as its leader takes meanwhile, and would stay full for good.
//
// It need not have the command. From a leader that holds batches back it hears where the leader's log begins, by a MsgSnap without a body, and
// lets go of its own segments before that. So of each log it has no more than its leader, but for one segment, and gets its batches if that
// leaves space. One whose log ends before the leader's begins gets a snapshot, and lets go of everything: see admits.
//
// It loses nothing that anybody may still want:
//
//   - A leader's log begins later only because a command says so that is committed: it has applied that, or heard of the start as this follower
//     does. Every later leader has the command in its log, and shows nothing of what is below, whether this follower has it or not.
//   - The follower has the very entry before that start, by index and term, and knows it to be committed. Hence what it lets go of is what the
//     leader has let go of.
//   - What is not in a stored state stays, as with every start that moves: see wal.Log.Trim. A start finds nothing missing that it has to apply.
//   - The machine's state is left alone: the log begins later than that says, until the command comes. Readers are told the later of both
//     (node/partition, Partition.LogStart).
//
// Nothing is taken out of the allowance, and nothing is written but a cut, for which there has to be room: it gives back more.
//
// The follower does not answer. Raft would go over from probing to as much as its window holds, have it read, and all of it is held back.

// startRepeat is after what time a full follower is told again where the log begins: the message may be lost, or the follower has a new life.
const startRepeat = 10 * time.Second

// tellStart tells the full follower from which m is held back where the log begins, unless it should know.
func (g *group) tellStart(m *raftpb.Message) {
	start, to := g.log.Start(), g.member(id.Replica(m.GetTo()))
	if start.Offset == 0 || to == nil || g.role != Leader || id.Term(m.GetTerm()) != g.term {
		return
	}
	if to.told.index == start.Index && g.turn.now.Before(to.told.at.Add(startRepeat)) {
		return
	}
	to.told = toldStart{start.Index, g.turn.now}
	metadata := &raftpb.SnapshotMetadata{Index: new(uint64(start.Index)), Term: new(uint64(start.Term))}
	if g.send(&raftpb.Message{
		Type: raftpb.MsgSnap.Enum(), To: m.To, From: m.From, Term: m.Term, Snapshot: &raftpb.Snapshot{Metadata: metadata},
	}, nil) {
		g.turn.sent = true
	}
}

// hearStart lets go of what the leader has let go of, if there is no space for more. What does not fit this replica's log changes nothing: it
// comes again.
func (g *group) hearStart(m *raftpb.Message) {
	at := m.GetSnapshot().GetMetadata()
	index := id.Index(at.GetIndex())
	if id.Replica(m.GetFrom()) != g.leader || id.Term(m.GetTerm()) != g.term || g.vital || g.env.o.Store.Pressure() != wal.PressureNoSpace {
		return
	}
	if term, ok := g.log.Term(index); !ok || uint64(term) != at.GetTerm() || index > g.commit {
		return
	}
	g.log.TrimBefore(index + 1)
}
