package wal

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// stopFlushes has every write to a segment held up, so that no checkpoint ends, from when started is set until the disk halts.
func stopFlushes(sim *disksim.Disk, started *atomic.Bool) {
	halted := sim.Done()
	sim.SetHook(func(op disksim.Op) error {
		if isSegment(op) && op.Kind == disksim.OpWrite && started.Load() {
			<-halted
		}
		return nil
	})
}

// TestStartsThatAreKilledReplayNoMore kills a store again and again, each time before its first checkpoint ends, but not before it has
// written something. What the next start has to replay does not grow, and neither does the number of journal files.
func TestStartsThatAreKilledReplayNoMore(t *testing.T) {
	const logs, kills = 3, 20
	for _, c := range []struct {
		name string
		size int // of a batch
		each int // batches of a log between a start and its kill
	}{{"much", 20000, 5}, {"little", 100, 1}} {
		t.Run(c.name, func(t *testing.T) {
			sim := disksim.New(disksim.Options{Seed: 1})
			o := testOptions(sim, sim.Pebble(), "/data")
			o.CheckpointBytes, o.DirectAppendBytes = mib, 1<<40
			var started atomic.Bool
			stopFlushes(sim, &started)
			s := mustOpen(t, o)
			var drivers []*driver
			for g := range logs {
				drivers = append(drivers, newDriver(t, s, mustCreate(t, s, g+1)))
			}
			started.Store(true)
			written := int64(0) // to the journal by one start, at most
			for kill := range kills {
				before := s.Metrics().JournalBytes
				for _, d := range drivers {
					for range c.each {
						d.submit(d.batchEntry(c.size))
					}
					d.wait(c.each)
					d.commitAll()
				}
				written = max(written, int64(s.Metrics().JournalBytes-before)+int64(c.size)+8*kib) // a frame that vouches may come behind
				sim.Halt()
				_ = s.Close()
				sim = sim.Crash(disksim.Kill)
				started.Store(false)
				stopFlushes(sim, &started)
				o.FS, o.PebbleFS = sim, sim.Pebble()
				s = mustOpen(t, o)
				started.Store(true)
				for _, d := range drivers {
					d.s, d.l = s, findLog(t, s, d.l.Group())
				}
				m := s.Metrics()
				if bound := o.CheckpointBytes/2 + written; m.ReplayedBytes > bound {
					t.Errorf("after %d kills %d KiB are replayed, the start before was to leave no more than %d", kill+1, m.ReplayedBytes>>10, bound>>10)
				}
				if bound := int(o.CheckpointBytes/o.JournalFileBytes) + 4; m.JournalFiles > bound {
					t.Errorf("after %d kills there are %d journal files", kill+1, m.JournalFiles)
				}
			}
			// And with a full disk, which has no room for what a checkpoint writes.
			sim.Halt()
			_ = s.Close()
			sim = sim.Crash(disksim.Kill)
			sim.SetHook(nil)
			sim.SetCapacity(sim.Used())
			o.FS, o.PebbleFS, o.ReserveBytes = sim, sim.Pebble(), 4*mib
			s = mustOpen(t, o)
			for _, d := range drivers {
				d.s, d.l = s, findLog(t, s, d.l.Group())
				d.check()
			}
			if p := s.Pressure(); p != PressureNoSpace {
				t.Errorf("pressure is %v on a full disk", p)
			}
			sim.SetCapacity(0)
			closeStore(t, s)
		})
	}
}

// TestReplayFitsIntoTheCache writes as much as is let in while no checkpoint ends, to many logs, and much more than the cache in all,
// some of it flushed, some written directly. What the start after a kill holds is about the cache.
func TestReplayFitsIntoTheCache(t *testing.T) {
	const logs = 16
	sim := disksim.New(disksim.Options{Seed: 1})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.CacheBytes, o.CheckpointBytes, o.DirectAppendBytes = 4*mib, 64*mib, 32*kib // CheckpointBytes is too much for the cache
	s := mustOpen(t, o)
	var drivers []*driver
	for g := range logs {
		drivers = append(drivers, newDriver(t, s, mustCreate(t, s, g+1)))
	}
	turn := func(i int) {
		for _, d := range drivers {
			switch {
			case i%8 == 7:
				d.submit(d.batchEntry(40000))
			default:
				d.submit(d.smallBatches(20)...)
			}
		}
		for _, d := range drivers {
			d.wait(1)
			d.commitAll()
		}
	}
	for i := range 200 { // with checkpoints
		eventually(t, "producers are let in", func() bool { return s.Pressure() == PressureNone })
		turn(i)
	}
	// Now no checkpoint ends, for want of an index, but everything else goes on.
	halted := sim.Done()
	sim.SetHook(func(op disksim.Op) error {
		if op.Kind == disksim.OpWrite && strings.HasSuffix(op.Name, ".index") {
			<-halted
		}
		return nil
	})
	for i := 0; i < 400 && s.Pressure() == PressureNone; i++ {
		turn(i)
	}
	if got := s.Metrics().UncutBytes; got > o.CacheBytes+mib {
		t.Errorf("%d KiB of the journal are not cut", got>>10)
	}
	sim.Halt()
	_ = s.Close()
	sim = sim.Crash(disksim.Kill)
	sim.SetHook(nil)
	o.FS, o.PebbleFS = sim, sim.Pebble()
	s = mustOpen(t, o)
	defer closeStore(t, s)
	m := s.Metrics()
	t.Logf("%d KiB were replayed, and %d held at most, of a cache of %d", m.ReplayedBytes>>10, m.ReplayHeldBytes>>10, o.CacheBytes>>10)
	if m.ReplayHeldBytes > o.CacheBytes+o.CacheBytes/4 {
		t.Errorf("the start held %d KiB, the cache is %d", m.ReplayHeldBytes>>10, o.CacheBytes>>10)
	}
	if held := m.TailBytes + m.RowBytes; held > o.CacheBytes {
		t.Errorf("%d KiB are held after it", held>>10)
	}
	for _, d := range drivers {
		d.s, d.l = s, findLog(t, s, id.Group(d.l.Group()))
		d.check()
	}
}
