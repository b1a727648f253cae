package bench

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"maps"
	"math"
	"os"
	"slices"
)

//go:embed report.html
var reportPage string

var reportTemplate = template.Must(template.New("report").Funcs(template.FuncMap{
	"number":   number,
	"sorted":   func(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) },
	"headline": func(r Result) bool { return r.Headline() == nil },
}).Parse(reportPage))

// page is what the template shows.
type page struct {
	Comparison
	Settings string
	Verdict  string // empty: everything was found
	Legend   []legend
	Targets  []target
	Charts   []figure
}

type legend struct {
	Name   string
	Series int
}

// target sums up the rounds of one: medians, and the range of the rate.
type target struct {
	Name                       string
	Series                     int
	Description                Description
	MB, Lowest, Most           float64
	Records, CPU, Percent, RSS float64
	AckP50, AckP99             float64 // 0: nothing was acknowledged
}

func (c Comparison) sum(name string, series int) target {
	results := c.of(name)
	of := func(figure func(Result) float64) (middle, lowest, most float64) {
		values := valuesOf(results, figure)
		slices.Sort(values)
		return median(values), values[0], values[len(values)-1]
	}
	t := target{Name: name, Series: series % palette, Description: results[0].Description}
	t.MB, t.Lowest, t.Most = of(func(r Result) float64 { return r.MBPerSecond })
	t.Records, _, _ = of(func(r Result) float64 { return r.RecordsPerSecond })
	t.CPU, _, _ = of(func(r Result) float64 { return r.ServerCPUPerMB })
	t.Percent, _, _ = of(func(r Result) float64 { return r.ServerCPUPercent })
	t.RSS, _, _ = of(func(r Result) float64 { return r.ServerRSSMB })
	t.AckP50, _, _ = of(func(r Result) float64 { return ackOf(r).P50 })
	t.AckP99, _, _ = of(func(r Result) float64 { return ackOf(r).P99 })
	return t
}

// figure is a chart with its caption.
type figure struct {
	Title, Note string
	SVG         template.HTML
	Wide        bool
}

// WriteHTML writes the comparison as one page that needs nothing else.
func (c Comparison) WriteHTML(path string) error {
	p := page{Comparison: c, Settings: c.Workload.settings()}
	if err := c.Headline(); err != nil {
		p.Verdict = err.Error()
	}
	names := c.targets()
	for i, name := range names {
		p.Legend = append(p.Legend, legend{name, i % palette})
		p.Targets = append(p.Targets, c.sum(name, i))
	}
	p.Charts = c.charts(names)
	var b bytes.Buffer
	if err := reportTemplate.Execute(&b, p); err != nil {
		return fmt.Errorf("cannot make the page: %w", err)
	}
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return fmt.Errorf("cannot write the page: %w", err)
	}
	return nil
}

// targets are the names in the order of their first turns.
func (c Comparison) targets() (names []string) {
	for _, r := range c.Results {
		if !slices.Contains(names, r.Target) {
			names = append(names, r.Target)
		}
	}
	return names
}

func (c Comparison) of(target string) (results []Result) {
	for _, r := range c.Results {
		if r.Target == target {
			results = append(results, r)
		}
	}
	return results
}

func (c Comparison) charts(names []string) (charts []figure) {
	add := func(title, note, svg string, wide bool) {
		if svg != "" {
			charts = append(charts, figure{title, note, template.HTML(svg), wide}) // made of numbers and escaped names
		}
	}
	add("Throughput", "MB/s of payload; bar: median, line: range of the rounds", c.bars(names, "MB/s", func(r Result) float64 { return r.MBPerSecond }), false)
	if c.Workload.Mode == ModeIdle {
		add("Server CPU", "per cent of one core, all nodes", c.bars(names, "%", func(r Result) float64 { return r.ServerCPUPercent }), false)
	} else {
		add("Server CPU", "milliseconds per MB, all nodes", c.bars(names, "CPU-ms/MB", func(r Result) float64 { return r.ServerCPUPerMB }), false)
	}
	add("Acknowledgement, 99th percentile", "milliseconds", c.bars(names, "ms", func(r Result) float64 { return ackOf(r).P99 }), false)
	if c.Workload.Mode != ModeCatchUp { // which writes nothing
		add("Disk", "bytes written by the disk per byte of payload, all copies", c.bars(names, "bytes", func(r Result) float64 { return r.DiskBytesPerByte }), false)
	}
	add("Throughput over time", "MB/s in each second of the timed part; one line per round",
		c.overTime(names, "Throughput over time", "MB/s", func(r Result) ([]float64, float64) { return r.Series, 1 }), true)
	add("Memory over time", "MB that the servers hold, all nodes; one line per round",
		c.overTime(names, "Memory over time", "MB", func(r Result) ([]float64, float64) { return r.RSSSeries, r.RSSEvery }), true)
	note := "milliseconds, from when a record was handed over"
	if c.Workload.Mode == ModeRate {
		note = "milliseconds, from when a record was due, sent in time or not; dashed: from end to end"
	}
	add("Latency", note, c.latencies(names), true)
	if len(c.Ratios) > 0 {
		add("Ratios of "+c.Ratios[0].Of, "dot: median of the rounds, line: their range", ratioSVG(c.Ratios, slices.Index(names, c.Ratios[0].Of)), true)
	}
	return charts
}

