package quota

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/placement/quota"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// limited returns an engine whose rules the test may change.
func limited(rules ...*quota.Rule) (*Engine, **quota.Set) {
	set := quota.SetOf(rules...)
	return New(func() *quota.Set { return set }), &set
}

// produceRule gives clients a byte rate.
func ruleOf(key quota.Key, client quota.Side, value float64) *quota.Rule {
	return &quota.Rule{Entity: quota.Entity{Client: client}, Limits: map[string]float64{key.String(): value}}
}

var anyClient = quota.Side{Match: quota.Default}

func callerOf(client string) *broker.Caller {
	return &broker.Caller{Principal: broker.Anonymous, ClientID: client}
}

// TestRateHolds: whoever pauses as he is told uses what he may, whatever the size of his pieces.
func TestRateHolds(t *testing.T) {
	for _, piece := range []int64{100, 10_000, 3_000_000} {
		t.Run(fmt.Sprint(piece), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				const perSecond = 200_000
				e, _ := limited(ruleOf(quota.ProducerByteRate, anyClient, perSecond))
				m := e.Meter(quota.ProducerByteRate, callerOf("a"))
				begun, used := time.Now(), int64(0)
				for time.Since(begun) < 100*time.Second {
					now := time.Now()
					require.True(t, m.Limited(now))
					if _, refuses := m.Refuses(now); refuses {
						t.Fatal("refused, though it pauses as it is told")
					}
					used += piece
					time.Sleep(m.Use(piece, now)) // of the bubble's clock
				}
				want := perSecond * time.Since(begun).Seconds()
				require.InDelta(t, want, float64(used), perSecond+float64(piece)) // a second's worth at once
			})
		})
	}
}

// TestWhoDoesNotPause is refused until he is well within reach of his quota again, not by turns.
func TestWhoDoesNotPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := limited(ruleOf(quota.ProducerByteRate, anyClient, 100_000))
		m := e.Meter(quota.ProducerByteRate, callerOf("a"))
		taken := 0
		for range 1000 {
			require.True(t, m.Limited(time.Now()))
			if _, refuses := m.Refuses(time.Now()); !refuses {
				m.Use(100_000, time.Now())
				taken++
			}
		}
		require.Equal(t, 12, taken) // a second at once, ten ahead, and the one that goes beyond
		refused := 0
		for range 1000 {
			time.Sleep(10 * time.Millisecond) // of the bubble's clock
			if _, refuses := m.Refuses(time.Now()); refuses {
				refused++
			}
		}
		require.InDelta(t, 600, refused, 10) // from 11 ahead to 5, and then none
		require.NotZero(t, e.Metrics(quota.ProducerByteRate).Refused)
		require.NotZero(t, e.Metrics(quota.ProducerByteRate).Throttled)
		require.Zero(t, e.Metrics(quota.ConsumerByteRate))
	})
}

// TestWhoIsCountedTogether: connections of one entity share its quota, others have their own, and a change of the rules holds at once.
func TestWhoIsCountedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, set := limited(ruleOf(quota.ConsumerByteRate, anyClient, 100_000))
		now := time.Now()
		one, two, other := e.Meter(quota.ConsumerByteRate, callerOf("a")), e.Meter(quota.ConsumerByteRate, callerOf("a")), e.Meter(quota.ConsumerByteRate, callerOf("b"))
		produces := e.Meter(quota.ProducerByteRate, callerOf("a"))
		for _, m := range []*Meter{&one, &two, &other} {
			require.True(t, m.Limited(now))
		}
		require.False(t, produces.Limited(now), "another key")
		require.Equal(t, time.Second, one.Use(200_000, now))
		require.Equal(t, time.Second, two.Ahead(now))
		require.Zero(t, other.Ahead(now))

		*set = (*set).With(ruleOf(quota.ConsumerByteRate, quota.Named("a"), 1_000_000))
		require.True(t, two.Limited(now))
		require.Less(t, two.Ahead(now), 200*time.Millisecond, "its quota was raised")
		*set = nil
		require.False(t, one.Limited(now), "there are no quotas")
		*set = quota.SetOf(ruleOf(quota.ConsumerByteRate, anyClient, 100_000))
		require.True(t, one.Limited(now))
		require.True(t, two.Limited(now))
		require.Same(t, one.bucket, two.bucket)
	})
}

// TestBucketsAreBounded: a stranger who makes client ids up costs bounded memory, and does not take from a client that is connected what it
// is ahead.
func TestBucketsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, _ := limited(ruleOf(quota.ProducerByteRate, anyClient, 100_000))
		steady, second := e.Meter(quota.ProducerByteRate, callerOf("steady")), e.Meter(quota.ProducerByteRate, callerOf("steady"))
		require.True(t, steady.Limited(time.Now()))
		steady.Use(10_000_000, time.Now())
		for round := range 3 {
			time.Sleep(2 * refresh) // of the bubble's clock
			require.True(t, steady.Limited(time.Now()), "it is in use")
			for i := range maxBuckets - 1 {
				m := e.Meter(quota.ProducerByteRate, callerOf(fmt.Sprint(round, "made-up", i)))
				require.True(t, m.Limited(time.Now()))
			}
			require.Equal(t, maxBuckets, e.buckets.Len())
		}
		require.True(t, second.Limited(time.Now()))
		require.Same(t, steady.bucket, second.bucket)
		require.Greater(t, second.Ahead(time.Now()), 80*time.Second)
		for i := range maxBuckets { // without a look of it: it is forgotten
			m := e.Meter(quota.ProducerByteRate, callerOf(fmt.Sprint("late", i)))
			require.True(t, m.Limited(time.Now()))
		}
		require.True(t, steady.Limited(time.Now()))
		require.True(t, second.Limited(time.Now()))
		require.Same(t, steady.bucket, second.bucket, "two that are one client are counted apart")
	})
}

