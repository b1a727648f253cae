package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// WriteText writes a comparison for a terminal: what was measured, on what, and the figures.
func (c Comparison) WriteText(w io.Writer) {
	c.writeHeader(w)
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "target\tround\trecords/s\tMB/s\tack p50\tp99\tp99.9\tmax ms\te2e p50\tp99\tmax ms\tCPU-ms/MB\tRSS MB\tdisk x\tlost\tdup\treord\tverified\t")
	for _, r := range c.Results {
		row(t, r)
	}
	t.Flush()
	for _, r := range c.Results {
		notes(w, r)
	}
	if len(c.Ratios) > 0 {
		fmt.Fprintln(w)
		t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
		for _, r := range c.Ratios {
			fmt.Fprintf(t, "%s / %s\t%s\t%.2f\t(%.2f - %.2f)\t\n", r.Of, r.To, r.Figure, r.Median, r.Lowest, r.Most)
		}
		t.Flush()
	}
}

func (c Comparison) writeHeader(w io.Writer) {
	m, l := c.Machine, c.Workload
	fmt.Fprintf(w, "machine   %s, %d cores, %.0f GB, %s, %s; load average before: %.2f\n", m.CPU, m.Cores, float64(m.MemoryMB)/1000, m.OS, m.Go, m.Load)
	fmt.Fprintf(w, "disk      %s, %s; write+fdatasync", m.Disk, m.FileSystem)
	for _, s := range m.Fdatasync {
		fmt.Fprintf(w, " %d KiB %.2f ms (p99 %.2f)", s.Bytes>>10, s.P50MS, s.P99MS)
	}
	fmt.Fprintf(w, "\nworkload  %s: %s\n          %s\n", l.Name, l.Description, l.settings())
	seen := make(map[string]bool)
	for _, r := range c.Results {
		if seen[r.Target] {
			continue
		}
		seen[r.Target] = true
		d := r.Description
		fmt.Fprintf(w, "%-9s %s: %d nodes, replication %d, acks=%s, fsync %s", r.Target, d.Version, d.Nodes, d.Replication, d.Acks, d.Fsync)
		for _, key := range slices.Sorted(maps.Keys(d.Settings)) {
			fmt.Fprintf(w, "; %s %s", key, d.Settings[key])
		}
		if d.Bound != "" {
			fmt.Fprintf(w, "; %s", d.Bound)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}

// settings is a workload in a line.
func (l Workload) settings() string {
	parts := []string{fmt.Sprintf("mode %s, %s of %s", l.Mode, counted(l.Topics, "topic"), counted(l.Partitions, "partition"))}
	if l.Mode != ModeIdle {
		parts = append(parts, fmt.Sprintf("records of %d bytes, keys %s, %s, %s, linger %v, batch %v, in flight %v",
			l.RecordBytes, l.Keys, counted(l.Producers, "producer"), counted(l.Consumers, "consumer"), l.Linger, l.Batch, l.InFlight))
	}
	if l.Rate > 0 {
		parts = append(parts, fmt.Sprintf("%.0f records/s, latency from when each was due", l.Rate))
	}
	if l.Mode == ModeCatchUp {
		parts = append(parts, fmt.Sprintf("backlog %v, %s", l.BacklogBytes, l.Cache))
	} else {
		parts = append(parts, fmt.Sprintf("warm-up %v, timed %v", l.WarmUp, l.Duration))
	}
	return strings.Join(parts, "; ")
}

func counted(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

func row(w io.Writer, r Result) {
	fmt.Fprintf(w, "%s\t%d\t%.0f\t%.1f\t", r.Target, r.Round, r.RecordsPerSecond, r.MBPerSecond)
	if p := r.AckMS; p != nil {
		fmt.Fprintf(w, "%.2f\t%.2f\t%.2f\t%.1f\t", p.P50, p.P99, p.P999, p.Max)
	} else {
		fmt.Fprint(w, "-\t-\t-\t-\t")
	}
	if p := r.EndToEndMS; p != nil {
		fmt.Fprintf(w, "%.2f\t%.2f\t%.1f\t", p.P50, p.P99, p.Max)
	} else {
		fmt.Fprint(w, "-\t-\t-\t")
	}
	fmt.Fprintf(w, "%.2f\t%.0f\t%.2f\t%d\t%d\t%d\t%v\t\n", r.ServerCPUPerMB, r.ServerRSSMB, r.DiskBytesPerByte, r.Lost, r.Duplicated, r.Reordered, r.Verified)
}

// notes writes what does not fit into the table.
func notes(w io.Writer, r Result) {
	var n []string
	add := func(format string, args ...any) { n = append(n, fmt.Sprintf(format, args...)) }
	add("load average before %.2f", r.LoadBefore)
	add("servers %.0f %% of a core", r.ServerCPUPercent)
	if len(r.ProcessorsBusy) > 0 && len(r.ProcessorsBusy) <= processorsInText {
		add("processors %.0f %% busy, %.1f %% stolen by the host", r.ProcessorsBusy, r.StolenPercent)
	}
	if r.MBPerSecond > 0 {
		add("client %.2f CPU-ms/MB", r.ClientCPUPerMB)
		add("%.1f read/write calls per MB", r.SyscallsPerMB)
		add("%.2f bytes written by processes per byte", r.ProcessBytesPerByte)
	}
	if r.AllocationsPerRec > 0 {
		add("%.3f allocations per record in the servers", r.AllocationsPerRec)
	}
	if r.ReadMBPerSec > 0 {
		add("read back at %.0f MB/s", r.ReadMBPerSec)
	}
	if p := r.LateMS; p != nil {
		add("generator late by %.2f ms p50, %.2f p99", p.P50, p.P99)
	}
	if r.UnavailableMS > 0 {
		add("longest pause of a partition %v", time.Duration(r.UnavailableMS*1e6).Round(time.Millisecond))
	}
	if r.Failed > 0 {
		add("%d records failed, the first: %s", r.Failed, r.FirstFailure)
	}
	if r.Unacknowledged > 0 {
		add("%d records are there that nobody promised", r.Unacknowledged)
	}
	if r.First != "" {
		add("FIRST PROBLEM: %s", r.First)
	}
	if m, ok := r.MemoryTrend(); ok {
		add("memory %.0f MB in the first %v, %.0f MB in the last (medians), %.0f MB at most", m.First, m.Span, m.Last, m.Most)
	}
	if len(r.Series) > 0 {
		series, seconds := condensed(r.Series, seriesInText)
		per := "second"
		if seconds > 1 {
			per = fmt.Sprintf("%d seconds", seconds)
		}
		add("MB/s by %s %.0f", per, series)
	}
	fmt.Fprintf(w, "%s, round %d: %s\n", r.Target, r.Round, strings.Join(n, "; "))
}

// processorsInText is up to how many processors a note says how busy each was.
const processorsInText = 16

// seriesInText is how many figures of a series a note has at most.
const seriesInText = 60

// condensed takes the means of as many neighbours as it needs for at most that many values.
func condensed(series []float64, most int) (means []float64, of int) {
	of = (len(series) + most - 1) / most
	for part := range slices.Chunk(series, of) {
		sum := 0.0
		for _, v := range part {
			sum += v
		}
		means = append(means, sum/float64(len(part)))
	}
	return means, of
}
