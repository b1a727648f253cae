package fetching

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

func TestSubscription(t *testing.T) {
	h := newHub(t, Options{})
	s := h.NewSession()
	defer s.Close()
	p := newReplica(t, 100)
	size := int64(len(p.batch))
	p.hw.Store(3)
	require.NoError(t, s.Subscribe(Subscription{ID: 1, Partition: p, Offset: 1, Credit: 3 * size}))
	require.True(t, woken(s))
	got := drain(t, s)
	require.Len(t, got, 2)
	require.EqualValues(t, 3, got[0].next)
	require.EqualValues(t, 3, got[1].Limit, "it has caught up")
	require.Equal(t, id.NoOffset, got[1].next)

	p.commit(2)
	require.True(t, woken(s))
	got = drain(t, s)
	require.Len(t, got, 1, "there is credit for one batch")
	require.EqualValues(t, 4, got[0].next)
	require.False(t, woken(s))
	p.commit(1)
	require.False(t, woken(s), "there is no credit")
	require.NoError(t, s.Credit(1, 1))
	require.True(t, woken(s))
	got = drain(t, s)
	require.Len(t, got, 1)
	require.EqualValues(t, 5, got[0].next, "a batch larger than the credit goes whole")
	require.NoError(t, s.Credit(1, size-1))
	require.Empty(t, drain(t, s), "and is to be paid back")

	s.Unsubscribe(1)
	require.Empty(t, s.places)
	require.Zero(t, h.Subscriptions())
	p.move(true)
	require.Nil(t, s.roused.Load(), "the partition does not know it any more")

	require.NoError(t, s.Subscribe(Subscription{ID: 2, Partition: p, Offset: 6, Credit: 1}))
	require.Len(t, drain(t, s), 1)
	s.Close()
	p.commit(1)
	require.Nil(t, s.roused.Load())
}

// TestTurnsOfOthers: a turn rouses a session at most once until it has looked, and nobody who has no credit.
func TestTurnsOfOthers(t *testing.T) {
	h := newHub(t, Options{})
	p := newReplica(t, 100)
	s := h.NewSession()
	defer s.Close()
	for i := range ID(100) {
		require.NoError(t, s.Subscribe(Subscription{ID: i, Partition: p, Credit: int64(i % 2)}))
	}
	drain(t, s)
	require.True(t, woken(s))
	place := s.places[placeKey{p, partition.ToHighWatermark}]
	require.Equal(t, 50, place.waiting.len)
	require.Equal(t, 50, place.idle.len)
	p.commit(1)
	require.True(t, woken(s))
	require.Same(t, place, s.roused.Load())
	require.Nil(t, place.below, "it is there once")
	p.commit(1)
	require.False(t, woken(s), "it has not looked yet")
	require.Len(t, drain(t, s), 50)
	require.Equal(t, 100, place.idle.len, "they had credit for one batch")
	p.commit(1)
	require.False(t, woken(s))
	require.Nil(t, s.roused.Load())
}

// TestNewSubscriptionsDoNotStarve: whoever comes is served in the next round, however much there is for the others.
func TestNewSubscriptionsDoNotStarve(t *testing.T) {
	h := newHub(t, Options{})
	s := h.NewSession()
	defer s.Close()
	old, young := newReplica(t, 100<<10), newReplica(t, 100)
	old.hw.Store(1 << 40)
	young.hw.Store(1)
	for i := range ID(3) {
		require.NoError(t, s.Subscribe(Subscription{ID: i, Partition: old, Credit: math.MaxInt64}))
	}
	var r recorder
	serve := func() said {
		served, err := s.Serve(&r)
		require.NoError(t, err)
		require.True(t, served)
		return r.said[len(r.said)-1]
	}
	for i := range 10 {
		got := serve()
		require.EqualValues(t, i%3, got.Subscription)
		require.LessOrEqual(t, got.bytes, pieceBytes)
	}
	require.NoError(t, s.Subscribe(Subscription{ID: 3, Partition: young, Credit: 1}))
	for _, want := range []ID{1, 2, 0, 3, 1, 2, 0} {
		require.Equal(t, want, serve().Subscription)
	}
}

func TestCreditHasATop(t *testing.T) {
	h := newHub(t, Options{})
	s := h.NewSession()
	defer s.Close()
	p := newReplica(t, 100)
	require.NoError(t, s.Subscribe(Subscription{ID: 1, Partition: p, Credit: math.MaxInt64}))
	require.NoError(t, s.Credit(1, math.MaxInt64))
	require.NoError(t, s.Credit(1, math.MaxInt64))
	p.hw.Store(1)
	require.Len(t, drain(t, s), 2)
	require.Equal(t, math.MaxInt64-int64(len(p.batch)), s.subscriptions[1].credit)
	require.Equal(t, kerr.InvalidRequest, kerr.CodeOf(s.Credit(1, -1)))
	require.Equal(t, kerr.InvalidRequest, kerr.CodeOf(s.Subscribe(Subscription{ID: 2, Partition: p, Credit: math.MinInt64})))
	require.NoError(t, s.Credit(3, 1), "it may have ended")
}

