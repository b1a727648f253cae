package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/bench"
)

// TestBenchRun measures a cluster of one node, and a bound, for a second, and looks at what was written about it.
func TestBenchRun(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ workload, target string }{
		{"max-2-partitions-1kb", "quorumlog"},
		{"latency-2-partitions-100b", "quorumlog"},
		{"latency-2-partitions-100b", "quorumlog-no-fsync"},
		{"latency-2-partitions-100b", "limit-log"},
	} {
		t.Run(tt.target+"/"+tt.workload, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			file := filepath.Join(dir, "out.json")
			var out, errs bytes.Buffer
			args := []string{"bench", "run", tt.workload, "--target", tt.target, "--nodes", "1", "--duration", "1s", "--warm-up", "100ms", "--dir", dir, "--json", file}
			if code := run(t.Context(), args, strings.NewReader(""), &out, &errs); code != 0 {
				t.Fatalf("exit code %d: %s", code, errs.String())
			}
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var c bench.Comparison
			if err := json.Unmarshal(data, &c); err != nil {
				t.Fatal(err)
			}
			r := c.Results[0]
			if len(c.Results) != 1 || !r.Verified || r.Acked == 0 || r.RecordsPerSecond <= 0 || r.AckMS == nil || r.ServerRSSMB <= 0 || r.Target != tt.target {
				t.Errorf("%+v", r)
			}
			var fields struct {
				Results []map[string]any `json:"results"`
			}
			if err := json.Unmarshal(data, &fields); err != nil {
				t.Fatal(err)
			}
			for _, name := range strings.Fields("target workload round records_per_second mb_per_second ack_ms end_to_end_ms server_cpu_ms_per_mb " +
				"server_rss_mb disk_bytes_per_byte lost duplicated reordered verified") {
				if _, ok := fields.Results[0][name]; !ok {
					t.Errorf("the JSON has no %q", name)
				}
			}
			if never := strings.HasPrefix(r.Description.Fsync, "never"); never != strings.HasSuffix(tt.target, "no-fsync") {
				t.Errorf("fsync %s", r.Description.Fsync)
			}
			if !strings.Contains(out.String(), "fdatasync") || !strings.Contains(out.String(), tt.workload) {
				t.Errorf("the report is not complete:\n%s", out.String())
			}
			left, err := os.ReadDir(dir)
			if err != nil || len(left) != 1 {
				t.Errorf("the run left %v behind, %v", left, err)
			}
		})
	}
}

// TestBenchCatchUp reads a small backlog back from the processes of limit-push, which the workload's file asks for.
func TestBenchCatchUp(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	workload, file := filepath.Join(dir, "w.yaml"), filepath.Join(dir, "out.json")
	if err := os.WriteFile(workload, []byte("name: small\nmode: catch-up\npartitions: 4\nbacklog: 8MB\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	args := []string{"bench", "run", "--file", workload, "--target", "limit-push", "--dir", dir, "--json", file}
	if code := run(t.Context(), args, strings.NewReader(""), &out, &errs); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs.String())
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var c bench.Comparison
	if err := json.Unmarshal(data, &c); err != nil {
		t.Fatal(err)
	}
	if r := c.Results[0]; !r.Verified || r.Read != 8_000_000/1024 || r.Description.Nodes != 3 || r.ServerRSSMB <= 0 {
		t.Errorf("%+v", r)
	}
}

func TestBenchRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args    string
		problem string
	}{
		{"bench run", "name a workload"},
		{"bench run nonsense", "no workload"},
		{"bench run max-12-partitions-1kb --target nobody", "no target"},
		{"bench run max-12-partitions-1kb --file x.yaml", "not both"},
		{"bench run --file does-not-exist.yaml", "cannot read"},
		{"bench run max-12-partitions-1kb --duration 1ms", "duration"},
		{"bench compare max-12-partitions-1kb --servers 127.0.0.1:1", "one cluster"},
		{"bench run max-12-partitions-1kb --target limit-push", "bound of reading"},
		{"bench run catchup-12-partitions-1kb --target limit-pread", "limit-push"},
		{"bench run catchup-12-partitions-1kb --target limit-log", "limit-pread"},
		{"bench rnu", "run"},
	} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), strings.Fields(tt.args), strings.NewReader(""), &out, &errs); code != 1 || !strings.Contains(errs.String(), tt.problem) {
			t.Errorf("%s: exit code %d: %s", tt.args, code, errs.String())
		}
	}
}
