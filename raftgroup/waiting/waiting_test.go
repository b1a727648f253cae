package waiting

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/wal/id"
)

func indexes(q *Queue[int]) (list []id.Index) {
	for _, w := range q.buf[q.head:] {
		list = append(list, w.Index)
	}
	return list
}

// What a queue of waiters for 11, 12 and 14 is after each of these.
func TestQueue(t *testing.T) {
	for name, c := range map[string]struct {
		do         func(q *Queue[int], gone func(Waiter[int]))
		gone, left []id.Index
	}{
		"at the end":     {func(q *Queue[int], _ func(Waiter[int])) { q.Add(Waiter[int]{Index: 15}) }, nil, []id.Index{11, 12, 14, 15}},
		"a retry":        {func(q *Queue[int], _ func(Waiter[int])) { q.Add(Waiter[int]{Index: 12}) }, nil, []id.Index{11, 12, 12, 14}},
		"before all":     {func(q *Queue[int], _ func(Waiter[int])) { q.Add(Waiter[int]{Index: 3}) }, nil, []id.Index{3, 11, 12, 14}},
		"committed to 9": {popTo(9), nil, []id.Index{11, 12, 14}},
		"to 13":          {popTo(13), []id.Index{11, 12}, []id.Index{14}},
		"to 20":          {popTo(20), []id.Index{11, 12, 14}, nil},
		"cut at 12":      {func(q *Queue[int], gone func(Waiter[int])) { q.Cut(12, gone) }, []id.Index{12, 14}, []id.Index{11}},
		"cut at 15":      {func(q *Queue[int], gone func(Waiter[int])) { q.Cut(15, gone) }, nil, []id.Index{11, 12, 14}},
		"all end":        {func(q *Queue[int], gone func(Waiter[int])) { q.Cut(0, gone) }, []id.Index{11, 12, 14}, nil},
		"one is late": {func(q *Queue[int], gone func(Waiter[int])) {
			q.Remove(func(w Waiter[int]) bool {
				if w.Index == 12 {
					gone(w)
				}
				return w.Index == 12
			})
		}, []id.Index{12}, []id.Index{11, 14}},
	} {
		var q Queue[int]
		for _, i := range []id.Index{10, 11, 12, 14} {
			q.Add(Waiter[int]{Index: i})
		}
		_, ok := q.PopTo(10) // so that the queue does not begin where its memory does
		require.True(t, ok)
		var gone []id.Index
		c.do(&q, func(w Waiter[int]) { gone = append(gone, w.Index) })
		require.Equal(t, c.gone, gone, name)
		require.Equal(t, c.left, indexes(&q), name)
	}
}

func popTo(i id.Index) func(*Queue[int], func(Waiter[int])) {
	return func(q *Queue[int], gone func(Waiter[int])) {
		for w, ok := q.PopTo(i); ok; w, ok = q.PopTo(i) {
			gone(w)
		}
	}
}

// A queue that is long for a long time gives the memory of those who are gone to those who come.
func TestQueueDoesNotGrow(t *testing.T) {
	var q Queue[int]
	for i := range id.Index(100_000) {
		q.Add(Waiter[int]{Index: i + 1, Who: int(i)})
		if i >= 100 {
			w, ok := q.PopTo(i + 1)
			require.True(t, ok)
			require.Equal(t, int(i)-100, w.Who)
		}
	}
	require.Less(t, cap(q.buf), 10_000)
}

func TestCharges(t *testing.T) {
	for name, c := range map[string]struct {
		take func(*Charges) int64
		want int64
		left []charge
	}{
		"applied in between": {func(c *Charges) int64 { return c.Settle(14) }, 100, []charge{{15, 20}, {16, 3}}},
		"applied all":        {func(c *Charges) int64 { return c.Settle(16) }, 123, []charge{}},
		"nothing applied":    {func(c *Charges) int64 { return c.Settle(11) }, 0, []charge{{12, 100}, {15, 20}, {16, 3}}},
		"cut in between":     {func(c *Charges) int64 { return c.Cut(14) }, 23, []charge{{12, 100}}},
		"cut all":            {func(c *Charges) int64 { return c.Cut(0) }, 123, []charge{}},
		"cut nothing":        {func(c *Charges) int64 { return c.Cut(17) }, 0, []charge{{12, 100}, {15, 20}, {16, 3}}},
	} {
		var charges Charges
		charges.Add(12, 100)
		charges.Add(15, 20)
		charges.Add(16, 3)
		require.EqualValues(t, 16, charges.Last())
		require.Equal(t, c.want, c.take(&charges), name)
		require.Equal(t, c.left, charges.list, name)
	}
}

// Alarms ring in the order of their moments, whatever the order in which they were set.
func TestAlarms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var alarms Alarms[int]
		var want []int
		for len(want) > 0 || rapid.Bool().Draw(t, "another") {
			if len(want) == 0 || rapid.Bool().Draw(t, "add") && len(want) < 100 {
				at := rapid.IntRange(0, 50).Draw(t, "at")
				want = append(want, at)
				slices.Sort(want)
				alarms.Add(Alarm[int]{At: time.Unix(int64(at), 0), Who: at})
			} else {
				require.Equal(t, time.Unix(int64(want[0]), 0), alarms.Next())
				require.Equal(t, want[0], alarms.Pop().Who)
				want = want[1:]
			}
		}
		require.Zero(t, alarms.Next())
	})
}
