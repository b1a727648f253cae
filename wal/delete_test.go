package wal

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

var longestName = strings.Repeat("x", 249) + "-2147483647"

func TestDirNames(t *testing.T) {
	for _, c := range []struct {
		partition string
		replica   id.Replica
		want      string
	}{
		{"orders-0", 17, "orders-0.17"},
		{"orders-0", ^id.Replica(0), "orders-0.18446744073709551615"},
		{longestName, 1 << 63, strings.Repeat("x", 215) + "~-2147483647.9223372036854775808"},
	} {
		got := dirName(c.partition, c.replica)
		if got != c.want || len(deletedName(got)) > maxFileName {
			t.Errorf("%s of replica %d has the directory %s (%d bytes when it is deleted), want %s",
				c.partition, c.replica, got, len(deletedName(got)), c.want)
		}
	}
	if a, b := dirName(longestName, 1), dirName(longestName[1:], 1); len(a) != len(b) {
		t.Errorf("%s and %s", a, b) // a name is cut to one length, whichever length it had
	}
}

// withFiles creates a log that has bytes in a segment, all of them committed.
func withFiles(t testing.TB, s *Store, spec Spec) *driver {
	t.Helper()
	spec.Start, spec.HardState = Start{Index: 10, Term: 1}, HardState{Term: 1}
	l, err := s.Create(context.Background(), spec)
	if err != nil {
		t.Fatal(err)
	}
	d := newDriver(t, s, l)
	for before := s.Metrics().DirectBytes; s.Metrics().DirectBytes == before; {
		d.submit(d.batchEntry(20 << 10))
		d.wait(1)
		d.commitAll()
	}
	return d
}

// TestLongestName gives a log the longest name that a topic can have, by way of all that a log goes through.
func TestLongestName(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	for name, o := range map[string]Options{
		"simulated": testOptions(sim, sim.Pebble(), "/data"),
		"real":      testOptions(nil, nil, t.TempDir()),
	} {
		t.Run(name, func(t *testing.T) {
			o.DirectAppendBytes = 1
			s := mustOpen(t, o)
			d := withFiles(t, s, Spec{Group: 1, Replica: 1 << 63, Name: longestName})
			closeStore(t, s)
			s = mustOpen(t, o)
			d.s, d.l = s, findLog(t, s, 1)
			d.check()
			if err := s.Delete(context.Background(), d.l); err != nil {
				t.Fatal(err)
			}
			closeStore(t, s)
			s = mustOpen(t, o)
			defer closeStore(t, s)
			if names, err := s.fs.List(s.logsDir); err != nil || len(names) > 0 || len(s.Logs()) > 0 {
				t.Errorf("after the deletion there are %v and %q, %v", s.Logs(), names, err)
			}
		})
	}
}

// TestCreatedAndDeletedAThousandTimes has one partition's name go through a thousand replicas.
func TestCreatedAndDeletedAThousandTimes(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	for name, o := range map[string]Options{
		"simulated": testOptions(sim, sim.Pebble(), "/data"),
		"real":      testOptions(disk.NewBuffered(), nil, t.TempDir()),
	} {
		t.Run(name, func(t *testing.T) {
			o.DirectAppendBytes, o.Fsync = 1, FsyncNone
			s := mustOpen(t, o)
			defer closeStore(t, s)
			replica := ^id.Replica(0) - 1000
			for i := range 1000 {
				replica++
				spec := Spec{Group: 1, Replica: replica, Name: longestName}
				var l *Log
				if i%25 == 0 {
					l = withFiles(t, s, spec).l
				} else {
					var err error
					if l, err = s.Create(context.Background(), spec); err != nil {
						t.Fatal(err)
					}
				}
				if err := s.Delete(context.Background(), l); err != nil {
					t.Fatal(err)
				}
			}
			if names, err := s.fs.List(s.logsDir); err != nil || len(names) > 0 {
				t.Errorf("there are %q, %v", names, err)
			}
		})
	}
}

// TestUnknownDirectoryIsLeftAlone: what nothing in Pebble speaks of is neither used nor removed.
func TestUnknownDirectoryIsLeftAlone(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	s := mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
	defer closeStore(t, s)
	if err := sim.MkdirAll("/data/logs/topic-1.11"); err != nil {
		t.Fatal(err)
	}
	spec := Spec{Group: 1, Replica: 11, Name: "topic-1"}
	if _, err := s.Create(context.Background(), spec); !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "/data/logs/topic-1.11") {
		t.Errorf("creating a log where a directory is: %v", err)
	}
	if _, err := sim.Stat("/data/logs/topic-1.11"); err != nil {
		t.Error(err)
	}
	spec.Replica = 12
	if _, err := s.Create(context.Background(), spec); err != nil {
		t.Error(err)
	}
}

