package wal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// fullOptions are of a store whose journal is small, so that votes go through many files of it.
func fullOptions(sim *disksim.Disk) Options {
	o := testOptions(sim, sim.Pebble(), "/data")
	o.JournalFileBytes, o.CheckpointBytes, o.DirectAppendBytes = 256*kib, 256*kib, 16*kib
	return o
}

// fill has somebody else take all that is free on the disk.
func fill(sim *disksim.Disk) { sim.SetCapacity(sim.Used()) }

func awaitBallast(t testing.TB, s *Store) {
	t.Helper()
	eventually(t, "the ballast is whole", func() bool { return s.space.ballast.size() == s.space.whole })
}

func awaitPressure(t testing.TB, s *Store, p Pressure) {
	t.Helper()
	eventually(t, "the pressure is "+p.String(), func() bool { return s.Pressure() == p })
}

// vote submits a new term with a vote, and waits for it.
func (d *driver) vote() {
	d.t.Helper()
	d.term++
	hs := HardState{Term: d.term, Vote: 7, Commit: d.last()}
	d.s.Submit([]*Append{{Log: d.l, HardState: &hs, Done: func(*Append) { d.done <- struct{}{} }}})
	d.wait(1)
}

// TestFullDiskForLong: the store lives with a full disk for as long as it is full. It votes, through many files of the journal, and
// checkpoints that; it reads, deletes, creates nothing but what the metadata needs; and it goes on when there is space.
func TestFullDiskForLong(t *testing.T) {
	defer leaktest.AfterTest(t)()
	sim := disksim.New(disksim.Options{Seed: 1})
	o := fullOptions(sim)
	s := mustOpen(t, o)
	awaitBallast(t, s)
	d, doomed := newDriver(t, s, mustCreate(t, s, 2)), newDriver(t, s, mustCreate(t, s, 3))
	for i := range 200 {
		d.submit(d.batchEntry(100 + i*100))
		d.wait(1)
		doomed.submit(doomed.batchEntry(500))
		doomed.wait(1)
	}
	d.commitAll()
	fill(sim)
	awaitPressure(t, s, PressureNoSpace)
	eventually(t, "a full disk is described as full", func() bool {
		fill(sim) // what the store has freed since: a table that Pebble has merged, a file of the journal
		sp := s.Space()
		return sp.Missing >= s.space.headroom && strings.Contains(sp.String(), "more are needed")
	})
	for range 3000 {
		d.vote()
	}
	if n := s.Metrics().JournalBytes; n < 20*uint64(o.JournalFileBytes) {
		t.Errorf("%d bytes of votes are too few for this test", n)
	}
	eventually(t, "checkpoints have caught up with the votes", func() bool { return s.Metrics().JournalFiles <= 4 })
	d.check()
	if _, err := s.Create(context.Background(), Spec{Group: 9, Replica: 91, Name: "late"}); !errors.Is(err, disk.ErrNoSpace) {
		t.Errorf("a log was created on a full disk: %v", err)
	}
	if _, err := s.Create(context.Background(), Spec{Group: id.MetadataGroup, Replica: 1, Name: "metadata"}); err != nil {
		t.Errorf("the metadata's log was not created: %v", err)
	}
	if err := s.Delete(context.Background(), doomed.l); err != nil {
		t.Error(err)
	}
	if s.Pressure() != PressureNoSpace {
		t.Errorf("the pressure is %v although nothing was freed but a small log", s.Pressure())
	}
	sim.SetCapacity(0)
	awaitPressure(t, s, PressureNone)
	if sp := s.Space(); sp.Missing != 0 {
		t.Errorf("a disk with space is described as %+v", sp)
	}
	awaitBallast(t, s)
	for range 100 {
		d.submit(d.batchEntry(20000))
		d.wait(1)
	}
	d.check()
	closeStore(t, s)
}

