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
	var l loans
	var held []Loan
	add := func(first, last id.Index) {
		l = append(l, loan{first: first, last: last, data: wal.NewLoan()})
	}
	add(5, 20)
	add(21, 30)
	held = l.cut(8, held)
	require.Len(t, l, 1)
	require.EqualValues(t, 7, l[0].last)
	add(8, 9)
	held = l.end(7, held)
	require.Len(t, l, 1, "what is stable is given back")
	require.EqualValues(t, 8, l[0].first)
	require.Len(t, held, 2, "at the end of the turn")
	held = l.end(9, held)
	require.Empty(t, l)
	for _, data := range held {
		data.Release()
	}
}
