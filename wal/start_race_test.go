package wal

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// startDriver is a driver of a log on a simulated disk, whose segments are sealed and cut by hand.
func startDriver(t *testing.T) *driver {
	return startDriverOn(t, disksim.New(disksim.Options{}))
}

func startDriverOn(t *testing.T, d *disksim.Disk) *driver {
	s := mustOpen(t, testOptions(d, d.Pebble(), "/data"))
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return newDriver(t, s, mustCreate(t, s, 1))
}

// segment appends a segment of a control entry and a batch, committed.
func (d *driver) segment() {
	d.t.Helper()
	d.l.Roll()
	d.submit(d.controlEntry(KindCommand, []byte("a command")), d.batchEntry(500))
	d.wait(1)
	d.commitAll()
}

// cut flushes the log and stores its cut, as a checkpoint does. Nobody else is at work on the store.
func (d *driver) cut() {
	d.t.Helper()
	if err := d.s.flush(d.l, true); err != nil {
		d.t.Fatal(err)
	}
	if left, err := d.s.checkpoints.cutAll([]*Log{d.l}); err != nil || len(left) > 0 {
		d.t.Fatalf("%d logs were not cut: %v", len(left), err)
	}
}

// stored says where the log begins by its stored cut.
func (d *driver) stored() id.Index {
	d.l.mu.Lock()
	defer d.l.mu.Unlock()
	return max(d.l.moved.Index, d.l.start.Index)
}

// TestStartStaysBelowTheOwner: a reset's state is ahead of the log, and the owner still asks for the entries up to there. The start
// does not move over them before the owner has given a state.
func TestStartStaysBelowTheOwner(t *testing.T) {
	d := startDriver(t)
	start := Start{Index: 20, Term: 1, Offset: 7}
	d.s.Submit([]*Append{{Log: d.l, Reset: &Reset{Start: start, State: State{Applied: 24}}, Done: func(*Append) { d.done <- struct{}{} }}})
	d.wait(1)
	d.start, d.next = start, start.Offset
	for range 3 {
		d.segment()
	}
	d.l.Trim(d.next)
	d.cut()
	if at := d.stored(); at != start.Index {
		t.Errorf("the start moved to entry %d; the owner has given no state since the reset", at)
	}
	d.l.TakeCut(State{Applied: 24})
	d.cut()
	if at := d.stored(); at != 24 {
		t.Errorf("the start is entry %d, want 24, which the owner has applied", at)
	}
}

// TestReadOfWhatGoes: a read found its rows, and then the start moves over them, with the payloads of control entries.
func TestReadOfWhatGoes(t *testing.T) {
	d := startDriver(t)
	for range 3 {
		d.segment()
	}
	first := d.l.FirstIndex()
	d.l.mu.Lock()
	v := d.l.view(0)
	d.l.mu.Unlock()
	r := new(reader)
	for i := range id.Index(2) {
		row := *v.sg.row(first + i)
		r.rows = append(r.rows, row)
	}
	if entries, err := v.entries(r); err != nil || !bytes.Equal(entries[0].Data, []byte("a command")) {
		t.Fatalf("before: %v, %v", entries, err)
	}
	d.l.Trim(d.next)
	d.l.TakeCut(State{Applied: d.last()})
	d.cut()
	d.l.TakeCut(State{Applied: d.last()}) // the owner's turn
	if d.l.FirstIndex() == first {
		t.Fatal("the start has not moved")
	}
	control := new(reader)
	control.rows = r.rows[:1]
	if entries, err := v.entries(control); !errors.Is(err, ErrCompacted) {
		t.Errorf("a control entry below the start is read as %v, %v", entries, err)
	}
	if at := d.l.OffsetAt(first); at != d.l.StartOffset() {
		t.Errorf("the offset at an entry below the start is %d, want %d", at, d.l.StartOffset())
	}
	if _, err := d.l.ReadEntries(first, first+1, 1); !errors.Is(err, ErrCompacted) {
		t.Errorf("ReadEntries: %v", err)
	}
	if _, err := d.l.Read(nil, 0, d.next, 1); !errors.Is(err, ErrOutOfRange) {
		t.Errorf("Read: %v", err)
	}
	if c := d.l.Condemned(); c != 0 {
		t.Errorf("the log is condemned: %d", c)
	}
}