// within is a broker that takes everything and remembers how much.
type within struct {
	broker.Broker
	taken, served int
}

type appendsAll struct{ of *within }

func (b *within) OpenAppender(*broker.Caller, func()) broker.Appender { return appendsAll{b} }
func (a appendsAll) Append(r *broker.Append)                          { a.of.taken++; r.Done(r) }
func (appendsAll) End()                                               {}

type servesAll struct {
	broker.Fetcher
	of *within
}

func (b *within) OpenFetcher(*broker.Caller) broker.Fetcher { return servesAll{of: b} }
func (f servesAll) Serve(sink broker.FetchSink) (bool, error) {
	f.of.served++
	return true, sink.AppendRead(broker.FetchEvent{}, func(dst []byte) ([]byte, error) { return append(dst, make([]byte, 50_000)...), nil })
}

type drain struct{ broker.FetchSink }

func (drain) AppendRead(_ broker.FetchEvent, read func([]byte) ([]byte, error)) error {
	_, err := read(make([]byte, 10))
	return err
}

func TestBrokerThrottles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, set := limited(ruleOf(quota.ProducerByteRate, anyClient, 100_000), ruleOf(quota.ConsumerByteRate, quota.Named("reader"), 100_000))
		inner := &within{}
		b := e.Of(inner)
		a := b.OpenAppender(callerOf("writer"), nil)
		var throttles []time.Duration
		var refused *kerr.Error
		r := &broker.Append{Batch: make([]byte, 100_000), Done: func(r *broker.Append) { throttles, refused = append(throttles, r.Throttle), r.Err }}
		for range 3 {
			a.Append(r)
			require.Nil(t, refused)
		}
		require.Equal(t, []time.Duration{0, time.Second, 2 * time.Second}, throttles)
		for range 10 {
			a.Append(r)
		}
		require.Equal(t, 12, inner.taken)
		require.Equal(t, kerr.ThrottlingQuotaExceeded, refused.Code)
		require.True(t, strings.Contains(refused.Message, "11s ahead") && strings.Contains(refused.Message, "producer_byte_rate"), refused.Message)
		require.Equal(t, 11*time.Second, throttles[12])

		f := b.OpenFetcher(callerOf("reader"))
		for range 3 {
			require.Zero(t, f.Throttle())
			_, err := f.Serve(drain{})
			require.NoError(t, err)
		}
		require.Equal(t, 500*time.Millisecond, f.Throttle())
		*set = nil
		require.Zero(t, f.Throttle())
		r.Err = nil
		a.Append(r)
		require.Nil(t, refused, "without a quota")
		require.Zero(t, throttles[len(throttles)-1])
	})
}

func TestCallsThrottle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, set := limited(&quota.Rule{Entity: quota.Entity{User: quota.Side{Match: quota.Default}}, Limits: map[string]float64{quota.RequestPercentage.String(): 50}})
		call := func(takes time.Duration) (waited time.Duration, err error) {
			begun := time.Now()
			done, err := e.Call(t.Context(), callerOf("x"))
			if waited = time.Since(begun); err != nil {
				return waited, err
			}
			time.Sleep(takes) // of the bubble's clock
			done()
			return waited, nil
		}
		waited, err := call(400 * time.Millisecond)
		require.NoError(t, err)
		require.Zero(t, waited)
		waited, err = call(2 * time.Second) // of four that it would have to take
		require.NoError(t, err)
		require.Zero(t, waited)
		waited, err = call(time.Second)
		require.NoError(t, err)
		require.Equal(t, callPatience, waited)
		_, err = call(30 * time.Second)
		require.NoError(t, err)
		_, err = call(0)
		require.Equal(t, kerr.ThrottlingQuotaExceeded, kerr.CodeOf(err))
		*set = nil
		_, err = call(0)
		require.NoError(t, err)
	})
}

// TestNothingInTheWay: without quotas a batch costs no allocation more.
func TestNothingInTheWay(t *testing.T) {
	e, _ := limited()
	a := e.Of(&within{}).OpenAppender(callerOf("a"), nil)
	r := &broker.Append{Done: func(*broker.Append) {}}
	require.Zero(t, testing.AllocsPerRun(1000, func() { a.Append(r) }))
	e, _ = limited(ruleOf(quota.ProducerByteRate, anyClient, 1e9))
	a = e.Of(&within{}).OpenAppender(callerOf("a"), nil)
	require.Zero(t, testing.AllocsPerRun(1000, func() { a.Append(r) }))
}
