package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

// implementation is an FS under test with a directory to work in.
type implementation struct {
	name string
	open func(t testing.TB) (disk.FS, string)
}

func implementations() []implementation {
	return []implementation{
		{"direct", func(t testing.TB) (disk.FS, string) {
			dir := t.TempDir()
			fsys, err := disk.NewOS(dir)
			if err != nil {
				t.Fatal(err)
			}
			if !disk.IsDirect(fsys) {
				t.Skipf("%s is on a file system without O_DIRECT", dir)
			}
			dir = path.Join(dir, "work") // beside what NewOS left
			must(t, fsys.MkdirAll(dir))
			return fsys, dir
		}},
		{"buffered", func(t testing.TB) (disk.FS, string) { return disk.NewBuffered(), t.TempDir() }},
		{"unsynced", func(t testing.TB) (disk.FS, string) { return disk.Unsynced(disk.NewBuffered()), t.TempDir() }},
		{"simulated", func(t testing.TB) (disk.FS, string) {
			d := disksim.New(disksim.Options{Seed: 1})
			if err := d.MkdirAll("/work"); err != nil {
				t.Fatal(err)
			}
			return d, "/work"
		}},
	}
}

// each runs a test over all implementations.
func each(t *testing.T, test func(t *testing.T, fsys disk.FS, dir string)) {
	for _, impl := range implementations() {
		t.Run(impl.name, func(t *testing.T) {
			fsys, dir := impl.open(t)
			test(t, fsys, dir)
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func mustBe(t testing.TB, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
}

func create(t testing.TB, fsys disk.FS, name string) disk.File {
	t.Helper()
	f, err := fsys.Create(name)
	must(t, err)
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// blocks returns n blocks, each filled with its own number plus first.
func blocks(first byte, n int) []byte {
	b := disk.AlignedBytes(n * disk.BlockSize)
	for i := range b {
		b[i] = first + byte(i/disk.BlockSize)
	}
	return b
}

func size(t testing.TB, f disk.File) int64 {
	t.Helper()
	n, err := f.Size()
	must(t, err)
	return n
}

// content reads a file to its end.
func content(t testing.TB, f disk.File) []byte {
	t.Helper()
	n := size(t, f)
	buf := disk.AlignedBytes(int(disk.RoundUp(n)) + disk.BlockSize)
	got, err := f.ReadAt(buf, 0)
	mustBe(t, err, io.EOF)
	if int64(got) != n {
		t.Fatalf("read %d bytes of a file of %d", got, n)
	}
	return buf[:got]
}

func TestCreateOpenRemove(t *testing.T) {
	each(t, func(t *testing.T, fsys disk.FS, dir string) {
		name := path.Join(dir, "a")
		_, err := fsys.Open(name)
		mustBe(t, err, fs.ErrNotExist)
		_, err = fsys.OpenRead(name)
		mustBe(t, err, fs.ErrNotExist)
		_, err = fsys.Create(path.Join(dir, "missing", "a"))
		mustBe(t, err, fs.ErrNotExist)

		f := create(t, fsys, name)
		_, err = fsys.Create(name)
		mustBe(t, err, fs.ErrExist)
		data := blocks(1, 2)
		_, err = f.WriteAt(data, 0)
		must(t, err)

		r, err := fsys.OpenRead(name)
		must(t, err)
		if !bytes.Equal(content(t, r), data) {
			t.Fatal("another handle reads something else")
		}
		if _, err = r.WriteAt(data, 0); err == nil {
			t.Fatal("a handle for reading can write")
		}
		if _, err = r.WriteSyncAt(data, 0); err == nil {
			t.Fatal("a handle for reading can write durably")
		}
		must(t, fsys.Remove(name))
		mustBe(t, fsys.Remove(name), fs.ErrNotExist)
		if !bytes.Equal(content(t, f), data) {
			t.Fatal("the handle of an unlinked file reads something else")
		}
		must(t, r.Close())
		must(t, f.Close())
	})
}

func TestUnalignedIsRefused(t *testing.T) {
	each(t, func(t *testing.T, fsys disk.FS, dir string) {
		f := create(t, fsys, path.Join(dir, "a"))
		ok, off := disk.AlignedBytes(2*disk.BlockSize), int64(disk.BlockSize)
		for what, c := range map[string]struct {
			p   []byte
			off int64
		}{
			"length":   {ok[:100], off},
			"offset":   {ok, off + 512},
			"address":  {ok[512 : 512+disk.BlockSize], off},
			"negative": {ok, -disk.BlockSize},
		} {
			_, err := f.WriteAt(c.p, c.off)
			mustBe(t, err, disk.ErrUnaligned)
			_, err = f.WriteSyncAt(c.p, c.off)
			mustBe(t, err, disk.ErrUnaligned)
			_, err = f.ReadAt(c.p, c.off)
			mustBe(t, err, disk.ErrUnaligned)
			if err := f.WritevAt([][]byte{c.p}, c.off); !errors.Is(err, disk.ErrUnaligned) {
				t.Errorf("%s: writev says %v", what, err)
			}
		}
		mustBe(t, f.WritevAt([][]byte{ok, ok[:512], ok}, 0), disk.ErrUnaligned)
		if n := size(t, f); n != 0 {
			t.Fatalf("refused writes left %d bytes", n)
		}
		_, err := f.WriteAt(nil, off)
		must(t, err)
		if n, err := f.WriteSyncAt(nil, off); n != 0 || err != nil {
			t.Fatalf("%d bytes of nothing were written, %v", n, err)
		}
		must(t, f.WritevAt(nil, off))
	})
}

func TestReadAtTheEnd(t *testing.T) {
	each(t, func(t *testing.T, fsys disk.FS, dir string) {
		f := create(t, fsys, path.Join(dir, "a"))
		buf := disk.AlignedBytes(4 * disk.BlockSize)
		n, err := f.ReadAt(buf, 0)
		if n != 0 || err != io.EOF {
			t.Fatalf("empty file: %d, %v", n, err)
		}
		data := blocks(1, 3)
		_, err = f.WriteAt(data, 0)
		must(t, err)
		must(t, f.Truncate(2*disk.BlockSize+100))
		for _, c := range []struct {
			off, len, n int
			err         error
		}{
			{0, 1, disk.BlockSize, nil},
			{0, 2, 2 * disk.BlockSize, nil},
			{0, 3, 2*disk.BlockSize + 100, io.EOF},
			{2, 1, 100, io.EOF},
			{3, 1, 0, io.EOF},
			{9, 2, 0, io.EOF},
		} {
			n, err := f.ReadAt(buf[:c.len*disk.BlockSize], int64(c.off*disk.BlockSize))
			if n != c.n || err != c.err {
				t.Errorf("%d blocks at block %d: %d, %v, want %d, %v", c.len, c.off, n, err, c.n, c.err)
			}
			if at := c.off * disk.BlockSize; n > 0 && !bytes.Equal(buf[:n], data[at:at+n]) {
				t.Errorf("%d blocks at block %d: wrong bytes", c.len, c.off)
			}
		}
	})
}

func TestWritev(t *testing.T) {
	each(t, func(t *testing.T, fsys disk.FS, dir string) {
		for _, pieces := range []int{1, 2, 1023, 1024, 1025, 2500} {
			f := create(t, fsys, path.Join(dir, fmt.Sprint(pieces)))
			data := blocks(3, pieces+1)
			var bufs [][]byte
			for i := range pieces {
				p := data[i*disk.BlockSize : (i+1)*disk.BlockSize]
				if i == pieces-1 { // a longer last piece
					p = data[i*disk.BlockSize:]
				}
				bufs = append(bufs, p, nil)
			}
			kept := slices.Clone(bufs)
			must(t, f.WritevAt(bufs, disk.BlockSize))
			for i := range bufs {
				if len(bufs[i]) != len(kept[i]) {
					t.Fatal("the vector was changed")
				}
			}
			want := append(make([]byte, disk.BlockSize), data...)
			if !bytes.Equal(content(t, f), want) {
				t.Errorf("%d pieces: wrong bytes", pieces)
			}
			must(t, f.Close())
		}
	})
}

func TestLengths(t *testing.T) {
	each(t, func(t *testing.T, fsys disk.FS, dir string) {
		f := create(t, fsys, path.Join(dir, "a"))
		must(t, f.Preallocate(64<<10))
		if n := size(t, f); n != 64<<10 {
			t.Fatalf("preallocated to %d", n)
		}
		must(t, f.Preallocate(4<<10))
		if n := size(t, f); n != 64<<10 {
			t.Fatalf("a smaller preallocation made it %d", n)
		}
		_, err := f.WriteAt(blocks(7, 2), 0)
		must(t, err)
		must(t, f.Truncate(5000))
		must(t, f.Sync())
		must(t, f.Truncate(3*disk.BlockSize))
		got := content(t, f)
		want := make([]byte, 3*disk.BlockSize)
		copy(want, blocks(7, 2)[:5000])
		if !bytes.Equal(got, want) {
			t.Fatal("what a truncation cut off came back")
		}
		must(t, f.Preallocate(3*disk.BlockSize+10))
		if n := size(t, f); n != 3*disk.BlockSize+10 {
			t.Fatalf("preallocated to %d", n)
		}
		if info, err := fsys.Stat(path.Join(dir, "a")); err != nil || info != (disk.Info{Size: 3*disk.BlockSize + 10}) {
			t.Fatalf("stat says %+v, %v", info, err)
		}
	})
}

func TestNames(t *testing.T) {
	each(t, func(t *testing.T, fsys disk.FS, dir string) {
		sub := path.Join(dir, "x", "y")
		must(t, fsys.MkdirAll(sub))
		must(t, fsys.MkdirAll(sub))
		for _, name := range []string{"c", "a", "b"} {
			must(t, fsys.WriteFile(path.Join(sub, name), []byte(name)))
		}
		must(t, fsys.SyncDir(sub))
		names, err := fsys.List(sub)
		must(t, err)
		if !slices.Equal(names, []string{"a", "b", "c"}) {
			t.Fatalf("list says %q", names)
		}
		must(t, fsys.Rename(path.Join(sub, "a"), path.Join(sub, "b"))) // over a file
		if got, err := fsys.ReadFile(path.Join(sub, "b")); err != nil || string(got) != "a" {
			t.Fatalf("renamed file holds %q, %v", got, err)
		}
		mustBe(t, fsys.Rename(path.Join(sub, "a"), path.Join(sub, "d")), fs.ErrNotExist)
		must(t, fsys.Rename(sub, path.Join(dir, "x", "z"))) // a directory
		_, err = fsys.Stat(sub)
		mustBe(t, err, fs.ErrNotExist)
		if info, err := fsys.Stat(path.Join(dir, "x", "z")); err != nil || !info.Dir {
			t.Fatalf("stat says %+v, %v", info, err)
		}
		if err := fsys.Remove(path.Join(dir, "x")); err == nil {
			t.Fatal("a directory that holds something was removed")
		}
		must(t, fsys.RemoveAll(path.Join(dir, "x")))
		must(t, fsys.RemoveAll(path.Join(dir, "x")))
		_, err = fsys.List(path.Join(dir, "x"))
		mustBe(t, err, fs.ErrNotExist)
		mustBe(t, fsys.SyncDir(path.Join(dir, "x")), fs.ErrNotExist)
	})
}

func TestWholeFiles(t *testing.T) {
	each(t, func(t *testing.T, fsys disk.FS, dir string) {
		name := path.Join(dir, "small")
		_, err := fsys.ReadFile(name)
		mustBe(t, err, fs.ErrNotExist)
		for _, n := range []int{0, 1, 4095, 4096, 4097, 10000, 3} {
			data := blocks(5, 3)[:n]
			must(t, fsys.WriteFile(name, data))
			got, err := fsys.ReadFile(name)
			must(t, err)
			if !bytes.Equal(got, data) {
				t.Fatalf("%d bytes were written, %d others read", n, len(got))
			}
		}
		create(t, fsys, name+".tmp") // left by a crash
		must(t, fsys.WriteFile(name, []byte("x")))
		if names, err := fsys.List(dir); err != nil || !slices.Equal(names, []string{"small"}) {
			t.Fatalf("list says %q, %v", names, err)
		}
	})
}

func TestLock(t *testing.T) {
	each(t, func(t *testing.T, fsys disk.FS, dir string) {
		name := path.Join(dir, "LOCK")
		l, err := fsys.Lock(name)
		must(t, err)
		_, err = fsys.Lock(name)
		mustBe(t, err, disk.ErrLocked)
		var held *disk.LockedError
		if !errors.As(err, &held) || (held.PID != os.Getpid() && held.PID != 0) {
			t.Fatalf("the error is %v", err)
		}
		must(t, l.Close())
		l, err = fsys.Lock(name)
		must(t, err)
		must(t, l.Close())
	})
}

func TestClosedFile(t *testing.T) {
	each(t, func(t *testing.T, fsys disk.FS, dir string) {
		f := create(t, fsys, path.Join(dir, "a"))
		must(t, f.Close())
		p := disk.AlignedBytes(disk.BlockSize)
		_, err := f.WriteAt(p, 0)
		mustBe(t, err, fs.ErrClosed)
		_, err = f.WriteSyncAt(p, 0)
		mustBe(t, err, fs.ErrClosed)
		_, err = f.ReadAt(p, 0)
		mustBe(t, err, fs.ErrClosed)
		_, err = f.Size()
		mustBe(t, err, fs.ErrClosed)
		for _, err := range []error{f.WritevAt([][]byte{p}, 0), f.Sync(), f.Truncate(0), f.Preallocate(1), f.Close()} {
			mustBe(t, err, fs.ErrClosed)
		}
	})
}

func TestFreeBytes(t *testing.T) {
	each(t, func(t *testing.T, fsys disk.FS, dir string) {
		if n, err := fsys.FreeBytes(dir); err != nil || n <= 0 {
			t.Fatalf("%d bytes free, %v", n, err)
		}
	})
}

// TestFileIsBytes compares random operations with what they do to a slice.
func TestFileIsBytes(t *testing.T) {
	each(t, func(t *testing.T, fsys disk.FS, dir string) {
		run := 0
		rapid.Check(t, func(rt *rapid.T) {
			run++
			f, err := fsys.Create(path.Join(dir, fmt.Sprint(run)))
			must(t, err)
			defer f.Close()
			var model []byte
			grow := func(n int) {
				if n > len(model) {
					model = append(model, make([]byte, n-len(model))...)
				}
			}
			for range rapid.IntRange(1, 12).Draw(rt, "ops") {
				block := rapid.IntRange(0, 8).Draw(rt, "block")
				n := rapid.IntRange(0, 3*disk.BlockSize).Draw(rt, "bytes")
				switch rapid.IntRange(0, 4).Draw(rt, "op") {
				case 0, 1:
					p := blocks(byte(rapid.IntRange(0, 255).Draw(rt, "fill")), 1+n%3)
					must(t, f.WritevAt([][]byte{p[:disk.BlockSize], p[disk.BlockSize:]}, int64(block*disk.BlockSize)))
					grow(block*disk.BlockSize + len(p))
					copy(model[block*disk.BlockSize:], p)
				case 2:
					must(t, f.Truncate(int64(block*disk.BlockSize+n)))
					grow(block*disk.BlockSize + n)
					model = model[: block*disk.BlockSize+n : block*disk.BlockSize+n]
				case 3:
					must(t, f.Preallocate(int64(n)))
					grow(n)
				case 4:
					p := blocks(byte(rapid.IntRange(0, 255).Draw(rt, "fill")), 1+n%3)
					if done, err := f.WriteSyncAt(p, int64(block*disk.BlockSize)); done != len(p) || err != nil {
						rt.Fatalf("%d bytes of %d written, %v", done, len(p), err)
					}
					grow(block*disk.BlockSize + len(p))
					copy(model[block*disk.BlockSize:], p)
				}
				if !bytes.Equal(content(t, f), model) {
					rt.Fatal("the file and its model differ")
				}
			}
		})
	})
}

func TestHotPathsDoNotAllocate(t *testing.T) {
	for _, impl := range implementations()[:2] {
		t.Run(impl.name, func(t *testing.T) {
			fsys, dir := impl.open(t)
			f := create(t, fsys, path.Join(dir, "a"))
			p := blocks(1, 4)
			bufs := [][]byte{p[:disk.BlockSize], p[disk.BlockSize : 3*disk.BlockSize], p[3*disk.BlockSize:]}
			must(t, f.WritevAt(bufs, 0)) // something to read, whichever comes first
			for what, call := range map[string]func(){
				"WriteAt":  func() { _, err := f.WriteAt(p, 0); must(t, err) },
				"WritevAt": func() { must(t, f.WritevAt(bufs, 0)) },
				"ReadAt":   func() { _, err := f.ReadAt(p, 0); must(t, err) },
			} {
				if n := testing.AllocsPerRun(50, call); n != 0 {
					t.Errorf("%s: %v allocations", what, n)
				}
			}
		})
	}
}

// TestLongNames: a name has up to 255 bytes, with every operation that makes one.
func TestLongNames(t *testing.T) {
	each(t, func(t *testing.T, fsys disk.FS, dir string) {
		longest := path.Join(dir, strings.Repeat("x", 255))
		f, err := fsys.Create(longest)
		must(t, err)
		must(t, f.Close())
		_, err = fsys.Create(longest + "y")
		mustBe(t, err, syscall.ENAMETOOLONG)
		mustBe(t, fsys.Rename(longest, longest+"y"), syscall.ENAMETOOLONG)
		mustBe(t, fsys.MkdirAll(longest+"y"), syscall.ENAMETOOLONG)
		_, err = fsys.Stat(longest)
		must(t, err)
	})
}
