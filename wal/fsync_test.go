package wal

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

// TestCrashesWithoutFsync is TestCrashes for a store that drops its syncs: any kill must leave what was complete, and after a Close
// that says so the power may fail as well.
func TestCrashesWithoutFsync(t *testing.T) {
	crashTest(t, 20, func(uint64) crashConfig {
		return crashConfig{boots: 8, ops: 60, tune: func(o *Options) { o.Fsync = FsyncNone }}
	})
}

// TestFsyncNoneSyncsNothingButAtTheEnd counts what reaches the disk while appends of all kinds, checkpoints and deletions go on.
func TestFsyncNoneSyncsNothingButAtTheEnd(t *testing.T) {
	defer leaktest.AfterTest(t)()
	var files, pebble atomic.Int64
	sim := disksim.New(disksim.Options{Seed: 1, Hook: func(op disksim.Op) error {
		switch {
		case op.Kind != disksim.OpSync && op.Kind != disksim.OpSyncDir:
		case op.Pebble:
			pebble.Add(1)
		default:
			files.Add(1)
		}
		return nil
	}})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.Fsync, o.SegmentBytes = FsyncNone, 1*mib
	s := mustOpen(t, o)
	before := files.Load() // of the directories that lead to the store, before anything is in it
	random := rand.New(rand.NewPCG(1, 1))
	d, gone := newDriver(t, s, mustCreate(t, s, 1)), mustCreate(t, s, 2)
	for range 300 {
		d.submit(d.batchEntry(100 + random.IntN(90000)))
		d.wait(1)
		d.commitAll()
	}
	if err := s.Delete(t.Context(), gone); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a checkpoint", func() bool { return s.Metrics().Checkpoints > 0 }) // it may be under way still
	if m := s.Metrics(); m.DirectBytes == 0 || m.JournalBytes == 0 {
		t.Errorf("the test does not do enough: %+v", m)
	}
	if f, p := files.Load()-before, pebble.Load(); f != 0 || p != 0 {
		t.Errorf("%d syncs of files and %d of Pebble reached the disk", f, p)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if files.Load() == before || pebble.Load() == 0 {
		t.Error("Close did not sync what was written")
	}
	sim = sim.Crash(disksim.PowerLoss)
	s = mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
	d.s, d.l = s, findLog(t, s, 1)
	d.check()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestFailedLateSyncIsSaid has one of the syncs at the end fail: Close must not say that all is durable.
func TestFailedLateSyncIsSaid(t *testing.T) {
	defer leaktest.AfterTest(t)()
	for _, kind := range []disksim.OpKind{disksim.OpSync, disksim.OpSyncDir} {
		sim := disksim.New(disksim.Options{Seed: 1})
		o := testOptions(sim, sim.Pebble(), "/data")
		o.Fsync = FsyncNone
		s := mustOpen(t, o)
		d := newDriver(t, s, mustCreate(t, s, 1))
		d.submit(d.batchEntry(100))
		d.wait(1)
		sim.SetHook(func(op disksim.Op) error {
			if op.Kind == kind && !op.Pebble {
				return errMedium
			}
			return nil
		})
		if err := s.Close(); err == nil {
			t.Errorf("a failed %v goes unnoticed", kind)
		}
	}
}
