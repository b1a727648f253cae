package raftgroup

import (
	"fmt"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// A replica that takes a snapshot gives up its log: all of it is read and checked before Raft sees anything of it, and whatever cannot be
// used leaves the replica as it is, behind.
//
// Then its log is empty, from the snapshot's start on, and its state and its configuration are those of the leader, some entries ahead of
// the log. Entries up to there are stored, acknowledged and committed as all others are; they are in state and configuration already, and
// not applied again. The rule is the same after a restart: State.Applied is then behind the log's end.
//
// The machine has the state in the turn in which the log is given up, before that is durable; the next entries need it. A crash or a failed
// disk in between leaves the old log with the old state on the disk, and nothing has left the node that the new one alone justifies:
//
//   - Raft's answer, and all that Raft promises later, waits for the append, which has log and state in one. So does the store's next cut:
//     none is taken of a log that begins anew until that is durable. A replica that stops before it has queued the append gives no more
//     states: group.unsettled.
//   - The state is committed, whoever stores it. Readers may see its log start and high watermark; a restart shows older ones, as each does.
//   - What a machine has others do about it must do no harm when a start knows less. A partition has its log let go of what is below the
//     committed start, in a cut whose state has applied it. The metadata could not: its node deletes replicas, and the tombstone that
//     keeps an older table from making one again would be dated by the old log, so that a cut from before the deletion ends it. It takes
//     no snapshot: controller.Metadata.
//
// That a configuration is ahead of the log is safe. All of it is committed, so that its members have it: a candidate whose log lacks a change
// that its configuration has finds, in every majority of that, somebody who has the change in his log and does not vote for it.

const (
	// assemblyBudget bounds the bytes of snapshots of which not all parts have come.
	assemblyBudget = 2 * maxSnapshotBytes
)

// takeSnapshot shows Raft a snapshot, if this replica can use it.
func (g *group) takeSnapshot(m *raftpb.Message) {
	if len(m.GetSnapshot().GetData()) == 0 {
		g.hearStart(m)
		return
	}
	from, term := id.Replica(m.GetFrom()), id.Term(m.GetTerm())
	index := id.Index(m.GetSnapshot().GetMetadata().GetIndex())
	raftStatus := g.rn.BasicStatus()
	if index <= id.Index(raftStatus.GetCommit()) || uint64(term) < raftStatus.GetTerm() {
		m.Snapshot.Data = nil
		_ = g.step(m) // Raft says how far the replica is
		return
	}
	s := g.assemble(from, term, m.GetSnapshot().GetData())
	if s == nil {
		return
	}
	if err := g.inspect(s, from, term); err != nil {
		g.turn.n.droppedSnapshots.Add(1)
		g.env.o.Logger.Warn("replica cannot use the snapshot of its leader, and stays behind: its log has no entries that the leader's still has",
			"group", uint64(g.id), "replica", uint64(g.replica), "commit", uint64(g.commit), "start", uint64(s.start.Index), "error", err)
		return
	}
	if !g.admits(s) {
		return
	}
	a := arrival{snapshot: s, own: s.applied <= g.applied}
	if a.own {
		s.conf = g.confState
	}
	// Without the data: Raft makes several copies of what it is given.
	m.Snapshot = &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		ConfState: s.conf, Index: new(uint64(s.start.Index)), Term: new(uint64(s.start.Term)),
	}}
	_ = g.step(m)
	if g.broken == nil && g.rn.BasicStatus().GetCommit() == uint64(s.start.Index) {
		g.arrivals = append(g.arrivals, a) // unless Raft has the entry before the start, and only takes it for committed: no Ready brings it then
	}
}

