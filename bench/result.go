package bench

import (
	"encoding/json"
	"fmt"
	"os"
)

// Result is one target's turn. MB are 10^6 bytes of values, counted once however many copies there are.
type Result struct {
	Target   string `json:"target"`
	Workload string `json:"workload"`
	Round    int    `json:"round"`

	RecordsPerSecond float64      `json:"records_per_second"`
	MBPerSecond      float64      `json:"mb_per_second"`
	AckMS            *Percentiles `json:"ack_ms"`
	EndToEndMS       *Percentiles `json:"end_to_end_ms"` // null: no consumer read along
	LateMS           *Percentiles `json:"generator_late_ms,omitempty"`

	ServerCPUPerMB      float64 `json:"server_cpu_ms_per_mb"`
	ServerCPUPercent    float64 `json:"server_cpu_percent"` // of one core, all nodes
	ServerRSSMB         float64 `json:"server_rss_mb"`      // all nodes, at the end of the timed part
	ClientCPUPerMB      float64 `json:"client_cpu_ms_per_mb"`
	DiskBytesPerByte    float64 `json:"disk_bytes_per_byte"`         // by the whole disk; 0: unknown
	ProcessBytesPerByte float64 `json:"process_disk_bytes_per_byte"` // by the server processes
	SyscallsPerMB       float64 `json:"server_rw_syscalls_per_mb"`
	AllocationsPerRec   float64 `json:"server_allocations_per_record,omitempty"`

	Audit
	Verified bool `json:"verified"` // everything was read back and compared

	Failed        int64     `json:"records_failed"` // ended with an error
	FirstFailure  string    `json:"first_failure,omitempty"`
	UnavailableMS float64   `json:"longest_pause_ms,omitempty"` // of the worst partition, with a fault
	ReadMBPerSec  float64   `json:"read_back_mb_per_second,omitempty"`
	Seconds       float64   `json:"seconds"`
	Series        []float64 `json:"mb_per_second_series"` // each second of the timed part
	LoadBefore    float64   `json:"load_average_before"`

	// ProcessorsBusy is how busy each of the machine's processors was during the timed part, with whatever it was, in percent, and
	// StolenPercent what the host of a virtual machine kept from them: time in which nothing runs although something could. A
	// percentile is the machine's and not the target's where little more than that share lies above it.
	ProcessorsBusy []float64 `json:"processors_busy_percent,omitempty"`
	StolenPercent  float64   `json:"processors_stolen_percent"`

	RSSSeries []float64 `json:"server_rss_mb_series,omitempty"` // all nodes, over the timed part
	RSSEvery  float64   `json:"server_rss_seconds_per_point,omitempty"`

	// Counters are what the servers counted of themselves during the timed part, by the names of their metrics.
	Counters    map[string]float64 `json:"server_counters,omitempty"`
	Description Description        `json:"description"`
}

// Headline tells whether the figures may be quoted, and why not.
func (r Result) Headline() error {
	switch {
	case !r.Description.KeepsData:
		return nil // a bound, and printed as one
	case !r.OK():
		return fmt.Errorf("%s: %d lost, %d duplicated, %d reordered, %d changed, %d foreign: %s", r.Target, r.Lost, r.Duplicated, r.Reordered, r.Changed, r.Foreign, r.First)
	case !r.Verified:
		return fmt.Errorf("%s: not everything could be read back", r.Target)
	}
	return nil
}

// Comparison is all that a command measured.
type Comparison struct {
	Began    string   `json:"began"`
	Version  string   `json:"quorumlog"`
	Machine  Machine  `json:"machine"`
	Workload Workload `json:"workload_settings"`
	Results  []Result `json:"results"`
	Ratios   []Ratio  `json:"ratios,omitempty"`
}

// WriteJSON writes the comparison to a file.
func (c Comparison) WriteJSON(path string) error {
	data, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o644); err != nil {
		return fmt.Errorf("cannot write the results: %w", err)
	}
	return nil
}
