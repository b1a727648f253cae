package disk

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// replace sets a system call for the time of the test.
func replace[T any](t *testing.T, call *T, with T) {
	old := *call
	*call = with
	t.Cleanup(func() { *call = old })
}

func newFile(t *testing.T) File {
	t.Helper()
	f, err := NewBuffered().Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func numbered(n int) []byte {
	p := AlignedBytes(n)
	for i := range p {
		p[i] = byte(i/512) + 1
	}
	return p
}

// TestInterruptedCalls lets every call be interrupted or come up short, at any byte, and expects whole results.
func TestInterruptedCalls(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	interrupted := func() bool { return rng.IntN(2) == 0 }
	short := func(n int) int { return 1 + rng.IntN(n) }
	replace(t, &pwrite, func(fd int, p []byte, off int64) (int, error) {
		if interrupted() {
			return -1, unix.EINTR
		}
		return unix.Pwrite(fd, p[:max(short(len(p)), BlockSize)], off)
	})
	replace(t, &pread, func(fd int, p []byte, off int64) (int, error) {
		if interrupted() {
			return -1, unix.EINTR
		}
		return unix.Pread(fd, p[:max(short(len(p))&^(BlockSize-1), BlockSize)], off)
	})
	replace(t, &pwritev, func(fd int, v []unix.Iovec, off int64) (int, error) {
		if interrupted() {
			return -1, unix.EINTR
		}
		v = v[:short(len(v))]
		return rawPwritev(fd, v, off)
	})
	replace(t, &fdatasync, func(fd int) error {
		if interrupted() {
			return unix.EINTR
		}
		return unix.Fdatasync(fd)
	})
	replace(t, &fallocate, func(fd int, mode uint32, off, n int64) error {
		if interrupted() {
			return unix.EINTR
		}
		return unix.Fallocate(fd, mode, off, n)
	})

	f := newFile(t)
	data := numbered(40 * BlockSize)
	if err := f.Preallocate(100 * BlockSize); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		cut := rng.IntN(40) * BlockSize
		if _, err := f.WriteAt(data[:cut], 0); err != nil {
			t.Fatal(err)
		}
		var bufs [][]byte
		for rest := data[cut:]; len(rest) > 0; {
			n := min((1+rng.IntN(5))*BlockSize, len(rest))
			bufs, rest = append(bufs, rest[:n]), rest[n:]
		}
		if err := f.WritevAt(bufs, int64(cut)); err != nil {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		got := AlignedBytes(len(data))
		if _, err := f.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, data) {
			t.Fatal("wrong bytes")
		}
		if err := f.WritevAt([][]byte{AlignedBytes(len(data))}, 0); err != nil {
			t.Fatal(err)
		}
	}
}

// TestShortPieces lets pwritev stop inside a piece, at bytes that are no block's end.
func TestShortPieces(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	replace(t, &pwritev, func(fd int, v []unix.Iovec, off int64) (int, error) {
		total := 0
		for i := range v {
			total += int(v[i].Len)
		}
		n, err := rawPwritev(fd, v, off)
		if err != nil || n != total {
			return n, err
		}
		return BlockSize + rng.IntN(total-BlockSize+1), nil
	})
	f := newFile(t)
	data := numbered(3000 * BlockSize)
	var bufs [][]byte
	for i := 0; i < len(data); i += 2 * BlockSize {
		bufs = append(bufs, data[i:i+2*BlockSize])
	}
	if err := f.WritevAt(bufs, 0); err != nil {
		t.Fatal(err)
	}
	got := AlignedBytes(len(data))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("wrong bytes, %v", err)
	}

	replace(t, &pwritev, func(int, []unix.Iovec, int64) (int, error) { return 0, nil })
	if err := f.WritevAt(bufs, 0); !errors.Is(err, io.ErrShortWrite) {
		t.Fatalf("a write of nothing says %v", err)
	}
}

