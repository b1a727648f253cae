package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clockTick is the unit of /proc/PID/stat: USER_HZ, which Linux has fixed at 100 for every architecture that runs Go.
const clockTick = 10 * time.Millisecond

// usageOf returns what a process has used; false: it is gone.
func usageOf(pid int) (usage, bool) {
	cpu, rss, ok := statOf(pid)
	io := ioOf(pid)
	return usage{cpu, rss, io["write_bytes"] - io["cancelled_write_bytes"], io["syscr"] + io["syscw"]}, ok
}

func statOf(pid int) (cpu time.Duration, rss int64, ok bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, false
	}
	// The name, in brackets, may hold anything; field 3 follows it.
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	if len(fields) < 22 || fields[0] == "Z" {
		return 0, 0, false
	}
	number := func(field int) int64 { n, _ := strconv.ParseInt(fields[field-3], 10, 64); return n }
	return time.Duration(number(14)+number(15)) * clockTick, number(24) * int64(os.Getpagesize()), true
}

func ioOf(pid int) map[string]int64 {
	values := make(map[string]int64)
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return values
	}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			values[name], _ = strconv.ParseInt(value, 10, 64)
		}
	}
	return values
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
	data, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	data, _ = os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(data)) {
		if value, ok := strings.CutPrefix(line, "MemTotal:"); ok {
			kib, _ := strconv.ParseInt(strings.Fields(value)[0], 10, 64)
			m.MemoryMB = kib * 1024 / 1e6
			break
		}
	}
	m.Load = loadAverage()
	m.FileSystem, m.Disk = mountOf(dir)
	return m
}

// loadAverage is the run queue of the last minute: above a small fraction of the cores before a run, others use the machine.
func loadAverage() float64 {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return -1
	}
	first, _, _ := strings.Cut(string(data), " ")
	n, _ := strconv.ParseFloat(first, 64)
	return n
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
