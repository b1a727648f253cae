package raftgroup

import (
	"fmt"
	"math"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
)

// storage is Raft's view of a group's log. All of it runs inside calls of the RawNode, hence in its worker's turns.
//
// Raft asks for entries for two purposes. Those it needs itself, above applied, must be there at once: they are in the log's
// memory, but for the first moments after a restart. Those for a lagging follower may have to be read from disk, which must
// not hold up the worker: a read is started, and Raft is told ErrCompacted and then that no snapshot can be had just now. It
// then leaves the follower alone, without a change of state, until it hears from it again. When the read is done the worker
// pretends just that.
//
// Where entries are gone, because the log begins above them, it gets a snapshot. Raft finds that out itself, by FirstIndex, and asks for
// the snapshot right after. So does it after ErrCompacted from Entries. Hence reading.
type storage struct {
	g *group
	// reading: the last that Raft asked for are entries that are being read.
	reading   bool
	hardState *raftpb.HardState // both as handed to the RawNode when the replica was opened
	confState *raftpb.ConfState
}

// InitialState implements raft.Storage.
func (s *storage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return s.hardState, s.confState, nil
}

// FirstIndex implements raft.Storage.
func (s *storage) FirstIndex() (uint64, error) {
	s.reading = false
	return uint64(s.g.log.FirstIndex()), nil
}

// LastIndex implements raft.Storage.
func (s *storage) LastIndex() (uint64, error) { return uint64(s.g.log.LastIndex()), nil }

// Term implements raft.Storage.
func (s *storage) Term(i uint64) (uint64, error) {
	t, ok := s.g.log.Term(id.Index(i))
	if !ok {
		if i+1 < uint64(s.g.log.FirstIndex()) {
			return 0, raft.ErrCompacted
		}
		return 0, raft.ErrUnavailable
	}
	return uint64(t), nil
}

// Snapshot implements raft.Storage. Its data is drawn when it is sent: see offerSnapshot. A halted replica has none to give: its state and
// its configuration are not of the same entry.
func (s *storage) Snapshot() (*raftpb.Snapshot, error) {
	start := s.g.log.Start()
	if s.reading || start.Index == 0 || s.g.halted != nil || s.g.confUnknown {
		return nil, raft.ErrSnapshotTemporarilyUnavailable
	}
	return &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{
		ConfState: s.g.confState, Index: new(uint64(start.Index)), Term: new(uint64(start.Term)),
	}}, nil
}

// Entries implements raft.Storage. What it returns aliases the log's memory until the end of the turn: messages are encoded
// and entries applied by then.
func (s *storage) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	limit := int(min(maxSize, math.MaxInt32))
	from, to := id.Index(lo), id.Index(hi)
	if from < s.g.log.FirstIndex() {
		return nil, raft.ErrCompacted
	}
	entries, ok := s.g.log.Entries(s.g.scratch[:0], from, to, limit)
	s.g.scratch = entries[:0]
	if ok {
		if !s.g.lent {
			s.g.lent = true
			s.g.turn.lent = append(s.g.turn.lent, s.g)
		}
		converted := toRaft(entries)
		clear(entries)
		return converted, nil
	}
	if from > s.g.handled {
		entries, err := s.g.log.ReadEntries(from, to, limit)
		if err != nil {
			return nil, fmt.Errorf("read unapplied entries from %d: %w", from, err)
		}
		return toRaft(entries), nil
	}
	read, err := s.g.readAhead(from, to, limit)
	s.reading = err != nil
	return read, err
}
