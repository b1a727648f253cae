package bench

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/procfs"
	"golang.org/x/sys/unix"
)

// usageOf returns what a process has used; false: it is gone.
func usageOf(pid int) (usage, bool) {
	p, err := procfs.NewProc(pid)
	if err != nil {
		return usage{}, false
	}
	stat, err := p.Stat()
	if err != nil || stat.State == "Z" {
		return usage{}, false
	}
	io, _ := p.IO() // of other users' processes only root is told
	return usage{
		cpu:      time.Duration(stat.CPUTime() * float64(time.Second)),
		rss:      int64(stat.ResidentMemory()),
		written:  int64(io.WriteBytes) - io.CancelledWriteBytes,
		syscalls: int64(io.SyscR + io.SyscW),
	}, true
}

// processorTimes returns what each processor has done since boot, in seconds; nil: unknown.
func processorTimes() []processorTime {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return nil
	}
	stat, err := fs.Stat()
	if err != nil {
		return nil
	}
	times := make([]processorTime, 0, len(stat.CPU))
	for _, n := range slices.Sorted(maps.Keys(stat.CPU)) {
		c := stat.CPU[n]
		busy := c.User + c.Nice + c.System + c.IRQ + c.SoftIRQ // guests are counted in user and nice
		times = append(times, processorTime{busy: busy, stolen: c.Steal, all: busy + c.Steal + c.Idle + c.Iowait})
	}
	return times
}

// deviceOf returns the block device below a directory, as /sys knows it.
func deviceOf(dir string) (major, minor uint32, err error) {
	var s unix.Stat_t
	if err := unix.Stat(dir, &s); err != nil {
		return 0, 0, err
	}
	return unix.Major(s.Dev), unix.Minor(s.Dev), nil
}

// diskWritten returns the bytes that the disk below dir has written since boot, -1 if unknown.
func diskWritten(dir string) int64 {
	major, minor, err := deviceOf(dir)
	if err != nil {
		return -1
	}
	data, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", major, minor))
	if err != nil {
		return -1
	}
	fields := strings.Fields(string(data))
	if len(fields) < 7 {
		return -1
	}
	sectors, _ := strconv.ParseInt(fields[6], 10, 64)
	return sectors * 512
}

// freeBytes returns the space that is left below dir.
func freeBytes(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, fmt.Errorf("cannot tell the free space of %s: %w", dir, err)
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// ownCPU is what this process has used.
func ownCPU() time.Duration {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// dropCaches has the kernel forget what it caches of files, so that reads go to the disk. It needs to be root.
func dropCaches() error {
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3\n"), 0); err != nil {
		return fmt.Errorf("cannot drop the kernel's caches, which a cold read needs: run as root: %w", err)
	}
	return nil
}

// machine describes where this runs.
func machine(dir string) Machine {
	m := Machine{OS: "linux"}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.OS = "Linux " + unix.ByteSliceToString(u.Release[:])
	}
	if fs, err := procfs.NewDefaultFS(); err == nil {
		if cpus, err := fs.CPUInfo(); err == nil && len(cpus) > 0 {
			m.CPU = cpus[0].ModelName
		}
		if memory, err := fs.Meminfo(); err == nil && memory.MemTotalBytes != nil {
			m.MemoryMB = int64(*memory.MemTotalBytes / 1e6)
		}
	}
	m.Load = loadAverage()
	m.FileSystem, m.Disk = mountOf(dir)
	return m
}

// loadAverage is the run queue of the last minute: above a small fraction of the cores before a run, others use the machine.
func loadAverage() float64 {
	fs, err := procfs.NewDefaultFS()
	if err != nil {
		return -1
	}
	load, err := fs.LoadAvg()
	if err != nil {
		return -1
	}
	return load.Load1
}

// mountOf returns the file system with its options and the device below dir.
func mountOf(dir string) (fs, disk string) {
	major, minor, err := deviceOf(dir)
	if err != nil {
		return "", ""
	}
	number := fmt.Sprintf("%d:%d", major, minor)
	data, _ := os.ReadFile("/proc/self/mountinfo")
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 10 || f[2] != number {
			continue
		}
		for i, field := range f {
			if field == "-" && i+2 < len(f) {
				fs = f[i+1] + " (" + f[5] + ")"
				disk = f[i+2]
			}
		}
	}
	link, err := filepath.EvalSymlinks("/sys/dev/block/" + number)
	if err != nil {
		return fs, disk
	}
	if _, err := os.Stat(filepath.Join(link, "partition")); err == nil {
		link = filepath.Dir(link)
	}
	for _, attribute := range []string{"device/model", "queue/write_cache", "queue/rotational"} {
		data, err := os.ReadFile(filepath.Join(link, attribute))
		if err != nil {
			continue
		}
		value := strings.TrimSpace(string(data))
		switch attribute {
		case "queue/write_cache":
			value += " cache"
		case "queue/rotational":
			value = map[string]string{"0": "not rotational", "1": "rotational"}[value]
		}
		disk += ", " + value
	}
	return fs, disk
}

func fdatasync(f *os.File) error { return unix.Fdatasync(int(f.Fd())) }
