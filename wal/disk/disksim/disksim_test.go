package disksim

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/wal/disk"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func filled(v byte, blocks int) []byte {
	b := disk.AlignedBytes(blocks * disk.BlockSize)
	for i := range b {
		b[i] = v
	}
	return b
}

// durable makes a file of n blocks of v that a power loss keeps.
func durable(t testing.TB, d *Disk, name string, v byte, n int) disk.File {
	t.Helper()
	f, err := d.Create(name)
	must(t, err)
	_, err = f.WriteAt(filled(v, n), 0)
	must(t, err)
	must(t, f.Sync())
	must(t, d.SyncDir("/"))
	return f
}

func read(t testing.TB, d *Disk, name string) []byte {
	t.Helper()
	b, err := d.ReadFile(name)
	must(t, err)
	return b
}

// kindOf says what a block that was written 1 and then, unsynced, 2 and 3 holds.
func kindOf(b []byte) string {
	values := map[byte]bool{}
	for at := 0; at < len(b); at += sector {
		s := b[at : at+sector]
		if !bytes.Equal(s, bytes.Repeat(s[:1], sector)) || s[0] < 1 || s[0] > 3 {
			return "garbage"
		}
		values[s[0]] = true
	}
	if len(values) > 1 {
		return "torn"
	}
	return map[byte]string{1: "old", 2: "between", 3: "new"}[b[0]]
}

// TestPowerLossOutcomes checks that every fate of an unsynced block comes up, and that blocks are independent.
func TestPowerLossOutcomes(t *testing.T) {
	seen, mixed := map[string]int{}, 0
	for seed := range uint64(300) {
		d := New(Options{Seed: seed})
		f := durable(t, d, "f", 1, 8)
		for v := byte(2); v <= 3; v++ {
			_, err := f.WriteAt(filled(v, 6), 0)
			must(t, err)
		}
		b := read(t, d.Crash(PowerLoss), "f")
		kinds := map[string]bool{}
		for i := range 8 {
			kind := kindOf(b[i*disk.BlockSize : (i+1)*disk.BlockSize])
			if i >= 6 {
				if kind != "old" {
					t.Fatalf("seed %d: a synced block is %s", seed, kind)
				}
				continue
			}
			seen[kind]++
			kinds[kind] = true
		}
		if kinds["old"] && kinds["new"] {
			mixed++
		}
	}
	for _, kind := range []string{"old", "between", "new", "torn", "garbage"} {
		if seen[kind] == 0 {
			t.Errorf("no block was %s: %v", kind, seen)
		}
	}
	if mixed == 0 {
		t.Error("no power loss kept some blocks and lost others")
	}
}

func TestKillKeepsWhatPowerLossTakes(t *testing.T) {
	lost := 0
	for seed := range uint64(50) {
		d := New(Options{Seed: seed})
		f := durable(t, d, "f", 1, 1)
		_, err := f.WriteAt(filled(3, 1), 0)
		must(t, err)
		d = d.Crash(Kill)
		if kind := kindOf(read(t, d, "f")); kind != "new" {
			t.Fatalf("seed %d: after a kill the block is %s", seed, kind)
		}
		if _, err := f.WriteAt(filled(2, 1), 0); !errors.Is(err, ErrCrashed) {
			t.Fatalf("a handle of the dead process says %v", err)
		}
		if d = d.Crash(PowerLoss); kindOf(read(t, d, "f")) != "new" {
			lost++
		}
		// What the power loss left is durable.
		before := read(t, d, "f")
		if !bytes.Equal(before, read(t, d.Crash(PowerLoss), "f")) {
			t.Fatalf("seed %d: a second power loss changed a file nobody wrote", seed)
		}
	}
	if lost == 0 {
		t.Error("an unsynced block always survives")
	}
}

