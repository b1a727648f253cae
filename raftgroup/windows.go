package raftgroup

import (
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
)

// readWindow is a run of entries that is read, or was read, from disk for lagging followers. Read ones are held until they
// were sent, or nobody asked for them for a while.
type readWindow struct {
	log      Log
	done     func()   // called when it is read
	lo, want id.Index // the read was for [lo, want)
	limit    int

	entries []*raftpb.Entry // what it gave, from lo on; nil while it is under way
	bytes   int64           // counted against the budget
	used    time.Time

	result []*raftpb.Entry // the reader's, until the worker hears of it
	err    error
}

const (
	// windowBudget bounds the bytes of windows of all groups of a host, by what their reads may give.
	windowBudget = 128 * mib
	// windowIdle is how long a window is kept without use.
	windowIdle = 2 * time.Second
)

func (w *readWindow) end() id.Index { return w.lo + id.Index(len(w.entries)) }

// readers is a host's pool of goroutines that read from disk.
type readers struct {
	jobs    chan *readWindow
	pending atomic.Int64 // bytes of windows held or under way
	wg      sync.WaitGroup
	reads   atomic.Uint64
	bytes   atomic.Uint64
}

func (r *readers) run(n int) {
	r.jobs = make(chan *readWindow, 256)
	for range n {
		r.wg.Go(func() {
			for w := range r.jobs {
				r.read(w)
			}
		})
	}
}

// start queues a read unless the budget or the queue is full.
func (r *readers) start(w *readWindow) bool {
	if r.pending.Add(int64(w.limit)) > windowBudget {
		r.pending.Add(int64(-w.limit))
		return false
	}
	w.bytes = int64(w.limit)
	select {
	case r.jobs <- w:
		return true
	default:
		r.release(w)
		return false
	}
}

func (r *readers) release(w *readWindow) {
	r.pending.Add(-w.bytes)
	w.bytes = 0
}

func (r *readers) read(w *readWindow) {
	entries, err := w.log.ReadEntries(w.lo, w.want, w.limit)
	var got int64
	for i := range entries {
		got += int64(len(entries[i].Data))
	}
	r.reads.Add(1)
	r.bytes.Add(uint64(got))
	w.result, w.err = toRaft(entries), err
	w.done()
}

// close is called when no worker runs any more.
func (r *readers) close() {
	close(r.jobs)
	r.wg.Wait()
}

// lagging is what a group has read, or has being read, for followers that need entries from the disk.
type lagging struct {
	windows []*readWindow
	failing bool // the last read failed, which was said
}

// maxWindowsPerGroup bounds reads and their results; Options.Readers and windowBudget bound them over all groups.
const maxWindowsPerGroup = 4
