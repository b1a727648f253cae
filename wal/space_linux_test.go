package wal

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/lni/goutils/leaktest"
)

// mountSmall mounts a file system in memory of so many bytes, which is gone when the test ends.
func mountSmall(t *testing.T, size string) string {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a file system cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fillUp writes a file until there is no space, as somebody else might, and returns how many bytes it holds.
func fillUp(t *testing.T, name string) (n int64) {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	for size := mib; size >= 512; {
		k, err := f.Write(make([]byte, size))
		if n += int64(k); err != nil {
			size /= 2
		}
	}
	return n
}

// TestFullFileSystem fills a real file system beside a store: it votes on, is closed and opened, and goes on when there is space.
func TestFullFileSystem(t *testing.T) {
	defer leaktest.AfterTest(t)()
	mounted := mountSmall(t, "64m")
	hog := filepath.Join(mounted, "hog")
	o := testOptions(nil, nil, filepath.Join(mounted, "data"))
	o.JournalFileBytes, o.CheckpointBytes = mib, mib
	o.OnFatal = func(err error) { t.Errorf("fatal: %v", err) }
	s := mustOpen(t, o)
	awaitBallast(t, s)
	d := newDriver(t, s, mustCreate(t, s, 1))
	for range 100 {
		d.submit(d.batchEntry(20 << 10))
		d.wait(1)
	}
	d.commitAll()
	for start := range 5 {
		if fillUp(t, hog) == 0 && start == 0 {
			t.Fatal("there was nothing to fill up")
		}
		awaitPressure(t, s, PressureNoSpace)
		for range 500 {
			d.vote()
		}
		d.check()
		if err := s.Close(); err != nil && !isNoSpace(err) {
			t.Fatal(err)
		}
		fillUp(t, hog)
		s = mustOpen(t, o)
		d.s, d.l = s, findLog(t, s, 1)
		d.check()
	}
	if err := os.Remove(hog); err != nil {
		t.Fatal(err)
	}
	awaitPressure(t, s, PressureNone)
	awaitBallast(t, s)
	for range 100 {
		d.submit(d.batchEntry(20 << 10))
		d.wait(1)
	}
	d.check()
	closeStore(t, s)
}
