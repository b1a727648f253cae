package raftgroup

import (
	"errors"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"go.etcd.io/raft/v3/tracker"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// readAhead serves entries from a window, or has one read.
func (g *group) readAhead(lo, hi id.Index, limit int) ([]*raftpb.Entry, error) {
	for _, w := range g.behind.windows {
		if w.entries == nil || lo < w.lo || lo >= w.end() {
			continue
		}
		w.used = g.turn.now
		part := w.entries[lo-w.lo : min(w.end(), hi)-w.lo]
		n, bytes := 0, 0
		for n < len(part) && (n == 0 || bytes+len(part[n].Data) <= limit) {
			bytes += len(part[n].Data)
			n++
		}
		if lo+id.Index(n) == w.end() && w.end() < hi {
			g.startRead(w.end(), hi)
		}
		return slices.Clone(part[:n]), nil
	}
	g.startRead(lo, hi)
	return nil, raft.ErrCompacted
}

// startRead asks for a window at lo unless one is there or under way. Without room it does nothing: Raft asks again when it
// hears from the follower.
func (g *group) startRead(lo, hi id.Index) {
	for _, w := range g.behind.windows {
		if w.lo == lo {
			return
		}
	}
	hi = min(hi, g.handled+1)
	if lo >= hi || len(g.behind.windows) >= maxWindowsPerGroup && !g.dropOldest() {
		return
	}
	w := &readWindow{log: g.log, lo: lo, want: hi, limit: g.env.o.ReadAheadBytes, used: g.turn.now}
	w.done = func() { g.env.read(g, w) }
	if g.env.readers.start(w) {
		g.behind.windows = append(g.behind.windows, w)
	}
}

// dropOldest gives up the window that was not used for the longest time.
func (g *group) dropOldest() bool {
	oldest := -1
	for i, w := range g.behind.windows {
		if w.entries != nil && (oldest < 0 || w.used.Before(g.behind.windows[oldest].used)) {
			oldest = i
		}
	}
	if oldest < 0 {
		return false
	}
	g.dropWindow(oldest)
	return true
}

func (g *group) dropWindow(i int) {
	g.env.readers.release(g.behind.windows[i])
	g.behind.windows = slices.Delete(g.behind.windows, i, i+1)
}

// dropWindows gives up all windows; one under way when its read is done.
func (g *group) dropWindows() {
	for _, w := range g.behind.windows {
		if w.entries != nil {
			g.env.readers.release(w)
		}
	}
	g.behind.windows = nil
}

// expireWindows gives up windows that nobody needs any more: idle ones, or all when the replica does not lead.
func (g *group) expireWindows(now time.Time) {
	for i := len(g.behind.windows) - 1; i >= 0; i-- {
		w := g.behind.windows[i]
		if w.entries != nil && (g.role != Leader || now.Sub(w.used) > windowIdle) {
			g.dropWindow(i)
		}
	}
}

// readDone takes the result of a read, and has Raft ask again on behalf of the followers that wait for it.
func (g *group) readDone(w *readWindow) {
	at := slices.Index(g.behind.windows, w)
	if at < 0 {
		g.env.readers.release(w)
		return
	}
	w.entries, w.result = w.result, nil
	if w.err != nil || len(w.entries) == 0 || g.role != Leader {
		g.dropWindow(at)
		g.readFailed(w.err)
		return
	}
	g.behind.failing = false
	w.used = g.turn.now
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
func (g *group) readFailed(err error) {
	if err == nil || g.behind.failing || errors.Is(err, wal.ErrCompacted) || errors.Is(err, wal.ErrUnavailable) ||
		errors.Is(err, wal.ErrDeleted) || errors.Is(err, wal.ErrClosed) {
		return
	}
	g.behind.failing = true
	g.env.o.Logger.Error("a follower cannot be served from the disk", "group", uint64(g.id), "replica", uint64(g.replica), "error", err)
}