// TestNamesNeedSyncDir lists the ways in which names that were not synced come and go.
func TestNamesNeedSyncDir(t *testing.T) {
	states := map[string]int{}
	for seed := range uint64(200) {
		d := New(Options{Seed: seed})
		must(t, d.MkdirAll("dir"))
		for _, name := range []string{"dir/gone", "dir/old", "dir/over", "dir/from"} {
			f, err := d.Create(name)
			must(t, err)
			_, err = f.WriteAt(filled(name[4], 1), 0)
			must(t, err)
			must(t, f.Sync())
		}
		must(t, d.SyncDir("dir"))
		must(t, d.SyncDir("/"))
		must(t, d.Remove("dir/gone"))
		must(t, d.Rename("dir/from", "dir/over"))
		f, err := d.Create("dir/new")
		must(t, err)
		must(t, f.Sync()) // does not make the name durable
		d = d.Crash(PowerLoss)
		names, err := d.List("dir")
		must(t, err)
		if over := read(t, d, "dir/over"); (over[0] == 'f') == slices.Contains(names, "from") {
			t.Fatalf("seed %d: half of a rename: %q, over holds %c", seed, names, over[0])
		}
		states[fmt.Sprint(names)]++
	}
	if len(states) != 8 {
		t.Errorf("of the 8 combinations of three unsynced changes these came up: %v", states)
	}
}

func TestDirectoryNeedsItsParent(t *testing.T) {
	there, gone := 0, 0
	for seed := range uint64(50) {
		d := New(Options{Seed: seed})
		must(t, d.MkdirAll("dir"))
		f, err := d.Create("dir/f")
		must(t, err)
		must(t, f.Sync())
		must(t, d.SyncDir("dir")) // but not "/"
		_, err = d.Crash(PowerLoss).Stat("dir/f")
		switch {
		case err == nil:
			there++
		case errors.Is(err, fs.ErrNotExist):
			gone++
		default:
			t.Fatal(err)
		}
	}
	if there == 0 || gone == 0 {
		t.Errorf("the directory was there %d times and gone %d times", there, gone)
	}
}

// TestSyncedWriteOutlivesPowerLoss: what WriteSyncAt has written is there, over what was there before and beyond the end of the file.
func TestSyncedWriteOutlivesPowerLoss(t *testing.T) {
	for seed := range uint64(100) {
		d := New(Options{Seed: seed})
		f := durable(t, d, "f", 1, 4)
		n, err := f.WriteSyncAt(filled(3, 6), 2*disk.BlockSize)
		must(t, err)
		if n != 6*disk.BlockSize {
			t.Fatalf("%d bytes written", n)
		}
		want := append(filled(1, 2), filled(3, 6)...)
		if b := read(t, d.Crash(PowerLoss), "f"); !bytes.Equal(b, want) {
			t.Fatalf("seed %d: %d bytes are left, or others", seed, len(b))
		}
	}
}

// TestSyncedWriteFails: WriteSyncAt says so when its write fails, or its sync; then the bytes are no safer than without it.
func TestSyncedWriteFails(t *testing.T) {
	errIO := errors.New("medium error")
	for _, kind := range []OpKind{OpWrite, OpSync} {
		lost := 0
		for seed := range uint64(20) {
			d := New(Options{Seed: seed})
			f := durable(t, d, "f", 1, 2)
			d.SetHook(func(op Op) error {
				if op.Kind == kind {
					return errIO
				}
				return nil
			})
			if _, err := f.WriteSyncAt(filled(3, 2), 0); !errors.Is(err, errIO) {
				t.Fatalf("the %v fails, WriteSyncAt says %v", kind, err)
			}
			if b := read(t, d.Crash(PowerLoss), "f"); kindOf(b[:disk.BlockSize]) != "new" {
				lost++
			}
		}
		if lost == 0 {
			t.Errorf("a failed %v lost nothing", kind)
		}
	}
}

// TestFailedSyncWithoutCache checks that what was lost can be seen at once when there is no page cache.
func TestFailedSyncWithoutCache(t *testing.T) {
	lost := 0
	for seed := range uint64(20) {
		d := New(Options{Seed: seed, Direct: true})
		if !disk.IsDirect(d) {
			t.Fatal("the disk is not direct")
		}
		f := durable(t, d, "f", 1, 4)
		_, err := f.WriteAt(filled(3, 4), 0)
		must(t, err)
		d.SetHook(func(op Op) error {
			if op.Kind == OpSync {
				return errors.New("medium error")
			}
			return nil
		})
		if err := f.Sync(); err == nil {
			t.Fatal("the sync did not fail")
		}
		d.SetHook(nil)
		before := read(t, d, "f")
		if !bytes.Equal(before, read(t, d.Crash(PowerLoss), "f")) {
			t.Fatalf("seed %d: what was read was not what the medium held", seed)
		}
		if kindOf(before[:disk.BlockSize]) == "old" {
			lost++
		}
	}
	if lost == 0 {
		t.Error("a sync that failed lost nothing")
	}
}

