package wal

import (
	"context"
	"testing"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// rowsHeld is the memory of all rows, found without the counter.
func rowsHeld(s *Store) (bytes int64) {
	for _, l := range s.Logs() {
		l.mu.Lock()
		for _, sg := range l.segs {
			bytes += int64(cap(sg.rows)) * rowMemory
		}
		l.mu.Unlock()
	}
	return bytes
}

// smallBatches makes n of the smallest size that one sees.
func (d *driver) smallBatches(n int) []Entry {
	entries := make([]Entry, n)
	for i := range entries {
		entries[i] = d.batchEntry(100)
	}
	return entries
}

// TestRowsCountAsMemory writes tiny batches to many logs, several times what the cache holds, while producers are let in. The rows of a
// tiny batch take as much as the batch: tails and rows together stay within the bound, and everything can be read.
func TestRowsCountAsMemory(t *testing.T) {
	const logs, turns, each = 32, 80, 50
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.CacheBytes, o.CheckpointBytes, o.SegmentBytes = 2*mib, mib, 256*kib
	s := mustOpen(t, o)
	defer closeStore(t, s)
	var drivers []*driver
	for g := range logs {
		drivers = append(drivers, newDriver(t, s, mustCreate(t, s, g+1)))
	}
	most := int64(0)
	for range turns {
		eventually(t, "producers are let in", func() bool { return s.Pressure() == PressureNone })
		for _, d := range drivers {
			d.submit(d.smallBatches(each)...)
		}
		for _, d := range drivers {
			d.wait(1)
			d.commitAll()
		}
		most = max(most, s.Metrics().TailBytes+rowsHeld(s))
	}
	// One turn of all may come on top: a new chunk of each log, and an array that has doubled.
	if slack := int64(logs * (smallestShare + 256*rowMemory)); most > o.CacheBytes+o.CacheBytes/8+slack {
		t.Errorf("tails and rows took %d KiB, the cache is %d KiB", most>>10, o.CacheBytes>>10)
	}
	for _, d := range drivers {
		d.check()
	}
	if counted, held := s.Metrics().RowBytes, rowsHeld(s); counted != held {
		t.Errorf("%d bytes of rows are counted, and %d are there", counted, held)
	}
}

// TestLittleOfManyLogsIsFreed: each log has less than a checkpoint flushes, and is not written to any more. All of them together are
// more than the cache. Nobody but the checkpointer can free that, without a round that would tell it to.
func TestLittleOfManyLogsIsFreed(t *testing.T) {
	const logs, each = 200, 120
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.CacheBytes, o.CheckpointBytes = 2*mib+512*kib, mib
	s := mustOpen(t, o)
	defer closeStore(t, s)
	var drivers []*driver
	for g := range logs {
		d := newDriver(t, s, mustCreate(t, s, g+1))
		drivers = append(drivers, d)
		d.submit(d.smallBatches(each)...)
		d.wait(1)
	}
	s.checkpoints.force()
	eventually(t, "a checkpoint", func() bool { return len(s.dirtyLogs()) == 0 })
	for _, d := range drivers {
		d.commitAll() // only now can it be evicted and indexed, and no record says so
	}
	eventually(t, "producers are let in again", func() bool { return s.Pressure() == PressureNone })
	eventually(t, "the memory is within its bound", func() bool { return s.Metrics().TailBytes+rowsHeld(s) <= o.CacheBytes })
	for _, d := range drivers {
		d.check()
	}
}

// TestRowsOfControlEntriesAreIndexed: such a log has no bytes, so that no flush ever makes its files.
func TestRowsOfControlEntriesAreIndexed(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	s := mustOpen(t, o)
	d := newDriver(t, s, mustCreate(t, s, 1))
	var entries []Entry
	for range 1000 {
		entries = append(entries, d.controlEntry(KindEmpty, nil))
	}
	d.submit(entries...)
	d.wait(1)
	d.commitAll()
	s.checkpoints.force()
	eventually(t, "the rows are in the index", func() bool { return rowsHeld(s) < 128*rowMemory })
	d.check()
	closeStore(t, s)
	s = mustOpen(t, o)
	defer closeStore(t, s)
	d.s, d.l = s, findLog(t, s, 1)
	d.check()
}

// TestNothingRemembersDeletedLogs looks where the store would keep a log that is deleted, and segments that are dropped.
func TestNothingRemembersDeletedLogs(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	s := mustOpen(t, o)
	defer closeStore(t, s)
	kept := newDriver(t, s, mustCreate(t, s, 1))
	d := newDriver(t, s, mustCreate(t, s, 2))
	for range 40 {
		for _, d := range []*driver{kept, d} {
			d.submit(d.batchEntry(20000))
			d.submit(d.smallBatches(10)...)
			d.wait(2)
			d.commitAll()
		}
	}
	for _, l := range s.Logs() {
		if err := s.flush(l, true); err != nil {
			t.Fatal(err)
		}
		if err := s.flushIndex(l); err != nil {
			t.Fatal(err)
		}
	}
	for s.evict(0, evictAtOnce); s.rows.len() == 0; {
		d.check() // by way of the indexes
		kept.check()
	}
	rows, chunks := s.rows.len(), s.lru.len()
	if err := s.Delete(context.Background(), d.l); err != nil {
		t.Fatal(err)
	}
	if got := s.rows.len(); got == 0 || got >= rows {
		t.Errorf("%d blocks of indexes are kept of %d", got, rows)
	}
	if got := s.lru.len(); got == 0 || got >= chunks {
		t.Errorf("%d chunks are known to the evictor of %d", got, chunks)
	}
	for i := range s.lru.n {
		if l := s.lru.ring[(s.lru.head+i)%len(s.lru.ring)]; l != kept.l {
			t.Errorf("the evictor knows %v", l)
		}
	}
	for _, key := range s.rows.order {
		if key.sg != nil && key.sg.dropped.Load() {
			t.Errorf("a block of %v is kept", key.sg.key)
		}
	}
	kept.check()
	kept.s.Submit([]*Append{{Log: kept.l, Reset: &Reset{Start: Start{Index: 10000, Term: 9, Offset: id.Offset(1 << 20)}}, Done: func(*Append) { kept.done <- struct{}{} }}})
	kept.wait(1)
	if got := s.rows.len(); got != 0 {
		t.Errorf("%d blocks of indexes are kept of a log that was reset", got)
	}
	if got := s.Metrics().RowBytes; got != 0 {
		t.Errorf("%d bytes of rows are counted, and there is none", got)
	}
}

func (c *rowCache) len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.blocks)
}
