package bench

import (
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Latency gathers latencies with three significant digits, from a microsecond to two minutes. It may be used by anyone.
type Latency struct {
	mu sync.Mutex
	h  *hdrhistogram.Histogram // µs
}

const maxLatency = 2 * time.Minute

// NewLatency returns an empty one.
func NewLatency() *Latency {
	return &Latency{h: hdrhistogram.New(1, maxLatency.Microseconds(), 3)}
}

// Record counts a latency n times.
func (l *Latency) Record(d time.Duration, n int64) {
	us := min(max(d.Microseconds(), 1), maxLatency.Microseconds())
	l.mu.Lock()
	_ = l.h.RecordValues(us, n) // it fails only outside the range
	l.mu.Unlock()
}

// Reset forgets everything.
func (l *Latency) Reset() {
	l.mu.Lock()
	l.h.Reset()
	l.mu.Unlock()
}

// Percentiles are latencies in milliseconds.
type Percentiles struct {
	P50   float64 `json:"p50"`
	P90   float64 `json:"p90"`
	P99   float64 `json:"p99"`
	P999  float64 `json:"p999"`
	P9999 float64 `json:"p9999"`
	Max   float64 `json:"max"`
	Mean  float64 `json:"mean"`
	N     int64   `json:"n"`
	// Curve is for charts: latency against percentile.
	Curve []CurvePoint `json:"curve,omitempty"`
}

// CurvePoint says that Percentile per cent of the records took at most MS.
type CurvePoint struct {
	Percentile float64 `json:"percentile"`
	MS         float64 `json:"ms"`
}

// Percentiles returns what was gathered; nil when that is nothing.
func (l *Latency) Percentiles() *Percentiles {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.h.TotalCount() == 0 {
		return nil
	}
	at := func(q float64) float64 { return float64(l.h.ValueAtQuantile(q)) / 1000 }
	p := &Percentiles{
		P50: at(50), P90: at(90), P99: at(99), P999: at(99.9), P9999: at(99.99), Max: float64(l.h.Max()) / 1000,
		Mean: l.h.Mean() / 1000, N: l.h.TotalCount(),
	}
	for _, q := range curveAt {
		p.Curve = append(p.Curve, CurvePoint{q, at(q)})
	}
	return p
}

// curveAt are the percentiles of a curve, denser towards the tail, which is what such curves are drawn for.
var curveAt = []float64{0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 97.5, 99, 99.5, 99.75, 99.9, 99.95, 99.975, 99.99, 99.995, 99.999}
