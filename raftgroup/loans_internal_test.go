package raftgroup

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestLoansFollowTheLog: a truncation shortens the loan that it cuts, or the loan would be waited for until the log is as long again,
// and loans behind it with it.
func TestLoansFollowTheLog(t *testing.T) {
	g := &Group{w: &worker{}}
	add := func(first, last id.Index) {
		g.loans = append(g.loans, loan{first: first, last: last, data: wal.NewLoan()})
	}
	add(5, 20)
	add(21, 30)
	g.cutLoans(8)
	require.Len(t, g.loans, 1)
	require.EqualValues(t, 7, g.loans[0].last)
	add(8, 9)
	g.endLoans(7)
	require.Len(t, g.loans, 1, "what is stable is given back")
	require.EqualValues(t, 8, g.loans[0].first)
	require.Len(t, g.w.held, 2, "at the end of the turn")
	g.endLoans(9)
	require.Empty(t, g.loans)
	for _, l := range g.w.held {
		l.Release()
	}
}
