package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

// records are all that Pebble holds.
func records(t testing.TB, s *Store) map[string]string {
	t.Helper()
	it, err := s.meta.NewIter(nil)
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]string)
	for ok := it.First(); ok; ok = it.Next() {
		m[string(it.Key())] = string(it.Value())
	}
	if err := it.Close(); err != nil {
		t.Fatal(err)
	}
	return m
}

// look opens what Pebble has of a store, and nothing more.
func look(t testing.TB, o Options, pebble vfs.FS) (map[string]string, error) {
	t.Helper()
	o.PebbleFS = pebble
	s := newStore(o.withDefaults())
	err := s.openDirs()
	if err == nil {
		err = s.openMeta()
	}
	if err == nil {
		err = s.checkFormat()
	}
	var m map[string]string
	if err == nil {
		m = records(t, s)
	}
	if closed := errors.Join(s.release(), s.unlock()); err == nil {
		err = closed
	}
	return m, err
}

// livedOn is a store's life on a Pebble in memory, with tables, manifests and logs of several starts, ended in order or not. It returns
// what Pebble's files are then, and what they hold.
func livedOn(t testing.TB, o *Options, kill bool) (*vfs.MemFS, map[string]string) {
	t.Helper()
	mem := vfs.NewCrashableMem()
	o.PebbleFS = mem
	var s *Store
	for boot := range 4 {
		s = mustOpen(t, *o)
		for n := range 3 {
			d := newDriver(t, s, mustCreate(t, s, 10*boot+n+1))
			d.submit(d.batchEntry(5000))
			d.wait(1)
			d.commitAll()
		}
		for n := range 5 {
			if err := s.Set(fmt.Sprintf("key-%d", n), []byte(strings.Repeat(fmt.Sprint(boot, n), 50))); err != nil {
				t.Fatal(err)
			}
		}
		if boot == 1 {
			if err := s.meta.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if boot < 3 {
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if kill {
		o.FS.(*disksim.Disk).Halt()
	} else if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	image := clonePebble(mem)
	if kill {
		_ = s.Close()
		o.FS = o.FS.(*disksim.Disk).Crash(disksim.Kill)
	}
	all, err := look(t, *o, clonePebble(image))
	if err != nil {
		t.Fatal(err)
	}
	return image, all
}

func clonePebble(image *vfs.MemFS) *vfs.MemFS {
	return image.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
}

// rewrite changes the content of a file of Pebble's.
func rewrite(t testing.TB, fs vfs.FS, name string, change func([]byte) []byte) {
	t.Helper()
	f, err := fs.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(f)
	_ = f.Close()
	if err == nil {
		f, err = fs.Create(name, vfs.WriteCategoryUnspecified)
	}
	if err == nil {
		_, err = f.Write(change(bytes.Clone(b)))
	}
	if err == nil {
		err = errors.Join(f.Sync(), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func sizeOf(t testing.TB, fs vfs.FS, name string) int {
	t.Helper()
	info, err := fs.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Size())
}

// TestPebbleThatRotted damages each file of Pebble's in many places, after an orderly stop and after a kill. The store either says so,
// with the remedy, or opens with exactly what it had.
func TestPebbleThatRotted(t *testing.T) {
	const dir = "/data/meta"
	for _, kill := range []bool{false, true} {
		t.Run(fmt.Sprintf("kill %v", kill), func(t *testing.T) {
			sim := disksim.New(disksim.Options{})
			o := testOptions(sim, nil, "/data")
			image, want := livedOn(t, &o, kill)
			rng := rand.New(rand.NewPCG(5, 5))
			places := 20
			if os.Getenv("QUORUMLOG_CRASH_SEEDS") != "" {
				places = 100_000
			}
			names, err := image.List(dir)
			if err != nil {
				t.Fatal(err)
			}
			found, missed := map[string]int{}, map[string]int{}
			try := func(what, kind string, damage func(fs *vfs.MemFS)) {
				fs := clonePebble(image)
				damage(fs)
				got, err := look(t, o, fs)
				switch {
				case errors.Is(err, ErrDamagedRecords):
					found[kind]++
				case err != nil:
					t.Errorf("%s: an error without its remedy: %v", what, err)
				case !maps.Equal(got, want):
					t.Errorf("%s: the store opens with other records than it had", what)
				default:
					missed[kind]++
				}
			}
			for _, name := range names {
				file := path.Join(dir, name)
				kind := strings.TrimRight(strings.ReplaceAll(name, ".", "-"), "0123456789")
				size := sizeOf(t, image, file)
				n := min(size, places)
				at := rng.Perm(size)[:n]
				slices.Sort(at)
				for _, off := range at {
					mask := byte(1) << rng.IntN(8)
					try(fmt.Sprintf("%s, byte %d of %d, bit %02x", name, off, size, mask), kind, func(fs *vfs.MemFS) {
						rewrite(t, fs, file, func(b []byte) []byte { b[off] ^= mask; return b })
					})
				}
				try(name+" removed", kind, func(fs *vfs.MemFS) {
					if err := fs.Remove(file); err != nil {
						t.Fatal(err)
					}
				})
				if size > 0 {
					try(name+" cut in half", kind, func(fs *vfs.MemFS) { rewrite(t, fs, file, func(b []byte) []byte { return b[:len(b)/2] }) })
					try(name+" without its last bytes", kind, func(fs *vfs.MemFS) { rewrite(t, fs, file, func(b []byte) []byte { return b[:max(0, len(b)-20)] }) })
				}
			}
			t.Logf("said: %v; harmless: %v", found, missed)
		})
	}
}

// TestPebbleThatWentBack gives a store yesterday's meta directory, as a snapshot of one part of the disk would, and none at all.
func TestPebbleThatWentBack(t *testing.T) {
	o := testOptions(disksim.New(disksim.Options{}), nil, "/data")
	image, _ := livedOn(t, &o, false)
	o.PebbleFS = clonePebble(image)
	s := mustOpen(t, o)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := look(t, o, image); !errors.Is(err, ErrDamagedRecords) {
		t.Errorf("records of an earlier time: %v", err)
	}
	if _, err := look(t, o, vfs.NewMem()); !errors.Is(err, ErrDamagedRecords) {
		t.Errorf("no records: %v", err)
	}
	name := path.Join("/data", guardName)
	sim := o.FS.(*disksim.Disk)
	for block := range int64(guardBlocks) { // one of its two blocks is enough
		if err := sim.Flip(name, block*4096+9, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := look(t, o, o.PebbleFS); err != nil {
			t.Errorf("block %d of %s is damaged: %v", block, guardName, err)
		}
		if err := sim.Flip(name, block*4096+9, 1); err != nil {
			t.Fatal(err)
		}
	}
	for block := range int64(guardBlocks) {
		if err := sim.Flip(name, block*4096+9, 1); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := look(t, o, o.PebbleFS); !errors.Is(err, ErrDamagedRecords) {
		t.Errorf("both blocks of %s are damaged: %v", guardName, err)
	}
	if err := sim.Remove(name); err != nil {
		t.Fatal(err)
	}
	if _, err := look(t, o, o.PebbleFS); !errors.Is(err, ErrDamagedRecords) {
		t.Errorf("without %s: %v", guardName, err)
	}
}

// TestTableThatRotsAtRunTime damages Pebble's tables under an open store. What reads them says so, with the remedy, and ends the store.
func TestTableThatRotsAtRunTime(t *testing.T) {
	o := testOptions(disksim.New(disksim.Options{}), nil, "/data")
	image, _ := livedOn(t, &o, false)
	mem := clonePebble(image)
	o.PebbleFS = mem
	fatal := make(chan error, 1)
	o.OnFatal = func(err error) { fatal <- err }
	s := mustOpen(t, o)
	defer func() { _ = s.Close() }()
	// Pebble compacts by itself, too, and may have done so with the tables that are damaged before it is asked to: then there are others.
	var said error
	eventually(t, "somebody to be told", func() bool {
		_ = errors.Join(s.Set("key-1", []byte("new")), s.meta.Flush())
		damageTables(t, mem, "/data/meta")
		_ = s.meta.Compact(t.Context(), []byte{0}, []byte{0xff}, false) // its error may be lost: Pebble hears of none once the store has failed
		select {
		case said = <-fatal:
			return true
		default:
			return false
		}
	})
	if !errors.Is(said, ErrDamagedRecords) {
		t.Errorf("the store ended with %v", said)
	}
}

// damageTables writes garbage into each table of Pebble's.
func damageTables(t *testing.T, fsys vfs.FS, dir string) {
	t.Helper()
	names, err := fsys.List(dir)
	for _, name := range names {
		if err != nil || !strings.HasSuffix(name, ".sst") {
			continue
		}
		var file vfs.File
		if file, err = fsys.OpenReadWrite(fsys.PathJoin(dir, name), vfs.WriteCategoryUnspecified); missing(err) {
			err = nil // it is compacted already
			continue
		}
		if err == nil {
			_, err = file.WriteAt(bytes.Repeat([]byte{0xff}, 200), 10)
			err = errors.Join(err, file.Close())
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestFirstStartCrashesAnywhere ends the very first start of a store at each of its operations. The next one begins anew, or goes on.
func TestFirstStartCrashesAnywhere(t *testing.T) {
	for _, kind := range []disksim.Kind{disksim.Kill, disksim.PowerLoss} {
		for at := int64(1); ; at++ {
			sim := disksim.New(disksim.Options{Seed: uint64(at)})
			sim.CrashAt(at)
			s, err := Open(context.Background(), testOptions(sim, sim.Pebble(), "/data"))
			if err == nil {
				_ = s.Close()
			}
			if !sim.Halted() {
				t.Logf("%d operations", at-1)
				break
			}
			sim = sim.Crash(kind)
			if s, err = Open(context.Background(), testOptions(sim, sim.Pebble(), "/data")); err != nil {
				t.Errorf("operation %d, %v: %v", at, kind, err)
				continue
			}
			closeStore(t, s)
		}
	}
}

// TestGuardGoneWithoutSyncs: a power failure may take the file where nothing is synced, and the store goes on.
func TestGuardGoneWithoutSyncs(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.Fsync = FsyncNone
	closeStore(t, mustOpen(t, o))
	if err := sim.Remove("/data/meta.guard"); err != nil {
		t.Fatal(err)
	}
	closeStore(t, mustOpen(t, o))
}

// TestGuardBlocksTakeTurns: whichever batches in between are not synced, the older block of meta.guard holds the generation that was synced
// before the newest. A block that a power loss makes unreadable while it is written costs no more than that one.
func TestGuardBlocksTakeTurns(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	s := mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
	defer closeStore(t, s)
	eventually(t, "the journal's spare files, which are registered in between", func() bool { return s.journal.Metrics().SpareFiles == 2 })
	for n := range 8 {
		for range n % 3 {
			b := s.meta.NewBatch()
			if err := errors.Join(b.Set(userKey("x"), []byte{byte(n)}, nil), s.metaCommit(b, pebble.NoSync), b.Close()); err != nil {
				t.Fatal(err)
			}
		}
		blocks := func() (gens [guardBlocks]uint64) {
			b := disk.AlignedBytes(disk.BlockSize)
			for i := range gens {
				if _, err := s.guard.file.ReadAt(b, int64(i)*disk.BlockSize); err != nil {
					t.Fatal(err)
				}
				gens[i] = parseGuard(b)
			}
			return gens
		}
		old := blocks()
		if err := s.Set("y", []byte{byte(n)}); err != nil {
			t.Fatal(err)
		}
		if now := blocks(); slices.Max(now[:]) <= slices.Max(old[:]) || slices.Min(now[:]) != slices.Max(old[:]) {
			t.Fatalf("the blocks held generations %d, and now %d", old, now)
		}
	}
}

// TestFormats: a directory of another format, of a release before or after, is refused, is told which program can read it, and is as good as
// it was.
func TestFormats(t *testing.T) {
	sim := disksim.New(disksim.Options{Seed: 1})
	o := testOptions(sim, sim.Pebble(), "data")
	s := mustOpen(t, o)
	mustCreate(t, s, 1)
	set := func(s *Store, b []byte) {
		t.Helper()
		if err := errors.Join(s.metaSet(formatKey, b), s.Close()); err != nil {
			t.Fatal(err)
		}
	}
	here := binary.LittleEndian.AppendUint32(nil, formatVersion)
	for _, other := range []uint32{formatVersion - 1, formatVersion + 1} {
		set(s, binary.LittleEndian.AppendUint32(nil, other))
		for range 2 {
			want := fmt.Sprintf("has data of format %d, this program reads format %d: use the program that wrote it", other, formatVersion)
			if _, err := Open(context.Background(), o); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("format %d: %v", other, err)
			}
		}
		s = reformat(t, o, here)
		if logs := s.Logs(); len(logs) != 1 {
			t.Errorf("after format %d: %v", other, logs)
		}
	}
	set(s, here[:3])
	if _, err := Open(context.Background(), o); !errors.Is(err, ErrDamagedRecords) {
		t.Errorf("no number: %v", err)
	}
}

// reformat opens a store to which it gives a format first.
func reformat(t *testing.T, o Options, format []byte) *Store {
	t.Helper()
	s := newStore(o.withDefaults())
	if err := errors.Join(s.openDirs(), s.openMeta(), s.guard.check(), s.metaSet(formatKey, format), s.release(), s.unlock()); err != nil {
		t.Fatal(err)
	}
	return mustOpen(t, o)
}