// TestSyncAfterFailedSync is fsyncgate: the second sync succeeds and the bytes are not on the medium.
func TestSyncAfterFailedSync(t *testing.T) {
	lost := 0
	errIO := errors.New("medium error")
	for seed := range uint64(50) {
		d := New(Options{Seed: seed})
		f := durable(t, d, "f", 1, 2)
		_, err := f.WriteAt(filled(3, 2), 0)
		must(t, err)
		d.SetHook(func(op Op) error {
			if op.Kind == OpSync {
				return errIO
			}
			return nil
		})
		if err := f.Sync(); !errors.Is(err, errIO) {
			t.Fatalf("the sync says %v", err)
		}
		d.SetHook(nil)
		must(t, f.Sync())
		if b := read(t, d, "f"); kindOf(b[:disk.BlockSize]) != "new" {
			t.Fatal("the cache has lost a block")
		}
		if b := read(t, d.Crash(PowerLoss), "f"); kindOf(b[:disk.BlockSize]) == "old" {
			lost++
		}
	}
	if lost == 0 {
		t.Error("a sync that failed lost nothing")
	}
}

func TestLengthNeedsSync(t *testing.T) {
	sizes := map[int64]int{}
	for seed := range uint64(100) {
		d := New(Options{Seed: seed})
		f := durable(t, d, "f", 1, 2)
		must(t, f.Preallocate(16*disk.BlockSize))
		must(t, f.Truncate(5000))
		info, err := d.Crash(PowerLoss).Stat("f")
		must(t, err)
		sizes[info.Size]++
	}
	if len(sizes) != 3 {
		t.Errorf("lengths after the power loss: %v", sizes)
	}
}

// TestCrashAt halts at each step of a script and checks that a prefix of it happened.
func TestCrashAt(t *testing.T) {
	script := func(d *Disk) error {
		f, err := d.Create("f")
		if err != nil {
			return err
		}
		for i := range 4 {
			if err := f.WritevAt([][]byte{filled(byte(i+1), 1), filled(byte(i+1), 2)}, int64(i*3*disk.BlockSize)); err != nil {
				return err
			}
		}
		return f.Sync()
	}
	d := New(Options{})
	must(t, script(d))
	steps := d.Steps()
	for seed := range uint64(40) {
		for n := int64(1); n <= steps; n++ {
			d := New(Options{Seed: seed})
			d.CrashAt(n)
			if err := script(d); !errors.Is(err, ErrCrashed) || !d.Halted() {
				t.Fatalf("step %d: the script says %v", n, err)
			}
			d = d.Crash(Kill)
			b, err := d.ReadFile("f")
			if errors.Is(err, fs.ErrNotExist) && n == 1 {
				continue
			}
			must(t, err)
			if blocks := int64(len(b) / disk.BlockSize); blocks < 3*(n-2) || blocks > max(3*(n-1), 0) && n < steps {
				t.Fatalf("seed %d, step %d: %d blocks were written", seed, n, blocks)
			}
		}
	}
}

func TestCapacity(t *testing.T) {
	d := New(Options{Capacity: 10 * disk.BlockSize})
	f, err := d.Create("f")
	must(t, err)
	must(t, f.Preallocate(8*disk.BlockSize))
	if err := f.Preallocate(11 * disk.BlockSize); !errors.Is(err, disk.ErrNoSpace) {
		t.Fatalf("preallocating beyond the end of the disk says %v", err)
	}
	_, err = f.WriteAt(filled(1, 8), 0) // takes nothing more
	must(t, err)
	g, err := d.Create("g")
	must(t, err)
	if _, err = g.WriteAt(filled(1, 3), 0); !errors.Is(err, disk.ErrNoSpace) {
		t.Fatalf("writing beyond the end of the disk says %v", err)
	}
	must(t, f.Truncate(disk.BlockSize+1))
	if free, _ := d.FreeBytes("/"); free != 8*disk.BlockSize {
		t.Fatalf("%d bytes are free", free)
	}
	must(t, d.Remove("f"))
	if free, _ := d.FreeBytes("/"); free != 8*disk.BlockSize {
		t.Fatalf("%d bytes are free while the unlinked file is open", free)
	}
	must(t, f.Close())
	if free, _ := d.FreeBytes("/"); free != 10*disk.BlockSize {
		t.Fatalf("%d bytes are free", free)
	}
	d = d.Crash(PowerLoss)
	if free, _ := d.FreeBytes("/"); free != 10*disk.BlockSize && free != 8*disk.BlockSize {
		t.Fatalf("%d bytes are free after the power loss", free)
	}
}

