package bench

import (
	"testing"

	"pgregory.net/rapid"
)

// TestRangesAreASet compares ranges with a map.
func TestRangesAreASet(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		build := func(name string) (ranges, map[uint64]bool) {
			var r ranges
			model := make(map[uint64]bool)
			for range rapid.IntRange(0, 12).Draw(t, name) {
				from := rapid.Uint64Range(0, 60).Draw(t, "from")
				to := from + rapid.Uint64Range(0, 12).Draw(t, "length")
				var present uint64
				for n := from; n < to; n++ {
					if model[n] {
						present++
					}
					model[n] = true
				}
				if got := r.add(from, to); got != present {
					t.Fatalf("add [%d, %d) says that %d were present, want %d; now %v", from, to, got, present, r.spans)
				}
			}
			return r, model
		}
		check := func(r ranges, model map[uint64]bool) {
			for i, s := range r.spans {
				if s.from >= s.to || i > 0 && r.spans[i-1].to >= s.from && r.spans[i-1].to > s.from {
					t.Fatalf("spans are not disjoint and ascending: %v", r.spans)
				}
			}
			for n := range uint64(80) {
				if r.has(n) != model[n] {
					t.Fatalf("has(%d) is %v in %v", n, r.has(n), r.spans)
				}
			}
			if int(r.count()) != len(model) {
				t.Fatalf("count is %d, want %d", r.count(), len(model))
			}
		}
		a, modelA := build("a")
		b, modelB := build("b")
		check(a, modelA)
		check(b, modelB)
		for n := range modelB {
			delete(modelA, n)
		}
		check(a.without(&b), modelA)
	})
}
