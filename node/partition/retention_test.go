package partition

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/wal/batch"
)

// TestCheckTimestamps: what a header says of timestamps, at the limits of both configs.
func TestCheckTimestamps(t *testing.T) {
	const now = 1_000_000
	made := func(timestamps ...int64) batch.Batch {
		var b batch.Builder
		for _, ts := range timestamps {
			b.Append(batch.Record{Timestamp: ts, Value: []byte("v")})
		}
		made, err := b.Finish(nil, batch.Plain(batch.None))
		require.NoError(t, err)
		return made
	}
	for _, tt := range []struct {
		before, after int64
		timestamps    []int64
		bad           int64 // 0: none
		tooOld        bool
	}{
		{100, 50, []int64{now - 100, now + 50}, 0, false},
		{100, 50, []int64{now, now + 51, now}, now + 51, false},
		{100, 50, []int64{now - 101, now}, now - 101, true},
		{100, 50, []int64{now, now - 101}, 0, false}, // not the first: not looked at
		{100, 50, []int64{-1}, 0, false},             // none
		{0, 0, []int64{now}, 0, false},
		{0, 0, []int64{now + 1}, now + 1, false},
		{0, 0, []int64{now - 1}, now - 1, true},
		{0, 0, []int64{0}, 0, true},
		{math.MaxInt64, math.MaxInt64, []int64{0, math.MaxInt64}, 0, false},
		{math.MaxInt64, 0, []int64{math.MaxInt64}, math.MaxInt64, false},
		{now, 0, []int64{math.MinInt64 + 1}, math.MinInt64 + 1, true},
	} {
		c := Config{TimestampBeforeMS: tt.before, TimestampAfterMS: tt.after}
		err := c.checkTimestamps(made(tt.timestamps...), now)
		if tt.bad == 0 && !tt.tooOld {
			require.NoError(t, err, "%+v", tt)
			continue
		}
		require.ErrorIs(t, err, batch.ErrInvalidTimestamp)
		var refused *TimestampError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, tt.bad, refused.Timestamp)
		require.Equal(t, tt.tooOld, refused.First)
		if tt.tooOld {
			require.Equal(t, now-tt.before, refused.Oldest())
		} else {
			require.Zero(t, refused.Oldest())
		}
	}
}

// BenchmarkRetentionIdle is a second's look at 10,000 replicas of which none is due.
func BenchmarkRetentionIdle(b *testing.B) {
	now := time.Now()
	later := now.Add(time.Hour).UnixMilli()
	all := make([]*Partition, 10_000)
	for i := range all {
		p := bare()
		config := &Config{}
		p.config.Store(config)
		p.keeping.config, p.keeping.trim, p.keeping.roll = config, look{at: later}, look{at: later}
		all[i] = p
	}
	b.ReportAllocs()
	for b.Loop() {
		for _, p := range all {
			p.Retain(now)
		}
	}
}
