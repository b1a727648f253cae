package retention

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

const now = 1_000_000 // milliseconds since 1970

func at(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// seg is a segment of 10 records.
func seg(base id.Offset, bytes, largest, appended int64) wal.SegmentInfo {
	return wal.SegmentInfo{Base: base, Next: base + 10, Bytes: bytes, MaxTimestamp: largest, Appended: at(appended)}
}

func TestDecide(t *testing.T) {
	three := []wal.SegmentInfo{seg(0, 100, now-500, now-490), seg(10, 100, now-300, now-290), seg(20, 50, now-100, now-90)}
	future := []wal.SegmentInfo{seg(0, 100, math.MaxInt64, now-500), seg(10, 100, now-400, now-400)}
	for _, tt := range []struct {
		name      string
		start, hw id.Offset
		segments  []wal.SegmentInfo
		limits    Limits
		want      Decision
	}{
		{"for ever", 0, 30, three, Limits{-1, -1}, Decision{}},
		{"no segments", 7, 7, nil, Limits{0, 0}, Decision{Start: 7, Moves: true}},
		{"size: exactly what is to stay", 0, 30, three, Limits{-1, 150}, Decision{Start: 10, Reason: Size, Moves: true}},
		{"size: a byte less would stay", 0, 30, three, Limits{-1, 151}, Decision{Moves: true}},
		{"size: of none", 0, 30, three, Limits{-1, 0}, Decision{Start: 30, Reason: Size, Moves: true}},
		{"size: of the largest number", 0, 30, three, Limits{-1, math.MaxInt64}, Decision{Moves: true}},
		{"size: not above the high watermark", 0, 19, three, Limits{-1, 0}, Decision{Start: 10, Reason: Size, Moves: true}},
		{"size: what is below the start does not count", 10, 30, three, Limits{-1, 100}, Decision{Start: 10, Moves: true}},
		{"size: what the start is in counts", 5, 30, three, Limits{-1, 150}, Decision{Start: 10, Reason: Size, Moves: true}},
		{"time", 0, 30, three, Limits{299, -1}, Decision{Start: 20, Reason: Time, Next: at(now - 100 + 300)}},
		{"time: not yet, by a millisecond", 0, 30, three, Limits{300, -1}, Decision{Start: 10, Reason: Time, Next: at(now + 1)}},
		{"time: all of it", 0, 30, three, Limits{0, -1}, Decision{Start: 30, Reason: Time, Moves: true}},
		{"time: not what is not committed", 0, 29, three, Limits{0, -1}, Decision{Start: 20, Reason: Time, Moves: true}},
		{"time: of the largest number", 0, 30, three, Limits{math.MaxInt64, -1}, Decision{}},
		{"time: from the future", 0, 20, future, Limits{450, -1}, Decision{Start: 10, Reason: Time, Next: at(now + 51)}},
		{"time: from the future, not yet", 0, 20, future, Limits{600, -1}, Decision{Next: at(now + 101)}},
		{
			"time: from the past, and the clock was far behind when it came", 0, 10,
			[]wal.SegmentInfo{seg(0, 1, now-5, 1)}, Limits{10, -1}, Decision{Next: at(now + 6)},
		},
		{"time: of this very moment", 0, 10, []wal.SegmentInfo{seg(0, 1, now, 1)}, Limits{10, -1}, Decision{Next: at(now + 11)}},
		{
			"time: from the future, by a millisecond", 0, 10,
			[]wal.SegmentInfo{seg(0, 1, now+1, 1)}, Limits{10, -1}, Decision{Start: 10, Reason: Time, Moves: true},
		},
		{"time: no timestamp", 0, 10, []wal.SegmentInfo{seg(0, 1, -1, now-5)}, Limits{4, -1}, Decision{Start: 10, Reason: Time, Moves: true}},
		{"time: no time of append", 0, 10, []wal.SegmentInfo{seg(0, 1, now-5, 0)}, Limits{4, -1}, Decision{Start: 10, Reason: Time, Moves: true}},
		{"time: neither", 0, 10, []wal.SegmentInfo{seg(0, 1, -1, 0)}, Limits{0, -1}, Decision{Moves: true}},
		{"time: neither, and more behind it", 0, 20, []wal.SegmentInfo{seg(0, 1, -1, 0), seg(10, 1, 1, 1)}, Limits{0, -1}, Decision{}},
		{"size has the first, time the second", 0, 30, three, Limits{200, 150}, Decision{Start: 20, Reason: Time, Next: at(now + 101), Moves: true}},
		{
			"commands alone stop nothing", 0, 20,
			[]wal.SegmentInfo{seg(0, 1, 1, 1), {Base: 10, Next: 10, MaxTimestamp: -1}, seg(10, 1, 1, 1)},
			Limits{100, -1}, Decision{Start: 20, Reason: Time, Moves: true},
		},
		{"nothing in it", 0, 0, []wal.SegmentInfo{{MaxTimestamp: -1, Appended: at(1)}}, Limits{0, 0}, Decision{Moves: true}},
	} {
		require.Equal(t, tt.want, Decide(at(now), tt.start, tt.hw, tt.segments, tt.limits), tt.name)
	}
}

func TestRoll(t *testing.T) {
	for _, tt := range []struct {
		active wal.SegmentInfo
		ms     int64
		want   time.Time
	}{
		{wal.SegmentInfo{Bytes: 1, Created: at(now)}, 5, at(now + 5)},
		{wal.SegmentInfo{Created: at(now)}, 5, time.Time{}}, // no records
		{wal.SegmentInfo{Bytes: 1, Created: at(now)}, math.MaxInt64, time.Time{}},
		{wal.SegmentInfo{Bytes: 1}, 5, time.Time{}}, // since when is not known
	} {
		got, due := Roll(tt.active, tt.ms)
		require.Equal(t, tt.want, got)
		require.Equal(t, !tt.want.IsZero(), due)
	}
}

// kafka is UnifiedLog.deleteOldSegments as it is written there, one pass behind the other over a list, but for the age of a segment.
type kafka struct {
	segments  []wal.SegmentInfo
	start, hw id.Offset
}

func (k *kafka) pass(goes func(s wal.SegmentInfo) bool) {
	for i, s := range k.segments {
		lastAndEmpty := i == len(k.segments)-1 && s.Bytes == 0
		if !(k.hw >= s.Next && goes(s)) || lastAndEmpty {
			k.segments = k.segments[i:]
			return
		}
		k.start = max(k.start, s.Next)
	}
	k.segments = nil
}

func (k *kafka) size() (sum int64) {
	for _, s := range k.segments {
		sum += s.Bytes
	}
	return sum
}

func (k *kafka) deleteOldSegments(now int64, l Limits) id.Offset {
	k.pass(func(s wal.SegmentInfo) bool { return s.Next <= k.start })
	if l.Bytes >= 0 && k.size() >= l.Bytes {
		diff := k.size() - l.Bytes
		k.pass(func(s wal.SegmentInfo) bool {
			if diff-s.Bytes < 0 {
				return false
			}
			diff -= s.Bytes
			return true
		})
	}
	if l.MS >= 0 {
		k.pass(func(s wal.SegmentInfo) bool {
			appended := s.Appended.UnixMilli()
			switch {
			case s.Bytes == 0:
				return true
			case s.MaxTimestamp >= 0 && s.MaxTimestamp <= now:
				return now-s.MaxTimestamp > l.MS
			}
			return appended > 0 && now-appended > l.MS
		})
	}
	return k.start
}

// TestDecideAsKafka: what is decided is what Kafka's passes come to; nothing changes before the time that is named, or the high watermark
// moves; and deciding twice is deciding once.
func TestDecideAsKafka(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var segments []wal.SegmentInfo
		next := id.Offset(rapid.IntRange(0, 3).Draw(t, "base"))
		first := next
		clock := rapid.SampledFrom([]int64{-1, 0, 1, now - 30, now - 20, now - 10, now, now + 2, now + 10, math.MaxInt64})
		for range rapid.IntRange(0, 6).Draw(t, "segments") {
			s := wal.SegmentInfo{Base: next, MaxTimestamp: -1, Appended: at(rapid.SampledFrom([]int64{0, 1, now - 25, now - 5, now, now + 5}).Draw(t, "appended"))}
			if n := rapid.IntRange(0, 3).Draw(t, "records"); n > 0 {
				next += id.Offset(n)
				s.Bytes, s.MaxTimestamp = rapid.Int64Range(1, 4).Draw(t, "bytes"), clock.Draw(t, "largest")
			}
			s.Next = next
			segments = append(segments, s)
		}
		start := first + id.Offset(rapid.IntRange(0, int(next-first)).Draw(t, "start"))
		hw := start + id.Offset(rapid.IntRange(0, int(next-start)).Draw(t, "hw"))
		limits := Limits{
			MS:    rapid.SampledFrom([]int64{-1, 0, 9, 10, 20, 29, math.MaxInt64}).Draw(t, "ms"),
			Bytes: rapid.SampledFrom([]int64{-1, 0, 1, 5, 9, math.MaxInt64}).Draw(t, "bytes"),
		}
		model := func(ms int64, start, hw id.Offset) id.Offset {
			k := kafka{append([]wal.SegmentInfo(nil), segments...), start, hw}
			return k.deleteOldSegments(ms, limits)
		}
		got := Decide(at(now), start, hw, segments, limits)
		require.Equal(t, model(now, start, hw), got.Start)
		require.Equal(t, got.Start > start, got.Reason != None)
		require.LessOrEqual(t, got.Start, hw)
		again := Decide(at(now), got.Start, hw, segments, limits)
		require.Equal(t, got.Start, again.Start)
		later := int64(math.MaxInt64)
		if !got.Next.IsZero() {
			later = got.Next.UnixMilli()
			require.Greater(t, later, int64(now))
		}
		// What went is gone: a segment that was as old as its append, its timestamp being in the future, would be young again once the clock
		// has come to that timestamp.
		for _, ms := range []int64{now + 1, now + 9, now + 20, now + 40} {
			if ms < later {
				require.Equal(t, got.Start, model(ms, got.Start, hw), "at %d", ms)
			}
		}
		if !got.Moves {
			require.Equal(t, got.Start, model(now, start, next), "another high watermark")
		}
	})
}
