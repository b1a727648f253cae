package wal

import (
	"errors"
	"fmt"

	"github.com/quorumlog/quorumlog/wal/id"
)

// EntryKind says what an entry carries.
type EntryKind uint8

// The kinds of entries. Only KindBatch takes offsets and bytes in a segment; the others are control entries, which have an
// index row and no bytes. Their payloads stay in memory, and each cut holds all of them.
const (
	KindBatch        EntryKind = 1 // exactly one stamped RecordBatch
	KindEmpty        EntryKind = 2 // the empty entry of a new leader
	KindConfChange   EntryKind = 3 // a raftpb.ConfChange
	KindConfChangeV2 EntryKind = 4 // a raftpb.ConfChangeV2
	KindCommand      EntryKind = 5 // a command: changes what the owner derives from its log
)

// String names the kind.
func (k EntryKind) String() string {
	switch k {
	case KindBatch:
		return "batch"
	case KindEmpty:
		return "empty"
	case KindConfChange:
		return "conf change"
	case KindConfChangeV2:
		return "conf change v2"
	case KindCommand:
		return "command"
	}
	return fmt.Sprintf("EntryKind(%d)", uint8(k))
}

// Entry is one entry of a log.
type Entry struct {
	Index id.Index
	Term  id.Term
	Kind  EntryKind
	Data  []byte
	// Roll has the entry begin a new segment when it is appended, unless the one that is written to has none. It is not stored.
	Roll bool
}

// HardState is what Raft must not forget. Commit is a hint: it may come back lower than it was.
type HardState struct {
	Term   id.Term
	Vote   id.Replica
	Commit id.Index
}

// Start is the point before the first entry of a log: index and term of the entry before it, and the offset of the first
// record at or after it.
type Start struct {
	Index  id.Index
	Term   id.Term
	Offset id.Offset
}

// State is what the owner of a log derives from its entries, as of Applied. The wal stores it with each cut and gives it back
// after recovery; it never looks inside.
type State struct {
	Applied   id.Index
	ConfState []byte
	View      []byte
}

// Spec describes a log to be created.
type Spec struct {
	Group   id.Group
	Replica id.Replica
	// Name is the partition's name, "topic-0". With the replica's id, which no other log of the store has or had, it makes the name of
	// the directory.
	Name      string
	Topic     id.Topic
	Start     Start
	HardState HardState
	State     State
	// SegmentBytes is the size at which segments roll; 0 takes Options.SegmentBytes.
	SegmentBytes int64
}

// Refusal is a replica that recovery could not vouch for, or that was taken out since. Its log is not opened at the next start and its files are left alone until the
// replica is deleted with [Store.DeleteRefused]; it must never come back under the same replica id.
type Refusal struct {
	Group   id.Group
	Replica id.Replica
	Name    string
	Reason  string
}

// Reset makes a log empty at a point, as a snapshot does.
type Reset struct {
	Start Start
	State State
}

// Append is one submission to one log. It belongs to the wal from Submit until Done is called.
type Append struct {
	Log *Log
	// Entries are consecutive. A first index at or below the log's last one truncates the log there first. Batches must have
	// passed batch.Check: the log relies on their own CRC.
	//
	// Submit copies the Data, which may be used again when it returns.
	Entries []Entry
	// Loan, when not nil, is filled by Submit, which puts the log's own copy of each batch into Entries: to be read by those who
	// hold the loan. The references are the submitter's.
	Loan *Loan
	// HardState, when not nil, replaces the log's hard state.
	HardState *HardState
	// Reset, when not nil, empties the log before Entries are appended.
	Reset *Reset
	// Done is called by the committer goroutine when this and every earlier submission to the log are durable, in the order of
	// submission, also for one that needs no sync. It must not block. It is not called for submissions still in flight when the
	// store fails or their log is deleted.
	Done func(*Append)
	// Owner is the submitter's own.
	Owner any

	plan appendPlan // what Submit decided, for the committer
}

// Pace says whether the committer's goroutine has time.
type Pace uint8

// Paces.
const (
	PaceBusy      Pace = iota // rounds wait, or are large: whatever takes time belongs elsewhere
	PaceLeisurely             // a small round is done, and nothing waits
)

// Pressure says whether more data should be accepted.
type Pressure uint8

// Pressures, in the order of severity. Votes, hard states and commits are taken under each of them.
const (
	PressureNone     Pressure = iota
	PressureThrottle          // the tails' memory or the journal is near its bound: hold producers back
	PressureNoSpace           // free disk is below the reserve: refuse producers
)

// String names the pressure.
func (p Pressure) String() string {
	switch p {
	case PressureThrottle:
		return "throttle"
	case PressureNoSpace:
		return "no space"
	}
	return "none"
}

// Errors of the store. All are used with errors.Is.
var (
	ErrExists       = errors.New("wal: the replica exists already")
	ErrClosed       = errors.New("wal: the store is closed")
	ErrNotFound     = errors.New("wal: no such key")
	ErrCompacted    = errors.New("wal: the entries are before the start of the log")
	ErrUnavailable  = errors.New("wal: the entries are after the end of the log")
	ErrCorrupt      = errors.New("wal: stored bytes do not match their checksum")
	ErrDeleted      = errors.New("wal: the log is deleted")
	ErrOutOfRange   = errors.New("wal: the offset is outside the log")
	ErrTooManyBytes = errors.New("wal: the entry is larger than a segment can hold")
)

// ErrOffsetOutOfRange is the error of a read outside of a log's offsets. errors.Is finds it as ErrOutOfRange.
type ErrOffsetOutOfRange struct {
	Offset     id.Offset // what was asked for
	Start, End id.Offset // what the log has: [Start, End)
}

// Error implements error.
func (e ErrOffsetOutOfRange) Error() string {
	return fmt.Sprintf("wal: offset %d is outside of the log, which has [%d, %d)", e.Offset, e.Start, e.End)
}

// Is tells that e is an ErrOutOfRange.
func (e ErrOffsetOutOfRange) Is(target error) bool { return target == ErrOutOfRange }
