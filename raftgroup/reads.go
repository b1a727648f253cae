package raftgroup

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// readWindow is a run of entries that is read, or was read, from disk for lagging followers. Read ones are held until they
// were sent, or nobody asked for them for a while.
type readWindow struct {
	group    *Group
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

// readAhead serves entries from a window, or has one read.
func (s *storage) readAhead(lo, hi id.Index, limit int) ([]*raftpb.Entry, error) {
	for _, w := range s.windows {
		if w.entries == nil || lo < w.lo || lo >= w.end() {
			continue
		}
		w.used = s.g.w.now
		part := w.entries[lo-w.lo : min(w.end(), hi)-w.lo]
		n, bytes := 0, 0
		for n < len(part) && (n == 0 || bytes+len(part[n].Data) <= limit) {
			bytes += len(part[n].Data)
			n++
		}
		if lo+id.Index(n) == w.end() && w.end() < hi {
			s.startRead(w.end(), hi)
		}
		return slices.Clone(part[:n]), nil
	}
	s.startRead(lo, hi)
	return nil, raft.ErrCompacted
}

// startRead asks for a window at lo unless one is there or under way. Without room it does nothing: Raft asks again when it
// hears from the follower.
func (s *storage) startRead(lo, hi id.Index) {
	for _, w := range s.windows {
		if w.lo == lo {
			return
		}
	}
	hi = min(hi, s.g.handled+1)
	if lo >= hi || len(s.windows) >= maxWindowsPerGroup && !s.dropOldest() {
		return
	}
	w := &readWindow{group: s.g, lo: lo, want: hi, limit: s.g.h.o.ReadAheadBytes, used: s.g.w.now}
	if s.g.h.readers.start(w) {
		s.windows = append(s.windows, w)
	}
}

// dropOldest gives up the window that was not used for the longest time.
func (s *storage) dropOldest() bool {
	oldest := -1
	for i, w := range s.windows {
		if w.entries != nil && (oldest < 0 || w.used.Before(s.windows[oldest].used)) {
			oldest = i
		}
	}
	if oldest < 0 {
		return false
	}
	s.drop(oldest)
	return true
}

func (s *storage) drop(i int) {
	s.g.h.readers.release(s.windows[i])
	s.windows = slices.Delete(s.windows, i, i+1)
}

// expireWindows gives up windows that nobody needs any more: idle ones, or all when the replica does not lead.
func (s *storage) expireWindows(now time.Time) {
	for i := len(s.windows) - 1; i >= 0; i-- {
		w := s.windows[i]
		if w.entries != nil && (s.g.role != Leader || now.Sub(w.used) > windowIdle) {
			s.drop(i)
		}
	}
}

// readDone takes the result of a read, and has Raft ask again on behalf of the followers that wait for it.
func (g *Group) readDone(w *readWindow) {
	at := slices.Index(g.storage.windows, w)
	if at < 0 {
		g.h.readers.release(w)
		return
	}
	w.entries, w.result = w.result, nil
	if w.err != nil || len(w.entries) == 0 || g.role != Leader {
		g.storage.drop(at)
		g.readFailed(w.err)
		return
	}
	g.storage.failing = false
	w.used = g.w.now
	var waiting []id.Replica
	g.rn.WithProgress(func(r uint64, _ raft.ProgressType, pr tracker.Progress) {
		if next := id.Index(pr.Next); next >= w.lo && next < w.end() && id.Replica(r) != g.replica {
			waiting = append(waiting, id.Replica(r))
		}
	})
	for _, r := range waiting {
		if m := g.member(r); m == nil || !g.alive(m) {
			continue // it would count as heard from
		}
		g.step(&raftpb.Message{
			Type: raftpb.MsgHeartbeatResp.Enum(),
			From: new(uint64(r)), To: new(uint64(g.replica)), Term: new(uint64(g.term)),
		})
	}
	g.touch()
}

// readFailed says once that a read for a follower fails. It does not stop the replica: a log whose bytes have rotted is condemned by
// the store, and others are told; whatever else it is passes. A log that ends, moves its start, or is on its way out has not failed.
func (g *Group) readFailed(err error) {
	if err == nil || g.storage.failing || errors.Is(err, wal.ErrCompacted) || errors.Is(err, wal.ErrUnavailable) ||
		errors.Is(err, wal.ErrDeleted) || errors.Is(err, wal.ErrClosed) {
		return
	}
	g.storage.failing = true
	g.h.o.Logger.Error("a follower cannot be served from the disk", "group", uint64(g.id), "replica", uint64(g.replica), "error", err)
}

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
	entries, err := w.group.log.ReadEntries(w.lo, w.want, w.limit)
	var got int64
	for i := range entries {
		got += int64(len(entries[i].Data))
	}
	r.reads.Add(1)
	r.bytes.Add(uint64(got))
	done := event{kind: evRead, group: w.group, read: w}
	w.result, w.err = toRaft(entries), err
	w.group.w.post(done)
}

// close is called when no worker runs any more.
func (r *readers) close() {
	close(r.jobs)
	r.wg.Wait()
}
