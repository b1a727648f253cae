package bench

import (
	"bytes"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestMemoryKeepsItsShape adds more looks than there are points, one of which is a peak.
func TestMemoryKeepsItsShape(t *testing.T) {
	t.Parallel()
	var m memory
	const looks = 5*mostPoints + 7
	for i := range looks {
		mb := float64(i)
		if i == 1234 {
			mb = 1e6
		}
		m.add(mb)
		if len(m.points) > mostPoints {
			t.Fatalf("%d points", len(m.points))
		}
	}
	if m.every != 8 || len(m.points) != (looks+7)/8 {
		t.Errorf("%d points of %d looks each", len(m.points), m.every)
	}
	for i, p := range m.points {
		if want := float64(min(8*i+7, looks-1)); p != want && i != 1234/8 {
			t.Errorf("point %d is %v, want %v", i, p, want)
		}
	}
	if slices.Max(m.points) != 1e6 {
		t.Error("the peak is gone")
	}
}

func TestMemoryTrend(t *testing.T) {
	t.Parallel()
	// Ten minutes that begin at 100 MB and end at 300 MB, with a peak between.
	r := Result{RSSEvery: 1}
	for i := range 600 {
		mb := 100.0
		switch {
		case i == 300:
			mb = 900
		case i > 300:
			mb = 300
		}
		r.RSSSeries = append(r.RSSSeries, mb)
	}
	if got, ok := r.MemoryTrend(); !ok || got != (MemoryTrend{time.Minute, 100, 300, 900}) {
		t.Errorf("got %+v, %v", got, ok)
	}
	short := Result{RSSEvery: 2, RSSSeries: []float64{1, 3, 5, 20, 30}}
	if got, ok := short.MemoryTrend(); !ok || got != (MemoryTrend{4 * time.Second, 2, 25, 30}) {
		t.Errorf("got %+v, %v", got, ok)
	}
	for _, r := range []Result{{}, {RSSSeries: []float64{1, 2, 3, 4}}, {RSSEvery: 1, RSSSeries: []float64{1, 2, 3}}} {
		if got, ok := r.MemoryTrend(); ok {
			t.Errorf("%v: got %+v", r.RSSSeries, got)
		}
	}
	var b bytes.Buffer
	notes(&b, r)
	if want := "memory 100 MB in the first 1m0s, 300 MB in the last (medians), 900 MB at most"; !strings.Contains(b.String(), want) {
		t.Errorf("%q is not in %s", want, b.String())
	}
}

// TestMemoryIsSampled takes this process for the target's server.
func TestMemoryIsSampled(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("usage is measured on Linux only")
	}
	f := &fake{pids: []int{os.Getpid()}}
	r := f.run(t, Workload{Mode: ModeRate, Rate: 100, WarmUp: time.Millisecond, Duration: 2300 * time.Millisecond})
	if len(r.RSSSeries) != 2 || r.RSSEvery != 1 || slices.Min(r.RSSSeries) < 1 {
		t.Errorf("memory %v, a point each %v s", r.RSSSeries, r.RSSEvery)
	}
}

func TestLongSeriesAreCondensed(t *testing.T) {
	t.Parallel()
	if got, each := condensed([]float64{1, 2, 3}, 3); !slices.Equal(got, []float64{1, 2, 3}) || each != 1 {
		t.Errorf("got %v of %d", got, each)
	}
	if got, each := condensed([]float64{1, 3, 5, 7, 9}, 3); !slices.Equal(got, []float64{2, 6, 9}) || each != 2 {
		t.Errorf("got %v of %d", got, each)
	}
}
