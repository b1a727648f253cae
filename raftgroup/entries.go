package raftgroup

import (
	"math"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup/command"
	"github.com/quorumlog/quorumlog/wal"
)

// raftEntry is an entry and its scalars in one piece of memory: a slice of them costs two allocations, whatever its length.
type raftEntry struct {
	entry       raftpb.Entry
	index, term uint64
	kind        raftpb.EntryType
}

// maxTerm is the largest term that a leader epoch can say.
const maxTerm = math.MaxInt32

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
	switch data := e.GetData(); {
	case len(data) == 0:
		return wal.KindEmpty
	case command.Is(data):
		return wal.KindCommand
	}
	return wal.KindBatch
}

// handle is what Raft is given in place of a batch. It clones what is proposed, and that copy of each batch into fresh memory would
// cost more than all else that Raft does. In the same turn the Ready has the entries, and redeem gives each its batch; Raft's own
// messages to followers share the entries with the Ready. Between the two nothing is stepped that could keep an entry out of the
// Ready and leave it in a message.
//
// Raft sees the handle's size where it counts what is in flight to a follower; Propose and the lanes count bytes.
var handle = []byte("proposal")

// isHandle tells whether data is a handle, by its size: no batch is as short.
func isHandle(data []byte) bool { return len(data) == len(handle) }

// batchBytes returns what the batches of a MsgApp weigh.
func batchBytes(m *raftpb.Message) (bytes int64) {
	for _, e := range m.GetEntries() {
		if walKind(e) == wal.KindBatch {
			bytes += int64(len(e.GetData()))
		}
	}
	return bytes
}