// TestStartsOnFullDisk kills a store on a full disk fifty times, anywhere, also in the middle of a start; the power fails now and then.
// Each life votes, and nobody frees anything.
func TestStartsOnFullDisk(t *testing.T) {
	defer leaktest.AfterTest(t)()
	from, to := crashSeeds(t, 1)
	for seed := from; seed < to && !t.Failed(); seed++ {
		if err := startOnFullDisk(t, seed); err != nil {
			t.Errorf("seed %d: %v\n%s", seed, err, replay(t, seed))
		}
	}
}

func startOnFullDisk(t *testing.T, seed uint64) error {
	sim, rng := disksim.New(disksim.Options{Seed: seed}), rand.New(rand.NewPCG(seed, 1))
	s := mustOpen(t, fullOptions(sim))
	awaitBallast(t, s)
	d := newDriver(t, s, mustCreate(t, s, 1))
	for range 50 {
		d.submit(d.batchEntry(5000))
		d.wait(1)
	}
	fill(sim)
	for start := range 50 {
		for range 1 + rng.IntN(20) {
			d.vote()
		}
		sim.Halt()
		for s == nil || sim.Halted() {
			if s != nil {
				_ = s.Close()
			}
			if sim = sim.Crash(disksim.Kill); rng.IntN(4) == 0 {
				sim = sim.Crash(disksim.PowerLoss)
			}
			if rng.IntN(3) != 0 {
				sim.CrashAt(1 + rng.Int64N(60))
			}
			var err error
			if s, err = Open(context.Background(), fullOptions(sim)); s == nil && !sim.Halted() {
				return fmt.Errorf("start %d: the store does not start on a full disk: %w", start, err)
			}
			sim.CrashAt(0)
		}
		if s.Pressure() != PressureNoSpace {
			return fmt.Errorf("start %d: the pressure on a full disk is %v", start, s.Pressure())
		}
		if n := s.Metrics().JournalFiles; n != 1 {
			return fmt.Errorf("start %d: %d files of the journal are live: votes of lives that end too early would take one each", start, n)
		}
		d.s, d.l = s, findLog(t, s, 1)
		if hs := d.l.HardState(); hs.Term != d.term || hs.Vote != 7 {
			return fmt.Errorf("start %d: the hard state is %+v, want term %d", start, hs, d.term)
		}
		d.check()
	}
	eventually(t, "the files of 50 starts have come back", func() bool { return s.Metrics().JournalFiles <= 4 })
	if have := s.space.ballast.size(); have < s.space.whole/2 {
		return fmt.Errorf("50 starts left %d bytes of the ballast of %d", have, s.space.whole)
	}
	sim.SetCapacity(0)
	awaitPressure(t, s, PressureNone)
	d.submit(d.batchEntry(5000))
	d.wait(1)
	d.check()
	closeStore(t, s)
	return nil
}

// TestFollowerOnFullDisk: a leader whose disk is not full goes on sending. What has no space in a segment waits in the journal, is in no
// cut, and the store stays up until there is space.
func TestFollowerOnFullDisk(t *testing.T) {
	defer leaktest.AfterTest(t)()
	sim := disksim.New(disksim.Options{Seed: 1})
	o := testOptions(sim, sim.Pebble(), "/data")
	s := mustOpen(t, o)
	awaitBallast(t, s)
	d := newDriver(t, s, mustCreate(t, s, 1))
	fill(sim)
	awaitPressure(t, s, PressureNoSpace)
	var pebble atomic.Int64
	sim.SetHook(func(op disksim.Op) error {
		if op.Pebble && op.Kind == disksim.OpWrite {
			pebble.Add(op.Bytes)
		}
		return nil
	})
	const sent = 1000 // 30 MiB: several times the ballast
	for range sent {
		d.submit(d.batchEntry(30 << 10))
	}
	eventually(t, "nothing more is taken", func() bool {
		return s.journal.ShortOfSpace() && s.journal.Room() < o.JournalFileBytes && s.space.ballast.size() < o.JournalFileBytes
	})
	select {
	case <-s.failure:
		t.Fatal(s.failCause)
	default:
	}
	if n := pebble.Load(); n > 512*kib {
		t.Errorf("%d bytes were written to Pebble for one log", n)
	}
	sim.SetCapacity(0)
	d.wait(sent)
	d.commitAll()
	d.check()
	awaitPressure(t, s, PressureNone)
	closeStore(t, s)
}