// TestNobodyMovesTheStartForTheOwner: a cut may be declined for a log whose owner is just opening it.
func TestNobodyMovesTheStartForTheOwner(t *testing.T) {
	d := startDriver(t)
	for range 3 {
		d.segment()
	}
	first := d.l.FirstIndex()
	d.l.Trim(d.next)
	d.l.TakeCut(State{Applied: d.last()})
	d.cut()
	d.l.DeclineCut()
	if at := d.l.FirstIndex(); at != first {
		t.Errorf("DeclineCut moved the first index from %d to %d", first, at)
	}
	d.l.Trim(0)
	if at := d.l.FirstIndex(); at == first {
		t.Error("the owner's own call did not move it")
	}
}

// TestTrimBefore: the segment of the entry stays, wherever in it that is, and what is before it goes as far as the owner has applied it. A log
// that a reset has emptied has nothing to let go of.
func TestTrimBefore(t *testing.T) {
	d := startDriver(t)
	for range 4 {
		d.segment()
	}
	first := d.l.FirstIndex()
	for _, c := range []struct{ before, applied, want id.Index }{
		{first + 1, d.last(), first},
		{first + 5, first + 2, first + 2}, // the second segment is not applied
		{first + 5, d.last(), first + 4},
		{first + 2, d.last(), first + 4}, // it never goes back
		{d.last() + 1, d.last(), first + 6},
	} {
		d.l.TrimBefore(c.before)
		d.l.TakeCut(State{Applied: c.applied})
		d.cut()
		d.l.Trim(0) // the owner's turn
		if at := d.l.FirstIndex(); at != c.want {
			t.Errorf("trimmed before entry %d, applied up to %d: the log begins with entry %d, want %d", c.before, c.applied, at, c.want)
		}
	}
	start := Start{Index: 100, Term: 1, Offset: 700}
	d.s.Submit([]*Append{{Log: d.l, Reset: &Reset{Start: start, State: State{Applied: 100}}, Done: func(*Append) { d.done <- struct{}{} }}})
	d.wait(1)
	d.l.TrimBefore(start.Index + 1)
	d.start, d.next, d.entries = start, start.Offset, nil
	d.segment()
	d.cut()
	d.check()
}

// TestFilesGoWhileACheckpointWaitsForSpace: the start has moved, and the checkpointer waits in Pebble for the very space that the files before
// it have.
func TestFilesGoWhileACheckpointWaitsForSpace(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	d := startDriverOn(t, sim)
	another := newDriver(t, d.s, mustCreate(t, d.s, 2))
	for range 3 {
		d.segment()
	}
	d.l.Trim(d.next)
	d.l.TakeCut(State{Applied: d.last()})
	d.cut()
	var freed atomic.Bool
	waits := make(chan struct{}, 1)
	sim.SetHook(func(op disksim.Op) error {
		switch {
		case op.Kind == disksim.OpRemove && strings.HasSuffix(op.Name, ".log") && !op.Pebble:
			freed.Store(true)
		case op.Pebble && op.Kind == disksim.OpWrite && !freed.Load():
			select {
			case waits <- struct{}{}:
			default:
			}
			return syscall.ENOSPC
		}
		return nil
	})
	another.submit(another.batchEntry(500))
	another.wait(1)
	d.s.checkpoints.force()
	<-waits
	d.l.Trim(0) // the owner's turn
	eventually(t, "the files go", freed.Load)
	awaitPressure(t, d.s, PressureNone)
	sim.SetHook(nil)
}

// TestFilesThatStay: files below the start that cannot be removed, whatever the reason, are reported, hold up nobody, and go at the next
// start, as does one of them that somebody copied back meanwhile. What has no segment's name is left alone.
func TestFilesThatStay(t *testing.T) {
	for _, cause := range []error{errMedium, syscall.EIO, syscall.EROFS, syscall.EPERM} {
		t.Run(cause.Error(), func(t *testing.T) { filesThatStay(t, cause) })
	}
}