// assemble returns the snapshot of which a part came, once it has all of them.
func (g *group) assemble(from id.Replica, term id.Term, data []byte) *snapshot {
	p, err := decodePart(data)
	if err == nil {
		body := p.data
		if len(body) < p.total {
			if body = g.addPart(from, term, p); body == nil {
				return nil
			}
		}
		var s *snapshot
		if s, err = decodeSnapshot(body); err == nil {
			return s
		}
	}
	g.turn.n.droppedSnapshots.Add(1)
	return nil
}

// addPart returns the body when it is whole.
func (g *group) addPart(from id.Replica, term id.Term, p part) []byte {
	if g.assembly != nil && !g.assembly.fits(from, term, p) {
		g.dropAssembly()
	}
	a := g.assembly
	if a == nil {
		if p.position > 0 || g.env.assembling.Load() >= assemblyBudget {
			return nil // some were lost, or there is no room: it comes again
		}
		g.env.assembling.Add(int64(p.total))
		a = &assembly{from: from, term: term, number: p.number, total: p.total}
		g.assembly = a
	}
	a.touched = g.turn.now
	a.body = append(a.body, p.data...)
	if len(a.body) < a.total {
		return nil
	}
	g.dropAssembly()
	return a.body
}

func (g *group) dropAssembly() {
	if g.assembly != nil {
		g.env.assembling.Add(int64(-g.assembly.total))
		g.assembly = nil
	}
}

// inspect checks what can be checked of a snapshot before anything is given up for it.
func (g *group) inspect(s *snapshot, from id.Replica, term id.Term) error {
	switch {
	case s.start.Term > term || s.start.Index <= g.commit || s.start.Offset < g.HighWatermark():
		return fmt.Errorf("%w: start %+v in term %d, after high watermark %d", errSnapshotDamaged, s.start, term, g.HighWatermark())
	case !s.has(g.replica) || !s.has(from):
		return fmt.Errorf("%w: replica %d or %d is no member of %v", errSnapshotDamaged, g.replica, from, s.conf)
	case s.applied <= g.applied:
		return nil
	}
	return g.machine.CheckView(s.view)
}

// beginAnew gives up the log for a snapshot that Raft has taken. The log itself follows with the append of the same Ready.
func (g *group) beginAnew(index id.Index) bool {
	var a arrival
	for _, x := range g.arrivals {
		if x.start.Index == index {
			a = x
		}
	}
	if a.snapshot == nil {
		g.breakDown(fmt.Errorf("a log that begins after entry %d came without its state", index))
		return false
	}
	g.turn.n.snapshotsTaken.Add(1)
	g.env.o.Logger.Info("log begins anew, with the state of its leader", "group", uint64(g.id), "replica", uint64(g.replica),
		"last", uint64(g.last), "start", uint64(a.start.Index), "offset", int64(a.start.Offset), "applied", uint64(a.applied))
	g.endWaiting(0, &NotLeaderError{Leader: g.nodeOf(g.leader)})
	g.turn.held = g.loans.cut(0, g.turn.held)
	g.dropWindows()
	g.unsettled = true
	if a.own {
		if g.halted == nil {
			g.machine.Truncate(g.applied + 1)
		}
	} else if err := g.machine.Restore(a.view, a.applied); err != nil {
		g.breakDown(fmt.Errorf("restore the state as of entry %d: %w", a.applied, err))
		return false
	} else {
		g.applied = a.applied
		g.resume()
	}
	g.confState, g.confUnknown = a.conf, false
	g.confBytes = mustMarshal(g.confState)
	for _, m := range a.members {
		if m.Replica != g.replica {
			g.learnPeers(m)
		}
	}
	g.order = orderOf(membersInOrder(g.order), votersOf(g.confState))
	g.rebuildMembers()
	g.last, g.leo, g.handled, g.admitted = a.start.Index, a.start.Offset, a.start.Index, 0
	g.publishApplied()
	view := a.view
	if a.own {
		view = g.machine.View()
	}
	g.anew = &wal.Reset{Start: a.start, State: wal.State{Applied: g.applied, ConfState: g.confBytes, View: view}}
	return true
}