// bars leaves out targets of which the figure was not measured.
func (c Comparison) bars(names []string, unit string, figure func(Result) float64) string {
	var bars []spread
	for i, name := range names {
		values := valuesOf(c.of(name), figure)
		slices.Sort(values)
		if values[len(values)-1] == 0 {
			continue
		}
		bars = append(bars, spread{name, i, median(values), values[0], values[len(values)-1]})
	}
	return barSVG(unit, unit, bars)
}

// overTime draws a line for each round of each target; series returns its points and the seconds between them.
func (c Comparison) overTime(names []string, title, unit string, series func(Result) (points []float64, every float64)) string {
	p := newPlot(title, unit, "seconds")
	p.xLow = math.Inf(1)
	for i, name := range names {
		for _, r := range c.of(name) {
			points, every := series(r)
			if len(points) < 2 {
				continue
			}
			l := line{name: fmt.Sprintf("%s, round %d", name, r.Round), series: i}
			for at, v := range points {
				l.x, l.y = append(l.x, float64(at+1)*every), append(l.y, v)
				p.yHigh = max(p.yHigh, v)
			}
			p.xLow = min(p.xLow, every)
			p.xHigh = max(p.xHigh, float64(len(points))*every)
			p.lines = append(p.lines, l)
		}
	}
	if len(p.lines) == 0 || p.yHigh == 0 {
		return ""
	}
	p.yHigh = ceiling(p.yHigh)
	step := math.Ceil(roundStep(p.xHigh / 10))
	for s := step; s <= p.xHigh; s += step {
		if s < p.xLow {
			continue
		}
		p.xTicks = append(p.xTicks, tick{s, number(s)})
	}
	return p.svg()
}

// nines stretches the upper percentiles: 90 % lies at 1, 99 % at 2, 99.9 % at 3.
func nines(percentile float64) float64 { return -math.Log10(1 - percentile/100) }

func (c Comparison) latencies(names []string) string {
	p := newPlot("Latency", "ms", "percentile")
	p.logY, p.yLow, p.xHigh = true, math.Inf(1), nines(99.99)
	add := func(name, dashed string, series int, q *Percentiles) {
		if q == nil {
			return
		}
		l := line{name: name, series: series, dashed: dashed}
		for _, at := range q.Curve {
			if at.Percentile < 10 || at.Percentile > 99.99 || at.MS <= 0 {
				continue
			}
			l.x, l.y = append(l.x, nines(at.Percentile)), append(l.y, at.MS)
			p.yLow, p.yHigh = min(p.yLow, at.MS), max(p.yHigh, at.MS)
		}
		p.lines = append(p.lines, l)
	}
	for i, name := range names {
		for _, r := range c.of(name) {
			add(fmt.Sprintf("%s, round %d, acknowledged", name, r.Round), "", i, r.AckMS)
			add(fmt.Sprintf("%s, round %d, end to end", name, r.Round), "5 4", i, r.EndToEndMS)
		}
	}
	if p.yHigh == 0 {
		return ""
	}
	p.yLow, p.yHigh = p.yLow/1.3, roundStep(p.yHigh*1.05)
	for _, q := range []float64{10, 50, 90, 99, 99.9, 99.99} {
		p.xTicks = append(p.xTicks, tick{nines(q), fmt.Sprintf("%g", q)})
	}
	return p.svg()
}
