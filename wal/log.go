package wal

import "github.com/quorumlog/quorumlog/wal/id"

// Log is the log of one replica. Methods that say "owner" are called by the one goroutine that submits to it; all others by
// anyone.
type Log struct{}

// Group returns the log's Raft group.
func (l *Log) Group() id.Group { return 0 }

// Replica returns the replica whose log it is.
func (l *Log) Replica() id.Replica { return 0 }

// Name returns the partition's name.
func (l *Log) Name() string { return "" }

// Topic returns the id of the topic.
func (l *Log) Topic() id.Topic { return id.Topic{} }

// FirstIndex returns the index of the first entry that the log has or will have.
func (l *Log) FirstIndex() id.Index { return 0 }

// LastIndex returns the index of the last entry submitted, or Start().Index when there is none.
func (l *Log) LastIndex() id.Index { return 0 }

// Term returns the term of an entry; false when i is not in [Start().Index, LastIndex()].
func (l *Log) Term(i id.Index) (id.Term, bool) { return 0, false }

// NextOffset returns the offset after the last record submitted: the LEO.
func (l *Log) NextOffset() id.Offset { return 0 }

// StartOffset returns the offset of the first record that the log has or will have.
func (l *Log) StartOffset() id.Offset { return 0 }

// Start returns the point before the first entry.
func (l *Log) Start() Start { return Start{} }

// HardState returns the hard state last submitted, or as recovered or created.
func (l *Log) HardState() HardState { return HardState{} }

// State returns the state of the last cut or reset, or as recovered or created.
func (l *Log) State() State { return State{} }

// Entries appends the entries [lo, hi) to dst, as many as maxBytes of data allow but at least one, from memory only; false
// when the first is not in memory, or not in the log. Owner. Data aliases the tail: it is valid until the owner next submits
// to the log or returns from its turn, whichever is first.
func (l *Log) Entries(dst []Entry, lo, hi id.Index, maxBytes int) ([]Entry, bool) { return dst, false }

// ReadEntries returns the entries [lo, hi), as many as maxBytes of data allow but at least one, in fresh memory. It may read
// the disk. ErrCompacted and ErrUnavailable say that lo is before or after what the log has.
func (l *Log) ReadEntries(lo, hi id.Index, maxBytes int) ([]Entry, error) { return nil, errBoot }

// SetCommit says that entries up to i are committed. Owner. Lower values than before are ignored.
func (l *Log) SetCommit(i id.Index) {}

// TakeCut gives the state of the log's owner as of st.Applied for the checkpoint that asked for it. Owner.
func (l *Log) TakeCut(st State) {}

// Read appends to dst whole batches as they are stored, beginning with the one that holds offset from, all of them below
// limit (exclusive, normally the high watermark), as many as maxBytes allow but at least one. It appends nothing when from
// is at limit. ErrOffsetOutOfRange when from is outside [StartOffset, limit].
func (l *Log) Read(dst []byte, from, limit id.Offset, maxBytes int) ([]byte, error) {
	return dst, errBoot
}

// OffsetAt returns the offset of the first record at or after entry i, so that the high watermark is OffsetAt(commit+1).
func (l *Log) OffsetAt(i id.Index) id.Offset { return 0 }

// OffsetForTime returns base offset and maximum timestamp of the first batch below limit whose maximum timestamp is at least
// ts (milliseconds); false when there is none.
func (l *Log) OffsetForTime(ts int64, limit id.Offset) (id.Offset, int64, bool) {
	return id.NoOffset, -1, false
}
