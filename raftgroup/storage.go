package raftgroup

import (
	"fmt"
	"math"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// storage is Raft's view of a group's log. All of it runs inside calls of the RawNode, hence in its worker's turns.
//
// Raft asks for entries for two purposes. Those it needs itself, above applied, must be there at once: they are in the log's
// memory, but for the first moments after a restart. Those for a lagging follower may have to be read from disk, which must
// not hold up the worker: a read is started, and Raft is told ErrCompacted and then that no snapshot can be had just now. It
// then leaves the follower alone, without a change of state, until it hears from it again. When the read is done the worker
// pretends just that.
type storage struct {
	g         *Group
	hardState *raftpb.HardState // both as handed to the RawNode when the replica was opened
	confState *raftpb.ConfState
	scratch   []wal.Entry
	lent      bool // the log has lent memory in this turn
	windows   []*readWindow
	failing   bool // the last read for a follower failed, which was said
}

// maxWindowsPerGroup bounds reads and their results; Options.Readers and windowBudget bound them over all groups.
const maxWindowsPerGroup = 4

// InitialState implements raft.Storage.
func (s *storage) InitialState() (*raftpb.HardState, *raftpb.ConfState, error) {
	return s.hardState, s.confState, nil
}

// FirstIndex implements raft.Storage.
func (s *storage) FirstIndex() (uint64, error) { return uint64(s.g.log.FirstIndex()), nil }

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

// Snapshot implements raft.Storage. See the package documentation: none is ever needed.
func (s *storage) Snapshot() (*raftpb.Snapshot, error) {
	return nil, raft.ErrSnapshotTemporarilyUnavailable
}

// Entries implements raft.Storage. What it returns aliases the log's memory until the end of the turn: messages are encoded
// and entries applied by then.
func (s *storage) Entries(lo, hi, maxSize uint64) ([]*raftpb.Entry, error) {
	limit := int(min(maxSize, math.MaxInt32))
	from, to := id.Index(lo), id.Index(hi)
	if from < s.g.log.FirstIndex() {
		s.g.w.n.belowStart.Add(1)
		return nil, raft.ErrCompacted
	}
	entries, ok := s.g.log.Entries(s.scratch[:0], from, to, limit)
	s.scratch = entries[:0]
	if ok {
		if !s.lent && s.g.w != nil {
			s.lent = true
			s.g.w.lent = append(s.g.w.lent, s.g)
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
	return s.readAhead(from, to, limit)
}

// raftEntry is an entry and its scalars in one piece of memory: a slice of them costs two allocations, whatever its length.
type raftEntry struct {
	entry       raftpb.Entry
	index, term uint64
	kind        raftpb.EntryType
}

// toRaft converts entries; Data is shared.
func toRaft(entries []wal.Entry) []*raftpb.Entry {
	slab := make([]raftEntry, len(entries))
	out := make([]*raftpb.Entry, len(entries))
	for i := range entries {
		e, r := &entries[i], &slab[i]
		r.index, r.term, r.kind = uint64(e.Index), uint64(e.Term), raftKind(e.Kind)
		r.entry.Index, r.entry.Term, r.entry.Type = &r.index, &r.term, &r.kind
		r.entry.Data = e.Data
		out[i] = &r.entry
	}
	return out
}

func raftKind(k wal.EntryKind) raftpb.EntryType {
	switch k {
	case wal.KindConfChange:
		return raftpb.EntryConfChange
	case wal.KindConfChangeV2:
		return raftpb.EntryConfChangeV2
	}
	return raftpb.EntryNormal
}

func walKind(e *raftpb.Entry) wal.EntryKind {
	switch e.GetType() {
	case raftpb.EntryConfChange:
		return wal.KindConfChange
	case raftpb.EntryConfChangeV2:
		return wal.KindConfChangeV2
	}
	if len(e.GetData()) == 0 {
		return wal.KindEmpty
	}
	return wal.KindBatch
}
