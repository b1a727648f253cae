package bench

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// Compare lets targets take turns, A B C A B C, so that a disk or a neighbour that changes its mood meets all of them. Each
// result is handed to each as it comes; what was measured before an error is returned with it.
func Compare(ctx context.Context, run Run, targets []Target, rounds int, each func(Result)) (Comparison, error) {
	c := Comparison{Began: time.Now().UTC().Format(time.RFC3339), Workload: run.Workload}
	var err error
	if c.Machine, err = InspectMachine(run.Dir); err != nil {
		return c, err
	}
	for round := 1; round <= rounds; round++ {
		if err := c.play(ctx, run, targets, round, rounds, each); err != nil {
			return c, err
		}
	}
	c.Ratios = c.ratios()
	return c, nil
}

// play adds one round.
func (c *Comparison) play(ctx context.Context, run Run, targets []Target, round, rounds int, each func(Result)) error {
	for _, target := range targets {
		run.Target, run.Round = target, round
		run.Say("%s, round %d of %d", target.Name(), round, rounds)
		result, err := run.Do(ctx)
		if err != nil {
			return err
		}
		c.Results = append(c.Results, result)
		each(result)
	}
	return nil
}

// Ratio is one figure of a target divided by the same figure of another one in the same round.
type Ratio struct {
	Of     string  `json:"of"`
	To     string  `json:"to"`
	Figure string  `json:"figure"`
	Median float64 `json:"median"`
	Lowest float64 `json:"lowest"`
	Most   float64 `json:"highest"`
}

// figures are what is compared.
var figures = []struct {
	name string
	of   func(Result) float64
}{
	{"mb_per_second", func(r Result) float64 { return r.MBPerSecond }},
	{"records_per_second", func(r Result) float64 { return r.RecordsPerSecond }},
	{"server_cpu_ms_per_mb", func(r Result) float64 { return r.ServerCPUPerMB }},
	{"ack_ms.p50", func(r Result) float64 { return ackOf(r).P50 }},
	{"ack_ms.p99", func(r Result) float64 { return ackOf(r).P99 }},
	{"disk_bytes_per_byte", func(r Result) float64 { return r.DiskBytesPerByte }},
	{"server_rss_mb", func(r Result) float64 { return r.ServerRSSMB }},
	{"server_cpu_percent", func(r Result) float64 { return r.ServerCPUPercent }},
}

func ackOf(r Result) Percentiles {
	if r.AckMS == nil {
		return Percentiles{}
	}
	return *r.AckMS
}

// ratios compares the subject with each other target.
func (c Comparison) ratios() (ratios []Ratio) {
	names := c.targets()
	if len(names) < 2 {
		return nil
	}
	subject := subjectOf(names)
	for _, other := range names {
		if other == subject {
			continue
		}
		for _, f := range figures {
			if f.name == "disk_bytes_per_byte" && c.Workload.Mode == ModeCatchUp {
				continue // what somebody else has written
			}
			if r, ok := c.ratio(subject, other, f.name, f.of); ok {
				ratios = append(ratios, r)
			}
		}
	}
	return ratios
}

// subjectOf is the target that a comparison is about: quorumlog, in the class that it has by default if both are there, or else
// the last one.
func subjectOf(names []string) string {
	for _, own := range []string{nameOwn, nameOwnNoFsync} {
		if slices.Contains(names, own) {
			return own
		}
	}
	return names[len(names)-1]
}

func (c Comparison) ratio(of, to, name string, figure func(Result) float64) (Ratio, bool) {
	values := c.byRound(of, to, figure)
	if len(values) == 0 {
		return Ratio{}, false
	}
	slices.Sort(values)
	return Ratio{of, to, name, median(values), values[0], values[len(values)-1]}, true
}

// byRound divides a figure of one target by that of another one, round by round; rounds in which either is missing are left out.
func (c Comparison) byRound(of, to string, figure func(Result) float64) (values []float64) {
	bases := make(map[int]float64)
	for _, r := range c.of(to) {
		bases[r.Round] = figure(r)
	}
	for _, r := range c.of(of) {
		if base := bases[r.Round]; base > 0 && figure(r) > 0 {
			values = append(values, figure(r)/base)
		}
	}
	return values
}

func valuesOf(results []Result, figure func(Result) float64) (values []float64) {
	for _, r := range results {
		values = append(values, figure(r))
	}
	return values
}

// median of ascending values.
func median(v []float64) float64 {
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// Headline tells whether the figures of all results may be quoted.
func (c Comparison) Headline() error {
	for _, r := range c.Results {
		if err := r.Headline(); err != nil {
			return fmt.Errorf("no headline: %w", err)
		}
	}
	return nil
}
