package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"runtime"
	"strings"
	"testing"
)

// guarded is a comparison in which quorumlog is what its best round was when the limits were set, changed by each function.
func guarded(rounds ...func(own *Result)) (c Comparison) {
	for i, change := range rounds {
		description := Description{KeepsData: true}
		bound := Result{Target: "limit-log", Round: i + 1, MBPerSecond: 400, ServerCPUPerMB: 1.7, Verified: true, Description: description}
		own := Result{
			Target: "quorumlog", Round: i + 1, MBPerSecond: 400, ServerCPUPerMB: 3.7, AllocationsPerRec: 0.23, DiskBytesPerByte: 3.3,
			Verified: true, Description: description,
		}
		change(&own)
		c.Results = append(c.Results, bound, own)
	}
	return c
}

// TestGuardFails spoils one figure after the other by a factor of two, and sees which line fails.
func TestGuardFails(t *testing.T) {
	t.Parallel()
	same := func(*Result) {}
	slow := func(r *Result) { r.MBPerSecond /= 2 }
	for _, tt := range []struct {
		name   string
		rounds []func(*Result)
		failed string
	}{
		{"good", []func(*Result){same, same}, ""},
		{"half as fast", []func(*Result){slow, slow, slow}, "throughput"},
		{"twice the CPU", []func(*Result){func(r *Result) { r.ServerCPUPerMB *= 2 }}, "server CPU"},
		{"twice the allocations", []func(*Result){func(r *Result) { r.AllocationsPerRec *= 2 }}, "allocations"},
		{"twice the bytes", []func(*Result){func(r *Result) { r.DiskBytesPerByte *= 2 }}, "bytes written by the disk"},
		{"a fast round excuses slow ones", []func(*Result){slow, same, slow}, ""},
		{"nothing was sent", []func(*Result){func(r *Result) { r.MBPerSecond = 0 }}, "throughput"},
		{"CPU was not measured", []func(*Result){func(r *Result) { r.ServerCPUPerMB = 0 }}, "server CPU"},
		{"allocations were not measured", []func(*Result){func(r *Result) { r.AllocationsPerRec = 0 }}, "allocations"},
		{"the disk is not known", []func(*Result){func(r *Result) { r.DiskBytesPerByte = 0 }}, ""},
		{"records were lost", []func(*Result){func(r *Result) { r.Lost = 1 }}, "1 lost"},
		{"not read back", []func(*Result){func(r *Result) { r.Verified = false }}, "read back"},
	} {
		report := guarded(tt.rounds...).guard("limit-log", "quorumlog")
		err := report.Err()
		if (err == nil) != (tt.failed == "") || (report.Verdict == GuardFailed) != (err != nil) {
			t.Errorf("%s: %s, %v", tt.name, report.Verdict, err)
		}
		if err != nil && !strings.Contains(err.Error(), tt.failed) {
			t.Errorf("%s: %v does not name %q", tt.name, err, tt.failed)
		}
		var b bytes.Buffer
		report.WriteText(&b)
		if tt.failed != "" && !strings.Contains(b.String(), "failed") || strings.Count(b.String(), "\n") != 5 {
			t.Errorf("%s: the text is\n%s", tt.name, b.String())
		}
		if _, err := json.Marshal(report); err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	if (Comparison{}).guard("limit-log", "quorumlog").Verdict != GuardFailed {
		t.Error("no results are good")
	}
}

// cramped is a target for which no disk is large enough.
type cramped struct{ fake }

func (*cramped) Start(context.Context, Setup) (System, error) {
	return nil, &SpaceError{Workload: "w", Dir: "/here", Need: 9e9, Free: 1e9}
}

func TestGuardIsSkippedWithoutSpace(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("it is skipped for another reason")
	}
	report, err := Guard(t.Context(), Run{Dir: t.TempDir(), Say: t.Logf}, &cramped{}, &fake{})
	if err != nil || report.Verdict != GuardSkipped || report.Err() != nil {
		t.Fatalf("%+v, %v", report, err)
	}
	var b bytes.Buffer
	if report.WriteText(&b); !strings.Contains(b.String(), "skipped: ") || !strings.Contains(b.String(), "9 GB of disk and /here has 1 GB free") {
		t.Errorf("the text is %q", b.String())
	}
}
