package bench

import (
	"slices"
	"time"
)

// mostPoints bounds a series of memory: ten minutes by the second.
const mostPoints = 600

// memory is what the servers held, look by look. When it is full, two neighbours become one point, the larger one, so that a long
// run keeps its shape and its peak.
type memory struct {
	points []float64 // MB
	every  int       // looks in a point, 0 before the first
	looks  int       // in the last point
}

// add takes the next look.
func (m *memory) add(mb float64) {
	m.every = max(m.every, 1)
	if n := len(m.points); n > 0 && m.looks < m.every {
		m.points[n-1] = max(m.points[n-1], mb)
		m.looks++
		return
	}
	if len(m.points) == mostPoints {
		m.halve()
	}
	m.points = append(m.points, mb)
	m.looks = 1
}

func (m *memory) halve() {
	for i := range len(m.points) / 2 {
		m.points[i] = max(m.points[2*i], m.points[2*i+1])
	}
	m.points = m.points[:len(m.points)/2]
	m.every *= 2
}

// MemoryTrend compares what the servers held at the beginning of the timed part with what they held at its end, in MB: memory that
// only grows shows here and not in a figure of the last second.
type MemoryTrend struct {
	Span        time.Duration // a minute, or half of a shorter run
	First, Last float64       // medians of the first and of the last Span
	Most        float64
}

// MemoryTrend is made of the series; false: that is too short.
func (r Result) MemoryTrend() (t MemoryTrend, ok bool) {
	n := len(r.RSSSeries)
	if n < 4 || r.RSSEvery <= 0 {
		return t, false
	}
	part := min(n/2, max(1, int(time.Minute.Seconds()/r.RSSEvery)))
	middle := func(points []float64) float64 { return median(slices.Sorted(slices.Values(points))) }
	return MemoryTrend{
		Span:  time.Duration(float64(part) * r.RSSEvery * float64(time.Second)),
		First: middle(r.RSSSeries[:part]), Last: middle(r.RSSSeries[n-part:]), Most: slices.Max(r.RSSSeries),
	}, true
}
