// Package raftgroup runs many thousands of Raft groups on a few shard workers and turns proposals into committed entries.
//
// # Life of a proposal
//
// [Group.Propose] puts a batch into the inbox of the worker that owns the group. In its next turn the worker gathers every
// batch that waits for the group, stamps base offset and leader epoch into each, asks the group's [Machine] whether to admit
// it, and steps what was admitted into Raft as one message, with a handle in place of each batch. Raft answers with a Ready: its
// entries get their batches and go to the log store together with those of all other groups of the turn, and then the messages
// for the followers leave, before the leader's own write is durable. The producer is answered when the commit index passes the
// entry, not when it was applied.
//
// # Floors
//
// A file knows those below it, and none above. TestFloors counts, and has the whole order.
//
//	host     host.go, visit.go, disks.go, refusing.go    replicas by group, what comes from other nodes
//	calls    calls.go, round.go                          Group, which callers have; what the store has completed
//	  ↓
//	worker   drive.go → worker.go → inbox.go             who takes a turn → what a turn does → what waits for it
//	  ↓
//	life     life.go, boot.go, ending.go                 a tick, a step of a turn; the first, and the last
//	         receive.go, ready.go → append.go            what comes in → what Raft makes of it → what is to be stored
//	  ↓
//	acts     propose.go → answers.go → insync.go         a proposal goes in → its answer → who has it
//	         elect.go, handover.go → transfer.go         who leads
//	         change.go, readindex.go, door.go → logstart.go
//	  ↓
//	group    group.go, roster.go, raft.go, storage.go    the state, and what it is given: a turn, an environment
//	  ↓
//	parts    entries.go, members.go, loans.go, ...       know no group
//	words    errors.go, proposal.go, machine.go, ...     what callers say and hear
//	  ↓
//	decisions  packages election, insync, waiting, door  pure: facts go in, and what to do comes out
//
// What happens further up reaches a group as data (a field of its turn, a parameter), and what it wants done there leaves it the same
// way: in lists of the turn, which the worker works off, or by one of the few functions in env.
//
// # Who owns the bytes
//
// A batch lives in what it came in, a producer's buffer or a message from the leader, until the end of the turn: the submission
// copies it into the log's memory, and Raft's entries refer to that from then on. A [wal.Loan] keeps it until Raft has let go of
// the entry; the transport takes references of its own for what it sends.
//
// # Turns
//
// A worker's groups are touched in its turns alone, one turn at a time: each group's RawNode, its waiters, its Machine and the owner's
// side of its log. A turn is: drain the inbox, step everything, then for each group that was touched propose what waits, take one Ready
// and work it off, then hand all appends to the store in one [LogStore] submission. A turn ends when no touched group has anything left to
// do, with [Options].TurnDone. There is no goroutine, timer or lock per group.
//
// Turns run on the worker's own goroutine, or, when there is little to do, on that of whoever brings it: a [Visit] of a goroutine that
// receives, or the store's after a round. turns.go says how they agree who, and drive.go who comes.
//
// Within a Ready the order is: cut at the first new entry and fail the waiters at and above it; role and term; note the new
// entries; move the commit index, high watermark and answers; apply. Answering before cutting would acknowledge the entry
// that the same Ready replaces.
//
// # What waits for the disk
//
// Votes and acknowledgements are attached by Raft to an append and leave when the store says that it, and everything
// submitted for the group before it, is durable: on the store's goroutine, straight into the transport. Responses of a
// replica to itself go back to its worker, in order; a follower has time for them until its next turn. A commit index that moved alone is
// not stored by itself: the log hears of it, and writes it along with what comes next.
//
// # Elections
//
// Package raftgroup/election decides who campaigns and when; elect.go tells it what the replica hears and does what it says. Raft's own
// timers are left for what nobody notices.
//
// # Bad disks
//
// A host judges its disk with each tick, and hears how those of other nodes are ([Host.NodeCondition]): condition.go. A follower's disk is
// asked for room at the door (door.go), and has room again when its leader lets go of records (logstart.go). A leader whose disk can take
// nothing hands over (handover.go).
//
// # Failure
//
// What breaks one replica ends that one, and the process goes on. [Standing] has a word for each way:
//
//   - halted: the machine does not know an entry ([Machine].Apply). The replica follows and votes, applies nothing further, and leads only
//     where nobody else can: halt.go.
//   - stopped: Raft panicked, or something does not fit. It takes part in nothing until the node is started again: ending.go.
//   - refused: it was told, again and again, what only a replica that lost data can be told (accusation.go). It is mute at once, and
//     reported when the store has its refusal, durably: refusing.go. It never comes back.
//
// Of the last two [Options].OnGroupFailed is told.
//
// # Snapshots
//
// A log begins later and later: its machine, or whoever has the log, lets go of what is below an offset (wal.Log.Trim). A follower that needs
// what is gone gets a snapshot: the start of the leader's log, and the leader's present state, view and configuration. Records come as
// entries, as always, from the start on. The state is some entries ahead of that start, so those are stored and committed, and not applied
// again: take.go. Nobody keeps states of the past for it.
//
// All of a snapshot is read and checked before the follower gives up anything; what it cannot read leaves it behind, with the log that it
// has. The log begins anew in one append, after which it is empty and has the state. What becomes of snapshots under way, and how many there
// may be: offer.go. How they look: snapshot.go.
package raftgroup
