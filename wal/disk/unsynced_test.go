package disk_test

import (
	"bytes"
	"path"
	"testing"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

// countSyncs counts the syncs that reach a simulated disk from now on.
func countSyncs(d *disksim.Disk) *int {
	n := new(int)
	d.SetHook(func(op disksim.Op) error {
		if op.Kind == disksim.OpSync || op.Kind == disksim.OpSyncDir {
			*n++
		}
		return nil
	})
	return n
}

// fill makes a tree of files and returns their contents by name.
func fill(t *testing.T, fsys disk.FS, dir string) map[string][]byte {
	t.Helper()
	files := make(map[string][]byte)
	for i, sub := range []string{"", "logs", "logs/orders-0"} {
		must(t, fsys.MkdirAll(path.Join(dir, sub)))
		for j, name := range []string{"a", "b"} {
			name := path.Join(dir, sub, name)
			files[name] = blocks(byte(10*i+j), 3)
			f := create(t, fsys, name)
			_, err := f.WriteAt(files[name], 0)
			must(t, err)
			must(t, f.Sync())
			_, err = f.WriteSyncAt(files[name], 0)
			must(t, err)
			must(t, f.Close())
		}
		must(t, fsys.SyncDir(path.Join(dir, sub)))
		small := path.Join(dir, sub, "small")
		files[small] = []byte(small)
		must(t, fsys.WriteFile(small, files[small]))
	}
	return files
}

func TestUnsyncedDropsSyncsAndNothingElse(t *testing.T) {
	for _, direct := range []bool{false, true} {
		d := disksim.New(disksim.Options{Seed: 1, Direct: direct})
		fsys := disk.Unsynced(d)
		if disk.IsDirect(fsys) != direct {
			t.Errorf("IsDirect says %v of a disk for which it is %v", !direct, direct)
		}
		syncs := countSyncs(d)
		files := fill(t, fsys, "/data")
		if *syncs != 0 {
			t.Errorf("%d syncs reached the disk", *syncs)
		}
		after := d.Crash(disksim.Kill)
		for name, want := range files {
			if got, err := after.ReadFile(name); err != nil || !bytes.Equal(got, want) {
				t.Errorf("after a kill %s holds %d bytes, %v", name, len(got), err)
			}
		}
	}
}

// TestSyncTree makes a tree durable that nobody had synced, and then cuts the power.
func TestSyncTree(t *testing.T) {
	for seed := range uint64(20) {
		d := disksim.New(disksim.Options{Seed: seed})
		must(t, d.MkdirAll("/data"))
		must(t, d.SyncDir("/"))
		files := fill(t, disk.Unsynced(d), "/data")
		must(t, disk.SyncTree(d, "/data"))
		after := d.Crash(disksim.PowerLoss)
		for name, want := range files {
			if got, err := after.ReadFile(name); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("seed %d: after a power loss %s holds %d bytes, %v", seed, name, len(got), err)
			}
		}
	}
}
