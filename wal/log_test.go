package wal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("never: %s", what)
		}
	}
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestRollsSealsAndReadsFromDisk writes several segments through a cache that holds a fraction of them.
func TestRollsSealsAndReadsFromDisk(t *testing.T) {
	defer leaktest.AfterTest(t)()
	o := testOptions(nil, nil, t.TempDir())
	o.SegmentBytes, o.CacheBytes, o.CheckpointBytes = 1*mib, 1*mib, 512*kib
	s := mustOpen(t, o)
	d := newDriver(t, s, mustCreate(t, s, 1))
	for i := range 300 {
		switch {
		case i%50 == 49:
			d.term++
			d.submit(d.controlEntry(KindEmpty, nil))
		case i%3 == 0:
			d.submit(d.batchEntry(70000))
		default:
			d.submit(d.batchEntry(2000 + i*37))
		}
		d.wait(1)
		d.commitAll()
	}
	d.check()
	eventually(t, "the tails are within the cache", func() bool { return s.Metrics().TailBytes <= 2*mib })
	s.checkpoints.force()
	eventually(t, "the first segments are sealed", func() bool {
		d.l.mu.Lock()
		defer d.l.mu.Unlock()
		return len(d.l.segs) > 5 && d.l.segs[len(d.l.segs)-2].stage == segSealed
	})
	d.check()
	if s.Metrics().ReadDiskBytes == 0 {
		t.Error("nothing was read from disk")
	}
	for _, ts := range []int64{0, 110, 1005, 2500, 3050} {
		wantOffset, found := id.Offset(0), false
		for _, e := range d.entries {
			if e.Kind == KindBatch && int64(e.Index)*10 >= ts {
				wantOffset, found = d.l.OffsetAt(e.Index), true
				break
			}
		}
		if got, _, ok, err := d.l.OffsetForTime(t.Context(), ts, 0, d.l.NextOffset()); err != nil || ok != found || ok && got != wantOffset {
			t.Errorf("offset for time %d is %d %v, want %d %v", ts, got, ok, wantOffset, found)
		}
	}
	closeStore(t, s)

	files, err := filepath.Glob(filepath.Join(o.Dir, "logs", d.l.dir, "*.log"))
	if err != nil || len(files) < 6 {
		t.Fatalf("segments: %v, %v", files, err)
	}
	info, err := os.Stat(files[0])
	if err != nil || info.Size() > o.SegmentBytes {
		t.Errorf("a sealed segment has %d bytes: %v", info.Size(), err)
	}
	s = mustOpen(t, o)
	d.s, d.l = s, findLog(t, s, 1)
	d.check()
	closeStore(t, s)
}

func TestEntriesStayUntilRelease(t *testing.T) {
	defer leaktest.AfterTest(t)()
	s := mustOpen(t, testOptions(nil, nil, t.TempDir()))
	d := newDriver(t, s, mustCreate(t, s, 1))
	for range 5 {
		d.submit(d.batchEntry(3000))
	}
	d.wait(5)
	got, ok := d.l.Entries(nil, 11, 16, 1<<20)
	if !ok || len(got) != 5 {
		t.Fatalf("%d entries, %v", len(got), ok)
	}
	if one, ok := d.l.Entries(nil, 12, 16, 1); !ok || len(one) != 1 {
		t.Errorf("%d entries of one byte, %v", len(one), ok)
	}
	if _, ok := d.l.Entries(nil, 16, 20, 1<<20); ok {
		t.Error("there are entries after the last")
	}
	want := fmt.Sprintf("%x", got[3].Data)
	d.truncate(12)
	d.submit(d.batchEntry(9000))
	d.wait(1)
	if fmt.Sprintf("%x", got[3].Data) != want {
		t.Error("a truncation changed bytes that were lent")
	}
	d.l.Release()
	d.check()
	closeStore(t, s)
	if n := s.memory.used.Load(); n != 0 {
		t.Errorf("%d bytes of chunks are still referenced", n)
	}
}

func TestReadLimits(t *testing.T) {
	s := mustOpen(t, testOptions(nil, nil, t.TempDir()))
	defer closeStore(t, s)
	d := newDriver(t, s, mustCreate(t, s, 1))
	var out ErrOffsetOutOfRange
	if _, err := d.l.Read(nil, 1, 1, 100); !errors.As(err, &out) || !errors.Is(err, ErrOutOfRange) || out.End != 0 {
		t.Errorf("reading an empty log at 1: %v", err)
	}
	if b, err := d.l.Read(nil, 0, 0, 100); len(b) != 0 || err != nil {
		t.Errorf("reading an empty log at 0: %d bytes, %v", len(b), err)
	}
	for range 10 {
		d.submit(d.batchEntry(1000))
	}
	d.wait(10)
	hw := d.l.OffsetAt(14) // three entries are below
	if b, err := d.l.Read(nil, 0, hw, 1<<20); len(b) != 3000 || err != nil {
		t.Errorf("below the high watermark: %d bytes, %v", len(b), err)
	}
	if b, err := d.l.Read(nil, hw-1, hw, 1); len(b) != 1000 || err != nil {
		t.Errorf("the last batch below the high watermark: %d bytes, %v", len(b), err)
	}
	if b, err := d.l.Read(nil, hw, hw, 1<<20); len(b) != 0 || err != nil {
		t.Errorf("at the high watermark: %d bytes, %v", len(b), err)
	}
	if _, err := d.l.ReadEntries(10, 12, 1); !errors.Is(err, ErrCompacted) {
		t.Errorf("before the start: %v", err)
	}
	if _, err := d.l.ReadEntries(21, 22, 1); !errors.Is(err, ErrUnavailable) {
		t.Errorf("after the end: %v", err)
	}
}

