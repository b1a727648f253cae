package raftgroup

import (
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Machine is what a group's log is for. Every method is called on the group's worker, never two at once, and must not block.
// For one entry the order is Admit (on the leader that takes it) or Append (everywhere else, and when a replica is opened,
// for what is above State.Applied), then Committed, then Apply; Truncate may take back anything that was not applied.
//
// Batches and data alias memory of the log or of the proposal: they are valid until the call returns.
type Machine interface {
	// Admit decides about a batch that is about to be proposed, stamped with the offset it will get at index. Accept also
	// notes it in the overlay: a Truncate follows if it is not proposed after all.
	Admit(index id.Index, term id.Term, b batch.Batch) Admission
	// Append tells of a batch that entered the log without Admit.
	Append(index id.Index, term id.Term, b batch.Batch)
	// Truncate tells that entries at from and above left the log.
	Truncate(from id.Index)
	// Apply takes the next committed entry: every one, control entries and commands included, in order, once for each time the view
	// was restored. The result is given to a proposal that waits for it.
	//
	// An error says that this machine cannot follow the log over this entry, which a later release may have written: the entry, and all of
	// what the machine is for, is as if Apply had not been called. It must come of the entry and the release alone, never of the replica: it
	// halts each replica of that release at this very entry. Nothing further is applied then, and no cut is taken; the machine is asked and
	// told of no entries any more, Committed, Elected and Leader go on. It begins again where the last cut was when the replica is opened anew.
	//
	// A refusal of an entry that the machine does understand is a result, and no error.
	Apply(index id.Index, term id.Term, kind wal.EntryKind, data []byte) (any, error)
	// Committed tells that the high watermark moved.
	Committed(hw id.Offset)
	// Elected tells that this replica is about to lead, before anybody else can know: the log has everything that was ever committed, and it may
	// be long before more is committed, or applied.
	Elected()
	// Leader tells that leader, term or role changed. It is called once when the replica is opened.
	Leader(l LeaderChange)
	// InSync tells that the leader, which this replica is or becomes with the call of Leader that follows in the same turn, judges the members
	// in another way than it said last. Nobody changes the nodes afterwards.
	InSync(s InSync)
	// View returns the state as of the last Apply, to be kept in the log's cut. The result belongs to the caller.
	View() []byte
	// CheckView tells whether Restore can make something of a view that another replica's View returned, perhaps one of a later release. It
	// changes nothing.
	CheckView(view []byte) error
	// Restore replaces the state, and empties the overlay, by the view of another replica as of applied, which CheckView has accepted just
	// before: the log begins anew, at or below applied. Entries up to applied that it gets are not shown to the machine. An error stops the
	// replica.
	Restore(view []byte, applied id.Index) error
	// Rolls tells whether a command, before which the log ends at next, is to begin a new segment: one that lets go of all that is before
	// it, which the log can only do with whole segments. It is asked when the entry is stored, on each replica, and says the same whenever
	// it is asked: it must not look at the state.
	Rolls(command []byte, next id.Offset) bool
}

// Admission is a Machine's decision about a batch: Accept, Refuse(err) or Duplicate(...).
type Admission struct {
	verdict verdict
	err     error
	index   id.Index
	term    id.Term
	offset  id.Offset
}

type verdict uint8

const (
	accept verdict = iota
	refuse
	duplicate
)

// Accept admits a batch.
func Accept() Admission { return Admission{} }

// Refuse refuses a batch; its proposal ends with err.
func Refuse(err error) Admission { return Admission{verdict: refuse, err: err} }

// Duplicate says that the batch is in the log already, at (index, term) with base offset. Its proposal waits for that entry
// and ends with its offset. Index 0 says that the entry is known to be committed.
func Duplicate(index id.Index, term id.Term, offset id.Offset) Admission {
	return Admission{verdict: duplicate, index: index, term: term, offset: offset}
}
