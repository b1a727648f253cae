package bench

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Workload says what is sent and read, in Kafka's words. The zero value of a field is its default, see withDefaults.
type Workload struct {
	Name        string `yaml:"name" json:"name"`
	Description string `yaml:"description" json:"description,omitempty"`
	Mode        Mode   `yaml:"mode" json:"mode"`

	Topics      int  `yaml:"topics" json:"topics"`
	Partitions  int  `yaml:"partitions" json:"partitions"` // of each topic
	RecordBytes int  `yaml:"record-bytes" json:"record_bytes"`
	Keys        Keys `yaml:"keys" json:"keys"`
	KeySpace    int  `yaml:"key-space" json:"key_space,omitempty"` // how many different keys

	Producers int     `yaml:"producers" json:"producers"`
	Consumers int     `yaml:"consumers" json:"consumers"` // that read along
	Rate      float64 `yaml:"rate" json:"rate,omitempty"` // records/s of all producers, mode rate

	BacklogBytes Bytes `yaml:"backlog" json:"backlog_bytes,omitempty"` // payload written before the timed part, mode catch-up
	Cache        Cache `yaml:"cache" json:"cache,omitempty"`
	Fault        Fault `yaml:"fault" json:"fault,omitempty"`

	Linger   time.Duration `yaml:"linger" json:"linger_ns"`
	Batch    Bytes         `yaml:"batch" json:"batch_bytes"`
	InFlight Bytes         `yaml:"in-flight" json:"in_flight_bytes"` // of each producer
	WarmUp   time.Duration `yaml:"warm-up" json:"warm_up_ns"`
	Duration time.Duration `yaml:"duration" json:"duration_ns"`
}

// Mode is what is looked for.
type Mode string

const (
	// ModeMaximum sends as fast as the window of unacknowledged bytes lets it.
	ModeMaximum Mode = "maximum"
	// ModeRate sends at a fixed rate, whatever the target does, and counts latency from when a record was due.
	ModeRate Mode = "rate"
	// ModeCatchUp writes a backlog and reads it.
	ModeCatchUp Mode = "catch-up"
	// ModeIdle sends nothing.
	ModeIdle Mode = "idle"
)

// Keys says how the partition of a record is chosen.
type Keys string

const (
	// KeysNone: no key; records go round the partitions one by one, which makes the smallest batches that a load can make.
	KeysNone Keys = "none"
	// KeysRoundRobin: the keys of the key space in turn.
	KeysRoundRobin Keys = "round-robin"
	// KeysUniform: each key equally often, at random.
	KeysUniform Keys = "uniform"
	// KeysZipf: a few keys much more often than the others (exponent 1.1).
	KeysZipf Keys = "zipf"
)

// Cache says whether a backlog is read from memory.
type Cache string

const (
	// CacheHot reads what was just written.
	CacheHot Cache = "hot"
	// CacheCold restarts the servers and drops the kernel's caches before.
	CacheCold Cache = "cold"
)

// Fault is what happens to the servers during the timed part.
type Fault string

const (
	// FaultNone is the usual case.
	FaultNone Fault = ""
	// FaultKillLeader kills the node that leads partition 0 after a third, and restarts it after two thirds.
	FaultKillLeader Fault = "kill-leader"
	// FaultRollingRestart stops and starts one node after the other.
	FaultRollingRestart Fault = "rolling-restart"
)

// Bytes is a size. In YAML it may have a unit: KiB, MiB, GiB, or kB, MB, GB.
type Bytes int64

var byteUnits = []struct {
	suffix string
	factor float64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"B", 1}, {"", 1}}

// UnmarshalYAML takes a number with or without a unit.
func (b *Bytes) UnmarshalYAML(node *yaml.Node) error {
	for _, u := range byteUnits {
		if number, ok := strings.CutSuffix(node.Value, u.suffix); ok {
			var n float64
			if _, err := fmt.Sscanf(strings.TrimSpace(number)+"\n", "%g\n", &n); err != nil || n < 0 {
				break
			}
			*b = Bytes(n * u.factor)
			return nil
		}
	}
	return fmt.Errorf("%q is no size: write for example 64MiB, 4GB or a number of bytes", node.Value)
}

// String prints the size with the largest binary unit that divides it.
func (b Bytes) String() string {
	switch {
	case b >= 1<<30 && b%(1<<30) == 0:
		return fmt.Sprintf("%d GiB", b>>30)
	case b >= 1<<20 && b%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", b>>20)
	case b >= 1e9 && b%1e9 == 0:
		return fmt.Sprintf("%d GB", b/1e9)
	case b >= 1e6 && b%1e6 == 0:
		return fmt.Sprintf("%d MB", b/1e6)
	case b >= 1<<10 && b%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", b>>10)
	}
	return fmt.Sprintf("%d B", int64(b))
}