// TestInterruptedSyncedWrites lets the writes that sync be interrupted or come up short, at any byte, on kernels that know the call and
// on others. Whole blocks must come out, and at the end nothing may be left that no sync has covered.
func TestInterruptedSyncedWrites(t *testing.T) {
	for name, missing := range map[string]error{"one call": nil, "not in the kernel": unix.ENOSYS, "not in the file system": unix.EOPNOTSUPP} {
		t.Run(name, func(t *testing.T) {
			rng := rand.New(rand.NewPCG(5, 6))
			interrupted := func() bool { return rng.IntN(3) == 0 }
			unsynced := 0
			replace(t, &pwritev2, func(fd int, v *unix.Iovec, off int64, flags int) (int, error) {
				switch {
				case missing != nil:
					return 0, missing
				case interrupted():
					return 0, unix.EINTR
				case flags != unix.RWF_DSYNC:
					t.Errorf("flags %#x", flags)
				}
				short := *v
				short.SetLen(BlockSize + rng.IntN(int(v.Len)-BlockSize+1))
				return rawPwritev2(fd, &short, off, flags)
			})
			replace(t, &pwrite, func(fd int, p []byte, off int64) (int, error) {
				if missing == nil {
					t.Error("a second way to write was tried")
				}
				if interrupted() {
					return -1, unix.EINTR
				}
				n, err := unix.Pwrite(fd, p[:BlockSize+rng.IntN(len(p)-BlockSize+1)], off)
				unsynced += n
				return n, err
			})
			replace(t, &fdatasync, func(fd int) error {
				if missing == nil {
					t.Error("synced twice")
				}
				if interrupted() {
					return unix.EINTR
				}
				unsynced = 0
				return unix.Fdatasync(fd)
			})
			f := newFile(t)
			for range 20 {
				data := numbered((1 + rng.IntN(10)) * BlockSize)
				rng.Shuffle(len(data), func(i, j int) { data[i], data[j] = data[j], data[i] })
				off := int64(rng.IntN(4)) * BlockSize
				if n, err := f.WriteSyncAt(data, off); n != len(data) || err != nil {
					t.Fatalf("%d of %d bytes, %v", n, len(data), err)
				}
				if unsynced > 0 {
					t.Fatalf("%d bytes are not synced", unsynced)
				}
				got := AlignedBytes(len(data))
				if _, err := f.ReadAt(got, off); err != nil || !bytes.Equal(got, data) {
					t.Fatalf("wrong bytes, %v", err)
				}
			}
		})
	}
}

// TestSyncedWritesFail: whatever goes wrong is said, and what is no sign of a kernel without the call is not tried another way.
func TestSyncedWritesFail(t *testing.T) {
	f := newFile(t)
	data := numbered(2 * BlockSize)
	replace(t, &pwritev2, func(int, *unix.Iovec, int64, int) (int, error) { return 0, unix.ENOSPC })
	if _, err := f.WriteSyncAt(data, 0); !errors.Is(err, ErrNoSpace) {
		t.Errorf("a full disk says %v", err)
	}
	replace(t, &pwritev2, func(int, *unix.Iovec, int64, int) (int, error) { return 0, unix.EIO })
	if _, err := f.WriteSyncAt(data, 0); !errors.Is(err, unix.EIO) {
		t.Errorf("a broken disk says %v", err)
	}
	replace(t, &pwritev2, func(int, *unix.Iovec, int64, int) (int, error) { return 100, nil })
	if _, err := f.WriteSyncAt(data, 0); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a part of a block says %v", err)
	}
	if n, err := f.Size(); n != 0 || err != nil {
		t.Errorf("%d bytes were written another way, %v", n, err)
	}
	replace(t, &pwritev2, func(int, *unix.Iovec, int64, int) (int, error) { return 0, unix.ENOSYS })
	replace(t, &fdatasync, func(int) error { return unix.EIO })
	if _, err := f.WriteSyncAt(data, 0); !errors.Is(err, unix.EIO) {
		t.Errorf("a sync that fails, after a write of its own, says %v", err)
	}
}

// TestUnsyncedMakesNoSyncedWrite: without syncs there is no call that syncs.
func TestUnsyncedMakesNoSyncedWrite(t *testing.T) {
	replace(t, &pwritev2, func(int, *unix.Iovec, int64, int) (int, error) {
		t.Error("a write that syncs")
		return 0, unix.EIO
	})
	replace(t, &fdatasync, func(int) error {
		t.Error("a sync")
		return nil
	})
	f, err := Unsynced(NewBuffered()).Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := f.WriteSyncAt(numbered(BlockSize), 0); n != BlockSize || err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
}

