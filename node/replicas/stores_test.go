package replicas_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/quorumlog/quorumlog/node/replicas"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

func openStore(t *testing.T, dir string, d *disksim.Disk) *wal.Store {
	t.Helper()
	s, err := wal.Open(context.Background(), wal.Options{Dir: dir, FS: d, PebbleFS: d.Pebble(), CacheBytes: 4 << 20, JournalFileBytes: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func spec(n int) wal.Spec {
	return wal.Spec{Group: id.Group(n), Replica: id.Replica(n), Name: "t-" + strconv.Itoa(n), Start: wal.Start{Index: 1, Term: 1},
		HardState: wal.HardState{Term: 1, Commit: 1}, State: wal.State{Applied: 1}}
}

// New replicas go where most is free beside the reserve; one that was deleted in one directory is not made anew in another.
func TestNewReplicasGoWhereMostIsFree(t *testing.T) {
	t.Parallel()
	disks := []*disksim.Disk{disksim.New(disksim.Options{Seed: 1}), disksim.New(disksim.Options{Seed: 2})}
	disks[0].SetCapacity(1 << 30)
	disks[1].SetCapacity(2 << 30)
	stores := []*wal.Store{openStore(t, "/a", disks[0]), openStore(t, "/b", disks[1])}
	both := replicas.NewStores(stores[0], stores[1])
	create := func(n int, want *wal.Store) *wal.Log {
		t.Helper()
		l, err := both.Create(context.Background(), spec(n))
		if err != nil {
			t.Fatal(err)
		}
		if l.Store() != want {
			t.Errorf("replica %d is in %s", n, l.Store().Dir())
		}
		return l
	}
	first := create(1, stores[1])
	create(2, stores[1])
	disks[1].SetCapacity(disks[1].Used() + 1<<29)
	create(3, stores[0])
	if err := first.Store().Delete(context.Background(), first); err != nil {
		t.Fatal(err)
	}
	if _, err := both.Create(context.Background(), spec(1)); err == nil {
		t.Error("a replica that was deleted in one directory is made anew in another")
	}
	if err := both.CheckUnique(); err != nil {
		t.Error(err)
	}
	if _, err := stores[1].Create(context.Background(), spec(3)); err != nil {
		t.Fatal(err)
	}
	if both.CheckUnique() == nil {
		t.Error("a replica is in two directories, and nobody says so")
	}
	if m := both.Metrics(); m.Logs != 3 {
		t.Errorf("the sum says %d logs", m.Logs)
	}
}

// While a directory is missing, groups of which it may have a replica are not made anew: those up to the last one that was made there, and none
// if none ever was.
func TestNewReplicasBesideMissingDirectory(t *testing.T) {
	t.Parallel()
	disks := []*disksim.Disk{disksim.New(disksim.Options{Seed: 1}), disksim.New(disksim.Options{Seed: 2})}
	a, b := openStore(t, "/a", disks[0]), openStore(t, "/b", disks[1])
	create := func(s *replicas.Stores, n int, want *wal.Store) {
		t.Helper()
		l, err := s.Create(context.Background(), spec(n))
		if want == nil && err == nil {
			t.Errorf("replica %d is made in %s, and may be in the directory that is missing", n, l.Store().Dir())
		} else if want != nil && (err != nil || l.Store() != want) {
			t.Errorf("replica %d: %v; it belongs into %s", n, err, want.Dir())
		}
	}
	without := func() *replicas.Stores {
		s := replicas.NewStores(a)
		s.Miss("/b")
		return s
	}
	both := func(roomA, roomB int64) *replicas.Stores {
		disks[0].SetCapacity(disks[0].Used() + roomA)
		disks[1].SetCapacity(disks[1].Used() + roomB)
		return replicas.NewStores(a, b)
	}
	create(both(2<<30, 1<<30), 2, a)
	alone := without()
	create(alone, 3, a)
	create(alone, 9, a)
	create(both(1<<30, 2<<30), 6, b)
	alone = without()
	create(alone, 4, nil)
	create(alone, 6, nil)
	create(alone, 7, a)
}
