package wal

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// tidyLogs are logs of all sorts: with little that was never flushed, with whole blocks and a rest, with several segments, with entries that
// are not committed, with control entries only, with nothing, and with a truncation behind it.
func tidyLogs(t testing.TB, s *Store) []*driver {
	var ds []*driver
	for n := range 7 {
		ds = append(ds, newDriver(t, s, mustCreate(t, s, n+1)))
	}
	for n, d := range ds {
		fillTidy(n, d)
	}
	return ds
}

func fillTidy(n int, d *driver) {
	count := 0
	put := func(sizes ...int) {
		for _, size := range sizes {
			d.submit(d.batchEntry(size))
			count++
		}
	}
	switch n {
	case 0:
		put(100, 70)
	case 1:
		put(20000, 9000, 61)
	case 2:
		for range 12 {
			put(9000)
		}
	case 3:
		put(30000, 5000, 5000)
	case 4:
		d.submit(d.controlEntry(KindEmpty, nil))
		count++
	case 6:
		put(30000, 9000, 8000)
		d.truncate(d.last() - 1)
		put(5000)
	}
	d.wait(count)
	if n != 3 {
		d.commitAll()
	}
}

// checkTidy compares the .log files of a stopped store with what its logs hold, byte for byte. On a full disk the end of a segment may have
// no space in its file, and none is taken for this: the file is the beginning of what the segment holds.
func checkTidy(t testing.TB, fs disk.FS, ds []*driver, full bool) {
	t.Helper()
	for _, d := range ds {
		dir := path.Join("/data/logs", d.l.dir)
		names, _ := fs.List(dir)
		names = slices.DeleteFunc(names, func(name string) bool { return !strings.HasSuffix(name, ".log") }) // in the order of their offsets
		files := 0
		var want, got []byte
		compare := func() {
			if !bytes.Equal(got, want) && (!full || !bytes.HasPrefix(want, got)) {
				t.Errorf("file %d of %v has %d bytes, which are %v what the segment has first, %d", files, d.l, len(got), bytes.HasPrefix(want, got), len(want))
			}
		}
		for _, e := range d.entries {
			if e.Kind != KindBatch {
				continue
			}
			if files < len(names) {
				if k, ok := segment.ParseName(names[files]); ok && k.Base == batch.Batch(e.Data).BaseOffset() {
					compare()
					want, got = nil, readWhole(t, fs, path.Join(dir, names[files]))
					files++
				}
			}
			want = append(want, e.Data...)
		}
		compare()
		if files < len(names) {
			t.Errorf("%v has files %v, of which %d begin where a batch does", d.l, names, files)
		}
	}
}

func readWhole(t testing.TB, fs disk.FS, name string) []byte {
	t.Helper()
	f, err := fs.OpenRead(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := disk.AlignedBytes(int(disk.RoundUp(size)))
	if n, err := f.ReadAt(b, 0); int64(n) != size {
		t.Fatalf("%s: %d of %d bytes: %v", name, n, size, err)
	}
	return b[:size]
}

func tidyOptions(sim *disksim.Disk) Options {
	o := testOptions(sim, sim.Pebble(), "/data")
	o.DirectAppendBytes, o.SegmentBytes, o.JournalFileBytes = 16*kib, 48*kib, 128*kib
	return o
}

func findAll(t testing.TB, s *Store, ds []*driver) {
	for _, d := range ds {
		d.s, d.l = s, findLog(t, s, d.l.Group())
	}
}

// TestStopLeavesExactLogs stops and starts a store, which goes on writing to files that end inside of a block.
func TestStopLeavesExactLogs(t *testing.T) {
	for _, class := range []FsyncClass{FsyncAll, FsyncNone} {
		for _, full := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, full %v", class, full), func(t *testing.T) {
				sim := disksim.New(disksim.Options{Seed: 1, Direct: true})
				o := tidyOptions(sim)
				o.Fsync = class
				s := mustOpen(t, o)
				ds := tidyLogs(t, s)
				closeStore(t, s)
				checkTidy(t, sim, ds, false)
				for range 3 {
					sim = sim.Crash(disksim.PowerLoss)
					o.FS, o.PebbleFS = sim, sim.Pebble()
					s = mustOpen(t, o)
					findAll(t, s, ds)
					for n, d := range ds {
						d.check()
						if n != 6 { // a truncation is of what is not committed
							fillTidy(n, d)
						}
						d.check()
					}
					if full {
						sim.SetCapacity(sim.Used())
					}
					closeStore(t, s)
					sim.SetCapacity(0)
					checkTidy(t, sim, ds, full)
				}
			})
		}
	}
}

// TestStopCrashesAnywhere ends the process or the machine at each operation of an orderly stop, and once more when the start after it has
// written: nothing is lost, and the next stop leaves the files as the one before should have.
func TestStopCrashesAnywhere(t *testing.T) {
	for at, over := int64(1), false; !over; at++ {
		kind := []disksim.Kind{disksim.Kill, disksim.PowerLoss}[at/2%2]
		sim := disksim.New(disksim.Options{Seed: uint64(at), Direct: at%2 == 0})
		o := tidyOptions(sim)
		reopen := func(kind disksim.Kind) {
			sim.Halt()
			sim = sim.Crash(kind)
			o.FS, o.PebbleFS = sim, sim.Pebble()
		}
		s := mustOpen(t, o)
		ds := tidyLogs(t, s)
		sim.CrashAt(at)
		err := s.Close()
		if over = !sim.Halted(); over && err != nil {
			t.Fatal(err)
		}
		reopen(kind)
		s = mustOpen(t, o)
		findAll(t, s, ds)
		for n, d := range ds {
			d.check()
			if n != 6 {
				fillTidy(n, d)
			}
		}
		sim.Halt()
		_ = s.Close()
		reopen(disksim.PowerLoss)
		s = mustOpen(t, o)
		findAll(t, s, ds)
		for _, d := range ds {
			d.check()
		}
		closeStore(t, s)
		checkTidy(t, sim, ds, false)
		if t.Failed() {
			t.Fatalf("%v at operation %d", kind, at)
		}
	}
}