func TestDeleteAndCreateAgain(t *testing.T) {
	defer leaktest.AfterTest(t)()
	ctx := context.Background()
	o := testOptions(nil, nil, t.TempDir())
	s := mustOpen(t, o)
	d := newDriver(t, s, mustCreate(t, s, 1))
	if _, err := s.Create(ctx, Spec{Group: 1, Replica: 11, Name: "topic-1"}); !errors.Is(err, ErrExists) {
		t.Errorf("creating a replica twice: %v", err)
	}
	for range 20 {
		d.submit(d.batchEntry(100000))
		d.wait(1)
	}
	if err := s.Delete(ctx, d.l); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(o.Dir, "logs", d.l.dir)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	l, err := s.Create(ctx, Spec{Group: 2, Replica: 7, Name: "topic-1", Start: Start{Index: 10, Term: 1}})
	if err != nil {
		t.Fatal(err)
	}
	d = newDriver(t, s, l)
	d.submit(d.batchEntry(500))
	d.wait(1)
	closeStore(t, s)
	s = mustOpen(t, o)
	if len(s.Logs()) != 1 {
		t.Errorf("%d logs after a restart", len(s.Logs()))
	}
	d.s, d.l = s, findLog(t, s, 2)
	d.check()
	closeStore(t, s)
}

func TestResetAndStateAcrossRestart(t *testing.T) {
	sim := disksim.New(disksim.Options{Seed: 3})
	s := mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
	d := newDriver(t, s, mustCreate(t, s, 1))
	d.submit(d.batchEntry(60000), d.batchEntry(5000))
	d.wait(1)
	reset := &Reset{Start: Start{Index: 500, Term: 9, Offset: 1234}, State: State{Applied: 500, ConfState: []byte("conf"), View: []byte("view")}}
	hs := &HardState{Term: 9, Vote: 3, Commit: 500}
	s.Submit([]*Append{{Log: d.l, Reset: reset, HardState: hs, Done: func(*Append) { d.done <- struct{}{} }}})
	d.start, d.entries, d.next, d.term = reset.Start, nil, 1234, 9
	d.submit(d.batchEntry(70000))
	d.wait(2)
	d.check()
	sim.Halt()
	_ = s.Close()
	sim = sim.Crash(disksim.PowerLoss)
	s = mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
	defer closeStore(t, s)
	d.s, d.l = s, findLog(t, s, 1)
	d.check()
	if st := d.l.State(); st.Applied != 500 || string(st.ConfState) != "conf" || string(st.View) != "view" {
		t.Errorf("state is %+v", st)
	}
	if got := d.l.HardState(); got != *hs {
		t.Errorf("hard state is %+v", got)
	}
}

// TestResetMeetsADiskError: each write and sync of a reset, of what follows it, and of the checkpoint after it fails. The store ends, and the
// next start has the log as it was or as the reset has it, whole, and the reset for certain once it was acknowledged.
func TestResetMeetsADiskError(t *testing.T) {
	for at := int64(1); ; at++ {
		sim := disksim.New(disksim.Options{Seed: uint64(at)})
		o := testOptions(sim, sim.Pebble(), "/data")
		o.CacheBytes, o.CheckpointBytes = 8*mib, 1<<40
		s := mustOpen(t, o)
		awaitBallast(t, s)
		d := newDriver(t, s, mustCreate(t, s, 1))
		d.submit(d.batchEntry(60000), d.batchEntry(5000))
		d.wait(1)
		before, was := d.start, d.entries
		var calls atomic.Int64
		sim.SetHook(func(op disksim.Op) error {
			if op.Kind <= disksim.OpSyncDir && calls.Add(1) == at {
				return syscall.EIO
			}
			return nil
		})
		reset := &Reset{Start: Start{Index: 500, Term: 9, Offset: 1234}, State: State{Applied: 503, View: []byte("view")}}
		acked := make(chan struct{})
		s.Submit([]*Append{{Log: d.l, Reset: reset, Done: func(*Append) { close(acked) }}})
		done := false
		select {
		case <-acked:
			done = true
			_ = s.checkpoints.checkpoint()
		case <-s.failure:
		case <-time.After(patience):
			t.Fatalf("call %d: neither an answer nor a failure", at)
		}
		_ = s.Close()
		hit := calls.Load() >= at
		sim = sim.Crash(disksim.Kind(at % 2))
		sim.SetHook(nil)
		o.FS, o.PebbleFS = sim, sim.Pebble()
		s = mustOpen(t, o)
		l := findLog(t, s, 1)
		if l.Start() == before && !done {
			checkLog(t, l, before, was)
		} else {
			checkLog(t, l, reset.Start, nil)
			if st := l.State(); st.Applied != 503 || string(st.View) != "view" {
				t.Errorf("call %d: the state is %+v", at, st)
			}
		}
		closeStore(t, s)
		if !hit {
			t.Logf("%d calls", at-1)
			return
		}
	}
}

