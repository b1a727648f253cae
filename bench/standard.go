package bench

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Standard are the workloads whose names stay as they are. Others of the same shapes exist under the names that WorkloadNamed
// understands.
var Standard = []string{
	"max-12-partitions-1kb",
	"max-1-partition-1kb",
	"max-12-partitions-100b",
	"max-1000-partitions-1kb",
	"latency-12-partitions-1kb",
	"steady-12-partitions-1kb",
	"catchup-12-partitions-1kb",
	"catchup-cold-12-partitions-1kb",
	"leader-kill-12-partitions-1kb",
	"rolling-restart-12-partitions-1kb",
	"idle-1000-partitions",
}

// latencyRate is the rate of the workloads that look for latency, in records/s: far below what any target can take.
const latencyRate = 5000

// steadyBytes is the rate of the workload that looks for what changes over time, in bytes/s whatever the size of the records: a
// load that a cluster bears for days, at which ten minutes fit on an ordinary disk.
const steadyBytes = 30e6

var namePattern = regexp.MustCompile(`^(max|latency|steady|catchup|catchup-cold|leader-kill|rolling-restart|idle)-([1-9]\d*)-partitions?(?:-(\d+)(b|kb))?$`)

// WorkloadNamed returns a workload by its name: one of Standard, or one that differs from those in the number of partitions or
// the size of the records.
func WorkloadNamed(name string) (Workload, error) {
	m := namePattern.FindStringSubmatch(name)
	if m == nil || (m[1] == "idle") != (m[3] == "") {
		return Workload{}, fmt.Errorf("there is no workload %q; there are %s, the same with other numbers, and files (--file)", name, strings.Join(Standard, ", "))
	}
	w := Workload{Name: name}
	w.Partitions, _ = strconv.Atoi(m[2])
	w.RecordBytes, _ = strconv.Atoi(m[3])
	if m[4] == "kb" {
		w.RecordBytes <<= 10
	}
	switch m[1] {
	case "max":
		w.Mode, w.Description = ModeMaximum, "as fast as 64 MiB in flight allow"
	case "latency":
		w.Mode, w.Rate, w.Consumers, w.Description = ModeRate, latencyRate, 1, "open loop at 5,000 records/s, latency from when each record was due"
	case "steady":
		w.Mode, w.Rate, w.Consumers, w.Linger, w.Duration = ModeRate, steadyBytes/float64(max(w.RecordBytes, 1)), 1, 5*time.Millisecond, 10*time.Minute
		w.Description = "open loop at 30 MB/s, ten minutes unless --duration says otherwise, a consumer reads along: memory and latency over time"
	case "catchup":
		w.Mode, w.Description = ModeCatchUp, "read 4 GB that were just written"
	case "catchup-cold":
		w.Mode, w.Cache, w.Description = ModeCatchUp, CacheCold, "read 4 GB after the servers were restarted and the kernel's caches dropped"
	case "leader-kill":
		w.Mode, w.Rate, w.Consumers, w.Fault = ModeRate, latencyRate, 1, FaultKillLeader
		w.Description = "open loop at 5,000 records/s; the leader of partition 0 is killed after a third of the time, restarted after two thirds"
	case "rolling-restart":
		w.Mode, w.Rate, w.Consumers, w.Fault = ModeRate, latencyRate, 1, FaultRollingRestart
		w.Description = "open loop at 5,000 records/s; the nodes are stopped and started one after the other"
	case "idle":
		w.Mode, w.Description = ModeIdle, "empty partitions and no load: what they cost by themselves"
	}
	w = w.withDefaults()
	return w, w.Validate()
}
