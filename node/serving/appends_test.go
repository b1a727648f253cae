package serving

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/rpc/broker"
)

// TestAnswersLeaveRoom: whoever has the answer to a batch may send as much again, and is not refused for what is answered.
func TestAnswersLeaveRoom(t *testing.T) {
	var turns Turns
	b := New(Options{Node: 1, Turns: &turns, Authorizer: broker.AllowAll{}, InFlightBytes: maxInFlight})
	a := b.OpenAppender(&broker.Caller{}, func() {}).(*appender)
	require.NoError(t, a.inFlight.Take(maxInFlight))
	answered := false
	w := &proposal{appender: a, size: maxInFlight, request: &broker.Append{Done: func(*broker.Append) {
		answered = true
		require.NoError(t, a.inFlight.Take(maxInFlight))
	}}}
	w.Owner = w
	proposed(&w.Proposal)
	require.True(t, answered)
	require.EqualValues(t, maxInFlight, a.inFlight.Held())
	turns.Done()
}
