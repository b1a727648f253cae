package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// Machine says where a run took place.
type Machine struct {
	CPU        string        `json:"cpu"`
	Cores      int           `json:"cores"`
	MemoryMB   int64         `json:"memory_mb"`
	OS         string        `json:"os"`
	Go         string        `json:"go"`
	Disk       string        `json:"disk"`
	FileSystem string        `json:"file_system"`
	Load       float64       `json:"load_average"` // of the last minute, before the run
	Fdatasync  []SyncLatency `json:"fdatasync"`
}

// SyncLatency is how long one write and fdatasync of one process takes.
type SyncLatency struct {
	Bytes int     `json:"bytes"`
	P50MS float64 `json:"p50_ms"`
	P99MS float64 `json:"p99_ms"`
}

// InspectMachine describes the machine and measures the disk below dir.
func InspectMachine(dir string) (Machine, error) {
	m := machine(dir)
	m.Cores, m.Go = runtime.NumCPU(), runtime.Version()
	for _, size := range []int{4 << 10, 64 << 10} {
		l, err := measureSync(dir, size)
		if err != nil {
			return Machine{}, err
		}
		m.Fdatasync = append(m.Fdatasync, l)
	}
	return m, nil
}

// measureSync writes over one small file again and again.
func measureSync(dir string, size int) (SyncLatency, error) {
	name := filepath.Join(dir, "sync-probe")
	f, err := os.Create(name)
	if err != nil {
		return SyncLatency{}, fmt.Errorf("cannot measure the disk: %w", err)
	}
	defer os.Remove(name)
	defer f.Close()
	const slots = 64
	block := bytes.Repeat([]byte{0xa5}, size)
	latency := NewLatency()
	for i := range 3 * slots {
		begin := time.Now()
		if _, err := f.WriteAt(block, int64(i%slots)*int64(size)); err != nil {
			return SyncLatency{}, fmt.Errorf("cannot measure the disk: %w", err)
		}
		if err := fdatasync(f); err != nil {
			return SyncLatency{}, fmt.Errorf("cannot measure the disk: %w", err)
		}
		if i >= slots { // the file has its size
			latency.Record(time.Since(begin), 1)
		}
	}
	p := latency.Percentiles()
	return SyncLatency{size, p.P50, p.P99}, nil
}
