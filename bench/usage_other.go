//go:build !linux

package bench

import (
	"errors"
	"math"
	"os"
	"runtime"
	"time"
)

// Elsewhere than on Linux only times are measured.

func usageOf(int) (usage, bool) { return usage{}, false }

func processorTimes() []processorTime { return nil }

func diskWritten(string) int64 { return -1 }

func freeBytes(string) (int64, error) { return math.MaxInt64, nil }

func ownCPU() time.Duration { return 0 }

func dropCaches() error { return errors.New("cold reads are measured on Linux only") }

func loadAverage() float64 { return -1 }

func machine(string) Machine { return Machine{OS: runtime.GOOS, Load: -1} }

func fdatasync(f *os.File) error { return f.Sync() }
