package nats

import (
	"errors"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/bench"
)

// TestSaysWhatIsMissing looks for programs where there are none.
func TestSaysWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("HOME", t.TempDir())
	w, err := bench.WorkloadNamed("max-12-partitions-1kb")
	if err != nil {
		t.Fatal(err)
	}
	_, err = Target{}.Start(t.Context(), bench.Setup{Dir: t.TempDir(), Workload: w, Log: t.Logf})
	if !errors.Is(err, errNoGo) || !strings.Contains(err.Error(), "--servers") {
		t.Errorf("got %v", err)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	text := config(1, "127.0.0.1:1", "127.0.0.1:2", []string{"nats://127.0.0.1:2", "nats://127.0.0.1:3"}, "/data", FsyncAlways)
	for _, want := range []string{"server_name: node-2\n", `store_dir: "/data"`, "sync_interval: always", "listen: 127.0.0.1:1\n", "routes: [nats://127.0.0.1:2, nats://127.0.0.1:3]"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if text := config(1, "a", "b", nil, "c", FsyncDefault); strings.Contains(text, "sync_interval") {
		t.Errorf("the default is not the default:\n%s", text)
	}
}

func TestWindow(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]int{"max-12-partitions-1kb": 8192, "max-12-partitions-100kb": 655} {
		w, err := bench.WorkloadNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		s := &system{setup: bench.Setup{Workload: w}}
		if got := s.window(); got != want {
			t.Errorf("%s: %d, want %d", name, got, want)
		}
	}
	stream, subject := streamOf(bench.NewLayout("t", 2, 3), 4)
	if stream != "t-1-1" || subject != "t-1.1" {
		t.Errorf("got %s, %s", stream, subject)
	}
}
