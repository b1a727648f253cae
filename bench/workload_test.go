package bench

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestStandardWorkloadsExist(t *testing.T) {
	t.Parallel()
	for _, name := range Standard {
		w, err := WorkloadNamed(name)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if w.Name != name || w.Description == "" {
			t.Errorf("%s is %+v", name, w)
		}
	}
	w, err := WorkloadNamed("max-12-partitions-100b")
	if err != nil || w.Mode != ModeMaximum || w.Partitions != 12 || w.RecordBytes != 100 || w.Duration != 20*time.Second || w.Linger != 5*time.Millisecond {
		t.Errorf("got %+v, %v", w, err)
	}
	w, err = WorkloadNamed("latency-12-partitions-1kb")
	if err != nil || w.Mode != ModeRate || w.Rate != 5000 || w.RecordBytes != 1024 || w.Linger != 0 || w.Consumers != 1 {
		t.Errorf("got %+v, %v", w, err)
	}
	for size, records := range map[string]float64{"1kb": 29297, "100b": 300_000} {
		w, err = WorkloadNamed("steady-12-partitions-" + size)
		if err != nil || w.Mode != ModeRate || math.Round(w.Rate) != records || w.Consumers != 1 || w.Linger != 5*time.Millisecond || w.Duration != 10*time.Minute {
			t.Errorf("got %+v, %v", w, err)
		}
	}
	for _, name := range []string{"", "max", "max-0-partitions-1kb", "max-12-partitions", "idle-1000-partitions-1kb", "max-1-partition-10b"} {
		if _, err := WorkloadNamed(name); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}

func TestParseWorkload(t *testing.T) {
	t.Parallel()
	w, err := ParseWorkload([]byte(`
name: mine
mode: rate
rate: 20000
topics: 2
partitions: 3
record-bytes: 512
keys: zipf
producers: 2
batch: 128KiB
in-flight: 4MiB
linger: 1ms
duration: 1m30s
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Workload{
		Name: "mine", Mode: ModeRate, Rate: 20000, Topics: 2, Partitions: 3, RecordBytes: 512, Keys: KeysZipf, KeySpace: 100_000, Producers: 2,
		Batch: 128 << 10, InFlight: 4 << 20, Linger: time.Millisecond, WarmUp: 3 * time.Second, Duration: 90 * time.Second,
	}
	if w != want {
		t.Errorf("got  %+v\nwant %+v", w, want)
	}
	for text, problem := range map[string]string{
		"name: x\npartitons: 3":         "partitons",
		"mode: maximum":                 "name",
		"name: x\nmode: fast":           "mode",
		"name: x\nmode: rate":           "rate",
		"name: x\nbatch: many":          "many",
		"name: x\nrecord-bytes: 3":      "record-bytes",
		"name: x\nconsumers: 1":         "consumers",
		"name: x\nfault: kill-leader":   "fault",
		"name: x\nin-flight: 1KiB":      "in-flight",
		"name: x\nkeys: [a]":            "cannot unmarshal",
		"name: x\nduration: 5 minutes":  "Duration",
		"name: x\ntopics: 1\ntopics: 2": "already",
	} {
		if _, err := ParseWorkload([]byte(text)); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestKeysDecideThePartition(t *testing.T) {
	t.Parallel()
	for _, keys := range []Keys{KeysRoundRobin, KeysUniform, KeysZipf} {
		c := newChooser(Workload{Keys: keys, KeySpace: 100}, 7, 0)
		seen := make(map[string]int)
		for range 2000 {
			p, key := c.choose()
			if at, ok := seen[string(key)]; ok && at != p || p < 0 || p >= 7 {
				t.Fatalf("%s: key %s goes to partition %d and %d", keys, key, at, p)
			}
			seen[string(key)] = p
		}
		if len(seen) < 20 {
			t.Errorf("%s: only %d different keys", keys, len(seen))
		}
	}
	c := newChooser(Workload{Keys: KeysNone}, 3, 0)
	counts := make([]int, 3)
	for range 30 {
		p, key := c.choose()
		if key != nil {
			t.Fatal("a key without keys")
		}
		counts[p]++
	}
	if counts[0] != 10 || counts[1] != 10 || counts[2] != 10 {
		t.Errorf("partitions are not used in turn: %v", counts)
	}
}