// ParseWorkload reads a workload from YAML. Unknown keys are refused.
func ParseWorkload(data []byte) (Workload, error) {
	var w Workload
	d := yaml.NewDecoder(bytes.NewReader(data))
	d.KnownFields(true)
	if err := d.Decode(&w); err != nil && !errors.Is(err, io.EOF) {
		return Workload{}, fmt.Errorf("the workload is not valid: %w", err)
	}
	if w.Name == "" {
		return Workload{}, errors.New("the workload has no name")
	}
	w = w.withDefaults()
	return w, w.Validate()
}

// Share is how many nodes have to share the machine's processors under this workload, when n of them are started on it: all n where
// latency is measured, which would be that of the wake-ups of more threads than there are processors. At maximum rates each may use
// all (0): there it is the threads that wait for disks.
func (w Workload) Share(n int) int {
	if w.Mode == ModeRate {
		return n
	}
	return 0
}

// withDefaults fills in what a workload does not say.
func (w Workload) withDefaults() Workload {
	def(&w.Mode, ModeMaximum)
	def(&w.Topics, 1)
	def(&w.Partitions, 1)
	def(&w.RecordBytes, 1024)
	def(&w.Keys, KeysNone)
	if w.Keys != KeysNone {
		def(&w.KeySpace, 100_000)
	}
	def(&w.Producers, 1)
	def(&w.Batch, 1<<20)
	def(&w.InFlight, 64<<20)
	def(&w.Duration, 20*time.Second)
	switch w.Mode {
	case ModeMaximum:
		def(&w.Linger, 5*time.Millisecond)
		def(&w.WarmUp, 3*time.Second)
	case ModeRate:
		def(&w.WarmUp, 3*time.Second)
	case ModeCatchUp:
		def(&w.Linger, 5*time.Millisecond)
		def(&w.BacklogBytes, 4e9)
		def(&w.Consumers, 1)
		def(&w.Cache, CacheHot)
	case ModeIdle:
		def(&w.WarmUp, 15*time.Second)
	}
	return w
}

func def[T comparable](v *T, value T) {
	var zero T
	if *v == zero {
		*v = value
	}
}

// Validate reports the first setting that cannot work.
func (w Workload) Validate() error {
	for _, c := range []struct {
		bad  bool
		what string
	}{
		{!oneOf(w.Mode, ModeMaximum, ModeRate, ModeCatchUp, ModeIdle), "mode: must be maximum, rate, catch-up or idle"},
		{!oneOf(w.Keys, KeysNone, KeysRoundRobin, KeysUniform, KeysZipf), "keys: must be none, round-robin, uniform or zipf"},
		{!oneOf(w.Fault, FaultNone, FaultKillLeader, FaultRollingRestart), "fault: must be kill-leader or rolling-restart"},
		{!oneOf(w.Cache, "", CacheHot, CacheCold), "cache: must be hot or cold"},
		{w.Topics < 1 || w.Partitions < 1 || w.Topics*w.Partitions > 100_000, "topics and partitions: from 1 to 100,000 partitions in all"},
		{w.RecordBytes < MinRecordBytes || w.RecordBytes > 900_000, fmt.Sprintf("record-bytes: from %d to 900,000", MinRecordBytes)},
		{w.Producers < 1 || w.Producers > 64, "producers: from 1 to 64"},
		{w.Consumers < 0 || w.Consumers > 64, "consumers: from 0 to 64"},
		{w.Mode == ModeRate && w.Rate <= 0, "rate: mode rate needs one, in records per second"},
		{w.Mode != ModeRate && w.Rate != 0, "rate: only for mode rate"},
		{w.Mode != ModeRate && w.Fault != FaultNone, "fault: only for mode rate, where a pause shows as latency"},
		{w.Mode == ModeMaximum && w.Consumers > 0, "consumers: none beside a maximum rate, they would compete for the cores; everything is read back afterwards"},
		{w.Batch < 1<<10 || w.Batch > 1<<20, "batch: from 1 KiB to 1 MiB"},
		{w.InFlight < w.Batch, "in-flight: must not be less than batch"},
		{w.Linger < 0 || w.WarmUp < 0 || w.Duration < 100*time.Millisecond, "linger, warm-up, duration: must not be negative, and duration at least 100ms"},
	} {
		if c.bad {
			return fmt.Errorf("workload %s: %s", w.Name, c.what)
		}
	}
	return nil
}

func oneOf[T comparable](v T, values ...T) bool {
	for _, x := range values {
		if v == x {
			return true
		}
	}
	return false
}
