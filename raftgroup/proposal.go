package raftgroup

import (
	"time"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Acks says when a proposal is answered. The values are Kafka's.
type Acks int8

// When to answer.
const (
	AcksNone   Acks = 0  // when it is proposed: nothing is durable yet
	AcksLeader Acks = 1  // when the leader's own write is durable, in the same term
	AcksAll    Acks = -1 // when it is committed, and on MinInSync voters if these are more than a majority
)

// Wait says what else a proposal waits for.
type Wait uint8

// What to wait for.
const (
	WaitAcks    Wait = iota // nothing but Acks
	WaitApplied             // Machine.Apply of the entry on this replica; Result.Value is what it returned. Implies AcksAll
)

// Proposal is one batch, or one command, on its way into a group's log. It, and what it carries, belong to the group from Propose
// until Done is called; then they may be used again.
type Proposal struct {
	Batch batch.Batch // exactly one; base offset and epoch are stamped into it in place
	// Command, when not nil, is proposed instead: see package command. It takes no offset, and the machine is not asked to admit it.
	Command []byte
	Acks    Acks
	Wait    Wait
	// Deadline is when the proposal ends with a TimeoutError unless it ended before; zero: never. It is looked at with each tick.
	Deadline time.Time
	// Done is called once, in a turn of the group's worker, which may run on the goroutine of a Visit or of the store; or on the
	// goroutine of Propose when the proposal is refused at the door. It must not block, and not propose.
	Done   func(*Proposal)
	Result Result
	Owner  any // the caller's own

	counted int64 // bytes counted against the limits
}

// Result is the outcome of a proposal.
type Result struct {
	Err    error
	Offset id.Offset // base offset
	Index  id.Index
	Term   id.Term
	Value  any
}

// payload is what the entry will carry.
func (p *Proposal) payload() []byte {
	if p.Command != nil {
		return p.Command
	}
	return p.Batch
}

// next is the offset after the proposal, once it has a place.
func (p *Proposal) next() id.Offset {
	if p.Command != nil {
		return p.Result.Offset
	}
	return p.Batch.NextOffset()
}