func filesThatStay(t *testing.T, cause error) {
	var failing atomic.Bool
	disk := disksim.New(disksim.Options{Hook: func(op disksim.Op) error {
		if op.Kind == disksim.OpRemove && failing.Load() && !op.Pebble {
			return cause
		}
		return nil
	}})
	d := startDriverOn(t, disk)
	for range 3 {
		d.segment()
	}
	d.l.mu.Lock()
	first := d.l.segs[0].key.Log()
	d.l.mu.Unlock()
	failing.Store(true)
	d.l.Trim(d.next)
	d.l.TakeCut(State{Applied: d.last()})
	d.cut()
	d.l.Trim(0)
	for late := time.After(patience); d.s.Metrics().Unremoved < 4; { // two segments, two files each
		select {
		case <-late:
			t.Fatalf("%d files are reported", d.s.Metrics().Unremoved)
		case <-d.s.failure:
			t.Fatal(d.s.failCause)
		case <-time.After(time.Millisecond):
		}
	}
	d.segment()
	checkLog(t, d.l, d.l.Start(), d.entries[d.l.Start().Index-d.start.Index:])
	if err := d.s.Close(); err != nil {
		t.Fatal(err)
	}
	failing.Store(false)
	const foreign = "notes.txt"
	if err := disk.WriteFile("/data/logs/"+d.l.dir+"/"+foreign, []byte("somebody's")); err != nil {
		t.Fatal(err)
	}
	var restored string
	for range 2 {
		s := mustOpen(t, testOptions(disk, disk.Pebble(), "/data"))
		l := findLog(t, s, 1)
		checkLog(t, l, l.Start(), d.entries[l.Start().Index-d.start.Index:]) // the last checkpoint may have moved it on
		names, err := disk.List("/data/logs/" + l.dir)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(names, foreign) {
			t.Errorf("%s is gone", foreign)
		}
		for _, name := range names {
			if key, ok := segment.ParseName(name); name != foreign && (!ok || key.Base < l.StartOffset()) {
				t.Errorf("%s is still there, of a log that begins with offset %d", name, l.StartOffset())
			}
		}
		if r := s.Refused(); len(r) > 0 || l.Condemned() != 0 {
			t.Errorf("refused: %v; condemned: %d", r, l.Condemned())
		}
		closeStore(t, s)
		if restored == "" { // the first segment's file, out of a backup
			restored = "/data/logs/" + l.dir + "/" + first
			if err := disk.WriteFile(restored, bytes.Repeat([]byte("an earlier time"), 1000)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestAppendedIsOfEachSegment: what an append brings to a segment that it leaves came now.
func TestAppendedIsOfEachSegment(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	now := time.UnixMilli(1_000_000_000)
	o.SegmentBytes, o.Clock = 64*kib, func() time.Time { return now }
	s := mustOpen(t, o)
	defer closeStore(t, s)
	d := newDriver(t, s, mustCreate(t, s, 1))
	d.submit(d.batchEntry(1000))
	d.wait(1)
	now = now.Add(6 * 24 * time.Hour)
	d.submit(d.batchEntry(1000), d.batchEntry(1000), d.batchEntry(63*kib)) // the last one rolls
	d.wait(1)
	segs := d.l.Segments()
	if len(segs) != 2 {
		t.Fatal(len(segs))
	}
	for _, sg := range segs {
		if !sg.Appended.Equal(now) {
			t.Errorf("the last record of [%d, %d) came %v ago by what the segment says", sg.Base, sg.Next, now.Sub(sg.Appended))
		}
	}
	now = now.Add(time.Hour)
	d.truncate(d.last())
	e := d.batchEntry(100)
	e.Roll = true
	d.submit(e, d.batchEntry(100))
	d.wait(1)
	if segs = d.l.Segments(); len(segs) != 3 || segs[2].First != d.last() {
		t.Errorf("an entry that truncates leaves its roll to the next: %+v", segs)
	} else if !segs[1].Appended.Equal(now) {
		t.Errorf("the record that truncated came %v ago", now.Sub(segs[1].Appended))
	}
}

// TestTrimSaidEarly: what Trim said is ahead of the log, as that of a snapshot's state is. Segments go as they are sealed, also one that is
// sealed while the owner has not taken over the start before it.
func TestTrimSaidEarly(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.CheckpointInterval, o.trimInterval = time.Hour, time.Hour // by hand
	s := mustOpen(t, o)
	defer closeStore(t, s)
	d := newDriver(t, s, mustCreate(t, s, 1))
	look := func() { // of the checkpointer
		t.Helper()
		if s.checkpoints.trims.Swap(false) {
			if err := s.checkpoints.trim(); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.l.Trim(1 << 40)
	d.segment()
	first := d.last()
	d.l.Roll()
	d.submit(d.batchEntry(500))
	d.l.Roll()
	d.submit(d.batchEntry(500))
	d.wait(2)
	d.l.TakeCut(State{Applied: first})
	if err := s.flush(d.l, true); err != nil {
		t.Fatal(err)
	}
	look()
	if at := d.stored(); at != first {
		t.Fatalf("the start is %d, want %d", at, first)
	}
	d.commitAll()
	if err := s.flush(d.l, true); err != nil { // the second segment is sealed
		t.Fatal(err)
	}
	look()
	d.l.TakeCut(State{Applied: d.last()}) // the owner's turn, late
	look()
	if at := d.stored(); at != d.last()-1 {
		t.Errorf("the start is %d, want %d", at, d.last()-1)
	}
}
