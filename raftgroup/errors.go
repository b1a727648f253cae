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

// FailedError says why a replica was stopped for good. It is not opened again in this process: what it stored cannot be
// trusted to be what it acknowledged, so it is to be replaced by a new replica.
type FailedError struct {
	Group   id.Group
	Replica id.Replica
	Cause   error
}

// Error implements error.
func (e *FailedError) Error() string {
	return fmt.Sprintf("raftgroup: replica %d of group %d stopped: %v; replace it by a new replica", e.Replica, e.Group, e.Cause)
}

// Unwrap returns the cause.
func (e *FailedError) Unwrap() error { return e.Cause }