func TestBigFilesAreSparse(t *testing.T) {
	d := New(Options{})
	f := durable(t, d, "journal", 0, 1)
	must(t, f.Preallocate(64<<20))
	zeros := disk.AlignedBytes(1 << 20)
	for off := int64(0); off < 64<<20; off += 1 << 20 {
		_, err := f.WriteAt(zeros, off)
		must(t, err)
	}
	must(t, f.Sync())
	if n := len(d.root.names["journal"].blocks); n != 0 {
		t.Fatalf("64 MiB of zeros take %d blocks", n)
	}
}

func TestHookSeesAndDelays(t *testing.T) {
	var ops []string
	d := New(Options{After: func(op Op, err error) { ops = append(ops, op.String()) }})
	f := durable(t, d, "f", 1, 1)
	must(t, d.Rename("f", "g"))
	d.SetHook(func(op Op) error {
		if op.Kind == OpSync {
			d.Halt() // dies before the sync
		}
		return nil
	})
	if err := f.Sync(); !errors.Is(err, ErrHalted) {
		t.Fatalf("sync says %v", err)
	}
	want := []string{"create /f", "write /f [0, 4096)", "sync /f", "syncdir /", "rename /f to /g", "sync /f"}
	if !slices.Equal(ops, want) {
		t.Fatalf("the operations were %q", ops)
	}
}

func TestFlip(t *testing.T) {
	d := New(Options{})
	durable(t, d, "f", 7, 2)
	must(t, d.Flip("f", 5000, 0x80))
	b := read(t, d.Crash(PowerLoss), "f")
	for i, v := range b {
		if want := byte(7); (i == 5000) != (v != want) || i == 5000 && v != want^0x80 {
			t.Fatalf("byte %d is %d", i, v)
		}
	}
	if err := d.Flip("f", 1, 1); err == nil {
		t.Fatal("the old boot can be changed")
	}
}

// TestDeterministic runs the same random script twice.
func TestDeterministic(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		crash := rapid.Int64Range(1, 20).Draw(rt, "step")
		writes := rapid.SliceOfN(rapid.IntRange(0, 7), 1, 20).Draw(rt, "writes")
		run := func() []byte {
			d := New(Options{Seed: seed})
			f := durable(t, d, "f", 1, 8)
			d.CrashAt(crash)
			for i, b := range writes {
				_, _ = f.WriteAt(filled(byte(i), 2), int64(b)*disk.BlockSize)
				if i%5 == 4 {
					_ = f.Sync()
				}
			}
			return read(t, d.Crash(Kill).Crash(PowerLoss), "f")
		}
		if !bytes.Equal(run(), run()) {
			rt.Fatal("two runs differ")
		}
	})
}

// TestWriteFileIsAtomic crashes a replacement of a small file at every step.
func TestWriteFileIsAtomic(t *testing.T) {
	old, new := filled('o', 2)[:5000], filled('n', 3)[:9000]
	for seed := range uint64(30) {
		for n := int64(1); ; n++ {
			d := New(Options{Seed: seed})
			must(t, d.WriteFile("f", old))
			d.CrashAt(n)
			err := d.WriteFile("f", new)
			done := !d.Halted()
			if done {
				must(t, err)
			}
			got := read(t, d.Crash([]Kind{Kill, PowerLoss}[seed%2]), "f")
			if !bytes.Equal(got, new) && (done || !bytes.Equal(got, old)) {
				t.Fatalf("seed %d, step %d: the file holds %d bytes of %q", seed, n, len(got), got[:1])
			}
			if done {
				break
			}
		}
	}
}