// TestCutsHoldABoundedTail: what arrives between a checkpoint's flush and its cut goes through the journal, megabytes of it. It is flushed
// again, not cut, and the journal comes free.
func TestCutsHoldABoundedTail(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.DirectAppendBytes, o.CheckpointBytes = 1<<40, 1<<40
	var pebble atomic.Int64
	sim.SetHook(func(op disksim.Op) error {
		if op.Pebble && op.Kind == disksim.OpWrite {
			pebble.Add(op.Bytes)
		}
		return nil
	})
	s := mustOpen(t, o)
	d := newDriver(t, s, mustCreate(t, s, 1))
	s.SetCutTaker(func(l *Log) {
		for range 20 {
			d.submit(d.batchEntry(200 << 10))
		}
		d.wait(20)
		l.TakeCut(State{Applied: l.Start().Index})
	})
	for n := range uint64(10) {
		d.vote() // else there is nothing to cut
		s.checkpoints.force()
		eventually(t, "a checkpoint", func() bool { return s.Metrics().Checkpoints > n })
	}
	eventually(t, "the journal is retired", func() bool { return s.Metrics().JournalFiles <= 8 })
	if n := pebble.Load(); n > 10*longestTail {
		t.Errorf("%d bytes were written to Pebble by ten checkpoints", n)
	}
	d.commitAll()
	d.check()
	closeStore(t, s)
}

// TestBallast: its blocks are there, others get them, and it grows again.
func TestBallast(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	s := mustOpen(t, fullOptions(sim))
	defer closeStore(t, s)
	awaitBallast(t, s)
	before := sim.Used()
	fill(sim)
	if !s.space.give(mib) || sim.Used() != before-mib {
		t.Errorf("%d bytes are in use after 1 MiB of the ballast was given up, %d before", sim.Used(), before)
	}
	if s.space.makeRoom(1 << 40) {
		t.Error("there is room for more than the disk has")
	}
	if s.space.ballast.size() != s.space.whole-mib {
		t.Error("the ballast was given up for what has no room in it")
	}
	awaitPressure(t, s, PressureNoSpace)
	sim.SetCapacity(sim.Used() + mib + leastFree) // enough for the ballast, not for the headroom
	awaitBallast(t, s)
	s.space.look()
	if s.Pressure() != PressureNoSpace {
		t.Error("the disk counts as not full as soon as the ballast is whole")
	}
	sim.SetCapacity(0)
	awaitPressure(t, s, PressureNone)
}

// TestSmallReserveIsRaised, and a message says from what to what.
func TestSmallReserveIsRaised(t *testing.T) {
	var log bytes.Buffer
	sim := disksim.New(disksim.Options{})
	o := fullOptions(sim)
	o.ReserveBytes, o.Logger = 12345, slog.New(slog.NewTextHandler(&log, nil))
	s := mustOpen(t, o)
	closeStore(t, s)
	least := o.withDefaults()
	want := least.leastReserve()
	if s.o.ReserveBytes != want || !strings.Contains(log.String(), "12345") || !strings.Contains(log.String(), fmt.Sprint(want)) {
		t.Errorf("the reserve is %d, want %d; the log says %s", s.o.ReserveBytes, want, &log)
	}
	for _, journal := range []int64{64 * kib, mib, 64 * mib} {
		if o := (Options{JournalFileBytes: journal}).withDefaults(); o.ReserveBytes < o.leastReserve() || o.leastReserve() > 4*journal+8*mib {
			t.Errorf("journal files of %d bytes: the reserve is %d, at least %d", journal, o.ReserveBytes, o.leastReserve())
		}
	}
}

