package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"time"
)

// The floors and ceilings of the guard. Each is compared with the best round, so that a disk or a neighbour in a bad mood cannot
// fail it; a loss by a factor of two does (docs/BENCHMARKS.md, 2026-11-26). They are loose, and are to follow when quorumlog gets better.
const (
	// Measured 0.83 to 1.2.
	guardThroughput = 0.55 // at least, of the bound's MB/s
	// Measured 1.4 to 1.7, and up to 2.8 in the few seconds after a start.
	guardCPU = 4.2 // at most, times the bound's server CPU-ms/MB
	// Measured 0.18 to 0.26, and up to 0.37 with the start of the nodes.
	guardAllocations = 0.4 // at most, in the servers per record
	// Measured 2.9 to 3.4: three copies, and what went through the journal. Single rounds have up to 6.5.
	guardDisk = 3.6 // at most, bytes written by the disk per byte of payload
)

// guardRounds is how many rounds there are at most. What is good in one round stays good, so the first round after which
// everything is good is the last.
const guardRounds = 3

// GuardWorkload is what the guard measures: short, since it says how figures compare and not what they are.
func GuardWorkload() Workload {
	w, err := WorkloadNamed("max-12-partitions-1kb")
	if err != nil {
		panic(err) // it is one of Standard
	}
	w.WarmUp, w.Duration = time.Second, 3*time.Second
	return w
}

// GuardVerdict is what the guard says, of a figure or of all.
type GuardVerdict string

const (
	// GuardOK says that it is within its limit.
	GuardOK GuardVerdict = "ok"
	// GuardFailed says that it is not.
	GuardFailed GuardVerdict = "failed"
	// GuardSkipped says that this machine cannot tell.
	GuardSkipped GuardVerdict = "skipped"
)

// GuardFigure is one figure that was compared with its limit.
type GuardFigure struct {
	Name     string       `json:"name"`
	Unit     string       `json:"unit"`
	Best     float64      `json:"best"` // of the rounds; 0: not measured
	Limit    float64      `json:"limit"`
	Sense    string       `json:"sense"` // of the limit: at least, at most
	Verdict  GuardVerdict `json:"verdict"`
	ByRounds []float64    `json:"by_round"`
}

// GuardReport is what the guard found.
type GuardReport struct {
	Verdict GuardVerdict  `json:"verdict"`
	Reason  string        `json:"reason,omitempty"` // of a verdict that the figures do not explain
	Figures []GuardFigure `json:"figures,omitempty"`
	Results []Result      `json:"results,omitempty"`
}

// WriteText says in a line for each figure what was measured and what the limit is.
func (g GuardReport) WriteText(w io.Writer) {
	for _, f := range g.Figures {
		measured := "not measured"
		if f.Best > 0 {
			measured = fmt.Sprintf("%.2f %s", f.Best, f.Unit)
		}
		fmt.Fprintf(w, "%-7s  %s: %s, %s %g (by round %.2f)\n", f.Verdict, f.Name, measured, f.Sense, f.Limit, f.ByRounds)
	}
	fmt.Fprintf(w, "guard: %s", g.Verdict)
	if g.Reason != "" {
		fmt.Fprintf(w, ": %s", g.Reason)
	}
	fmt.Fprintln(w)
}

// Err is nil unless the verdict is that something is worse than its limit.
func (g GuardReport) Err() error {
	if g.Verdict != GuardFailed {
		return nil
	}
	var names []string
	for _, f := range g.Figures {
		if f.Verdict == GuardFailed {
			names = append(names, f.Name)
		}
	}
	if g.Reason != "" {
		names = append(names, g.Reason)
	}
	return fmt.Errorf("worse than the limit: %s", strings.Join(names, "; "))
}

// Guard lets a bound and a subject take turns until every figure of the subject is within its limit, or the rounds are over. On a
// machine that cannot tell, it is skipped.
func Guard(ctx context.Context, run Run, bound, subject Target) (GuardReport, error) {
	if runtime.GOOS != "linux" {
		return GuardReport{Verdict: GuardSkipped, Reason: "the bound is written for Linux, and usage is measured there only"}, nil
	}
	run.Workload = GuardWorkload()
	c := Comparison{Workload: run.Workload}
	report := GuardReport{Verdict: GuardFailed}
	for round := 1; round <= guardRounds && report.Verdict == GuardFailed && report.Reason == ""; round++ {
		err := c.play(ctx, run, []Target{bound, subject}, round, guardRounds, func(Result) {})
		if space := (*SpaceError)(nil); errors.As(err, &space) {
			reason := fmt.Sprintf("it may need %.0f GB of disk and %s has %.0f GB free: free some, or name another directory with --dir",
				float64(space.Need)/1e9, space.Dir, float64(space.Free)/1e9)
			return GuardReport{Verdict: GuardSkipped, Reason: reason}, nil
		} else if err != nil {
			return report, err
		}
		report = c.guard(bound.Name(), subject.Name())
	}
	return report, nil
}

// guard compares the best rounds with the limits. Figures of a run that lost something do not count.
func (c Comparison) guard(bound, subject string) GuardReport {
	report := GuardReport{Verdict: GuardOK, Results: c.Results}
	if err := c.Headline(); err != nil {
		report.Verdict, report.Reason = GuardFailed, err.Error()
	}
	times := "x " + bound
	for _, f := range []GuardFigure{
		atLeast("throughput", times, guardThroughput, c.byRound(subject, bound, func(r Result) float64 { return r.MBPerSecond })),
		atMost("server CPU per MB", times, guardCPU, c.byRound(subject, bound, func(r Result) float64 { return r.ServerCPUPerMB })),
		atMost("allocations in the servers", "a record", guardAllocations, valuesOf(c.of(subject), func(r Result) float64 { return r.AllocationsPerRec })),
		diskFigure(valuesOf(c.of(subject), func(r Result) float64 { return r.DiskBytesPerByte })),
	} {
		report.Figures = append(report.Figures, f)
		if f.Verdict == GuardFailed {
			report.Verdict = GuardFailed
		}
	}
	return report
}

// diskFigure is known where the kernel counts for the device below the directory, which it does not for an overlay.
func diskFigure(rounds []float64) GuardFigure {
	f := atMost("bytes written by the disk", "a byte", guardDisk, rounds)
	if f.Best == 0 {
		f.Verdict = GuardSkipped
	}
	return f
}

func atLeast(name, unit string, limit float64, rounds []float64) GuardFigure {
	f := GuardFigure{Name: name, Unit: unit, Limit: limit, Sense: "at least", ByRounds: rounds, Verdict: GuardFailed}
	for _, v := range rounds {
		f.Best = max(f.Best, v)
	}
	if f.Best >= limit {
		f.Verdict = GuardOK
	}
	return f
}

func atMost(name, unit string, limit float64, rounds []float64) GuardFigure {
	f := GuardFigure{Name: name, Unit: unit, Limit: limit, Sense: "at most", ByRounds: rounds, Verdict: GuardFailed}
	for _, v := range rounds {
		if v > 0 && (f.Best == 0 || v < f.Best) {
			f.Best = v
		}
	}
	if f.Best > 0 && f.Best <= limit { // what was not measured is not good
		f.Verdict = GuardOK
	}
	return f
}
