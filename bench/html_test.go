package bench

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHTMLIsComplete makes a page of results with everything that a chart can meet, and parses its charts.
func TestHTMLIsComplete(t *testing.T) {
	t.Parallel()
	w, err := WorkloadNamed("latency-12-partitions-1kb")
	if err != nil {
		t.Fatal(err)
	}
	latency := NewLatency()
	for i := range 1000 {
		latency.Record(time.Duration(i+1)*time.Millisecond, 1)
	}
	c := Comparison{Workload: w}
	for round := 1; round <= 3; round++ {
		for i, name := range []string{"limit-log", "quorumlog", "<script>"} {
			c.Results = append(c.Results, Result{
				Target: name, Round: round, MBPerSecond: float64(100*round + i), RecordsPerSecond: 1e6, ServerCPUPerMB: 2 + float64(i),
				AckMS: latency.Percentiles(), EndToEndMS: latency.Percentiles(), Series: []float64{1, 0, 1234.5}, RSSSeries: []float64{700, 800, 750}, RSSEvery: 2, Verified: i != 0,
				Description: Description{KeepsData: i != 0, Settings: map[string]string{"a": "<b>"}},
			})
		}
	}
	c.Ratios = c.ratios()
	file := filepath.Join(t.TempDir(), "report.html")
	if err := c.WriteHTML(file); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	for _, bad := range []string{"<script", "http://", "https://", "NaN", "Inf", "<b>;", "%!"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %q in it", bad)
		}
	}
	charts := 0
	for rest := text; ; charts++ {
		_, after, ok := strings.Cut(rest, "<svg")
		if !ok {
			break
		}
		svg, more, _ := strings.Cut(after, "</svg>")
		rest = more
		d := xml.NewDecoder(strings.NewReader("<svg" + svg + "</svg>"))
		for {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("chart %d: %v", charts, err)
			}
		}
	}
	if charts != 7 {
		t.Errorf("%d charts", charts) // no disk: nothing was written
	}
	c.Results[1].Lost = 1
	if err := c.WriteHTML(file); err != nil {
		t.Fatal(err)
	}
	if data, err = os.ReadFile(file); err != nil || !strings.Contains(string(data), "no headline") {
		t.Errorf("a lost record does not show: %v", err)
	}
	for _, name := range []string{"idle-1000-partitions", "catchup-12-partitions-1kb"} {
		w, err := WorkloadNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := (Comparison{Workload: w, Results: []Result{{Target: "x", Verified: true}}}).WriteHTML(file); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestEverySeriesHasAColour looks for it in both themes, and for the class that uses it.
func TestEverySeriesHasAColour(t *testing.T) {
	t.Parallel()
	for i := range palette {
		if colour, class := fmt.Sprintf("--c%d: #", i), fmt.Sprintf(".s%d { --colour: var(--c%d) }", i, i); strings.Count(reportPage, colour) != 2 || strings.Count(reportPage, class) != 1 {
			t.Errorf("series %d has no colour", i)
		}
	}
}

func TestLongLinesHaveNoDots(t *testing.T) {
	t.Parallel()
	long := Result{Target: "x", Series: make([]float64, mostDots+1)}
	long.Series[3] = 7
	short := Result{Target: "x", Series: []float64{5, 7}}
	draw := func(r Result) string {
		return Comparison{Results: []Result{r}}.overTime([]string{"x"}, "t", "u", func(r Result) ([]float64, float64) { return r.Series, 1 })
	}
	if svg := draw(long); !strings.Contains(svg, "<polyline") || strings.Contains(svg, "<circle") {
		t.Error("a long line is not a line without dots")
	}
	if svg := draw(short); strings.Count(svg, "<circle") != 2 {
		t.Error("a short line has not its dots")
	}
}

func TestNumbers(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0", 0.0123: "0.012", 0.5: "0.5", 1: "1", 1.5: "1.5", 2.25: "2.25", 12: "12", 99.95: "100", 123.4: "123", 12345: "12k", 1.129e6: "1.13M", 0.0004: "0"} {
		if got := number(v); got != want {
			t.Errorf("number(%v) = %q, want %q", v, got, want)
		}
	}
	for v, want := range map[float64]float64{1: 1, 7: 8, 99: 100, 101: 150, 480: 500, 0.3: 0.3} {
		if got := ceiling(v); got < v || got > want*1.0001 {
			t.Errorf("ceiling(%v) = %v, want %v", v, got, want)
		}
	}
}
