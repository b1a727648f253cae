package wal

import (
	"errors"
	"io"
	"syscall"
	"time"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// reliefFS is what journal and segments are written through. It has two reliefs: files of idle segments are closed when there are no
// descriptors left, and a round waits for space, as does a removal while there is some of the ballast. All others see a shortage of space,
// and handle it.
type reliefFS struct {
	disk.FS
	s *Store
}

const (
	descriptorTries = 10               // of one who found no descriptor left
	idleClosed      = 32               // segments closed for each of them
	descriptorPause = time.Millisecond // before the second try where none was idle; twice as long before each one after it
)

func isNoDescriptor(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// withDescriptor runs an operation that opens a file. Where no segment is idle others have just closed those that were, for themselves, or
// read a few bytes of the last ones: whoever gave up then would end a store for want of a moment.
func (s *Store) withDescriptor(op func() error) error {
	pause := descriptorPause
	for try := 1; ; try++ {
		err := op()
		if !isNoDescriptor(err) || try == descriptorTries {
			return err
		}
		if s.files.closeIdle(idleClosed) == 0 {
			if !s.pause(pause) {
				return err
			}
			pause *= 2
		}
	}
}

// Direct is for disk.IsDirect.
func (r reliefFS) Direct() bool { return disk.IsDirect(r.FS) }

func (r reliefFS) Create(name string) (disk.File, error)   { return r.open(name, r.FS.Create) }
func (r reliefFS) Open(name string) (disk.File, error)     { return r.open(name, r.FS.Open) }
func (r reliefFS) OpenRead(name string) (disk.File, error) { return r.open(name, r.FS.OpenRead) }

func (r reliefFS) open(name string, open func(string) (disk.File, error)) (f disk.File, err error) {
	err = r.s.withDescriptor(func() error {
		f, err = open(name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return reliefFile{f, r.s}, nil
}

func (r reliefFS) SyncDir(dir string) error {
	return r.s.withDescriptor(func() error { return r.FS.SyncDir(dir) })
}

// Remove gives up some of the ballast where a removal needs space, as it does on file systems that never write in place: what frees space
// must not wait for it.
func (r reliefFS) Remove(name string) error {
	return r.s.space.must(leastGiven, func() error { return r.FS.Remove(name) })
}

// RemoveAll is as Remove.
func (r reliefFS) RemoveAll(dir string) error {
	return r.s.space.must(leastGiven, func() error {
		return r.s.withDescriptor(func() error { return r.FS.RemoveAll(dir) })
	})
}

func (r reliefFS) List(dir string) (names []string, err error) {
	err = r.s.withDescriptor(func() error {
		names, err = r.FS.List(dir)
		return err
	})
	return names, err
}

func (r reliefFS) ReadFile(name string) ([]byte, error) { return disk.ReadWhole(r, name) }

func (r reliefFS) WriteFile(name string, data []byte) error { return disk.ReplaceFile(r, name, data) }

func (r reliefFS) Lock(name string) (l io.Closer, err error) {
	err = r.s.space.insist("lock "+name, leastGiven, func() error {
		return r.s.withDescriptor(func() error {
			l, err = r.FS.Lock(name)
			return err
		})
	})
	return l, err
}

type reliefFile struct {
	disk.File
	s *Store
}

// WriteSyncAt is a round's: it writes to a file that has its blocks, which is no promise on file systems that never write in place.
func (f reliefFile) WriteSyncAt(p []byte, off int64) (int, error) {
	n, err := f.File.WriteSyncAt(p, off)
	if err == nil || !isNoSpace(err) {
		return n, err
	}
	err = f.s.space.insist("write a round to the journal", int64(len(p)), func() error {
		n, err = f.File.WriteSyncAt(p, off)
		return err
	})
	return n, err
}
