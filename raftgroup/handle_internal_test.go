package raftgroup

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

func handleEntry(index uint64) *raftpb.Entry {
	return &raftpb.Entry{Index: new(index), Term: new(uint64(1)), Data: handle}
}

// TestRedeemGoesByIndex: each entry gets the batch that was proposed at its index, and nothing else is touched.
func TestRedeemGoesByIndex(t *testing.T) {
	g := &group{turn: &turn{}}
	for i := range 3 {
		g.fresh = append(g.fresh, &Proposal{Batch: batch.Batch{byte(i)}, Result: Result{Index: id.Index(11 + i)}})
	}
	control := &raftpb.Entry{Index: new(uint64(10)), Term: new(uint64(1))}
	entries := []*raftpb.Entry{control, handleEntry(11), handleEntry(12), handleEntry(13)}
	g.redeem(entries)
	require.Nil(t, control.Data)
	for i, e := range entries[1:] {
		require.Equal(t, []byte{byte(i)}, e.Data)
	}
	require.Empty(t, g.fresh)
}

// TestHandlesStopTheReplica: an entry that still has its handle is neither stored nor sent.
func TestHandlesStopTheReplica(t *testing.T) {
	g := &group{turn: &turn{}}
	require.False(t, g.noteEntries([]*raftpb.Entry{handleEntry(1)}))
	require.ErrorContains(t, g.broken, "without its batch")

	g = &group{turn: &turn{}}
	require.True(t, g.sound(&raftpb.Message{Entries: []*raftpb.Entry{{Index: new(uint64(1))}}}), "a leader's empty entry")
	require.False(t, g.sound(&raftpb.Message{Entries: []*raftpb.Entry{handleEntry(2)}}))
	require.ErrorContains(t, g.broken, "without its batch")
}

// TestLoansAreOfTheTerm: a message of a term that is over is copied, although the log has entries at the same indexes.
func TestLoansAreOfTheTerm(t *testing.T) {
	g := &group{turn: &turn{}, term: 6, role: Leader}
	lent := wal.NewLoan()
	defer lent.Release()
	g.loans = append(g.loans, loan{first: 10, last: 12, data: lent})
	message := func(term, first uint64) *raftpb.Message {
		return &raftpb.Message{Term: new(term), Entries: []*raftpb.Entry{{Index: new(first)}, {Index: new(first + 1)}}}
	}
	require.NotNil(t, g.loanFor(message(6, 10)))
	require.Nil(t, g.loanFor(message(5, 10)), "of another term")
	require.Nil(t, g.loanFor(message(6, 12)), "the last entry is not in the loan")
	g.role = Follower
	require.Nil(t, g.loanFor(message(6, 10)), "of a leader that leads no more")
}
