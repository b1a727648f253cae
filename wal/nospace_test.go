package wal

import (
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/lni/goutils/leaktest"

	"sync/atomic"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

// errFull is what a file system says that has no space.
var errFull = fmt.Errorf("%w: %w", disk.ErrNoSpace, syscall.ENOSPC)

// takesSpace tells whether a file system may find no space for an operation. A removal is one: a file system that never writes in place
// needs space for it.
func takesSpace(op disksim.Op) bool { return op.Kind <= disksim.OpPreallocate }

// TestNoSpaceAtEachCall has each call that may find no space find none, once, or that one and some after it: while segments are rolled,
// sealed, trimmed and truncated, while logs are reset and deleted, at checkpoints, at an orderly stop and at the start after it or after a
// power failure. The store never fails, condemns and refuses nobody, and all that was acknowledged is there.
func TestNoSpaceAtEachCall(t *testing.T) {
	defer leaktest.AfterTest(t)()
	var running sync.WaitGroup
	for _, most := range []int64{1, 4} {
		for _, end := range []string{"stop", "power loss"} {
			var next, hits atomic.Int64
			var over atomic.Bool
			for range 4 { // each waits most of the time, for the next look whether there is space
				running.Go(func() {
					for !over.Load() && !t.Failed() {
						k := next.Add(1)
						hit, err := noSpaceAt(t, k, most, end == "stop")
						if err != nil {
							t.Errorf("calls %d to %d, then a %s: %v", k, k+most-1, end, err)
						}
						if !hit {
							over.Store(true)
							return
						}
						hits.Add(1)
					}
				})
			}
			defer func() { t.Logf("%d calls, with a %s", hits.Load(), end) }()
		}
	}
	running.Wait()
}

func noSpaceAt(t *testing.T, k, most int64, stop bool) (hit bool, err error) {
	sim := disksim.New(disksim.Options{Seed: uint64(k), Direct: k%2 == 0})
	o := fullOptions(sim)
	o.CacheBytes, o.CheckpointBytes = 8*mib, 1<<40 // checkpoints by hand
	o.OnFatal = func(err error) {
		if !errors.Is(err, disksim.ErrHalted) {
			t.Errorf("call %d: fatal: %v", k, err)
		}
	}
	told := verdictsOf(&o)
	s := mustOpen(t, o)
	awaitBallast(t, s)
	d, other, doomed := newDriver(t, s, mustCreate(t, s, 1)), newDriver(t, s, mustCreate(t, s, 2)), newDriver(t, s, mustCreate(t, s, 3))
	var calls, last atomic.Int64
	last.Store(k + most - 1)
	hook := func(op disksim.Op) error {
		if takesSpace(op) {
			if n := calls.Add(1); n >= k && n <= last.Load() {
				return errFull
			}
		}
		return nil
	}
	sim.SetHook(hook)
	may := func(what string, err error) {
		if err != nil && !isNoSpace(err) {
			t.Errorf("call %d: %s: %v", k, what, err)
		}
	}
	for range 3 {
		d.segment()
		doomed.submit(doomed.batchEntry(30 << 10))
		doomed.wait(1)
	}
	d.l.TakeCut(State{Applied: d.last()})
	d.l.Trim(d.next)
	may("trim", s.checkpoints.trim())
	d.l.TakeCut(State{Applied: d.last()})
	other.submit(other.batchEntry(20<<10), other.batchEntry(20<<10), other.batchEntry(20<<10))
	other.truncate(other.last() - 1)
	other.submit(other.batchEntry(9000))
	other.wait(2)
	for range 3 { // whoever is told that there is no space tries again
		err = s.Delete(t.Context(), doomed.l)
		if may("delete", err); err == nil {
			break
		}
		if most == 1 {
			t.Errorf("call %d: the ballast has space for a deletion: %v", k, err)
		}
	}
	may("checkpoint", s.checkpoints.checkpoint())
	reset := &Reset{Start: Start{Index: 500, Term: 9, Offset: 1234}, State: State{Applied: 501, View: []byte("view")}}
	s.Submit([]*Append{{Log: other.l, Reset: reset, Done: func(*Append) { other.done <- struct{}{} }}})
	other.start, other.entries, other.next, other.term = reset.Start, nil, 1234, 9
	other.submit(other.batchEntry(9000))
	other.wait(2)
	d.segment()
	if stop {
		may("close", s.Close())
	} else {
		sim.Halt()
		_ = s.Close()
		sim = sim.Crash(disksim.PowerLoss)
		sim.SetHook(hook)
	}
	o.FS, o.PebbleFS = sim, sim.Pebble()
	s, err = Open(t.Context(), o)
	if err != nil {
		return true, fmt.Errorf("the start: %w", err)
	}
	hit = calls.Load() >= k
	if r := s.Refused(); len(r) > 0 || len(told) > 0 {
		return hit, fmt.Errorf("refused: %v; %d are condemned", r, len(told))
	}
	d.l, other.l = findLog(t, s, 1), findLog(t, s, 2)
	checkLog(t, d.l, d.l.Start(), d.entries[d.l.Start().Index-d.start.Index:])
	checkLog(t, other.l, other.start, other.entries)
	if start := d.l.Start(); !hit && (start == d.start || len(s.Logs()) != 2) {
		return hit, fmt.Errorf("nothing was trimmed or deleted: the log begins at %+v, there are %d", start, len(s.Logs()))
	}
	sim.SetHook(nil)
	may("the last close", s.Close()) // somebody may be waiting
	return hit, nil
}