// dropped makes a log whose next checkpoint unlinks a segment, and holds that up: unlinking is closed when it begins, and it waits for
// goOn.
func dropped(t *testing.T) (s *Store, d *driver, sim *disksim.Disk, unlinking, goOn chan struct{}) {
	sim = disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.DirectAppendBytes = 1
	s = mustOpen(t, o)
	d = withFiles(t, s, Spec{Group: 1, Replica: 11, Name: "topic-1"})
	done := make(chan struct{})
	s.Submit([]*Append{{Log: d.l, Reset: &Reset{Start: Start{Index: 5000, Term: 2, Offset: 5000}}, Done: func(*Append) { close(done) }}})
	<-done
	unlinking, goOn = make(chan struct{}), make(chan struct{})
	sim.SetHook(func(op disksim.Op) error {
		if op.Kind == disksim.OpRemove && op.Name == "/data/logs/topic-1.11/00000000000000000000.log" {
			close(unlinking)
			<-goOn
		}
		return nil
	})
	s.checkpoints.force()
	<-unlinking
	return s, d, sim, unlinking, goOn
}

// TestDeletionWaitsForUnlinks: the checkpointer unlinks by path what a log dropped. A deletion waits for that as for every other work on
// the files, for no longer than its caller does.
func TestDeletionWaitsForUnlinks(t *testing.T) {
	s, d, sim, _, goOn := dropped(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := s.Delete(ctx, d.l); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a deletion while files are unlinked: %v", err)
	}
	if _, err := sim.Stat("/data/logs/topic-1.11"); err != nil {
		t.Errorf("it has begun: %v", err)
	}
	close(goOn)
	if err := s.Delete(context.Background(), d.l); err != nil {
		t.Error(err)
	}
	// Another replica of the partition comes to a place of its own.
	next := withFiles(t, s, Spec{Group: 2, Replica: 12, Name: "topic-1"})
	if next.l.dir == d.l.dir {
		t.Errorf("both have the directory %s", next.l.dir)
	}
	next.check()
	closeStore(t, s)
}

// TestDeletionEndsWithTheStore: whoever waits for work that will not end learns that the store has failed.
func TestDeletionEndsWithTheStore(t *testing.T) {
	s, d, _, _, goOn := dropped(t)
	deleted := make(chan error)
	go func() { deleted <- s.Delete(context.Background(), d.l) }()
	s.fail(errMedium)
	if err := <-deleted; !errors.Is(err, errMedium) {
		t.Errorf("a deletion in a store that fails: %v", err)
	}
	close(goOn)
	if err := s.Close(); !errors.Is(err, errMedium) {
		t.Error(err)
	}
}

// TestDeletionFreesSpaceFirst: on a full disk nothing is written before the files are gone.
func TestDeletionFreesSpaceFirst(t *testing.T) {
	var did []string
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.DirectAppendBytes = 1
	s := mustOpen(t, o)
	defer closeStore(t, s)
	d := withFiles(t, s, Spec{Group: 1, Replica: 11, Name: "topic-1"})
	sim.SetCapacity(1) // as if it had shrunk
	sim.SetHook(func(op disksim.Op) error {
		const doomed = "/data/logs/topic-1.11-delete"
		what := ""
		switch {
		case op.Kind == disksim.OpRename && op.New == doomed:
			what = "rename"
		case op.Kind == disksim.OpSyncDir && op.Name == "/data/logs":
			what = "sync"
		case op.Kind == disksim.OpRemove && op.Name == doomed:
			what = "remove the directory"
		case op.Kind == disksim.OpRemove && strings.HasPrefix(op.Name, doomed):
			what = "remove files"
		case op.Kind == disksim.OpSync && op.Pebble && slices.Contains(did, "rename"):
			what = "forget"
		}
		if what != "" && (len(did) == 0 || did[len(did)-1] != what) {
			did = append(did, what)
		}
		return nil
	})
	if err := s.Delete(context.Background(), d.l); err != nil {
		t.Error(err)
	}
	sim.SetHook(nil)
	if want := []string{"rename", "sync", "remove files", "forget", "remove the directory"}; !slices.Equal(did, want) {
		t.Errorf("the deletion did %q, want %q", did, want)
	}
	sim.SetCapacity(0) // a checkpoint of the end may need some
}

