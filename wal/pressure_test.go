package wal

import (
	"path"
	"testing"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

// TestManyLogsShareTheCache writes to more logs than the cache has room for large chunks. Each has little that is not flushed, so
// producers must not be held back for good: nobody would ever free what they wait for.
func TestManyLogsShareTheCache(t *testing.T) {
	s := mustOpen(t, Options{Dir: t.TempDir(), CacheBytes: 4 * mib, JournalFileBytes: mib})
	defer closeStore(t, s)
	var drivers []*driver
	for g := range 64 {
		drivers = append(drivers, newDriver(t, s, mustCreate(t, s, g+1)))
	}
	for range 40 {
		for _, d := range drivers {
			d.submit(d.batchEntry(3000))
		}
		for _, d := range drivers {
			d.wait(1)
			d.commitAll()
		}
	}
	eventually(t, "producers are let in again", func() bool { return s.Pressure() == PressureNone })
	for _, d := range drivers {
		d.check()
	}
}

// TestStepsLeaveSpace: a step must not be followed by the next one at once, or every small segment ends up with the largest.
func TestStepsLeaveSpace(t *testing.T) {
	for allocated := int64(0); allocated < 1<<30; {
		sg := &seg{allocated: allocated + step(allocated)}
		for sg.spacious() { // until the preparer is asked again
			sg.end += 4 * kib
		}
		if sg.allocated > 4*int64(sg.end)+smallestStep {
			t.Fatalf("%d bytes are taken for %d", sg.allocated, sg.end)
		}
		allocated = sg.allocated
	}
}

// TestSlowPreparerIsNoFullDisk writes the journal's files full before the next one is made. There is space, so producers are held back
// by the wait for the file at most, and never refused.
func TestSlowPreparerIsNoFullDisk(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	s := mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
	defer closeStore(t, s)
	d := newDriver(t, s, mustCreate(t, s, 1))
	eventually(t, "two spare files", func() bool { return s.journal.Room() > 2*s.o.JournalFileBytes })
	proceed := make(chan struct{})
	sim.SetHook(func(op disksim.Op) error {
		if op.Kind == disksim.OpCreate && path.Dir(op.Name) == "/data/journal" {
			<-proceed
		}
		return nil
	})
	for s.journal.Room() >= s.o.JournalFileBytes/2 {
		d.submit(d.batchEntry(3000))
		d.wait(1)
	}
	s.space.look()
	if p := s.Pressure(); p == PressureNoSpace {
		t.Errorf("the pressure is %v while a journal file is being made", p)
	}
	close(proceed)
	d.check()
}
