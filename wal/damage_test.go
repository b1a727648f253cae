package wal

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"syscall"
	"testing"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// spoil does something to every journal file.
func spoil(t *testing.T, sim *disksim.Disk, how func(name string, f disk.File, size int64) error) {
	t.Helper()
	const dir = "/data/journal"
	names, err := sim.List(dir)
	if err != nil || len(names) == 0 {
		t.Fatalf("journal files: %v, %v", names, err)
	}
	for _, name := range names {
		name = path.Join(dir, name)
		f, err := sim.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		size, err := f.Size()
		if err == nil {
			err = how(name, f, size)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

// TestJournalDestroyedAfterAnOrderlyStop has several logs, one of which has had no records for long. After a Close nobody needs the
// journal: whatever becomes of its files, nobody is refused and nothing is lost; and the next life, which may end in a crash, is as
// safe as any.
func TestJournalDestroyedAfterAnOrderlyStop(t *testing.T) {
	for what, how := range map[string]func(sim *disksim.Disk) func(string, disk.File, int64) error{
		"bits flipped": func(sim *disksim.Disk) func(string, disk.File, int64) error {
			return func(name string, _ disk.File, size int64) error {
				for at := int64(0); at < min(size, 64<<10); at += 512 {
					if err := sim.Flip(name, at+at/512%300, 4); err != nil {
						return err
					}
				}
				return nil
			}
		},
		"emptied": func(*disksim.Disk) func(string, disk.File, int64) error {
			return func(_ string, f disk.File, _ int64) error { return f.Truncate(0) }
		},
		"cut": func(*disksim.Disk) func(string, disk.File, int64) error {
			return func(_ string, f disk.File, size int64) error { return f.Truncate(size/2 + 100) }
		},
		"longer": func(*disksim.Disk) func(string, disk.File, int64) error {
			return func(_ string, f disk.File, size int64) error { return f.Truncate(size + 5000) }
		},
		"removed": func(sim *disksim.Disk) func(string, disk.File, int64) error {
			return func(name string, _ disk.File, _ int64) error { return sim.Remove(name) }
		},
		"unreadable": func(sim *disksim.Disk) func(string, disk.File, int64) error {
			sim.SetHook(func(op disksim.Op) error {
				if op.Kind == disksim.OpRead && strings.HasPrefix(op.Name, "/data/journal/") {
					return syscall.EIO
				}
				return nil
			})
			return func(string, disk.File, int64) error { return nil }
		},
	} {
		t.Run(what, func(t *testing.T) {
			sim := disksim.New(disksim.Options{})
			o := testOptions(sim, sim.Pebble(), "/data")
			s := mustOpen(t, o)
			idle := newDriver(t, s, mustCreate(t, s, 1))
			busy := newDriver(t, s, mustCreate(t, s, 2))
			for range 2 {
				for range 30 {
					busy.submit(busy.batchEntry(50 << 10))
					busy.wait(1)
					busy.commitAll()
				}
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				spoil(t, sim, how(sim))
				s = mustOpen(t, o)
				if r := s.Refused(); len(r) != 0 {
					t.Fatalf("refused: %+v", r)
				}
				for n, d := range []*driver{idle, busy} {
					d.s, d.l = s, findLog(t, s, id.Group(n+1))
					d.check()
				}
				sim.SetHook(nil)
			}
			for _, d := range []*driver{idle, busy} {
				d.submit(d.batchEntry(1000))
				d.wait(1)
			}
			sim.Halt()
			_ = s.Close()
			sim = sim.Crash(disksim.PowerLoss)
			o.FS, o.PebbleFS = sim, sim.Pebble()
			s = mustOpen(t, o)
			for n, d := range []*driver{idle, busy} {
				checkLog(t, findLog(t, s, id.Group(n+1)), d.start, d.entries)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestDamageBelowAllCuts destroys frames of a live journal file, after a kill, that the cuts of all logs cover. Who has an old cut
// because it had no records since has lost nothing, and neither has anybody else. Frames that no checkpoint covers are another matter.
func TestDamageBelowAllCuts(t *testing.T) {
	for _, covered := range []bool{true, false} {
		t.Run(fmt.Sprintf("covered %v", covered), func(t *testing.T) {
			sim := disksim.New(disksim.Options{})
			o := testOptions(sim, sim.Pebble(), "/data")
			o.CheckpointBytes = 1 << 40
			s := mustOpen(t, o)
			idle := newDriver(t, s, mustCreate(t, s, 1))
			busy := newDriver(t, s, mustCreate(t, s, 2))
			append := func() {
				busy.submit(busy.batchEntry(10 << 10))
				busy.wait(1)
				busy.commitAll()
			}
			for range 5 {
				append()
			}
			file := s.journal.Files()[0]
			if covered {
				if err := s.checkpoints.checkpoint(); err != nil {
					t.Fatal(err)
				}
			}
			append() // vouches
			append()
			if got := s.journal.Files()[0]; got.Name != file.Name {
				t.Fatalf("the journal went on to %v", got)
			}
			sim.Halt()
			_ = s.Close()
			sim = sim.Crash(disksim.Kill)
			for at := range file.Used { // the first frames, headers and all
				if err := sim.Flip("/data/journal/"+file.Name, at, 0xff); err != nil {
					t.Fatal(err)
				}
			}
			o.FS, o.PebbleFS = sim, sim.Pebble()
			s = mustOpen(t, o)
			if r := s.Refused(); covered && len(r) != 0 || !covered && len(r) != 2 {
				t.Errorf("refused: %+v", r)
			}
			if covered {
				checkLog(t, findLog(t, s, 1), idle.start, idle.entries)
				checkLog(t, findLog(t, s, 2), busy.start, busy.entries)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestBadSectorAtStart makes what a start reads of one log unreadable, in every way: that replica is out, for good, and not the node.
// A process without descriptors, or that may not open what is somebody else's, refuses nobody, and says what to do.
func TestBadSectorAtStart(t *testing.T) {
	logs := func(kinds ...disksim.OpKind) func(op disksim.Op) bool {
		return func(op disksim.Op) bool {
			for _, k := range kinds {
				if op.Kind == k && strings.HasSuffix(op.Name, ".log") {
					return true
				}
			}
			return false
		}
	}
	for what, c := range map[string]struct {
		hit   func(disksim.Op) bool
		cause error
		fails bool
		// remedy is what the error says.
		remedy string
	}{
		"unreadable blocks":        {hit: logs(disksim.OpRead), cause: syscall.EIO},
		"file cannot be opened":    {hit: logs(disksim.OpOpen), cause: syscall.EIO},
		"somebody else's file":     {hit: logs(disksim.OpOpen), cause: syscall.EACCES, fails: true, remedy: "chown"},
		"damaged file system":      {hit: logs(disksim.OpOpen), cause: syscall.EBADMSG},
		"too many open files":      {hit: logs(disksim.OpOpen), cause: syscall.EMFILE, fails: true, remedy: "limit of open files"},
		"too many files of system": {hit: logs(disksim.OpOpen), cause: syscall.ENFILE, fails: true, remedy: "limit of open files"},
	} {
		for _, kill := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, kill %v", what, kill), func(t *testing.T) {
				sim := disksim.New(disksim.Options{Direct: true})
				o := testOptions(sim, sim.Pebble(), "/data")
				o.DirectAppendBytes = 1
				s := mustOpen(t, o)
				bad, good := newDriver(t, s, mustCreate(t, s, 1)), newDriver(t, s, mustCreate(t, s, 2))
				watermark := func() id.Position {
					bad.l.mu.Lock()
					defer bad.l.mu.Unlock()
					if len(bad.l.segs) == 0 {
						return 0
					}
					return bad.l.segs[0].w
				}
				for n, direct := 0, 0; direct < 4; n++ { // until some of it is in the segment, uncommitted, and vouched for
					if watermark() > 0 {
						direct++
					}
					if n == 5000 {
						t.Fatal("nothing was written to the segment")
					}
					good.submit(good.batchEntry(20 << 10))
					good.wait(1)
					good.commitAll()
					bad.submit(bad.batchEntry(20 << 10))
					bad.wait(1)
				}
				dir := bad.l.dir
				if kill { // the last round, which refers to the segment, is not vouched for
					sim.Halt()
				}
				if err := s.Close(); err != nil && !kill {
					t.Fatal(err)
				}
				sim = sim.Crash(disksim.Kill)
				sim.SetHook(func(op disksim.Op) error {
					if strings.Contains(op.Name, "/"+dir+"/") && c.hit(op) {
						return c.cause
					}
					return nil
				})
				o.FS, o.PebbleFS = sim, sim.Pebble()
				if c.fails {
					_, err := Open(t.Context(), o)
					if !errors.Is(err, c.cause) || !strings.Contains(err.Error(), c.remedy) {
						t.Errorf("the start ended with %v", err)
					}
					sim.SetHook(nil)
					s = mustOpen(t, o)
					checkLog(t, findLog(t, s, 1), bad.start, bad.entries)
					_ = s.Close()
					return
				}
				for range 2 {
					s = mustOpen(t, o)
					if r := s.Refused(); len(r) != 1 || r[0].Replica != bad.l.Replica() {
						t.Fatalf("refused: %+v", r)
					}
					checkLog(t, findLog(t, s, 2), good.start, good.entries)
					if err := s.Close(); err != nil {
						t.Fatal(err)
					}
					sim.SetHook(nil) // it may be well the next time: the refusal stays
				}
			})
		}
	}
}

// TestErrorsOfEveryFileAtStart: an error that a start meets with all files, or with all of journal or logs, is not about what is stored. It
// ends the start, says so, and refuses nobody: once the disk answers again, or is mounted, all is there.
func TestErrorsOfEveryFileAtStart(t *testing.T) {
	fails := func(e syscall.Errno, dir string) func(*disksim.Disk) func() {
		return func(sim *disksim.Disk) func() {
			sim.SetHook(func(op disksim.Op) error {
				reads := op.Kind == disksim.OpRead && e != syscall.EACCES || op.Kind == disksim.OpOpen
				if reads && strings.HasPrefix(op.Name, dir+"/") {
					return e
				}
				return nil
			})
			return func() { sim.SetHook(nil) }
		}
	}
	away := func(dir string) func(*disksim.Disk) func() {
		return func(sim *disksim.Disk) func() {
			if err := sim.Rename(dir, "/data/away"); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := errors.Join(sim.RemoveAll(dir), sim.Rename("/data/away", dir)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for _, c := range []struct {
		what   string
		spoil  func(*disksim.Disk) func()
		remedy string
	}{
		{"logs are unreadable", fails(syscall.EIO, "/data/logs"), "no replica was refused"},
		{"logs are somebody else's", fails(syscall.EACCES, "/data/logs"), "chown"},
		{"logs are not mounted", away("/data/logs"), "mounted"},
		{"journal is unreadable", fails(syscall.EIO, "/data/journal"), "nothing was changed"},
		{"journal is not mounted", away("/data/journal"), "mounted"},
		{"journal is somebody else's", fails(syscall.EACCES, "/data/journal"), "chown"},
	} {
		for n := range 4 {
			stop, logs := n%2 == 0, 2+6*(n/2)
			t.Run(fmt.Sprintf("%s, stopped %v, %d logs", c.what, stop, logs), func(t *testing.T) {
				sim := disksim.New(disksim.Options{Direct: true})
				o := testOptions(sim, sim.Pebble(), "/data")
				o.DirectAppendBytes = 1
				s := mustOpen(t, o)
				var drivers []*driver
				for g := range logs {
					d := newDriver(t, s, mustCreate(t, s, g+1))
					// Uncommitted: a start reads it. A round wrote it there: what a flush did is in the journal too until the next cut.
					for n, before := 0, s.Metrics().DirectBytes; n < 100 || s.Metrics().DirectBytes == before; n++ {
						d.submit(d.batchEntry(5000))
						d.wait(1)
					}
					drivers = append(drivers, d)
				}
				for g := range 2 * logs { // these have nothing in files
					mustCreate(t, s, 100+g)
				}
				for n := range min(logs, 3) { // the last round refers to some of the logs
					drivers[n].submit(drivers[n].batchEntry(20000))
					drivers[n].wait(1)
				}
				if !stop {
					sim.Halt()
				}
				if err := s.Close(); err != nil && stop {
					t.Fatal(err)
				}
				sim = sim.Crash(disksim.Kill)
				o.FS, o.PebbleFS = sim, sim.Pebble()
				restore := c.spoil(sim)
				for range 2 {
					s, err := Open(t.Context(), o)
					if err == nil { // a journal that nobody needs
						if !stop || c.what != "journal is unreadable" && c.what != "journal is not mounted" {
							t.Errorf("the start succeeds; refused: %v", s.Refused())
						}
						if stop {
							closeStore(t, s)
						}
						return
					}
					if !strings.Contains(err.Error(), c.remedy) {
						t.Errorf("the start says %v", err)
					}
				}
				restore()
				s = mustOpen(t, o)
				defer closeStore(t, s)
				if r := s.Refused(); len(r) > 0 {
					t.Fatalf("%d are refused: %v", len(r), r[0])
				}
				for n, d := range drivers {
					d.s, d.l = s, findLog(t, s, id.Group(n+1))
					d.check()
				}
			})
		}
	}
}

// inSegment tells whether some of the log is in a segment.
func (d *driver) inSegment() bool {
	d.l.mu.Lock()
	defer d.l.mu.Unlock()
	return len(d.l.segs) > 0 && d.l.segs[0].w > 0
}
