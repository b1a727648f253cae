package fetching

import (
	"context"
	"errors"
	"maps"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// replica is a partition whose batches have one record each.
type replica struct {
	partition.Waiters
	batch batch.Batch

	closed, follows atomic.Bool
	start, hw       atomic.Int64
	named           atomic.Int64 // a log start about which only a quorum knows
	confirm         func(context.Context) (id.Offset, error)
	reading         func()
}

func newReplica(t require.TestingT, valueBytes int) *replica {
	var b batch.Builder
	b.Append(batch.Record{Value: make([]byte, valueBytes)})
	made, err := b.Finish(nil, batch.Plain(batch.None))
	require.NoError(t, err)
	r := &replica{batch: made}
	r.confirm = func(context.Context) (id.Offset, error) { return r.HighWatermark(), nil }
	return r
}

func (r *replica) Closed() bool        { return r.closed.Load() }
func (r *replica) Leads() bool         { return !r.follows.Load() }
func (r *replica) LogStart() id.Offset { return id.Offset(r.start.Load()) }
func (r *replica) ShownStart() id.Offset {
	if start := r.LogStart(); r.named.Load() <= int64(start) {
		return start
	}
	return id.NoOffset
}
func (r *replica) HighWatermark() id.Offset            { return id.Offset(r.hw.Load()) }
func (r *replica) Limit(partition.ReadLimit) id.Offset { return r.HighWatermark() }

func (r *replica) ConfirmedHighWatermark(ctx context.Context) (id.Offset, error) {
	return r.confirm(ctx)
}

func (r *replica) Read(dst []byte, from id.Offset, _ partition.ReadLimit, maxBytes int) ([]byte, id.Offset, error) {
	if r.reading != nil {
		r.reading()
	}
	hw := r.HighWatermark()
	if from < id.Offset(r.named.Load()) {
		return dst, hw, partition.ErrUnsettled
	}
	for n := 0; from < hw && (n == 0 || n+len(r.batch) <= maxBytes); n += len(r.batch) {
		dst = append(dst, r.batch...)
		batch.Batch(dst[len(dst)-len(r.batch):]).Stamp(from, 1)
		from++
	}
	return dst, hw, nil
}

// commit is a turn in which the high watermark moves.
func (r *replica) commit(n int64) {
	r.hw.Add(n)
	r.Advanced(partition.ToHighWatermark)
}

func (r *replica) move(leads bool) {
	r.follows.Store(!leads)
	r.Moved()
}

func (r *replica) close() {
	r.closed.Store(true)
	r.Moved()
}

// said is an event with the records that came with it.
type said struct {
	Event
	next  id.Offset // after the records; id.NoOffset: there are none
	bytes int
}

// recorder is a sink that remembers.
type recorder struct{ said []said }

func (r *recorder) Append(e Event) error {
	r.said = append(r.said, said{Event: e, next: id.NoOffset})
	return nil
}

func (r *recorder) AppendRead(e Event, read func([]byte) ([]byte, error)) error {
	b, err := read(nil)
	if err != nil {
		return err
	}
	next, err := partition.NextOffset(b)
	r.said = append(r.said, said{Event: e, next: next, bytes: len(b)})
	return err
}

// drain serves until nothing is ready, and returns what was said.
func drain(t require.TestingT, s *Session) []said {
	var r recorder
	for {
		served, err := s.Serve(&r)
		require.NoError(t, err)
		if !served {
			return r.said
		}
	}
}

// woken tells whether somebody who waits would have been woken, who is not any more then.
func woken(s *Session) bool {
	select {
	case <-s.wake:
		return true
	default:
		return false
	}
}

func newHub(t testing.TB, o Options) *Hub {
	h := NewHub(o)
	t.Cleanup(h.Close)
	return h
}

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

// TestWhoHasNoCreditIsTold: that the leader has moved, and that the replica is gone.
func TestWhoHasNoCreditIsTold(t *testing.T) {
	for name, c := range map[string]struct {
		happens func(*replica)
		want    kerr.Code
	}{
		"another leader": {func(p *replica) { p.move(false) }, kerr.NotLeaderOrFollower},
		"deleted":        {(*replica).close, kerr.UnknownTopicOrPartition},
	} {
		for _, credit := range []int64{0, 1000} {
			t.Run(name, func(t *testing.T) {
				h := newHub(t, Options{})
				s := h.NewSession()
				defer s.Close()
				p := newReplica(t, 100)
				require.NoError(t, s.Subscribe(Subscription{ID: 1, Partition: p, Credit: credit}))
				drain(t, s)
				woken(s)
				p.move(true) // a new term, the same leader
				require.Empty(t, drain(t, s))
				woken(s)
				c.happens(p)
				require.True(t, woken(s))
				got := drain(t, s)
				require.Len(t, got, 1)
				require.Equal(t, c.want, kerr.CodeOf(got[0].Err))
				require.Empty(t, s.subscriptions)
			})
		}
	}
}

// TestServeEnded: who is ahead of a quota hears of ends alone. The others keep their order, and nothing that came meanwhile is missed.
func TestServeEnded(t *testing.T) {
	h := newHub(t, Options{})
	s := h.NewSession()
	defer s.Close()
	var replicas []*replica
	for i := range 4 {
		p := newReplica(t, 100)
		p.commit(3)
		replicas = append(replicas, p)
		require.NoError(t, s.Subscribe(Subscription{ID: ID(i), Partition: p, Credit: int64(i%3) * 1000}))
	}
	var got recorder
	require.NoError(t, s.ServeEnded(&got))
	require.Empty(t, got.said)
	replicas[1].move(false)
	replicas[3].close()
	require.NoError(t, s.ServeEnded(&got))
	require.Len(t, got.said, 2)
	require.Equal(t, kerr.NotLeaderOrFollower, kerr.CodeOf(got.said[0].Err))
	require.Equal(t, kerr.UnknownTopicOrPartition, kerr.CodeOf(got.said[1].Err))
	require.NoError(t, s.ServeEnded(&got))
	require.Len(t, got.said, 2)
	require.NoError(t, s.Credit(0, 1000))
	rest := drain(t, s)
	require.Equal(t, []ID{2, 0}, []ID{rest[0].Subscription, rest[1].Subscription})
}

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

// TestDamage: what cannot be read ends its subscription, and no other.
func TestDamage(t *testing.T) {
	h := newHub(t, Options{})
	s := h.NewSession()
	defer s.Close()
	p := newReplica(t, 100)
	p.batch = p.batch[:20]
	p.hw.Store(1)
	require.NoError(t, s.Subscribe(Subscription{ID: 1, Partition: broken{p}, Credit: 1}))
	require.NoError(t, s.Subscribe(Subscription{ID: 2, Partition: newReplica(t, 100), Credit: 1}))
	got := drain(t, s)
	require.Len(t, got, 2)
	require.ErrorIs(t, got[0].Err, errBroken)
	require.NoError(t, got[1].Err)
}

type broken struct{ *replica }

var errBroken = errors.New("broken")

func (broken) Read(dst []byte, _ id.Offset, _ partition.ReadLimit, _ int) ([]byte, id.Offset, error) {
	return append(dst, 1, 2, 3), 0, errBroken
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
