package node

import (
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

// TestMark starts nodes of either class on a directory with each mark, and cuts the power as soon as the start may write: what it
// decided must be there, since what it writes from then on may not be.
func TestMark(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		before, after mark
		class         wal.FsyncClass
		refused       bool
	}{
		{unmarked, unmarked, wal.FsyncAll, false},
		{unsynced, unsynced, wal.FsyncAll, true},
		{suspect, suspect, wal.FsyncAll, true},
		{unmarked, unsynced, wal.FsyncNone, false},
		{unsynced, suspect, wal.FsyncNone, false},
		{suspect, suspect, wal.FsyncNone, false},
	} {
		for seed := range uint64(10) {
			disk := disksim.New(disksim.Options{Seed: seed})
			if err := makeDirectory(disk, "/data"); err != nil {
				t.Fatal(err)
			}
			stored := identity{NodeID: 1, StoreID: "s", Boot: 7, Mark: tt.before}
			if err := stored.store(disk, "/data"); err != nil {
				t.Fatal(err)
			}
			got, err := openIdentity(disk, "/data", identity{NodeID: 1}, "c", tt.class, quiet)
			switch {
			case tt.refused && (err == nil || !strings.Contains(err.Error(), "unused node id") || !strings.Contains(err.Error(), "--unsafe-no-fsync")):
				t.Errorf("marked %q, class %v: %v", tt.before, tt.class, err)
			case !tt.refused && (err != nil || got.Mark != tt.after || got.Boot != 8):
				t.Errorf("marked %q, class %v: %+v, %v", tt.before, tt.class, got, err)
			}
			after, err := loadIdentity(disk.Crash(disksim.PowerLoss), "/data", quiet)
			if err != nil || after.Mark != tt.after {
				t.Errorf("marked %q, class %v, power lost: %+v, %v", tt.before, tt.class, after, err)
			}
		}
	}
}

// TestIdentityWithoutMark compares with what was written before there were marks: a directory that is always synced has no word of them.
func TestIdentityWithoutMark(t *testing.T) {
	t.Parallel()
	disk := disksim.New(disksim.Options{})
	if err := (&identity{NodeID: 1, StoreID: "s", Boot: 7}).store(disk, "/"); err != nil {
		t.Fatal(err)
	}
	data, err := disk.ReadFile("/" + identityFile)
	if err != nil || strings.Contains(string(data), markKey) {
		t.Errorf("%q, %v", data, err)
	}
	if block, err := (&identity{NodeID: 1, StoreID: "s", Mark: "perhaps"}).block(); err != nil {
		t.Error(err)
	} else if _, err := parseIdentity(block); err == nil || !strings.Contains(err.Error(), "perhaps") {
		t.Errorf("a mark that nobody knows: %v", err)
	}
}
