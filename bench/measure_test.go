package bench

import (
	"bytes"
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/rpc"
)

func TestPercentiles(t *testing.T) {
	t.Parallel()
	l := NewLatency()
	if l.Percentiles() != nil {
		t.Error("nothing has percentiles")
	}
	for i := range 1000 {
		l.Record(time.Duration(i+1)*time.Millisecond, 1)
	}
	l.Record(time.Hour, 1) // counted as the longest that is told apart
	l.Record(-time.Second, 1)
	p := l.Percentiles()
	for _, c := range []struct{ got, want float64 }{
		{p.P50, 500}, {p.P90, 901}, {p.P99, 992}, {p.P999, 1000}, {p.Max, 120_000}, {float64(p.N), 1002},
	} {
		if math.Abs(c.got-c.want) > c.want/200 {
			t.Errorf("got %v, want %v: %+v", c.got, c.want, p)
		}
	}
	for i := 1; i < len(p.Curve); i++ {
		if p.Curve[i].MS < p.Curve[i-1].MS || p.Curve[i].Percentile <= p.Curve[i-1].Percentile {
			t.Errorf("the curve falls: %v", p.Curve)
		}
	}
}

func TestPayloadKnowsItself(t *testing.T) {
	t.Parallel()
	for _, size := range []int{MinRecordBytes, 100, 4096} {
		p := newPayload(size)
		b := make([]byte, size)
		for number := range uint64(1000) {
			want := identity{uint32(number % 7), number * 1e9, time.Duration(number)}
			p.fill(b, want)
			if got, ok := p.parse(b); !ok || got != want {
				t.Fatalf("got %+v, %v, want %+v", got, ok, want)
			}
		}
		for at := range b {
			b[at] ^= 0x10
			if _, ok := p.parse(b); ok {
				t.Fatalf("a changed byte %d of %d is not noticed", at, size)
			}
			b[at] ^= 0x10
		}
		if _, ok := p.parse(b[:size-1]); ok {
			t.Error("a shorter value is accepted")
		}
	}
}

func TestRatios(t *testing.T) {
	t.Parallel()
	c := Comparison{}
	for round, mb := range []float64{100, 200, 400} {
		c.Results = append(c.Results,
			Result{Target: "limit-log", Round: round + 1, MBPerSecond: mb},
			Result{Target: "quorumlog", Round: round + 1, MBPerSecond: mb * []float64{0.5, 0.9, 0.8}[round]},
			Result{Target: "kafka", Round: round + 1, MBPerSecond: mb / 4})
	}
	for _, r := range c.ratios() {
		if r.Of != "quorumlog" {
			t.Errorf("%+v", r)
		}
		if want := (Ratio{"quorumlog", "limit-log", "mb_per_second", 0.8, 0.5, 0.9}); r.To == "limit-log" && r.Figure == "mb_per_second" && r != want {
			t.Errorf("got %+v, want %+v", r, want)
		}
	}
	if n := len(c.ratios()); n != 2 {
		t.Errorf("%d ratios of figures that are there", n)
	}
}

func TestSubject(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		want  string
		names []string
	}{
		{"quorumlog", []string{"limit-log", "quorumlog", "kafka"}},
		{"quorumlog", []string{"quorumlog-no-fsync", "quorumlog", "kafka"}},
		{"quorumlog-no-fsync", []string{"quorumlog-no-fsync", "kafka", "nats"}},
		{"nats", []string{"kafka", "nats"}},
	} {
		if got := subjectOf(tt.names); got != tt.want {
			t.Errorf("%v: the subject is %s, want %s", tt.names, got, tt.want)
		}
	}
}

// TestFsyncClassIsNotMistaken measures nodes of each class under each name, and reads what the reports say of them.
func TestFsyncClassIsNotMistaken(t *testing.T) {
	t.Parallel()
	nodes := map[Fsync][]client.NodeStatus{
		FsyncDefault: {{FsyncClass: rpc.FsyncClassAll}, {Error: "does not answer"}},
		FsyncNever:   {{FsyncClass: rpc.FsyncClassNone}, {Error: "does not answer"}},
	}
	for class, measured := range nodes {
		for name := range nodes {
			if err := checkFsync(name, measured); (err == nil) != (name == class) {
				t.Errorf("nodes of class %q as %s: %v", class, Quorumlog{Fsync: name}.Name(), err)
			}
		}
	}
	system := ownSystem{fsync: FsyncNever}
	result := Result{Target: Quorumlog{Fsync: FsyncNever}.Name(), Verified: true, Description: system.Describe()}
	c := Comparison{Results: []Result{result}}
	file := filepath.Join(t.TempDir(), "report")
	var text bytes.Buffer
	c.WriteText(&text)
	for what, write := range map[string]func() error{
		"text": func() error { return os.WriteFile(file, text.Bytes(), 0o644) },
		"HTML": func() error { return c.WriteHTML(file) },
		"JSON": func() error { return c.WriteJSON(file) },
	} {
		err := write()
		report, readErr := os.ReadFile(file)
		if err := errors.Join(err, readErr); err != nil || !strings.Contains(string(report), "never: --unsafe-no-fsync") || !strings.Contains(string(report), "quorumlog-no-fsync") {
			t.Errorf("the %s does not say that nothing is synced: %v\n%s", what, err, report)
		}
	}
}

