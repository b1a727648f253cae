//go:build unix

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// usage is how much the replicas of a cluster of processes have on their disks at most.
type usage struct {
	cluster *bench.Cluster
	keep    kept
	stop    context.CancelFunc
	done    chan struct{}
	at      time.Time
	top     int64 // the most that a replica had
	above   int   // looks at a directory that has more than it may
	looks   int
	worst   string // directory and files of it
}

// watchUsage looks several times a second, until finish, or the context ends.
func watchUsage(ctx context.Context, cluster *bench.Cluster, k kept) *usage {
	ctx, stop := context.WithCancel(ctx)
	u := &usage{cluster: cluster, keep: k, stop: stop, done: make(chan struct{})}
	go func() {
		defer close(u.done)
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				u.look()
			}
		}
	}()
	return u
}

func (u *usage) look() {
	for dir, files := range u.replicas() {
		sum := allocated(files)
		u.looks++
		if sum > u.limit() {
			u.above++
		}
		if sum > u.top {
			u.at, u.top, u.worst = time.Now(), sum, fmt.Sprintf("%s: %v", dir, files)
		}
	}
}

// logFile is a file of a replica.
type logFile struct {
	name            string
	size, allocated int64
}

func allocated(files []logFile) (sum int64) {
	for _, f := range files {
		sum += f.allocated
	}
	return sum
}

// replicas lists the .log files of all replicas, by directory.
func (u *usage) replicas() map[string][]logFile {
	all := make(map[string][]logFile)
	for _, n := range u.cluster.Nodes() {
		for _, name := range logFiles(n) {
			var st unix.Stat_t
			if unix.Stat(name, &st) == nil { // it has not gone in this moment
				dir := filepath.Dir(name)
				all[dir] = append(all[dir], logFile{filepath.Base(name), st.Size, st.Blocks * 512})
			}
		}
	}
	return all
}

// logFiles lists the .log files of all replicas of a node.
func logFiles(n *bench.Process) []string {
	names, _ := filepath.Glob(filepath.Join(n.Dir, "logs", chaosTopic+"-*", "*"+segment.LogSuffix))
	return names
}

// limit is what a replica may have: what it keeps and two segments. A batch that is larger than a segment comes on top of that.
func (u *usage) limit() int64 { return u.keep.retention + 2*u.keep.segment + 1<<20 }

// finish says how much it was at most, and waits until each replica has no more than it may: now that nobody writes, and nobody is killed.
func (u *usage) finish(t *testing.T) {
	t.Helper()
	u.stop()
	<-u.done
	t.Logf("a replica had at most %.1f MiB on its disk; retention.bytes and two segments are %.1f MiB; %d of %d looks found more", float64(u.top)/(1<<20),
		float64(u.limit())/(1<<20), u.above, u.looks)
	t.Logf("the most, at %v: %s", u.at, u.worst)
	eventually(t, "replicas that have no more than they may", func() bool {
		for _, files := range u.replicas() {
			if allocated(files) > u.limit() {
				return false
			}
		}
		return true
	})
}

// logsOf is what all nodes have printed.
func logsOf(t *testing.T, cluster *bench.Cluster) string {
	t.Helper()
	var all strings.Builder
	logs, _ := filepath.Glob(filepath.Join(filepath.Dir(cluster.Nodes()[0].Dir), "*.log"))
	for _, name := range logs {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
		}
		all.Write(data)
	}
	return all.String()
}