// TestDeletionCrashesAnywhere ends the machine at each operation of a deletion: the log is whole, or there is nothing left of it.
func TestDeletionCrashesAnywhere(t *testing.T) {
	for _, kind := range []disksim.Kind{disksim.Kill, disksim.PowerLoss, disksim.PowerLoss} {
		t.Run(kind.String(), func(t *testing.T) {
			whole, at := 0, int64(1)
			for ; ; at++ {
				x := newDeletion(t, at)
				x.sim.CrashAt(at)
				err := x.s.Delete(context.Background(), x.d.l)
				if x.done = !x.sim.Halted(); x.done && err != nil {
					t.Fatalf("crash at %d: %v", at, err)
				}
				x.crash(kind)
				if x.open(); x.wasWhole {
					whole++
				}
				if x.done {
					break
				}
			}
			if whole > int(at)-3 {
				t.Errorf("%d of %d crashes left the log whole", whole, at)
			}
		})
	}
}

// TestStartCompletesADeletion ends the machine at each operation of the start that completes a deletion, of which the last one left the
// doomed directory, with the files or without them.
func TestStartCompletesADeletion(t *testing.T) {
	for _, last := range []disksim.OpKind{disksim.OpRename, disksim.OpSyncDir, disksim.OpRemove} {
		t.Run(last.String(), func(t *testing.T) {
			for at, over := int64(1), false; !over; at++ {
				x := newDeletion(t, at)
				var begun atomic.Bool // others write to the disk, too
				x.sim.SetAfter(func(op disksim.Op, _ error) {
					if op.Kind == disksim.OpRename && op.New == "/data/logs/topic-1.11-delete" {
						begun.Store(true)
					}
					if begun.Load() && op.Kind == last {
						x.sim.Halt()
					}
				})
				if err := x.s.Delete(context.Background(), x.d.l); !errors.Is(err, disksim.ErrHalted) {
					t.Fatal(err)
				}
				x.sim.SetAfter(nil)
				x.crash(disksim.Kill)
				x.sim.CrashAt(at)
				x.s, _ = Open(context.Background(), x.o)
				over = !x.sim.Halted()
				x.crash(disksim.PowerLoss)
				x.done = over
				x.open()
			}
		})
	}
}

// deletion is a store with two logs, of which one is to be deleted.
type deletion struct {
	t        *testing.T
	at       int64
	sim      *disksim.Disk
	o        Options
	s        *Store
	d, other *driver
	done     bool // the deletion is complete
	wasWhole bool // it was not, when the store was opened
}

func newDeletion(t *testing.T, at int64) *deletion {
	sim := disksim.New(disksim.Options{Seed: uint64(at)})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.DirectAppendBytes, o.JournalFileBytes = 1, 128*kib
	s := mustOpen(t, o)
	return &deletion{
		t: t, at: at, sim: sim, o: o, s: s,
		d: withFiles(t, s, Spec{Group: 1, Replica: 11, Name: "topic-1"}), other: withFiles(t, s, Spec{Group: 2, Replica: 12, Name: "topic-2"}),
	}
}

// crash ends the machine and starts it again.
func (x *deletion) crash(kind disksim.Kind) {
	x.sim.Halt()
	if x.s != nil {
		_ = x.s.Close()
	}
	x.sim = x.sim.Crash(kind)
	x.o.FS, x.o.PebbleFS = x.sim, x.sim.Pebble()
}

// open recovers the store, and completes the deletion of a log that is whole.
func (x *deletion) open() {
	t := x.t
	t.Helper()
	x.s = mustOpen(t, x.o)
	defer closeStore(t, x.s)
	if r := x.s.Refused(); len(r) > 0 {
		t.Fatalf("crash at %d: refused: %+v", x.at, r)
	}
	checkLog(t, findLog(t, x.s, 2), x.other.start, x.other.entries)
	for _, l := range x.s.Logs() {
		if l.Group() == 1 {
			if x.done {
				t.Fatalf("crash at %d: the log is back after its deletion", x.at)
			}
			x.wasWhole = true
			checkLog(t, l, x.d.start, x.d.entries)
			if err := x.s.Delete(context.Background(), l); err != nil {
				t.Fatal(err)
			}
		}
	}
	spec := x.d.l
	if _, err := x.s.Create(context.Background(), Spec{Group: spec.group, Replica: spec.replica, Name: spec.name}); !errors.Is(err, ErrDeleted) {
		t.Fatalf("crash at %d: it can be made again: %v", x.at, err)
	}
	if names, err := x.sim.List("/data/logs"); err != nil || !slices.Equal(names, []string{"topic-2.12"}) {
		t.Fatalf("crash at %d: logs/ has %q, %v", x.at, names, err)
	}
}
