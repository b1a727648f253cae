package wal

import (
	"context"
	"errors"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// verdictsOf has a store's verdicts go into a channel.
func verdictsOf(o *Options) <-chan verdict {
	c := make(chan verdict, 16)
	o.OnCondemned = func(l *Log, kind Condemnation, r Refusal) { c <- verdict{l, kind, r} }
	return c
}

func awaitVerdict(t *testing.T, c <-chan verdict) verdict {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(20 * time.Second):
		t.Fatal("nobody was told")
		return verdict{}
	}
}

// flushed writes n committed batches to a log and opens the store again, so that all of them, but for the last block, are in files
// alone.
func flushed(t *testing.T, o Options, n int) (*Store, *driver) {
	t.Helper()
	s := mustOpen(t, o)
	d := newDriver(t, s, mustCreate(t, s, 1))
	for range n {
		d.submit(d.batchEntry(20 << 10))
		d.wait(1)
		d.commitAll()
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, o)
	d.s, d.l = s, findLog(t, s, 1)
	return s, d
}

func fileOf(l *Log, suffix string) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return path.Join(l.s.logsDir, l.dir, strings.TrimSuffix(l.segs[0].key.Log(), segment.LogSuffix)+suffix)
}

func zeroBlock(sim *disksim.Disk, name string, at int64) error {
	f, err := sim.Open(name)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(disk.AlignedBytes(disk.BlockSize), at)
	return errors.Join(err, f.Close())
}