// TestCutsComeFromTheOwner has the checkpointer ask, and the answer survive.
func TestCutsComeFromTheOwner(t *testing.T) {
	defer leaktest.AfterTest(t)()
	o := testOptions(nil, nil, t.TempDir())
	o.CheckpointBytes = 64 * kib
	s := mustOpen(t, o)
	d := newDriver(t, s, mustCreate(t, s, 1))
	asked := make(chan *Log, 16)
	s.SetCutTaker(func(l *Log) { asked <- l })
	var wg sync.WaitGroup
	stop := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case l := <-asked:
				l.TakeCut(State{Applied: 12, View: []byte("as of 12")})
			case <-stop:
				return
			}
		}
	})
	for range 40 {
		d.submit(d.batchEntry(20000))
		d.wait(1)
		d.commitAll()
	}
	eventually(t, "a checkpoint", func() bool { return s.Metrics().Checkpoints > 0 })
	if n := s.Metrics().JournalFiles; n > 3 {
		t.Errorf("%d journal files are live", n)
	}
	close(stop)
	wg.Wait()
	closeStore(t, s)
	s = mustOpen(t, o)
	defer closeStore(t, s)
	if st := findLog(t, s, 1).State(); st.Applied != 12 || string(st.View) != "as of 12" {
		t.Errorf("state is %+v", st)
	}
}

func TestGetAndSet(t *testing.T) {
	o := testOptions(nil, nil, t.TempDir())
	s := mustOpen(t, o)
	if _, err := s.Get("identity"); !errors.Is(err, ErrNotFound) {
		t.Errorf("a key that was never set: %v", err)
	}
	if err := s.Set("identity", []byte("x")); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	s = mustOpen(t, o)
	defer closeStore(t, s)
	if v, err := s.Get("identity"); string(v) != "x" || err != nil {
		t.Errorf("%q, %v", v, err)
	}
	if _, err := Open(context.Background(), o); err == nil {
		t.Error("a directory in use was opened twice")
	}
}

// TestReadersBesideTheWriter reads while entries are appended, flushed, evicted and truncated. Mostly for the race detector.
func TestReadersBesideTheWriter(t *testing.T) {
	defer leaktest.AfterTest(t)()
	o := testOptions(nil, nil, t.TempDir())
	o.CacheBytes, o.CheckpointBytes, o.SegmentBytes = 512*kib, 256*kib, 1*mib
	s := mustOpen(t, o)
	d := newDriver(t, s, mustCreate(t, s, 1))
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			var buf []byte
			from := id.Offset(0)
			for {
				select {
				case <-stop:
					return
				default:
				}
				limit := d.l.OffsetAt(d.l.commit() + 1)
				b, err := d.l.Read(buf[:0], from, limit, 100<<10)
				if err != nil {
					t.Error(err)
					return
				}
				if buf = b; len(b) == 0 {
					from = 0
				} else {
					from += id.Offset(1 + len(b)/30000)
					from = min(from, limit)
				}
			}
		})
	}
	for i := range 300 {
		d.submit(d.batchEntry(1000 + i%7*20000))
		d.wait(1)
		if i%20 == 19 {
			d.truncate(d.last() - 2)
			d.submit(d.batchEntry(5000))
			d.wait(1)
		}
		if i%5 == 0 && d.last() > 15 {
			d.l.SetCommit(d.last() - 5)
		}
	}
	close(stop)
	wg.Wait()
	d.check()
	closeStore(t, s)
}

// TestFailedStoreLetsGoOfItsMemory crashes the disk under load: Close gives the arenas back all the same.
func TestFailedStoreLetsGoOfItsMemory(t *testing.T) {
	defer leaktest.AfterTest(t)()
	for seed := range uint64(20) {
		sim := disksim.New(disksim.Options{Seed: seed})
		s := mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
		d := newDriver(t, s, mustCreate(t, s, 1))
		d.done = make(chan struct{}, 1000)
		sim.CrashAt(sim.Steps() + 1 + int64(seed))
		for !s.failed() && d.last() < 500 {
			d.submit(d.batchEntry(3000 + int(seed)*7000))
		}
		sim.Halt()
		_ = s.Close()
		if n := s.memory.used.Load(); n != 0 || len(s.memory.arenas) != 0 {
			t.Fatalf("seed %d: %d bytes in %d arenas are left", seed, n, len(s.memory.arenas))
		}
	}
}
