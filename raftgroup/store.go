package raftgroup

import (
	"context"
	"time"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Log is what a group asks of its log. *wal.Log is one; its documentation says what each method promises.
type Log interface {
	Group() id.Group
	Replica() id.Replica
	FirstIndex() id.Index
	LastIndex() id.Index
	Term(i id.Index) (id.Term, bool)
	NextOffset() id.Offset
	OffsetAt(i id.Index) id.Offset
	Start() wal.Start
	HardState() wal.HardState
	State() wal.State
	Entries(dst []wal.Entry, lo, hi id.Index, maxBytes int) ([]wal.Entry, bool)
	Release()
	ReadEntries(lo, hi id.Index, maxBytes int) ([]wal.Entry, error)
	SetCommit(i id.Index)
	TakeCut(st wal.State)
	DeclineCut()
	Roll()
	TrimBefore(i id.Index)
	// Condemned says what the log cannot do any more; 0: it is whole.
	Condemned() wal.Condemnation
	// Refuse takes the replica out for good: when it returns that is durable, and the store does not give the log out again. It may be
	// called by anybody, and waits for the disk.
	Refuse(ctx context.Context, reason string) error
}

// LogStore is what a host asks of the store behind its logs. *wal.Store is one.
//
// A store that is not wal's finds the log of an append with TargetOf: Append.Log is nil then.
type LogStore interface {
	Submit(appends []*wal.Append)
	SetCutTaker(func(*wal.Log))
	// SetRoundDone has done called, on the goroutine of Append.Done, after one or more calls of that. It is told whether it may take
	// its time, and submit: Submit waits for no completion then.
	SetRoundDone(done func(wal.Pace))
	// Pressure says whether it should be given more. It is asked for each message with entries.
	Pressure() wal.Pressure
	// Stalled returns for how long the commit round in flight has been waiting for the disk; 0: there is none.
	Stalled() time.Duration
}

var (
	_ Log      = (*wal.Log)(nil)
	_ LogStore = (*wal.Store)(nil)
)