func TestNoDiskRatioOfReading(t *testing.T) {
	t.Parallel()
	for mode, want := range map[Mode]int{ModeMaximum: 2, ModeCatchUp: 1} {
		c := Comparison{Workload: Workload{Mode: mode}}
		for _, name := range []string{"limit-push", "quorumlog"} {
			c.Results = append(c.Results, Result{Target: name, Round: 1, MBPerSecond: 100, DiskBytesPerByte: 0.001})
		}
		if n := len(c.ratios()); n != want {
			t.Errorf("mode %s: %d ratios, want %d", mode, n, want)
		}
	}
}

func TestNoHeadlineForWhatIsNotVerified(t *testing.T) {
	t.Parallel()
	good := Result{Target: "a", Verified: true, Description: Description{KeepsData: true}}
	bad := good
	bad.Verified = false
	bad.Lost = 1
	unread := good
	unread.Verified = false
	bound := Result{Target: "limit"}
	for i, c := range []struct {
		results []Result
		ok      bool
	}{{[]Result{good, bound}, true}, {[]Result{good, bad}, false}, {[]Result{unread}, false}} {
		if err := (Comparison{Results: c.results}).Headline(); (err == nil) != c.ok {
			t.Errorf("%d: %v", i, err)
		}
	}
}

func TestProcessorsUsed(t *testing.T) {
	t.Parallel()
	before := []processorTime{{busy: 10, stolen: 1, all: 100}, {busy: 20, all: 100}}
	after := []processorTime{{busy: 14, stolen: 2, all: 105}, {busy: 21, all: 105}}
	busy, stolen := processorsUsed(before, after)
	if len(busy) != 2 || math.Abs(busy[0]-80) > 1e-9 || math.Abs(busy[1]-20) > 1e-9 || math.Abs(stolen-10) > 1e-9 {
		t.Errorf("%v, %v", busy, stolen)
	}
	if busy, stolen := processorsUsed(before, before); busy[0] != 0 || stolen != 0 {
		t.Errorf("no time has passed: %v, %v", busy, stolen)
	}
	if busy, _ := processorsUsed(before, after[:1]); busy != nil {
		t.Errorf("a processor went away: %v", busy)
	}
	if runtime.GOOS != "linux" {
		return
	}
	now := processorTimes()
	if len(now) < runtime.NumCPU() {
		t.Fatalf("%d processors of %d", len(now), runtime.NumCPU())
	}
	for _, p := range now {
		if p.busy <= 0 || p.busy+p.stolen > p.all {
			t.Errorf("%+v", p)
		}
	}
}

func TestUsageOfThisProcess(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("usage is measured on Linux only")
	}
	dir := t.TempDir()
	own := os.Getpid()
	u, ok := usageOf(own)
	if !ok || u.rss < 1<<20 || u.syscalls == 0 {
		t.Errorf("%+v, %v", u, ok)
	}
	if _, ok := usageOf(1 << 30); ok {
		t.Error("a process that is not there is there")
	}
	if diskWritten(dir) < 0 {
		t.Error("what the disk has written is not known")
	}
	// The process begins after the first look and is gone at the last one.
	a := newAccount(nil)
	a.look([]int{own, 1 << 30})
	if used := a.used(nil); used.cpu != a.last[own].cpu || used.rss != 0 || len(a.last) != 1 {
		t.Errorf("%+v", used)
	}
	m, err := InspectMachine(dir)
	if err != nil || m.Cores == 0 || m.CPU == "" || m.FileSystem == "" || len(m.Fdatasync) != 2 || m.Fdatasync[0].P50MS <= 0 {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestRefusesWithoutSpace(t *testing.T) {
	t.Parallel()
	w := Workload{Name: "endless", Mode: ModeMaximum, Duration: 1e6 * time.Hour}.withDefaults()
	_, err := Run{Target: &fake{}, Workload: w, Dir: t.TempDir(), Say: t.Logf}.Do(t.Context())
	if runtime.GOOS == "linux" && (err == nil || !strings.Contains(err.Error(), "GB free")) {
		t.Errorf("got %v", err)
	}
}

// choosy is a target that fits no run.
type choosy struct{ fake }

func (*choosy) Check(Setup) error { return errors.New("it is for reading") }

// Who asks a target for what it cannot do is not told to free space for it.
func TestRefusesTheWrongTargetBeforeItLooksForSpace(t *testing.T) {
	t.Parallel()
	w := Workload{Name: "endless", Mode: ModeMaximum, Duration: 1e6 * time.Hour}.withDefaults()
	_, err := Run{Target: &choosy{}, Workload: w, Dir: t.TempDir(), Say: t.Logf}.Do(t.Context())
	if err == nil || !strings.Contains(err.Error(), "it is for reading") {
		t.Errorf("got %v", err)
	}
}

func TestTextNamesWhatWasMeasured(t *testing.T) {
	t.Parallel()
	w, err := WorkloadNamed("latency-12-partitions-1kb")
	if err != nil {
		t.Fatal(err)
	}
	c := Comparison{Workload: w, Machine: Machine{CPU: "abacus", Fdatasync: []SyncLatency{{4096, 1.5, 2}}}, Results: []Result{{
		Target: "x", AckMS: &Percentiles{P50: 1.25}, Failed: 3, FirstFailure: errors.New("why").Error(),
		Description: Description{Version: "v9", Replication: 3, Acks: "all", Fsync: "never"},
	}}}
	var b bytes.Buffer
	c.WriteText(&b)
	for _, want := range []string{"abacus", "4 KiB 1.50 ms", "fsync never", "acks=all", "replication 3", "linger 0s", "1.25", "3 records failed, the first: why", "keys none"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}
