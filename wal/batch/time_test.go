package batch

import (
	"bytes"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/wal/id"
)

// timedRecords returns the records of a batch whose times are not in order: those of 10, 30, 20, and then size bytes of one record at 40.
func timedRecords(size int) *Builder {
	var b Builder
	for _, at := range []int64{10, 30, 20} {
		b.Append(Record{Timestamp: at, Value: bytes.Repeat([]byte("abc"), 100)})
	}
	b.Append(Record{Timestamp: 40, Value: make([]byte, size)})
	b.Append(Record{Timestamp: 50})
	return &b
}

func TestFirstAt(t *testing.T) {
	for _, c := range allCodecs {
		b, err := timedRecords(1000).Finish(nil, Plain(c))
		require.NoError(t, err)
		b.Stamp(100, 1)
		for _, q := range []struct {
			ts   int64
			from id.Offset
			want id.Offset
			at   int64
		}{
			{0, 0, 100, 10}, {10, 100, 100, 10}, {11, 0, 101, 30}, {11, 102, 102, 20}, {21, 102, 103, 40}, {31, 0, 103, 40}, {50, 0, 104, 50},
			{51, 0, id.NoOffset, -1}, {0, 105, id.NoOffset, -1}, {0, 104, 104, 50},
		} {
			budget := LookupLimit
			got, at, ok := b.FirstAt(q.ts, q.from, &budget)
			require.Equal(t, q.want, got, "%v: time %d from %d", c, q.ts, q.from)
			require.Equal(t, q.at, at)
			require.Equal(t, q.want != id.NoOffset, ok)
			header := c == None || q.want == id.NoOffset || q.want == 100
			require.Equal(t, header, budget == LookupLimit, "%v: time %d from %d: %d bytes", c, q.ts, q.from, LookupLimit-budget)
		}
	}
}

// TestFirstAtOfBombs: a small batch that stands for much costs neither much memory nor more than the budget, and the answer is not too late.
// What comes before the bomb is found where the codec lets one stop there. Callers beyond those that can work wait.
func TestFirstAtOfBombs(t *testing.T) {
	for _, c := range allCodecs[1:] {
		t.Run(c.String(), func(t *testing.T) {
			bomb, err := timedRecords(2*LookupLimit).Finish(nil, Plain(c))
			require.NoError(t, err)
			require.Less(t, len(bomb), 2*LookupLimit/16)
			stops := c == Gzip || c == LZ4
			for _, ts := range []int64{11, 50} {
				lookup := func() {
					budget := LookupLimit
					got, at, ok := bomb.FirstAt(ts, 0, &budget)
					switch {
					case !ok:
						t.Error("left out")
					case stops && ts == 11:
						if got != 1 || at != 30 || LookupLimit-budget > 1<<20 {
							t.Errorf("offset %d at %d for %d bytes", got, at, LookupLimit-budget)
						}
					case got != 0 || at != 50 || budget != 0:
						t.Errorf("offset %d at %d, %d bytes are left", got, at, budget)
					}
				}
				lookup() // fills the pools
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				lookup()
				runtime.ReadMemStats(&after)
				if raceEnabled { // with it, memory is allocated twice where a slice grows, and pools drop what they are given
					continue
				}
				most := uint64(2 * LookupLimit)
				if stops {
					most = 4 << 20
				}
				require.Less(t, after.TotalAlloc-before.TotalAlloc, most)
			}
			var wg sync.WaitGroup
			for range 2 * cap(finders()) {
				wg.Go(func() {
					budget := 1 << 20
					if _, _, ok := bomb.FirstAt(50, 0, &budget); !ok || budget != 0 {
						t.Errorf("%v, %d bytes are left", ok, budget)
					}
				})
			}
			wg.Wait()
			require.Len(t, finders(), cap(finders()))
		})
	}
}
