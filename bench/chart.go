package bench

import (
	"fmt"
	"html"
	"math"
	"strings"
)

// Charts are SVG that takes its colours from the page's style sheet, so that they follow its light or dark theme: series number i
// has class s<i>.

// Charts are drawn in about the pixels that the page has for them, so that their text is as large as its own.
const (
	narrow = 500.0 // two beside each other
	wide   = 1060.0
)

// palette is how many series colours the style sheet has.
const palette = 10

// mostDots is up to how many points of a line are drawn as such: more of them would touch.
const mostDots = 120

// line is a series of a line chart.
type line struct {
	name   string
	series int // colour
	dashed string
	x, y   []float64
}

// plot is a chart with two axes.
type plot struct {
	title, unit   string
	xLabel        string
	xLow, xHigh   float64
	yHigh         float64
	logY          bool
	yLow          float64 // of a logarithmic axis
	xTicks        []tick
	lines         []line
	width, height float64
	left, right   float64
	top, bottom   float64
}

type tick struct {
	at   float64
	text string
}

func newPlot(title, unit, xLabel string) plot {
	return plot{title: title, unit: unit, xLabel: xLabel, width: wide, height: 320, left: 58, right: 24, top: 14, bottom: 44}
}

func (p plot) x(v float64) float64 {
	return p.left + (v-p.xLow)/(p.xHigh-p.xLow)*(p.width-p.left-p.right)
}

func (p plot) y(v float64) float64 {
	span := p.height - p.top - p.bottom
	if p.logY {
		return p.height - p.bottom - math.Log(max(v, p.yLow)/p.yLow)/math.Log(p.yHigh/p.yLow)*span
	}
	return p.height - p.bottom - v/p.yHigh*span
}

// svg draws the chart.
func (p plot) svg() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, p.width, p.height, html.EscapeString(p.title))
	for _, t := range p.yTicks() {
		y := p.y(t.at)
		fmt.Fprintf(&b, `<line class="grid" x1="%g" x2="%g" y1="%.1f" y2="%.1f"/><text class="tick" x="%g" y="%.1f" text-anchor="end">%s</text>`,
			p.left, p.width-p.right, y, y, p.left-8, y+4, t.text)
	}
	for _, t := range p.xTicks {
		fmt.Fprintf(&b, `<text class="tick" x="%.1f" y="%g" text-anchor="middle">%s</text>`, p.x(t.at), p.height-p.bottom+18, t.text)
	}
	fmt.Fprintf(&b, `<line class="axis" x1="%g" x2="%g" y1="%g" y2="%g"/>`, p.left, p.width-p.right, p.height-p.bottom, p.height-p.bottom)
	fmt.Fprintf(&b, `<text class="label" x="%g" y="%g" text-anchor="end">%s</text>`, p.width-p.right, p.height-6, html.EscapeString(p.xLabel))
	for _, l := range p.lines {
		var points []string
		for i := range l.x {
			points = append(points, fmt.Sprintf("%.1f,%.1f", p.x(l.x[i]), p.y(l.y[i])))
		}
		fmt.Fprintf(&b, `<polyline class="line s%d" stroke-dasharray="%s" points="%s"/>`, l.series%palette, l.dashed, strings.Join(points, " "))
		if len(l.x) > mostDots {
			continue
		}
		for i := range l.x {
			fmt.Fprintf(&b, `<circle class="dot s%d" cx="%.1f" cy="%.1f" r="2.6"><title>%s: %s %s</title></circle>`,
				l.series%palette, p.x(l.x[i]), p.y(l.y[i]), html.EscapeString(l.name), number(l.y[i]), html.EscapeString(p.unit))
		}
	}
	b.WriteString(`</svg>`)
	return b.String()
}

// yTicks are round numbers up to yHigh.
func (p plot) yTicks() (ticks []tick) {
	if p.logY {
		for decade := math.Pow(10, math.Floor(math.Log10(p.yLow))); decade <= p.yHigh*1.0001; decade *= 10 {
			for _, f := range []float64{1, 2, 5} {
				if v := f * decade; v >= p.yLow*0.999 && v <= p.yHigh*1.0001 {
					ticks = append(ticks, tick{v, number(v)})
				}
			}
		}
		return ticks
	}
	step := roundStep(p.yHigh / 5)
	for v := 0.0; v <= p.yHigh*1.0001; v += step {
		ticks = append(ticks, tick{v, number(v)})
	}
	return ticks
}

// roundStep is the next of 1, 2, 2.5 and 5 times a power of ten.
func roundStep(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, f := range []float64{1, 2, 2.5, 5} {
		if v <= f*power*1.0001 {
			return f * power
		}
	}
	return 10 * power
}

// ceiling is a round number above v for the end of an axis.
func ceiling(v float64) float64 {
	step := roundStep(v / 5)
	return max(step, math.Ceil(v/step)*step)
}