// TestCreditWhileServed: credit that comes when a subscription was found to have none, and is not put to rest yet.
func TestCreditWhileServed(t *testing.T) {
	h := newHub(t, Options{})
	s := h.NewSession()
	defer s.Close()
	p := newReplica(t, 100)
	p.hw.Store(1)
	require.NoError(t, s.Subscribe(Subscription{ID: 1, Partition: p}))
	sub, credit := s.take()
	v := visit{subscription: sub, credit: credit}
	require.NoError(t, v.serve(new(recorder), h))
	require.NoError(t, s.Credit(1, 1))
	s.settle(&v)
	require.Len(t, drain(t, s), 1)
}

// TestUnsubscribeWhileReading: the piece is still sent, and nothing stays behind.
func TestUnsubscribeWhileReading(t *testing.T) {
	h := newHub(t, Options{})
	s := h.NewSession()
	defer s.Close()
	p := newReplica(t, 100)
	p.hw.Store(10)
	p.reading = func() { s.Unsubscribe(1) }
	require.NoError(t, s.Subscribe(Subscription{ID: 1, Partition: p, Credit: 1}))
	require.Len(t, drain(t, s), 1)
	require.Empty(t, s.subscriptions)
	require.Empty(t, s.places)
	require.Zero(t, h.Subscriptions())
	woken(s)
	p.commit(1)
	p.move(false)
	require.False(t, woken(s))
}

// TestRefusedSubscriptions: they are ended one by one, and the session goes on.
func TestRefusedSubscriptions(t *testing.T) {
	h := newHub(t, Options{Node: 7, MaxSubscriptions: 2})
	p := newReplica(t, 100)
	a, b := h.NewSession(), h.NewSession()
	require.NoError(t, a.Subscribe(Subscription{ID: 1, Partition: p}))
	require.NoError(t, a.Subscribe(Subscription{ID: 2}))
	require.NoError(t, b.Subscribe(Subscription{ID: 1, Partition: p}))
	got := drain(t, b)
	require.Len(t, got, 1)
	require.Equal(t, kerr.ThrottlingQuotaExceeded, kerr.CodeOf(got[0].Err))
	got = drain(t, a)
	require.Len(t, got, 1)
	require.Equal(t, kerr.UnknownTopicOrPartition, kerr.CodeOf(got[0].Err))
	require.NoError(t, b.Subscribe(Subscription{ID: 2, Partition: p}))
	require.Empty(t, drain(t, b))
	require.EqualValues(t, 2, h.Subscriptions())
	a.Close()
	require.Error(t, a.Subscribe(Subscription{ID: 5, Partition: p}))
	require.EqualValues(t, 1, h.Subscriptions())
	b.Close()
	require.Zero(t, h.Subscriptions())

	s := newHub(t, Options{}).NewSession()
	defer s.Close()
	for i := range ID(maxSubscriptions) {
		require.NoError(t, s.Subscribe(Subscription{ID: i, Partition: p}))
	}
	require.Equal(t, kerr.PolicyViolation, kerr.CodeOf(s.Subscribe(Subscription{ID: maxSubscriptions, Partition: p})))
}

// TestLongPoll is how a protocol that polls uses a session: serve until there is enough, or wait for as long as the poll may. What is left
// stays ready, so the next poll begins with whoever had no turn in this one.
func TestLongPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := NewHub(Options{})
		defer h.Close()
		s := h.NewSession()
		defer s.Close()
		a, b := newReplica(t, 100), newReplica(t, 100)
		size := len(a.batch)
		require.NoError(t, s.Subscribe(Subscription{ID: 1, Partition: a, Credit: math.MaxInt64}))
		require.NoError(t, s.Subscribe(Subscription{ID: 2, Partition: b, Credit: math.MaxInt64}))
		poll := func(atLeast, most int, wait time.Duration) (from []ID) {
			ctx, cancel := context.WithTimeout(t.Context(), wait)
			defer cancel()
			bytes := 0
			for bytes < most {
				var r recorder
				served, err := s.Serve(&r)
				require.NoError(t, err)
				for _, e := range r.said {
					if bytes += e.bytes; e.bytes > 0 {
						from = append(from, e.Subscription)
					}
				}
				if !served && (bytes >= atLeast || s.Wait(ctx) != nil) {
					break
				}
			}
			return from
		}
		begin := time.Now()
		require.Empty(t, poll(1, 1000, time.Second))
		require.Equal(t, time.Second, time.Since(begin), "there is nothing")
		a.commit(1)
		b.commit(1)
		require.Len(t, poll(1, 1, time.Second), 1, "one is enough")
		a.commit(1)
		b.commit(1)
		begin = time.Now()
		require.Len(t, poll(1, 1000, time.Second), 2, "one of them has two records")
		require.Zero(t, time.Since(begin))
		go func() {
			for range 2 {
				<-time.After(time.Second)
				b.commit(1)
			}
		}()
		begin = time.Now()
		require.Equal(t, []ID{2, 2}, poll(2*size, 1000, time.Minute))
		require.Equal(t, 2*time.Second, time.Since(begin), "it waits for as much as it wants")
	})
}
