package wal

import (
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// TestScrub: what rotted is found though nobody reads it, in whichever file, and the offsets are named; what is well is read once and
// condemned by nobody. It takes nothing from the caches, and its time.
func TestScrub(t *testing.T) {
	for what, rot := range map[string]func(sim *disksim.Disk, l *Log) error{
		"nothing": nil,
		"a bit of the log": func(sim *disksim.Disk, l *Log) error {
			return sim.Flip(fileOf(l, segment.LogSuffix), 1<<20+77, 4)
		},
		"a bit of the index": func(sim *disksim.Disk, l *Log) error { return sim.Flip(fileOf(l, segment.IndexSuffix), 52*64+8, 4) },
		"the log":            func(sim *disksim.Disk, l *Log) error { return sim.Remove(fileOf(l, segment.LogSuffix)) },
		"the index":          func(sim *disksim.Disk, l *Log) error { return sim.Remove(fileOf(l, segment.IndexSuffix)) },
	} {
		t.Run(what, func(t *testing.T) {
			defer leaktest.AfterTest(t)()
			sim := disksim.New(disksim.Options{Direct: true})
			o := testOptions(sim, sim.Pebble(), "/data")
			s, d := flushed(t, o, 200)
			closeStore(t, s)
			if rot != nil {
				if err := rot(sim, d.l); err != nil {
					t.Fatal(err)
				}
			}
			told := verdictsOf(&o)
			o.ScrubRate, o.scrubFirst = 16<<20, time.Millisecond
			begin := time.Now()
			s = mustOpen(t, o)
			defer closeStore(t, s)
			if len(s.Refused()) > 0 {
				if !strings.HasPrefix(what, "the ") {
					t.Errorf("refused: %v", s.Refused())
				}
				return // the start found out
			}
			eventually(t, "a pass", func() bool { return s.Metrics().ScrubPasses == 1 })
			m := s.Metrics()
			if rot == nil {
				if len(told) > 0 || m.ScrubErrors != 0 || m.LastScrub == 0 || m.ScrubbedBytes < 200*20<<10-64<<10 {
					t.Errorf("%d verdicts, %+v", len(told), m)
				}
				if took, least := time.Since(begin), time.Duration(m.ScrubbedBytes-scrubPiece)*time.Second/(16<<20); took < least {
					t.Errorf("%d bytes took %v, less than %v", m.ScrubbedBytes, took, least)
				}
				if m.ReadDiskBytes != 0 {
					t.Errorf("%d bytes were read for the caches", m.ReadDiskBytes)
				}
				return
			}
			v := awaitVerdict(t, told)
			if v.kind != CondemnedReads || m.ScrubErrors != 1 || what == "a bit of the log" && !strings.Contains(v.Reason, "offsets") {
				t.Errorf("%+v, %+v", v, m)
			}
		})
	}
}

// scrubDriver is a driver of a log of four segments, which are in files, and whose scrub nobody but the test begins.
func scrubDriver(t *testing.T) (*driver, *disksim.Disk, <-chan verdict) {
	t.Helper()
	sim := disksim.New(disksim.Options{Direct: true})
	o := testOptions(sim, sim.Pebble(), "/data")
	told := verdictsOf(&o)
	o.ScrubRate, o.scrubFirst = 1<<40, time.Hour
	s := mustOpen(t, o)
	t.Cleanup(func() { closeStore(t, s) })
	d := newDriver(t, s, mustCreate(t, s, 1))
	for range 4 {
		d.segment()
	}
	d.submit(d.batchEntry(20 << 10)) // of the last segment, whole blocks are in files
	d.wait(1)
	d.commitAll()
	d.l.TakeCut(State{Applied: d.last()})
	d.cut()
	return d, sim, told
}

// isScrubbed tells whether an operation is the scrub's, which is the only one that reads here.
func isScrubbed(op disksim.Op) bool {
	return !op.Pebble && (op.Kind == disksim.OpOpen || op.Kind == disksim.OpRead) && strings.HasPrefix(op.Name, "/data/logs/")
}

// TestScrubOfWhatGoes: the segment that the scrub is reading goes: the start moves over it, or the log is reset or deleted. Whatever it
// reads then, or no longer finds, is the past: it condemns nobody, is no rot that it found, and the pass goes on with what is there.
func TestScrubOfWhatGoes(t *testing.T) {
	goes := map[string]func(d *driver){
		"the start moves": func(d *driver) {
			first := d.l.FirstIndex()
			d.l.Trim(d.next)
			d.cut()
			d.l.Trim(0) // the owner's turn
			d.s.checkpoints.unlinkLeft()
			if d.l.FirstIndex() == first {
				d.t.Error("the start has not moved")
			}
		},
		"reset": func(d *driver) {
			start := Start{Index: 100, Term: 2, Offset: 1000}
			d.s.Submit([]*Append{{Log: d.l, Reset: &Reset{Start: start, State: State{Applied: 100}}, Done: func(*Append) { d.done <- struct{}{} }}})
			d.wait(1)
			d.cut()
		},
		"deletion": func(d *driver) {
			if err := d.s.Delete(d.t.Context(), d.l); err != nil {
				d.t.Error(err)
			}
		},
	}
	for what, gone := range goes {
		for suffix, kind := range map[string]disksim.OpKind{segment.LogSuffix: disksim.OpRead, segment.IndexSuffix: disksim.OpOpen} {
			t.Run(what+", "+suffix, func(t *testing.T) {
				d, sim, told := scrubDriver(t)
				var hit, went atomic.Bool
				var later atomic.Int32
				sim.SetHook(func(op disksim.Op) error {
					switch {
					case !isScrubbed(op):
						return nil
					case went.Load():
						later.Add(1)
					case op.Kind == kind && strings.HasSuffix(op.Name, suffix) && hit.CompareAndSwap(false, true):
						gone(d)
						went.Store(true)
						if kind == disksim.OpRead {
							return syscall.EIO
						}
					}
					return nil
				})
				if !d.s.scrub.pass() || !went.Load() {
					t.Fatal("the scrub did not meet what went")
				}
				if m := d.s.Metrics(); len(told) > 0 || m.ScrubErrors != 0 || m.Condemned != 0 || d.l.Condemned() != 0 {
					t.Errorf("%d verdicts, %+v", len(told), m)
				}
				if what == "the start moves" && later.Load() < 2 { // it opens and reads files of the last segment
					t.Error("the pass ended with the segment that went")
				}
			})
		}
	}
}

// TestScrubThatIsNotWhole: a pass that could not look at all segments, for a reason that says nothing about them, is not counted.
func TestScrubThatIsNotWhole(t *testing.T) {
	d, sim, told := scrubDriver(t)
	sim.SetHook(func(op disksim.Op) error {
		if isScrubbed(op) && op.Kind == disksim.OpOpen {
			return syscall.ENOMEM
		}
		return nil
	})
	if !d.s.scrub.pass() {
		t.Fatal("the store ends")
	}
	if m := d.s.Metrics(); m.ScrubPasses != 0 || m.LastScrub != 0 || len(told) > 0 {
		t.Errorf("nothing could be opened: %d verdicts, %+v", len(told), m)
	}
	sim.SetHook(nil)
	d.s.scrub.pass()
	if m := d.s.Metrics(); m.ScrubPasses != 1 || m.LastScrub == 0 {
		t.Errorf("all was read: %+v", m)
	}
}

// TestScrubOfAStalledDisk: while a round waits for the disk the scrub reads nothing, and it goes on afterwards. A read of its own that hangs
// holds up nobody but Close, which waits for it as for every other operation; what that read ends with then counts for nothing. Waiting for
// its rate, it ends with Close at once.
func TestScrubOfAStalledDisk(t *testing.T) {
	t.Run("round", func(t *testing.T) {
		d, sim, told := scrubDriver(t)
		hung := make(chan struct{})
		var reads atomic.Int32
		sim.SetHook(func(op disksim.Op) error {
			if isScrubbed(op) {
				reads.Add(1)
			}
			if !op.Pebble && op.Kind == disksim.OpWrite && strings.HasPrefix(op.Name, "/data/journal/") {
				<-hung
			}
			return nil
		})
		d.submit(d.batchEntry(500))
		eventually(t, "the round to be seen", func() bool { return d.s.Stalled() > 0 })
		passed := make(chan bool, 1)
		go func() { passed <- d.s.scrub.pass() }()
		before := d.s.Stalled()
		eventually(t, "time to pass", func() bool { return d.s.Stalled() > before+20*time.Millisecond })
		if n := reads.Load(); n > 0 {
			t.Errorf("it read %d times while a round waited", n)
		}
		close(hung)
		d.wait(1)
		if !<-passed || reads.Load() == 0 || len(told) > 0 {
			t.Errorf("after the round it read %d times; %d verdicts", reads.Load(), len(told))
		}
	})
	closing := func(t *testing.T, d *driver) <-chan error {
		closed := make(chan error, 1)
		go func() { closed <- d.s.Close() }()
		eventually(t, "the store to close", d.s.ended)
		return closed
	}
	t.Run("read", func(t *testing.T) {
		d, sim, told := scrubDriver(t)
		hangs, hung := make(chan struct{}), make(chan struct{})
		var once sync.Once
		sim.SetHook(func(op disksim.Op) error {
			if isScrubbed(op) && op.Kind == disksim.OpRead {
				once.Do(func() { close(hangs) })
				<-hung
				return syscall.EIO
			}
			return nil
		})
		d.s.running.Go(func() { d.s.scrub.pass() })
		<-hangs
		d.submit(d.batchEntry(500))
		d.wait(1) // nobody else waits
		closed := closing(t, d)
		select {
		case err := <-closed:
			t.Errorf("Close does not wait for who reads: %v", err)
		default:
		}
		close(hung)
		if err := <-closed; err != nil || len(told) > 0 || d.l.Condemned() != 0 {
			t.Errorf("Close: %v; %d verdicts", err, len(told))
		}
	})
	t.Run("rate", func(t *testing.T) {
		d, _, _ := scrubDriver(t)
		d.s.scrub.limit.SetLimit(1e-3)
		d.s.scrub.limit.ReserveN(time.Now(), scrubPiece)
		d.s.running.Go(func() { d.s.scrub.pass() })
		eventually(t, "it to wait", func() bool { return d.s.Metrics().ScrubbedBytes > 0 })
		if err := <-closing(t, d); err != nil {
			t.Error(err)
		}
	})
}
