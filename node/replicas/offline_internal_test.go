package replicas

import (
	"context"
	"errors"
	"log/slog"
	"path"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/quorumlog/quorumlog/node/leaders"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

func openAt(t *testing.T, dir string, sim *disksim.Disk) *wal.Store {
	t.Helper()
	s, err := wal.Open(context.Background(), wal.Options{
		Dir: dir, FS: sim, PebbleFS: sim.Pebble(), CacheBytes: 4 << 20, JournalFileBytes: 1 << 20,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func placementOf(g id.Group) placement.Placement {
	return placement.Placement{Topic: id.Topic{1}, Name: "t", Partition: id.Partition(g), Group: g, Replica: id.Replica(g) + 100,
		Members: []placement.Member{{Node: 1, Replica: id.Replica(g) + 100}}}
}

// Replicas of deleted topics do not stay offline: whether they may have been in a directory that is missing, or their directory fails while they
// are deleted.
func TestDeletedReplicasAreNotOffline(t *testing.T) {
	t.Parallel()
	sims := []*disksim.Disk{disksim.New(disksim.Options{}), disksim.New(disksim.Options{})}
	a, b := openAt(t, "/a", sims[0]), openAt(t, "/b", sims[1])
	defer func() { _ = errors.Join(a.Close(), b.Close()) }()
	sims[0].SetCapacity(1 << 30)
	both := NewStores(a, b)
	host, err := raftgroup.New(raftgroup.Options{Node: 1, Store: both, Transport: raftgrouptest.Nowhere{}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = host.Close() }()
	newSet := func(stores *Stores) *Set {
		return New(1, stores, host, leaders.New(leaders.Options{}), slog.New(slog.DiscardHandler), func() *placement.View { return nil })
	}
	set := newSet(both)
	for g := id.Group(2); g <= 3; g++ {
		if err := set.Open(t.Context(), placementOf(g)); err != nil {
			t.Fatal(err)
		}
	}
	stopped := set.Group(2) // StoreFailed has seen it, when
	if err := set.Delete(t.Context(), 2, 102); err != nil {
		t.Fatal(err)
	}
	sims[1].SetHook(func(op disksim.Op) error {
		if op.Kind == disksim.OpWrite {
			return syscall.EIO
		}
		return nil
	})
	_ = b.Set("k", nil)
	if b.Err() == nil {
		t.Fatal("the store has not failed")
	}
	set.stop(stopped, b.Err())
	if n := set.StoreFailed(b); n != 1 || set.OfflineCount() != 1 || !set.IsOffline(3) {
		t.Errorf("%d replicas stopped, %d are offline", n, set.OfflineCount())
	}

	alone := NewStores(a)
	alone.Miss("/b")
	set = newSet(alone)
	if err := set.Open(t.Context(), placementOf(3)); err != nil || !set.IsOffline(3) {
		t.Fatalf("a replica that may be in a missing directory: %v", err)
	}
	if r := set.Held()[3]; r != 103 {
		t.Fatalf("the replica that is held: %d", r)
	}
	if err := set.Delete(t.Context(), 3, 103); err != nil || set.OfflineCount() != 0 {
		t.Errorf("a deleted one: %v, %d are offline", err, set.OfflineCount())
	}
}

// Of several directories the one whose disk hangs is named, also a moment later.
func TestSlowDirectoryIsNamed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sims := []*disksim.Disk{disksim.New(disksim.Options{}), disksim.New(disksim.Options{})}
		a, b := openAt(t, "/a", sims[0]), openAt(t, "/b", sims[1])
		defer func() { _ = errors.Join(a.Close(), b.Close()) }()
		both := NewStores(a, b)
		l, err := b.Create(t.Context(), wal.Spec{Group: 2, Replica: 2, Name: "t-0", HardState: wal.HardState{Term: 1}})
		if err != nil {
			t.Fatal(err)
		}
		expect := func(what, want string, wantWaiting time.Duration) {
			t.Helper()
			if dir, waiting := both.Slow(); dir != want || waiting.Round(time.Second) != wantWaiting {
				t.Errorf("%s: %s for %v, want %s for %v", what, dir, waiting, want, wantWaiting)
			}
		}
		hung := make(chan struct{})
		sims[1].SetHook(func(op disksim.Op) error {
			if op.Kind == disksim.OpWrite && path.Dir(op.Name) == "/b/journal" {
				<-hung
			}
			return nil
		})
		done := make(chan struct{})
		both.Submit([]*wal.Append{{Log: l, HardState: &wal.HardState{Term: 2}, Done: func(*wal.Append) { close(done) }}})
		expect("before", "/a", 0)
		time.Sleep(2 * time.Second) // virtual: the disk hangs for as long
		expect("hanging", "/b", 2*time.Second)
		close(hung)
		<-done
		synctest.Wait()
		expect("afterwards", "/b", 0)
	})
}