// TestLargeReserveIsNoFile: only what journal and Pebble may take is allocated.
func TestLargeReserveIsNoFile(t *testing.T) {
	sim := disksim.New(disksim.Options{Capacity: 100 * mib})
	o := fullOptions(sim)
	o.ReserveBytes = 1 << 45
	s := mustOpen(t, o)
	defer closeStore(t, s)
	if s.Pressure() != PressureNoSpace {
		t.Errorf("the pressure below the reserve is %v", s.Pressure())
	}
	awaitBallast(t, s)
	newDriver(t, s, must(s.Create(context.Background(), Spec{Group: id.MetadataGroup, Replica: 1, Name: "metadata"}))).vote()
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestCloseWhilePebbleWaits: nobody waits for space at the end, and the error says what was not stored.
func TestCloseWhilePebbleWaits(t *testing.T) {
	defer leaktest.AfterTest(t)()
	sim := disksim.New(disksim.Options{Seed: 1})
	o := fullOptions(sim)
	o.OnFatal = func(err error) { t.Errorf("fatal: %v", err) }
	s := mustOpen(t, o)
	awaitBallast(t, s)
	d := newDriver(t, s, mustCreate(t, s, 1))
	d.submit(d.batchEntry(1000))
	d.wait(1)
	fill(sim)
	waiting := make(chan error, 1)
	for s.space.ballast.size() > 0 { // others are faster than the one for whom it is given up
		s.space.give(s.space.whole)
		fill(sim)
	}
	go func() { waiting <- s.Set("key", bytes.Repeat([]byte("x"), mib)) }()
	eventually(t, "a shortage", func() bool { return s.Pressure() == PressureNoSpace })
	err := s.Close()
	if !errors.Is(err, disk.ErrNoSpace) && !isNoSpace(err) || !strings.Contains(err.Error(), "full") {
		t.Errorf("Close says %v", err)
	}
	if err := <-waiting; err == nil {
		t.Error("a value that was not stored counts as stored")
	}
	sim = sim.Crash(disksim.PowerLoss)
	sim.SetCapacity(0)
	s = mustOpen(t, fullOptions(sim))
	d.s, d.l = s, findLog(t, s, 1)
	d.check()
	if _, err := s.Get("key"); !errors.Is(err, ErrNotFound) {
		t.Errorf("the value that was not stored: %v", err)
	}
	closeStore(t, s)
}

// TestStopWaiting: whoever waits for space in a store gets an error before it is closed, so that its owner can close him first.
func TestStopWaiting(t *testing.T) {
	defer leaktest.AfterTest(t)()
	for what, op := range map[string]func(*Store, *Log) error{
		"set":    func(s *Store, _ *Log) error { return s.Set("key", []byte("value")) },
		"refuse": func(s *Store, l *Log) error { return s.Refuse(context.Background(), l, "reason") },
		"delete": func(s *Store, l *Log) error { return s.Delete(context.Background(), l) },
		"create": func(s *Store, _ *Log) error {
			_, err := s.Create(context.Background(), Spec{Group: id.MetadataGroup, Replica: 1, Name: "metadata"})
			return err
		},
	} {
		sim := disksim.New(disksim.Options{Seed: 1})
		o := fullOptions(sim)
		o.OnFatal = func(err error) { t.Errorf("%s: fatal: %v", what, err) }
		s := mustOpen(t, o)
		d := newDriver(t, s, mustCreate(t, s, 1))
		d.submit(d.batchEntry(1000))
		d.wait(1)
		waits := make(chan struct{})
		var once sync.Once
		sim.SetHook(func(op disksim.Op) error {
			if op.Pebble && op.Kind == disksim.OpWrite {
				once.Do(func() { close(waits) })
				return syscall.ENOSPC
			}
			return nil
		})
		failed := make(chan error, 1)
		go func() { failed <- op(s, d.l) }()
		<-waits
		s.StopWaiting()
		select {
		case err := <-failed:
			if err == nil {
				t.Errorf("%s: what was not stored counts as stored", what)
			}
		case <-time.After(20 * time.Second):
			t.Fatalf("%s waits for space", what)
		}
		if err := s.Close(); !isNoSpace(err) {
			t.Errorf("%s: Close says %v", what, err)
		}
	}
}

// TestStartGivenUp: a start that waits for space ends with its context.
func TestStartGivenUp(t *testing.T) {
	defer leaktest.AfterTest(t)()
	sim := disksim.New(disksim.Options{Capacity: disk.BlockSize})
	if err := sim.MkdirAll("/data"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	o := fullOptions(sim)
	o.OnFatal = func(err error) { t.Errorf("fatal: %v", err) }
	o.Logger = slog.New(slog.NewTextHandler(writerFunc(func(p []byte) {
		if bytes.Contains(p, []byte("waiting for disk space")) {
			cancel()
		}
	}), nil))
	if _, err := Open(ctx, o); !isNoSpace(err) {
		t.Errorf("Open says %v", err)
	}
	sim = sim.Crash(disksim.Kill)
	sim.SetCapacity(0)
	closeStore(t, mustOpen(t, fullOptions(sim)))
}

type writerFunc func([]byte)

func (w writerFunc) Write(p []byte) (int, error) { w(p); return len(p), nil }

// TestNoDescriptors: idle segments make room for whoever finds no descriptor left.
func TestNoDescriptors(t *testing.T) {
	defer leaktest.AfterTest(t)()
	sim := disksim.New(disksim.Options{})
	o := fullOptions(sim)
	o.DirectAppendBytes = 1
	s := mustOpen(t, o)
	var drivers []*driver
	for g := range 64 {
		drivers = append(drivers, newDriver(t, s, mustCreate(t, s, g+1)))
	}
	sim.SetOpenFiles(80)
	for range 10 {
		for _, d := range drivers {
			d.submit(d.batchEntry(9000))
			d.wait(1)
			d.commitAll()
		}
	}
	if n := s.Metrics().OpenFiles; n == 0 || n > 40 {
		t.Errorf("%d segments are open", n)
	}
	for _, d := range drivers {
		d.check()
	}
	closeStore(t, s)
}

// TestBallastOfLargerFiles: a ballast that a store with larger files of the journal left is no reason to be full for ever. One that is
// short or missing is made whole.
func TestBallastOfLargerFiles(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	o := fullOptions(sim)
	o.JournalFileBytes = 4 * mib
	s := mustOpen(t, o)
	awaitBallast(t, s)
	closeStore(t, s)
	s = mustOpen(t, fullOptions(sim))
	fill(sim)
	s.space.shortage(errReserve)
	awaitPressure(t, s, PressureNoSpace)
	sim.SetCapacity(0)
	awaitPressure(t, s, PressureNone)
	awaitBallast(t, s)
	closeStore(t, s)
	for _, spoil := range []func() error{
		func() error { return sim.WriteFile("/data/ballast", make([]byte, 5000)) },
		func() error { return sim.Remove("/data/ballast") },
	} {
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, fullOptions(sim))
		awaitBallast(t, s)
		closeStore(t, s)
	}
}

// TestFailedStartWaitsForNobody: a start that fails for another reason does not wait for the space that somebody of it waits for.
func TestFailedStartWaitsForNobody(t *testing.T) {
	defer leaktest.AfterTest(t)()
	sim := disksim.New(disksim.Options{Seed: 1})
	s := mustOpen(t, fullOptions(sim))
	d := newDriver(t, s, mustCreate(t, s, 1))
	for n := 0; n < 20 || !d.inSegment(); n++ { // uncommitted: a start reads it
		d.submit(d.batchEntry(20 << 10))
		d.wait(1)
	}
	closeStore(t, s)
	if err := sim.RemoveAll("/data/journal"); err != nil { // nobody needs it, and the start makes files
		t.Fatal(err)
	}
	full, waits := make(chan struct{}), make(chan struct{})
	var once, reached sync.Once
	sim.SetHook(func(op disksim.Op) error {
		isFull := false
		select {
		case <-full:
			isFull = true
		default:
		}
		switch {
		case op.Kind == disksim.OpOpen && strings.HasSuffix(op.Name, ".log") && strings.Contains(op.Name, "/logs/"):
			once.Do(func() { close(full) })
			<-waits
			return syscall.EMFILE
		case op.Kind == disksim.OpCreate && strings.HasSuffix(op.Name, "00000002.preparing"): // the first spare
			<-full
		case op.Pebble && op.Kind == disksim.OpWrite && isFull:
			reached.Do(func() { close(waits) })
			return syscall.ENOSPC
		}
		return nil
	})
	failed := make(chan error, 1)
	go func() {
		_, err := Open(context.Background(), fullOptions(sim))
		failed <- err
	}()
	select {
	case err := <-failed:
		if !errors.Is(err, syscall.EMFILE) {
			t.Errorf("Open says %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("a start that fails waits for space")
		sim.SetHook(nil)
		<-failed
	}
	sim.SetHook(nil)
	s = mustOpen(t, fullOptions(sim))
	d.s, d.l = s, findLog(t, s, 1)
	d.check()
	closeStore(t, s)
}

// TestNoStopMarkWhileLogsAreLeftOut: what a full disk leaves in the journal alone is not said to be covered, and the next start finds it.
func TestNoStopMarkWhileLogsAreLeftOut(t *testing.T) {
	sim := disksim.New(disksim.Options{Seed: 1})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.DirectAppendBytes = 1 << 40
	s := mustOpen(t, o)
	awaitBallast(t, s)
	d, other := newDriver(t, s, mustCreate(t, s, 1)), newDriver(t, s, mustCreate(t, s, 2))
	sim.SetHook(func(op disksim.Op) error {
		if isSegment(op) && (op.Kind == disksim.OpCreate || op.Kind == disksim.OpWrite || op.Kind == disksim.OpTruncate) {
			return disk.ErrNoSpace
		}
		return nil
	})
	s.space.shortage(errReserve)
	for range 10 {
		d.submit(d.batchEntry(10 << 10))
		d.wait(1)
		other.vote()
	}
	if err := s.checkpoints.checkpoint(); err != nil {
		t.Fatal(err)
	}
	d.submit(d.batchEntry(10 << 10))
	d.wait(1)
	closeStore(t, s)
	sim.SetHook(nil)
	sim = sim.Crash(disksim.PowerLoss)
	o.FS, o.PebbleFS = sim, sim.Pebble()
	all, err := look(t, o, sim.Pebble())
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := all[string(stoppedKey)]; ok {
		t.Error("there is a mark that all is covered")
	}
	sim = sim.Crash(disksim.Kill)
	o.FS, o.PebbleFS = sim, sim.Pebble()
	s = mustOpen(t, o)
	for n, d := range []*driver{d, other} {
		d.s, d.l = s, findLog(t, s, id.Group(n+1))
		d.check()
	}
	closeStore(t, s)
}

// TestTrimOnFullDisk: there is not room for the cuts of all logs whose start can move, nor is one for those that cannot. They move as room
// comes free, and the disk is not full any more.
func TestTrimOnFullDisk(t *testing.T) {
	defer leaktest.AfterTest(t)()
	const logs = 150
	sim := disksim.New(disksim.Options{Seed: 1})
	o := fullOptions(sim)
	o.CheckpointBytes, o.trimInterval = 1<<40, time.Millisecond
	s := mustOpen(t, o)
	awaitBallast(t, s)
	rng := rand.New(rand.NewPCG(1, 1))
	var ds []*driver
	for i := range logs {
		d := newDriver(t, s, mustCreate(t, s, i+1))
		d.submit(d.batchEntry(60 * kib))
		d.l.Roll()
		d.submit(d.batchEntry(100))
		d.wait(2)
		d.commitAll()
		ds = append(ds, d)
	}
	for range 2 { // seal, then cut what is sealed
		if err := s.checkpoints.flushAll(s.Logs(), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := s.checkpoints.cutAll(s.Logs()); err != nil {
			t.Fatal(err)
		}
	}
	fill(sim)
	awaitPressure(t, s, PressureNoSpace)
	need := 2 * s.o.memTableBytes()
	for _, d := range ds {
		view := make([]byte, 30*kib)
		for i := range view {
			view[i] = byte(rng.Uint32())
		}
		d.l.TakeCut(State{Applied: d.last(), View: view})
		d.l.Trim(d.l.Segments()[1].Base)
		need += 2 * d.l.cutBytes(mib)
	}
	if room := s.space.room(); room > need/2 {
		t.Errorf("there is room for %d bytes of cuts, %d are too few for this test", room, need)
	}
	eventually(t, "all starts move", func() bool {
		moved := 0
		for _, d := range ds {
			d.l.Trim(0) // the owner's turn
			if d.l.FirstIndex() > d.start.Index+1 {
				moved++
			}
		}
		s.checkpoints.kick()
		return moved == logs
	})
	awaitPressure(t, s, PressureNone)
	sim.SetCapacity(0)
	closeStore(t, s)
}

// TestResetOnFullDiskFreesIt: what a reset drops goes soon, and not with a checkpoint that may be a minute away: whoever gave up its log for want
// of space needs that space for what follows.
func TestResetOnFullDiskFreesIt(t *testing.T) {
	defer leaktest.AfterTest(t)()
	sim := disksim.New(disksim.Options{Seed: 1})
	o := fullOptions(sim)
	o.CheckpointBytes, o.CheckpointInterval, o.SegmentBytes = 1<<40, time.Hour, 512*kib
	s := mustOpen(t, o)
	awaitBallast(t, s)
	d := newDriver(t, s, mustCreate(t, s, 1))
	for range 60 {
		d.submit(d.batchEntry(60 * kib))
		d.wait(1)
	}
	d.commitAll()
	fill(sim)
	awaitPressure(t, s, PressureNoSpace)
	reset := &Reset{Start: Start{Index: 500, Term: 9, Offset: 1234}, State: State{Applied: 503, View: []byte("view")}}
	s.Submit([]*Append{{Log: d.l, Reset: reset, Done: func(*Append) { d.done <- struct{}{} }}})
	d.wait(1)
	awaitPressure(t, s, PressureNone)
	sim.SetCapacity(0)
	closeStore(t, s)
}

// TestControlEntriesGoOnFullDisk: a segment of nothing but control entries, which is in no file, does not hold the start.
func TestControlEntriesGoOnFullDisk(t *testing.T) {
	sim := disksim.New(disksim.Options{Seed: 1})
	o := fullOptions(sim)
	o.CheckpointBytes, o.trimInterval = 1<<40, time.Millisecond
	s := mustOpen(t, o)
	awaitBallast(t, s)
	d := newDriver(t, s, mustCreate(t, s, 1))
	d.submit(d.controlEntry(KindCommand, []byte("a command")))
	d.l.Roll()
	d.submit(d.batchEntry(100))
	d.wait(2)
	d.commitAll()
	fill(sim)
	awaitPressure(t, s, PressureNoSpace)
	d.l.Trim(d.next)
	eventually(t, "the start moves", func() bool {
		d.l.TakeCut(State{Applied: d.last()})
		s.checkpoints.kick()
		return d.l.FirstIndex() > d.start.Index+1
	})
	sim.SetCapacity(0)
	closeStore(t, s)
}
