package raftgroup

import (
	"errors"
	"fmt"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Errors of proposals and of calls to groups. All but ErrClosed may go away on a retry.
var (
	// ErrOverloaded says that the group or the host has too many bytes waiting for commit. Nothing was proposed: slow down.
	ErrOverloaded = errors.New("raftgroup: too many bytes wait for commit; retry later")
	// ErrNotEnoughReplicas says that fewer replicas are in sync than min.insync.replicas, or fewer than a majority of the
	// voters alive. Nothing was proposed.
	ErrNotEnoughReplicas = errors.New("raftgroup: fewer replicas in sync than required; nothing was appended")
	// ErrNoSpace says that the disks of so many replicas are full that no batch can commit. Nothing was proposed.
	ErrNoSpace = errors.New("raftgroup: the disks of too many replicas are full; nothing was appended: free space, delete records or topics")
	// ErrNotEnoughReplicasAfterAppend says the same of a batch that was appended and committed, but has not reached as many
	// replicas as min.insync.replicas asks for.
	ErrNotEnoughReplicasAfterAppend = errors.New("raftgroup: appended, but on fewer replicas than required")
	// ErrProposalDropped says that Raft refused the proposal, for instance while leadership is handed over.
	ErrProposalDropped = errors.New("raftgroup: proposal dropped; retry")
	// ErrClosed says that the replica or its host was closed.
	ErrClosed = errors.New("raftgroup: replica is closed")
	// ErrConfChangeRefused says that Raft turned a membership change into an empty entry: another one is not finished, or the
	// change does not fit the present configuration.
	ErrConfChangeRefused = errors.New("raftgroup: membership change refused: another one is unfinished, or it does not fit the configuration")
	// ErrTransferFailed says that leadership was not handed over in time, or went to another replica.
	ErrTransferFailed = errors.New("raftgroup: leadership was not transferred")
	// ErrUnknownReplica says that a replica is no voter of the group.
	ErrUnknownReplica = errors.New("raftgroup: not a voter of the group")
	// ErrUnusableLog says that a replica cannot be opened, now or ever, because of what its log holds.
	ErrUnusableLog = errors.New("the log cannot be used")
	// ErrExists says that the host has a replica of the group already.
	ErrExists = errors.New("raftgroup: the group is open on this host")
)

// NotLeaderError says that the replica does not lead its group, or stopped leading it before the outcome was known: then the
// entry may or may not be committed later. errors.Is(err, ErrNotLeader) holds for each.
type NotLeaderError struct {
	Leader id.Node // where the leader is believed to be, or id.NoNode
}

// ErrNotLeader is what every NotLeaderError is, in the sense of errors.Is.
var ErrNotLeader = errors.New("raftgroup: not the leader")

// Error implements error.
func (e *NotLeaderError) Error() string {
	if e.Leader == id.NoNode {
		return ErrNotLeader.Error() + "; none is known"
	}
	return fmt.Sprintf("%v; try node %d", ErrNotLeader, e.Leader)
}

// Is makes every NotLeaderError an ErrNotLeader.
func (e *NotLeaderError) Is(target error) bool { return target == ErrNotLeader }

// HaltedError says why a replica applies nothing from an entry on: its machine does not know what is in it. It follows and votes, and goes
// on applying when it is opened by a release that does. A proposal that ends with it may have been committed, or be committed later.
type HaltedError struct {
	Group   id.Group
	Replica id.Replica
	Index   id.Index // of the entry
	Cause   error
}

// Error implements error.
func (e *HaltedError) Error() string {
	return fmt.Sprintf("raftgroup: replica %d of group %d applies nothing from entry %d on: %v; start this node with a newer release",
		e.Replica, e.Group, e.Index, e.Cause)
}

// Unwrap returns the cause.
func (e *HaltedError) Unwrap() error { return e.Cause }

// FailedError says why a replica takes part in nothing any more. Refused: what it stored is not what it acknowledged. That is durable; the
// replica is never opened again, and is to be replaced by a new one. Else it is not opened again in this process.
type FailedError struct {
	Group   id.Group
	Replica id.Replica
	Refused bool
	Cause   error
}

// Error implements error.
func (e *FailedError) Error() string {
	if e.Refused {
		return fmt.Sprintf("raftgroup: replica %d of group %d is refused, for good: %v; replace it by a new replica", e.Replica, e.Group, e.Cause)
	}
	return fmt.Sprintf("raftgroup: replica %d of group %d stopped: %v; it takes part again when its node is started again",
		e.Replica, e.Group, e.Cause)
}

// Unwrap returns the cause.
func (e *FailedError) Unwrap() error { return e.Cause }

// TimeoutError ends a proposal whose Deadline has passed, and says how far it came. Nothing is taken back: what was appended may yet be
// committed, or be cut off by another leader.
type TimeoutError struct {
	Index  id.Index  // of its entry; 0: it was not appended, and never will be
	Offset id.Offset // where that begins
}

// Error implements error.
func (e *TimeoutError) Error() string {
	if e.Index == 0 {
		return "raftgroup: not appended in time, nor will it be"
	}
	return fmt.Sprintf("raftgroup: appended at offset %d and not committed in time: it may be later", e.Offset)
}

// errLostEntries says that a leader counts on entries that the replica does not have. Nothing else that breaks a replica shows that its
// log is not what it acknowledged, so this alone is for good:
//
//   - Whatever Raft panics about of what is in the log, all replicas meet alike, and so does everybody whose leader sends entries that do
//     not fit. Refusing them all would be the end of the partition, and it may be the leader's log that is wrong.
//   - What is guessed or handed over wrongly in this process is found before it is stored or sent.
//
// These stop the replica as long as the process lives: the log is what it was, and its acknowledgements are true.
type errLostEntries struct{ commit, last id.Index }

// Error implements error.
func (e errLostEntries) Error() string {
	return fmt.Sprintf("the leader knows entry %d to be stored here, but the log ends at %d: acknowledged data was lost", e.commit, e.last)
}