// TestRotIsOneThing has every kind of read meet every kind of rot: each ends in ErrCorrupt and one verdict, and refuses nothing by
// itself. What stands before the rot is served.
func TestRotIsOneThing(t *testing.T) {
	const entries = 200 // rows of more than one block of the index
	rots := map[string]func(sim *disksim.Disk, l *Log) error{
		"flipped bit": func(sim *disksim.Disk, l *Log) error { return sim.Flip(fileOf(l, segment.LogSuffix), 1<<20+77, 4) },
		"unreadable block": func(sim *disksim.Disk, l *Log) error {
			name := fileOf(l, segment.LogSuffix)
			sim.SetHook(func(op disksim.Op) error {
				if op.Kind == disksim.OpRead && op.Name == name && op.Offset <= 1<<20 && op.Offset+op.Bytes > 1<<20 {
					return syscall.EIO
				}
				return nil
			})
			return nil
		},
		"missing file": func(sim *disksim.Disk, l *Log) error { return sim.Remove(fileOf(l, segment.LogSuffix)) },
		"short file": func(sim *disksim.Disk, l *Log) error {
			f, err := sim.Open(fileOf(l, segment.LogSuffix))
			if err != nil {
				return err
			}
			return errors.Join(f.Truncate(1<<20), f.Close())
		},
		"zeroed block":        func(sim *disksim.Disk, l *Log) error { return zeroBlock(sim, fileOf(l, segment.LogSuffix), 1<<20) },
		"index: flipped bit":  func(sim *disksim.Disk, l *Log) error { return sim.Flip(fileOf(l, segment.IndexSuffix), 52*64+8, 4) },
		"index: missing file": func(sim *disksim.Disk, l *Log) error { return sim.Remove(fileOf(l, segment.IndexSuffix)) },
		"index: zeroed block": func(sim *disksim.Disk, l *Log) error { return zeroBlock(sim, fileOf(l, segment.IndexSuffix), 0) },
		"index: short file": func(sim *disksim.Disk, l *Log) error {
			f, err := sim.Open(fileOf(l, segment.IndexSuffix))
			if err != nil {
				return err
			}
			return errors.Join(f.Truncate(disk.BlockSize/2), f.Close())
		},
	}
	reads := map[string]func(l *Log, hw id.Offset) error{
		"consumer": func(l *Log, hw id.Offset) error {
			for from := id.Offset(0); from < hw; {
				b, err := l.Read(nil, from, hw, 300<<10)
				if err != nil {
					return err
				}
				from = endOf(b)
			}
			return nil
		},
		"follower": func(l *Log, _ id.Offset) error {
			for i := l.FirstIndex(); i <= l.LastIndex(); {
				e, err := l.ReadEntries(i, l.LastIndex()+1, 300<<10)
				if err != nil {
					return err
				}
				i += id.Index(len(e))
			}
			return nil
		},
		"index": func(l *Log, hw id.Offset) error {
			_, _, _, err := l.OffsetForTime(t.Context(), int64(10+53)*10, 0, hw)
			return err
		},
	}
	for what, rot := range rots {
		for who, read := range reads {
			if who == "index" && !strings.HasPrefix(what, "index") {
				continue // it reads no batch
			}
			t.Run(what+", "+who, func(t *testing.T) {
				sim := disksim.New(disksim.Options{Direct: true})
				o := testOptions(sim, sim.Pebble(), "/data")
				told := verdictsOf(&o)
				s, d := flushed(t, o, entries)
				if err := rot(sim, d.l); err != nil {
					t.Fatal(err)
				}
				err := read(d.l, d.next)
				if !errors.Is(err, ErrCorrupt) {
					t.Fatalf("the read ended with %v", err)
				}
				if err := read(d.l, d.next); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("the second read ended with %v", err)
				}
				if v := awaitVerdict(t, told); v.l != d.l || v.kind != CondemnedReads || !strings.Contains(v.Reason, d.l.dir) || d.l.Condemned() == 0 {
					t.Errorf("the verdict is %+v", v)
				}
				if len(s.Refused()) != 0 || s.Metrics().Condemned != 1 || len(told) != 0 {
					t.Errorf("refused %v, condemned %d, %d more verdicts", s.Refused(), s.Metrics().Condemned, len(told))
				}
				d.submit(d.batchEntry(100)) // it can still acknowledge
				d.wait(1)
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// TestFilesLostAtStart: a start finds an index or a .log missing or short. It takes out that replica for good, with the reason, and no
// other one; it does not touch the .log of a lost index, and makes no index anew from it: nothing would say any more that the bytes are
// this log's.
func TestFilesLostAtStart(t *testing.T) {
	missing := func(sim *disksim.Disk, name string) error { return sim.Remove(name) }
	short := func(sim *disksim.Disk, name string) error {
		f, err := sim.Open(name)
		if err != nil {
			return err
		}
		return errors.Join(f.Truncate(disk.BlockSize/2), f.Close())
	}
	for _, c := range []struct {
		what, suffix string
		lose         func(sim *disksim.Disk, name string) error
	}{
		{"index missing", segment.IndexSuffix, missing}, {"index short", segment.IndexSuffix, short},
		{"log missing", segment.LogSuffix, missing}, {"log short", segment.LogSuffix, short},
	} {
		t.Run(c.what, func(t *testing.T) {
			sim := disksim.New(disksim.Options{Direct: true})
			o := testOptions(sim, sim.Pebble(), "/data")
			s, bad := flushed(t, o, 200)
			good := newDriver(t, s, mustCreate(t, s, 2))
			for range 100 {
				good.submit(good.batchEntry(20 << 10))
				good.wait(1)
				good.commitAll()
			}
			log, lost := fileOf(bad.l, segment.LogSuffix), fileOf(bad.l, c.suffix)
			closeStore(t, s)
			before, err := sim.ReadFile(log)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.lose(sim, lost); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s = mustOpen(t, o)
				r := s.Refused()
				if len(r) != 1 || r[0].Replica != bad.l.Replica() || !strings.Contains(r[0].Reason, "segment 00000000000000000000") {
					t.Fatalf("refused: %+v", r)
				}
				checkLog(t, findLog(t, s, 2), good.start, good.entries)
				if c.suffix == segment.IndexSuffix {
					if after, err := sim.ReadFile(log); err != nil || !slices.Equal(before, after) {
						t.Errorf("the .log has %d bytes instead of %d, or other ones: %v", len(after), len(before), err)
					}
				}
				closeStore(t, s)
			}
		})
	}
}

// endOf returns the offset after the last of some batches.
func endOf(b []byte) (next id.Offset) {
	for len(b) > 0 {
		n := 12 + int(uint32(b[8])<<24|uint32(b[9])<<16|uint32(b[10])<<8|uint32(b[11]))
		for _, c := range b[:8] {
			next = next<<8 | id.Offset(c)
		}
		next += id.Offset(uint32(b[23])<<24|uint32(b[24])<<16|uint32(b[25])<<8|uint32(b[26])) + 1
		b = b[n:]
	}
	return next
}

// TestReadWithoutPermission: files that became somebody else's condemn no log. They end the store, with the remedy, as they do for whoever
// makes files and for a start.
func TestReadWithoutPermission(t *testing.T) {
	sim := disksim.New(disksim.Options{Direct: true})
	o := testOptions(sim, sim.Pebble(), "/data")
	told := verdictsOf(&o)
	s, d := flushed(t, o, 100)
	name := fileOf(d.l, segment.LogSuffix)
	sim.SetHook(func(op disksim.Op) error {
		if op.Name == name {
			return syscall.EACCES
		}
		return nil
	})
	if _, err := d.l.Read(nil, 0, d.next, 1); !errors.Is(err, syscall.EACCES) {
		t.Errorf("the read ended with %v", err)
	}
	select {
	case <-s.failure:
		if !strings.Contains(s.failCause.Error(), "chown") {
			t.Errorf("the store says %v", s.failCause)
		}
	default:
		t.Error("the store goes on")
	}
	_ = s.Close()
	if len(told) != 0 || s.Metrics().Condemned != 0 {
		t.Errorf("condemned: %+v", <-told)
	}
}

// TestRotServesWhatStandsBefore reads up to a rotten batch in large pieces.
func TestRotServesWhatStandsBefore(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	told := verdictsOf(&o)
	s, d := flushed(t, o, 100)
	defer func() { _ = s.Close() }()
	at := int64(0)
	for _, e := range d.entries[:70] {
		at += int64(len(e.Data))
	}
	if err := sim.Flip(fileOf(d.l, segment.LogSuffix), at+100, 1); err != nil {
		t.Fatal(err)
	}
	want, from := d.l.OffsetAt(d.start.Index+71), id.Offset(0)
	for {
		b, err := d.l.Read(nil, from, d.next, 300<<10)
		if err != nil {
			break
		}
		from = endOf(b)
	}
	if from != want {
		t.Errorf("read up to offset %d, the rot begins at %d", from, want)
	}
	awaitVerdict(t, told)
}

// TestNoVerdict has reads fail in ways that say nothing about what is stored.
func TestNoVerdict(t *testing.T) {
	sim := disksim.New(disksim.Options{Direct: true})
	o := testOptions(sim, sim.Pebble(), "/data")
	told := verdictsOf(&o)
	s, d := flushed(t, o, 100)
	name := fileOf(d.l, segment.LogSuffix)
	for _, cause := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, fs.ErrClosed} {
		sim.SetHook(func(op disksim.Op) error {
			if op.Kind == disksim.OpRead && op.Name == name {
				return cause
			}
			return nil
		})
		if _, err := d.l.Read(nil, 0, d.next, 1); !errors.Is(err, cause) {
			t.Errorf("%v: the read ended with %v", cause, err)
		}
	}
	once := int32(1) // bad the first time only: in memory, or on the way
	sim.SetHook(func(op disksim.Op) error {
		if op.Kind == disksim.OpRead && op.Name == name && atomic.AddInt32(&once, -1) == 0 {
			return syscall.EIO
		}
		return nil
	})
	if b, err := d.l.Read(nil, 0, d.next, 1); err != nil || len(b) == 0 {
		t.Errorf("a read that was right the second time gave %d bytes, %v", len(b), err)
	}
	sim.SetHook(func(op disksim.Op) error { // it is deleted while somebody reads
		if op.Kind == disksim.OpRead && op.Name == name {
			sim.SetHook(nil)
			if err := s.Delete(context.Background(), d.l); err != nil {
				t.Error(err)
			}
			return syscall.EIO
		}
		return nil
	})
	if _, err := d.l.Read(nil, 0, d.next, 1); err != nil && !errors.Is(err, ErrDeleted) {
		t.Errorf("the read of a log that is deleted meanwhile ended with %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if len(told) != 0 || s.Metrics().Condemned != 0 {
		t.Errorf("condemned: %+v", <-told)
	}
}

// TestRefuseIsForGood refuses an open log: it is there until the store closes, and at no later start, until it is deleted.
func TestRefuseIsForGood(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	s := mustOpen(t, o)
	bad, good := mustCreate(t, s, 1), mustCreate(t, s, 2)
	if err := s.Refuse(context.Background(), bad, "for a test"); err != nil {
		t.Fatal(err)
	}
	d := newDriver(t, s, bad)
	d.submit(d.batchEntry(100))
	d.wait(1)
	want := Refusal{bad.Group(), bad.Replica(), bad.Name(), "for a test"}
	for range 2 {
		if r := s.Refused(); !slices.Equal(r, []Refusal{want}) || s.Metrics().Refused != 1 {
			t.Fatalf("refused: %+v", r)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = mustOpen(t, o)
		if logs := s.Logs(); len(logs) != 1 || logs[0].Group() != good.Group() {
			t.Fatalf("open: %v", logs)
		}
	}
	if err := s.DeleteRefused(context.Background(), want); err != nil {
		t.Fatal(err)
	}
	again := mustCreate(t, s, 3)
	if err := s.Refuse(context.Background(), again, "for a test"); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(context.Background(), again); err != nil || len(s.Refused()) != 0 {
		t.Fatalf("refused after the deletion: %v, %v", s.Refused(), err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPathThatCannotBeMade gives one log a name that the file system does not take: it costs that replica, and nobody else. An error
// of the medium, or a missing permission, which would meet other logs as well, ends the store.
func TestPathThatCannotBeMade(t *testing.T) {
	for _, cause := range []error{syscall.ENAMETOOLONG, syscall.ENOTDIR, syscall.EACCES, syscall.EIO} {
		sim := disksim.New(disksim.Options{})
		o := testOptions(sim, sim.Pebble(), "/data")
		told := verdictsOf(&o)
		s := mustOpen(t, o)
		bad, good := newDriver(t, s, mustCreate(t, s, 1)), newDriver(t, s, mustCreate(t, s, 2))
		sim.SetHook(func(op disksim.Op) error {
			if (op.Kind == disksim.OpMkdir || op.Kind == disksim.OpCreate) && strings.Contains(op.Name, "/"+bad.l.dir) {
				return cause
			}
			return nil
		})
		for range 10 {
			bad.submit(bad.batchEntry(100 << 10))
		}
		if cause == syscall.EIO || cause == syscall.EACCES {
			select {
			case <-s.failure:
			case <-time.After(20 * time.Second):
				t.Fatalf("%v: the store goes on", cause)
			}
			if !errors.Is(s.failCause, cause) || cause == syscall.EACCES && !strings.Contains(s.failCause.Error(), "chown") {
				t.Errorf("%v: the store says %v", cause, s.failCause)
			}
			_ = s.Close()
			continue
		}
		bad.wait(10)
		bad.commitAll()
		if v := awaitVerdict(t, told); v.l != bad.l || v.kind != CondemnedWrites {
			t.Fatalf("%v: the verdict is %+v", cause, v)
		}
		for range 10 {
			good.submit(good.batchEntry(100 << 10))
			good.wait(1)
			good.commitAll()
		}
		s.checkpoints.force()
		bad.check()
		good.check()
		if err := s.Close(); err != nil {
			t.Fatalf("%v: %v", cause, err)
		}
	}
}

// TestRefusedLogDoesNotHoldTheJournal: a log whose files cannot be made is never cut again if it has much. Once it is refused the journal
// comes free all the same, and an orderly stop leaves its mark.
func TestRefusedLogDoesNotHoldTheJournal(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	told := verdictsOf(&o)
	s := mustOpen(t, o)
	bad, good := newDriver(t, s, mustCreate(t, s, 1)), newDriver(t, s, mustCreate(t, s, 2))
	sim.SetHook(func(op disksim.Op) error {
		if (op.Kind == disksim.OpMkdir || op.Kind == disksim.OpCreate) && strings.Contains(op.Name, "/"+bad.l.dir) {
			return syscall.ENOTDIR
		}
		return nil
	})
	for range 30 {
		bad.submit(bad.batchEntry(100 << 10))
	}
	bad.wait(30)
	v := awaitVerdict(t, told)
	checkpoint := func() {
		t.Helper()
		for range 30 {
			good.submit(good.batchEntry(100 << 10))
			good.wait(1)
			good.commitAll()
		}
		if err := s.checkpoints.checkpoint(); err != nil {
			t.Fatal(err)
		}
	}
	checkpoint() // the one that came to the verdict may have stored a cut with the first entries, and give up the files of these
	first := s.journal.Files()[0].Name
	checkpoint()
	if s.journal.Files()[0].Name != first {
		t.Fatal("the journal gave up what it alone has of a log that is not refused yet")
	}
	if err := s.Refuse(context.Background(), v.l, v.Reason); err != nil {
		t.Fatal(err)
	}
	checkpoint()
	if s.journal.Files()[0].Name == first {
		t.Error("a refused log holds the journal")
	}
	closeStore(t, s)
	all, err := look(t, o, sim.Pebble())
	if _, ok := all[string(stoppedKey)]; err != nil || !ok {
		t.Errorf("there is no mark of an orderly stop: %v", err)
	}
	s = mustOpen(t, o)
	if r := s.Refused(); len(r) != 1 || r[0].Replica != bad.l.Replica() {
		t.Errorf("refused: %+v", r)
	}
	checkLog(t, findLog(t, s, 2), good.start, good.entries)
	closeStore(t, s)
}

// TestExchangedFiles: two logs have the same entries at the same places in segments of the same name, but for the bytes of the records, and
// somebody exchanged their files: either kind, or both. Each of them is good by all of its own checksums. Nobody is given what is another's.
func TestExchangedFiles(t *testing.T) {
	for _, suffixes := range [][]string{{segment.LogSuffix}, {segment.IndexSuffix}, {segment.LogSuffix, segment.IndexSuffix}} {
		t.Run(strings.Join(suffixes, " and "), func(t *testing.T) {
			sim := disksim.New(disksim.Options{Direct: true})
			o := testOptions(sim, sim.Pebble(), "/data")
			told := verdictsOf(&o)
			s := mustOpen(t, o)
			drivers := []*driver{newDriver(t, s, mustCreate(t, s, 1)), newDriver(t, s, mustCreate(t, s, 2))}
			for n, d := range drivers {
				for range 200 {
					e := d.batchEntry(20 << 10)
					if n == 1 {
						e.Data = testBatch(endOf(e.Data)-id.Offset(1+int(e.Index)%5), id.EpochOf(e.Term), 1+int(e.Index)%5, len(e.Data), int64(e.Index)*10, 77)
						d.entries[len(d.entries)-1].Data = e.Data
					}
					d.submit(e)
					d.wait(1)
					d.commitAll()
				}
			}
			var names [2]string
			for n, d := range drivers {
				names[n] = fileOf(d.l, "")
			}
			closeStore(t, s)
			for _, suffix := range suffixes {
				for _, r := range [][2]string{{names[0] + suffix, "/data/x"}, {names[1] + suffix, names[0] + suffix}, {"/data/x", names[1] + suffix}} {
					if err := sim.Rename(r[0], r[1]); err != nil {
						t.Fatal(err)
					}
				}
			}
			s = mustOpen(t, o)
			for n, d := range drivers {
				l := findLog(t, s, id.Group(1+n))
				if b, err := l.Read(nil, 0, d.next, 300<<10); !errors.Is(err, ErrCorrupt) {
					t.Errorf("log %d: a read gave %d bytes, %v", 1+n, len(b), err)
				}
				if v := awaitVerdict(t, told); v.kind != CondemnedReads {
					t.Errorf("log %d: %+v", 1+n, v)
				}
			}
			closeStore(t, s)
		})
	}
}
