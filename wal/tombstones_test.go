package wal

import (
	"context"
	"errors"
	"testing"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// tombs is a store with the metadata's log and others, of which replicas are deleted.
type tombs struct {
	t    *testing.T
	sim  *disksim.Disk
	o    Options
	s    *Store
	meta *driver
}

func newTombs(t *testing.T) *tombs {
	sim := disksim.New(disksim.Options{Seed: 1})
	x := &tombs{t: t, sim: sim, o: testOptions(sim, sim.Pebble(), "/data")}
	x.s = mustOpen(t, x.o)
	x.meta = newDriver(t, x.s, mustCreate(t, x.s, int(id.MetadataGroup)))
	return x
}

// learn has the metadata's log take an entry, which says that something is to be deleted.
func (x *tombs) learn() {
	x.meta.submit(x.meta.controlEntry(KindEmpty, nil))
	x.meta.wait(1)
	x.meta.commitAll()
}

// remember stops the store in order, with the metadata as of applied, and starts it.
func (x *tombs) remember(applied id.Index) {
	x.t.Helper()
	x.meta.l.TakeCut(State{Applied: applied})
	closeStore(x.t, x.s)
	x.open()
}

// kill ends the process, and starts it.
func (x *tombs) kill() {
	x.t.Helper()
	x.sim.Halt()
	_ = x.s.Close()
	x.sim = x.sim.Crash(disksim.Kill)
	x.o.FS, x.o.PebbleFS = x.sim, x.sim.Pebble()
	x.open()
}

func (x *tombs) open() {
	x.t.Helper()
	x.s = mustOpen(x.t, x.o)
	x.meta.s, x.meta.l = x.s, findLog(x.t, x.s, id.MetadataGroup)
}

// create makes the replica of a group that mustCreate makes.
func create(s *Store, n int) error {
	_, err := s.Create(context.Background(), Spec{Group: id.Group(n), Replica: id.Replica(n*10 + 1), Name: "again", HardState: HardState{Term: 1}})
	return err
}

// TestDeletedReplicaIsNotMadeAgain: whatever ends the process, a replica that was deleted cannot be made until the stored state of the
// metadata is past its deletion, and the tombstone is gone then.
func TestDeletedReplicaIsNotMadeAgain(t *testing.T) {
	x := newTombs(t)
	refused := func(when string, groups ...int) {
		t.Helper()
		for _, n := range groups {
			if err := create(x.s, n); !errors.Is(err, ErrDeleted) {
				t.Errorf("%s: group %d: %v", when, n, err)
			}
		}
	}
	x.learn()
	never := x.meta.last() // of what the metadata says, the last that has nothing to do with a deletion
	x.learn()
	ctx := t.Context()
	if err := x.s.Delete(ctx, mustCreate(t, x.s, 2)); err != nil {
		t.Fatal(err)
	}
	l := mustCreate(t, x.s, 3)
	if err := x.s.Refuse(ctx, l, "for a test"); err != nil {
		t.Fatal(err)
	}
	if err := x.s.Delete(ctx, l); err != nil {
		t.Fatal(err)
	}
	if err := x.s.Refuse(ctx, mustCreate(t, x.s, 4), "for a test"); err != nil {
		t.Fatal(err)
	}
	refused("deleted", 2, 3)
	x.kill()
	for _, r := range x.s.Refused() {
		if err := x.s.DeleteRefused(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	refused("killed", 2, 3, 4)
	mustCreate(t, x.s, 5)
	x.remember(never)
	refused("with an old state of the metadata", 2, 3, 4)
	x.kill()
	refused("killed once more", 2, 3, 4)
	x.remember(x.meta.last())
	if len(x.s.deleted) > 0 {
		t.Errorf("tombstones that nobody needs: %v", x.s.deleted)
	}
	for _, n := range []int{2, 3, 4} {
		if err := create(x.s, n); err != nil {
			t.Errorf("once the metadata knows of the deletion for good: %v", err)
		}
	}
	closeStore(t, x.s)
}

// TestTombstonesAreFew deletes replicas for long: each cut of the metadata that is past deletions takes their tombstones along, also one
// that is taken for nothing else. It makes no difference that the metadata's view is much larger than what its log grows by.
func TestTombstonesAreFew(t *testing.T) {
	x := newTombs(t)
	x.s.SetCutTaker(func(l *Log) { l.TakeCut(State{Applied: l.LastIndex(), View: viewAt(l.LastIndex(), 64*kib)}) })
	for n := 2; n < 200; n++ {
		if n%10 == 0 {
			x.learn()
		}
		if err := x.s.Delete(t.Context(), mustCreate(t, x.s, n)); err != nil {
			t.Fatal(err)
		}
		if n%20 == 0 {
			before := x.s.Metrics().Checkpoints
			x.s.checkpoints.force()
			eventually(t, "a checkpoint", func() bool { return x.s.Metrics().Checkpoints > before })
			if len(x.s.deleted) > 0 {
				t.Fatalf("%d tombstones after %d deletions", len(x.s.deleted), n)
			}
		}
	}
	closeStore(t, x.s)
}

// TestTombstoneWithoutMetadata: a store that has no metadata to say otherwise keeps its tombstones.
func TestTombstoneWithoutMetadata(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	s := mustOpen(t, o)
	if err := s.Delete(t.Context(), mustCreate(t, s, 2)); err != nil {
		t.Fatal(err)
	}
	mustCreate(t, s, 3)
	for range 3 {
		closeStore(t, s)
		s = mustOpen(t, o)
		if err := create(s, 2); !errors.Is(err, ErrDeleted) {
			t.Errorf("it is made again: %v", err)
		}
	}
	closeStore(t, s)
}

// TestTombstonesBesideTheMetadata: a store beside the one that has the metadata keeps its tombstones as long, and no longer.
func TestTombstonesBesideTheMetadata(t *testing.T) {
	x := newTombs(t)
	o := testOptions(x.sim, x.sim.Pebble(), "/more")
	more := mustOpen(t, o)
	more.FollowMetadata(x.s)
	x.learn()
	never := x.meta.last()
	x.learn()
	if err := more.Delete(t.Context(), mustCreate(t, more, 2)); err != nil {
		t.Fatal(err)
	}
	restart := func(applied id.Index) {
		t.Helper()
		closeStore(t, more)
		x.remember(applied)
		more = mustOpen(t, o)
		more.FollowMetadata(x.s)
	}
	restart(never)
	checkpoint := func(s *Store) {
		t.Helper()
		before := s.Metrics().Checkpoints
		s.checkpoints.force()
		eventually(t, "a checkpoint", func() bool { return s.Metrics().Checkpoints > before })
	}
	x.s.SetCutTaker(func(l *Log) { l.TakeCut(State{Applied: never}) })
	checkpoint(x.s)
	checkpoint(more)
	if err := create(more, 2); !errors.Is(err, ErrDeleted) {
		t.Fatalf("with an old state of the metadata: %v", err)
	}
	x.s.SetCutTaker(func(l *Log) { l.TakeCut(State{Applied: x.meta.last()}) })
	x.meta.l.wantState()
	checkpoint(x.s)
	eventually(t, "the tombstone to go", func() bool { return !more.Deleted(2, 21) })
	restart(x.meta.last())
	if err := create(more, 2); err != nil {
		t.Errorf("once the metadata knows of the deletion for good: %v", err)
	}
	closeStore(t, more)
	closeStore(t, x.s)
}
