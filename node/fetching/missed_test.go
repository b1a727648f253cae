package fetching

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/wal/id"
)

// TestRousedFromTwoSides: a turn and a quorum's answer rouse one partition at once, while the session takes it. The race detector looks on.
func TestRousedFromTwoSides(t *testing.T) {
	h := newHub(t, Options{})
	s := h.NewSession()
	defer s.Close()
	require.NoError(t, s.Subscribe(Subscription{ID: 1, Partition: newReplica(t, 100)}))
	require.NoError(t, s.Subscribe(Subscription{ID: 2, Partition: newReplica(t, 100)}))
	drain(t, s)
	var all sync.WaitGroup
	for range 2 {
		for _, p := range s.places {
			all.Go(func() {
				for range 20000 {
					p.Rouse()
				}
			})
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		all.Wait()
	}()
	for over := false; !over; {
		select {
		case <-done:
			over = true
		default:
			drain(t, s)
		}
	}
	drain(t, s)
	require.Nil(t, s.roused.Load())
}

// TestNothingIsMissed does anything in any order, with a reader who serves only when he was woken, and checks that nobody then waits for
// what is there.
func TestNothingIsMissed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := NewHub(Options{})
		defer h.Close()
		s := h.NewSession()
		defer s.Close()
		var replicas []*replica
		for range 3 {
			replicas = append(replicas, newReplica(t, 10))
		}
		size := int64(len(replicas[0].batch))
		next := ID(0)
		offsets := make(map[ID]id.Offset)
		which := func() *replica { return rapid.SampledFrom(replicas).Draw(t, "partition") }
		act := map[string]func(*rapid.T){
			"subscribe": func(t *rapid.T) {
				p := which()
				next++
				offsets[next] = id.Offset(rapid.Int64Range(0, p.hw.Load()).Draw(t, "offset"))
				credit := rapid.Int64Range(0, 3).Draw(t, "credit") * size
				require.NoError(t, s.Subscribe(Subscription{ID: next, Partition: p, Offset: offsets[next], Credit: credit}))
			},
			"credit": func(t *rapid.T) {
				which := ID(rapid.Uint32Range(0, uint32(next)).Draw(t, "subscription"))
				require.NoError(t, s.Credit(which, size*rapid.Int64Range(0, 3).Draw(t, "credit")))
			},
			"unsubscribe": func(t *rapid.T) { s.Unsubscribe(ID(rapid.Uint32Range(0, uint32(next)).Draw(t, "subscription"))) },
			"commit":      func(*rapid.T) { which().commit(1) },
			"move":        func(*rapid.T) { which().move(false) },
			"lead":        func(*rapid.T) { which().move(true) },
			"close": func(t *rapid.T) {
				i := rapid.IntRange(0, len(replicas)-1).Draw(t, "partition")
				replicas[i].close()
				replicas[i] = newReplica(t, 10)
			},
		}
		// Whatever happens may also happen while somebody is served.
		meanwhile := slices.Sorted(maps.Keys(act))
		happen := func(t *rapid.T) {
			if rapid.IntRange(0, 3).Draw(t, "meanwhile") == 0 {
				act[rapid.SampledFrom(meanwhile).Draw(t, "what")](t)
			}
		}
		act[""] = func(t *rapid.T) {
			var r recorder
			for woken(s) {
				for {
					sub, credit := s.take()
					if sub == nil {
						break
					}
					v := visit{subscription: sub, credit: credit} // as Serve does it
					happen(t)
					require.NoError(t, v.serve(&r, h))
					happen(t)
					s.settle(&v)
				}
			}
			for _, e := range r.said {
				if e.next != id.NoOffset {
					offsets[e.Subscription] += id.Offset(int64(e.bytes) / size)
					require.Equal(t, offsets[e.Subscription], e.next, "records in order, each once")
				}
			}
			require.Zero(t, s.ready.len)
			for _, sub := range s.subscriptions {
				p := sub.place.partition.(*replica)
				require.True(t, p.Leads() && !p.Closed(), "subscription %d should have ended", sub.id)
				require.True(t, sub.credit <= 0 || offsets[sub.id] == p.HighWatermark(), "subscription %d waits for what is there", sub.id)
				require.NotNil(t, sub.on)
			}
		}
		t.Repeat(act)
	})
}

// TestManyAtOnce has turns, a receiver and a sender at work at once, and checks in the end that nobody waits for what is there.
func TestManyAtOnce(t *testing.T) {
	h := newHub(t, Options{})
	replicas := []*replica{newReplica(t, 10), newReplica(t, 10)}
	for _, p := range replicas {
		p.hw.Store(1)
	}
	size := int64(len(replicas[0].batch))
	const commits, subscriptions, sessions = 2000, 20, 2
	var turns, others sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	defer others.Wait()
	defer cancel()
	for _, p := range replicas {
		turns.Go(func() {
			for range commits {
				p.commit(1)
			}
		})
	}
	for range sessions {
		s := h.NewSession()
		defer s.Close()
		turns.Go(func() {
			for i := range ID(subscriptions) {
				assertNoError(t, s.Subscribe(Subscription{ID: i, Partition: replicas[i%2], Offset: id.Offset(i % 2), Credit: size}))
				assertNoError(t, s.Subscribe(Subscription{ID: i + 1000, Partition: replicas[i%2]})) // idle
			}
			for range commits {
				for i := range ID(subscriptions) {
					assertNoError(t, s.Credit(i, size))
				}
			}
		})
		at := make([]id.Offset, subscriptions)
		reached := make(chan struct{})
		others.Go(func() {
			left := subscriptions
			for {
				var r recorder
				for served := true; served; {
					served, _ = s.Serve(&r)
				}
				for _, e := range r.said {
					assertNoError(t, e.Err)
					if e.next != id.NoOffset && at[e.Subscription] < commits && e.next >= commits {
						left--
					}
					at[e.Subscription] = max(at[e.Subscription], e.next)
				}
				if left == 0 {
					close(reached)
					left = -1
				}
				if s.Wait(ctx) != nil {
					return
				}
			}
		})
		defer func() {
			select {
			case <-reached:
			case <-time.After(time.Minute):
				t.Error("somebody waits for records that are there")
			}
		}()
	}
	turns.Wait()
}

func assertNoError(t *testing.T, err error) {
	if err != nil {
		t.Error(err)
	}
}
