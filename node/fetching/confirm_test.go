package fetching

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestUnsettledStart: a new leader asks a quorum before it says anything of what a leader before may have deleted, also to who was served
// before. The others are served meanwhile, and not told of a log start.
func TestUnsettledStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHub(Options{})
		defer h.Close()
		p := newReplica(t, 100)
		p.hw.Store(10)
		answer := make(chan struct{})
		p.confirm = func(ctx context.Context) (id.Offset, error) {
			select {
			case <-answer:
				p.start.Store(p.named.Load())
				return p.HighWatermark(), nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		s := h.NewSession()
		defer s.Close()
		size := int64(len(p.batch))
		require.NoError(t, s.Subscribe(Subscription{ID: 1, Partition: p, Offset: 2, Credit: size}))
		got := drain(t, s)
		require.Len(t, got, 1)
		require.EqualValues(t, 3, got[0].next)
		require.Zero(t, got[0].LogStart)

		p.named.Store(5) // it leads again, in a later term
		p.move(true)
		require.NoError(t, s.Credit(1, size))
		require.NoError(t, s.Subscribe(Subscription{ID: 2, Partition: p, Offset: 4, Credit: size}))
		require.NoError(t, s.Subscribe(Subscription{ID: 3, Partition: p, Offset: 5, Credit: size}))
		got = drain(t, s)
		require.Len(t, got, 1)
		require.EqualValues(t, 3, got[0].Subscription)
		require.EqualValues(t, 6, got[0].next)
		require.Equal(t, id.NoOffset, got[0].LogStart)
		p.commit(1)
		synctest.Wait()
		require.Empty(t, drain(t, s), "only a quorum knows")

		close(answer)
		synctest.Wait()
		got = drain(t, s)
		require.Len(t, got, 2)
		for i, e := range got {
			gone := (*partition.ErrOutOfRange)(nil)
			require.ErrorAs(t, e.Err, &gone)
			require.EqualValues(t, i+1, e.Subscription)
			require.EqualValues(t, 5, gone.Start)
			require.EqualValues(t, 5, e.LogStart)
		}
	})
}

// TestConfirm: who begins where there is nothing waits for a quorum, and nobody waits with him. It is asked once for all who have asked
// before it was.
func TestConfirm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHub(Options{})
		defer h.Close()
		p, other := newReplica(t, 100), newReplica(t, 100)
		other.hw.Store(1)
		answer := make(chan id.Offset)
		asked := 0
		p.confirm = func(ctx context.Context) (id.Offset, error) {
			asked++
			select {
			case hw := <-answer:
				return hw, nil
			case <-ctx.Done():
				return 0, ctx.Err()
			}
		}
		var sessions [2]*Session
		for i := range sessions {
			s := h.NewSession()
			defer s.Close()
			for n := range ID(100) {
				require.NoError(t, s.Subscribe(Subscription{ID: n, Partition: p, Offset: id.Offset(n) + 1}))
			}
			require.NoError(t, s.Subscribe(Subscription{ID: 100, Partition: other, Credit: 1}))
			sessions[i] = s
		}
		for _, s := range sessions {
			got := drain(t, s)
			require.Len(t, got, 1, "the other one is not blocked")
			require.EqualValues(t, 100, got[0].Subscription)
		}
		synctest.Wait()
		require.Equal(t, 1, asked)
		// The first round may have begun with the first who asked. The second is for everybody else.
		s := sessions[0]
		require.NoError(t, s.Subscribe(Subscription{ID: 200, Partition: p, Offset: 50}))
		require.Empty(t, drain(t, s))
		answer <- 49
		synctest.Wait()
		answer <- 50
		synctest.Wait()
		require.Equal(t, 2, asked)
		require.True(t, woken(s))
		for _, s := range sessions {
			for _, e := range drain(t, s) {
				var outside *partition.ErrOutOfRange
				require.ErrorAs(t, e.Err, &outside)
				require.GreaterOrEqual(t, outside.Offset, id.Offset(50))
				require.Greater(t, outside.Offset, outside.End)
			}
		}
		require.Contains(t, s.subscriptions, ID(200), "it was asked for after the first round, which said 49, began")
		require.Contains(t, s.subscriptions, ID(48))
		require.NotContains(t, s.subscriptions, ID(99))

		// Nobody answers.
		require.NoError(t, s.Subscribe(Subscription{ID: 300, Partition: p, Offset: 1000}))
		require.Empty(t, drain(t, s))
		begin := time.Now()
		woken(s)
		require.NoError(t, s.Wait(t.Context()))
		require.Equal(t, confirmTimeout, time.Since(begin))
		got := drain(t, s)
		require.Len(t, got, 1)
		require.Equal(t, kerr.OffsetNotAvailable, kerr.CodeOf(got[0].Err))

		// The leader moves while it is asked: that is said at once.
		require.NoError(t, s.Subscribe(Subscription{ID: 400, Partition: p, Offset: 1000}))
		require.Empty(t, drain(t, s))
		p.move(false)
		for _, e := range drain(t, s) {
			require.Equal(t, kerr.NotLeaderOrFollower, kerr.CodeOf(e.Err))
		}
		require.Len(t, s.subscriptions, 1)
		p.move(true)

		// The node stops.
		require.NoError(t, s.Subscribe(Subscription{ID: 500, Partition: p, Offset: 1000}))
		require.Empty(t, drain(t, s))
		h.Close()
		require.NoError(t, s.Subscribe(Subscription{ID: 501, Partition: p, Offset: 1000}))
		got = drain(t, s)
		require.Len(t, got, 2)
		for _, e := range got {
			require.ErrorIs(t, e.Err, errClosing)
		}
	})
}

// TestMovedThereAndBack: whoever waits for a quorum is roused by a move, and finds that there was none.
func TestMovedThereAndBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHub(Options{})
		defer h.Close()
		s := h.NewSession()
		defer s.Close()
		p := newReplica(t, 100)
		answer := make(chan id.Offset)
		p.confirm = func(context.Context) (id.Offset, error) { return <-answer, nil }
		require.NoError(t, s.Subscribe(Subscription{ID: 1, Partition: p, Offset: 5, Credit: 1}))
		require.Empty(t, drain(t, s))
		synctest.Wait()
		p.move(false)
		s.mu.Lock()
		s.places[placeKey{p, partition.ToHighWatermark}].lookLocked()
		s.mu.Unlock()
		p.move(true)
		require.Empty(t, drain(t, s))
		answer <- 1
		synctest.Wait()
		require.Empty(t, drain(t, s), "that was asked before")
		answer <- 5
		synctest.Wait()
		require.Empty(t, drain(t, s))
		require.Len(t, s.subscriptions, 1)
		p.hw.Store(5)
		p.commit(1)
		require.Len(t, drain(t, s), 1)
	})
}
