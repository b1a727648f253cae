package serving

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/wal/id"
)

// TestEpochsBelowTheLogStart: of epochs 3 [0, 10), 5 [10, 20), 7 [20, …), with the log start inside of 7, nothing is said of the first two, whether or
// not this replica has them.
func TestEpochsBelowTheLogStart(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		asked, found id.Epoch
		end, start   id.Offset
		wantEpoch    id.Epoch
		wantEnd      id.Offset
	}{
		{4, 3, 10, 0, 3, 10},
		{4, 3, 10, 5, 3, 10},
		{4, 3, 10, 10, 4, 10},
		{4, 3, 10, 25, 4, 25},
		{4, 4, 20, 25, 4, 25}, // it begins with 7
		{6, 5, 20, 25, 6, 25},
		{7, 7, 30, 25, 7, 30},
		{7, 7, 30, 30, 7, 30},
	} {
		epoch, end := visibleEnd(tt.asked, tt.found, tt.end, tt.start)
		require.Equal(t, tt.wantEpoch, epoch, "%+v", tt)
		require.Equal(t, tt.wantEnd, end, "%+v", tt)
	}
}