// TestPreallocateWithoutFallocate checks the way of file systems that cannot reserve space.
func TestPreallocateWithoutFallocate(t *testing.T) {
	replace(t, &fallocate, func(int, uint32, int64, int64) error { return unix.EOPNOTSUPP })
	f := newFile(t)
	data := numbered(BlockSize)
	if _, err := f.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1000); err != nil {
		t.Fatal(err)
	}
	const size = 3<<20 + 77
	if err := f.Preallocate(size); err != nil {
		t.Fatal(err)
	}
	got := AlignedBytes(4 << 20)
	n, err := f.ReadAt(got, 0)
	if n != size || err != io.EOF {
		t.Fatalf("read %d, %v", n, err)
	}
	want := make([]byte, size)
	copy(want, data[:1000])
	if !bytes.Equal(got[:n], want) {
		t.Fatal("wrong bytes")
	}
	var st unix.Stat_t
	if err := unix.Fstat(f.(*osFile).fd, &st); err != nil || st.Blocks*512 < 3<<20-BlockSize {
		t.Fatalf("%d bytes are allocated, %v", st.Blocks*512, err)
	}
}

func TestFullDisk(t *testing.T) {
	f := newFile(t)
	replace(t, &fallocate, func(fd int, _ uint32, off, n int64) error {
		if err := unix.Ftruncate(fd, off+n/2); err != nil { // a part was taken
			return err
		}
		return unix.ENOSPC
	})
	if err := f.Preallocate(1 << 20); !errors.Is(err, ErrNoSpace) || !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("error is %v", err)
	}
	if n, err := f.Size(); n != 0 || err != nil {
		t.Fatalf("%d bytes are left behind, %v", n, err)
	}
	replace(t, &pwritev, func(int, []unix.Iovec, int64) (int, error) { return -1, unix.EDQUOT })
	if err := f.WritevAt([][]byte{numbered(BlockSize)}, 0); !errors.Is(err, ErrNoSpace) {
		t.Fatalf("error is %v", err)
	}
	replace(t, &fdatasync, func(int) error { return unix.EIO })
	if err := f.Sync(); !errors.Is(err, unix.EIO) {
		t.Fatalf("error is %v", err)
	}
}

// TestCloseWaits checks that the descriptor lives until the last call is done with it.
func TestCloseWaits(t *testing.T) {
	f := newFile(t).(*osFile)
	in, out := make(chan struct{}), make(chan struct{})
	replace(t, &fdatasync, func(fd int) error {
		close(in)
		<-out
		return unix.Fdatasync(fd)
	})
	synced := make(chan error)
	go func() { synced <- f.Sync() }()
	<-in
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Size(); err == nil {
		t.Fatal("a closed file has a size")
	}
	close(out)
	if err := <-synced; err != nil {
		t.Fatalf("sync under way: %v", err)
	}
	if err := unix.Fdatasync(f.fd); err != unix.EBADF {
		t.Fatalf("the descriptor is still open: %v", err)
	}
}

// TestFileSystemWithoutDirect checks the fallback on tmpfs, which has refused O_DIRECT for most of its life.
func TestFileSystemWithoutDirect(t *testing.T) {
	fsys, err := NewOS("/dev/shm/" + "quorumlog-disk-test")
	if err != nil {
		t.Skipf("no tmpfs: %v", err)
	}
	defer fsys.RemoveAll("/dev/shm/quorumlog-disk-test")
	name := "/dev/shm/quorumlog-disk-test/f"
	if err := fsys.WriteFile(name, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got, err := fsys.ReadFile(name); err != nil || string(got) != "hello" {
		t.Fatalf("read %q, %v", got, err)
	}
}

// TestStartOnFullDisk does what a start does in a directory that was used before, on a file system without a free block.
func TestStartOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("quorumlog-test", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("cannot mount a file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	start := func() error {
		fsys, err := NewOS(dir)
		if err != nil {
			return err
		}
		l, err := fsys.Lock(dir + "/.lock")
		if err != nil {
			return err
		}
		var held *LockedError
		if _, err := fsys.Lock(dir + "/.lock"); !errors.As(err, &held) || held.PID != os.Getpid() {
			t.Errorf("the second lock: %v", err)
		}
		return l.Close()
	}
	if err := start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/others", make([]byte, 1<<20), 0o600); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the disk is not full: %v", err)
	}
	if err := start(); err != nil {
		t.Errorf("on a full disk: %v", err)
	}
}