// number is v with three significant digits, without an exponent.
func number(v float64) string {
	switch a := math.Abs(v); {
	case a < 0.0005:
		return "0"
	case a >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case a >= 10_000:
		return fmt.Sprintf("%.0fk", v/1000)
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
	case a >= 0.1:
		return strings.TrimSuffix(strings.TrimSuffix(fmt.Sprintf("%.2f", v), "0"), ".0")
	}
	return fmt.Sprintf("%.3f", v)
}

// spread is a bar: the median of a target's rounds, and their range.
type spread struct {
	name                 string
	series               int
	median, lowest, most float64
}

// barSVG draws horizontal bars.
func barSVG(title, unit string, bars []spread) string {
	const width, left, right, row = narrow, 100.0, 60.0, 32.0
	high := 0.0
	for _, s := range bars {
		high = max(high, s.most)
	}
	if high == 0 {
		return ""
	}
	scale := func(v float64) float64 { return left + v/high*(width-left-right) }
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img" aria-label="%s">`, width, row*float64(len(bars))+6, html.EscapeString(title))
	for i, s := range bars {
		y := row*float64(i) + 4
		fmt.Fprintf(&b, `<text class="name" x="%g" y="%g" text-anchor="end">%s</text>`, left-12, y+18, html.EscapeString(s.name))
		fmt.Fprintf(&b, `<rect class="bar s%d" x="%g" y="%g" width="%.1f" height="22" rx="3"><title>%s: %s %s (%s to %s)</title></rect>`,
			s.series%palette, left, y, max(1, scale(s.median)-left), html.EscapeString(s.name), number(s.median), html.EscapeString(unit), number(s.lowest), number(s.most))
		if s.most > s.lowest {
			fmt.Fprintf(&b, `<path class="whisker" d="M%.1f %g v8 m0 -4 H%.1f m0 -4 v8"/>`, scale(s.lowest), y+7, scale(s.most))
		}
		fmt.Fprintf(&b, `<text class="value" x="%.1f" y="%g">%s</text>`, scale(s.most)+8, y+16, number(s.median))
	}
	b.WriteString(`</svg>`)
	return b.String()
}

// ratioSVG draws ratios on a logarithmic axis around 1.
func ratioSVG(ratios []Ratio, series int) string {
	const width, left, right, row, top = wide, 270.0, 60.0, 24.0, 24.0
	low, high := 0.5, 2.0
	for _, r := range ratios {
		low, high = min(low, r.Lowest), max(high, r.Most)
	}
	low, high = low/1.15, high*1.15
	scale := func(v float64) float64 { return left + math.Log(v/low)/math.Log(high/low)*(width-left-right) }
	height := top + row*float64(len(ratios)) + 6
	var b strings.Builder
	fmt.Fprintf(&b, `<svg viewBox="0 0 %g %g" role="img" aria-label="ratios">`, width, height)
	marks := []float64{0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100}
	if high/low < 8 {
		marks = []float64{0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.6, 2, 3, 4, 6}
	}
	for _, v := range marks {
		if v >= low && v <= high {
			class := "grid"
			if v == 1 {
				class = "axis"
			}
			fmt.Fprintf(&b, `<line class="%s" x1="%.1f" x2="%.1f" y1="%g" y2="%g"/><text class="tick" x="%.1f" y="14" text-anchor="middle">%g×</text>`, class, scale(v), scale(v), top, height-4, scale(v), v)
		}
	}
	for i, r := range ratios {
		y := top + row*(float64(i)+0.5)
		fmt.Fprintf(&b, `<text class="name" x="%g" y="%.1f" text-anchor="end">%s, to %s</text>`, left-12, y+4, html.EscapeString(figureText(r.Figure)), html.EscapeString(r.To))
		fmt.Fprintf(&b, `<line class="range" x1="%.1f" x2="%.1f" y1="%.1f" y2="%.1f"/>`, scale(r.Lowest), scale(r.Most), y, y)
		fmt.Fprintf(&b, `<circle class="dot s%d" cx="%.1f" cy="%.1f" r="5"><title>%s / %s: %.2f (%.2f to %.2f)</title></circle>`,
			series%palette, scale(r.Median), y, html.EscapeString(r.Of), html.EscapeString(r.To), r.Median, r.Lowest, r.Most)
		fmt.Fprintf(&b, `<text class="value" x="%.1f" y="%.1f">%.2f</text>`, max(scale(r.Most), scale(r.Median)+5)+8, y+4, r.Median)
	}
	b.WriteString(`</svg>`)
	return b.String()
}

func figureText(name string) string {
	switch name {
	case "mb_per_second":
		return "MB/s"
	case "records_per_second":
		return "records/s"
	case "server_cpu_ms_per_mb":
		return "server CPU per MB"
	case "ack_ms.p50":
		return "ack p50"
	case "ack_ms.p99":
		return "ack p99"
	case "disk_bytes_per_byte":
		return "disk bytes per byte"
	case "server_rss_mb":
		return "server memory"
	case "server_cpu_percent":
		return "server CPU"
	}
	return name
}
