package wal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// pebbleRelief is what Pebble is written through. Pebble takes an error of a write for the end of the process: it panics in the middle
// of its locks, where nobody can catch it, or goes on as if nothing had happened. So it sees none. A shortage of space is relieved or
// waited out; any other error fails the store, and the store believes nothing that Pebble says from then on (see metaCommit).
//
// After the store has failed nothing reaches the disk any more: what Pebble writes then could build on what was not written. It is told
// that all went well and gets its files in memory, so that it can be closed.
type pebbleRelief struct {
	vfs.FS
	s    *Store
	dead *vfs.MemFS // what Pebble makes after the store has failed
}

func newPebbleRelief(fsys vfs.FS, s *Store) *pebbleRelief {
	return &pebbleRelief{FS: fsys, s: s, dead: vfs.NewMem()}
}

// change runs an operation that changes the disk; false: the store has failed, and nothing was done.
func (s *Store) change(what string, bytes int64, op func() error) bool {
	if s.failed() {
		return false
	}
	err := s.space.insist("Pebble: "+what, bytes, func() error { return s.withDescriptor(op) })
	if err != nil {
		s.fail(fmt.Errorf("wal: pebble: %s: %w", what, err))
	}
	return err == nil
}

// inDead makes the directory of a name that is made after the end.
func (p *pebbleRelief) inDead(name string) error { return p.dead.MkdirAll(p.dead.PathDir(name), 0) }

// pick returns the file system that a name is looked up in.
func (p *pebbleRelief) pick(name string) vfs.FS {
	if _, err := p.dead.Stat(name); err == nil {
		return p.dead
	}
	return p.FS
}

func missing(err error) bool { return errors.Is(err, fs.ErrNotExist) || os.IsNotExist(err) }

func ignoreMissing(err error) error {
	if missing(err) {
		return nil
	}
	return err
}

// make makes a file, on the disk or after the end.
func (p *pebbleRelief) make(what, name string, onDisk func() (vfs.File, error), c vfs.DiskWriteCategory) (f vfs.File, err error) {
	done := p.s.change(what+" "+name, leastGiven, func() (err error) {
		f, err = onDisk()
		return err
	})
	if done {
		return &pebbleReliefFile{f, p.s, name}, nil
	}
	if err := p.inDead(name); err != nil {
		return nil, err
	}
	return p.dead.OpenReadWrite(name, c)
}

func (p *pebbleRelief) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return p.make("create", name, func() (vfs.File, error) { return p.FS.Create(name, c) }, c)
}

func (p *pebbleRelief) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return p.make("open", name, func() (vfs.File, error) { return p.FS.OpenReadWrite(name, c, o...) }, c)
}

// ReuseForWrite renames and opens. When the second fails the first is done.
func (p *pebbleRelief) ReuseForWrite(old, new string, c vfs.DiskWriteCategory) (vfs.File, error) {
	tried := false
	return p.make("reuse", new, func() (vfs.File, error) {
		f, err := p.FS.ReuseForWrite(old, new, c)
		if tried && missing(err) {
			f, err = p.FS.Create(new, c)
		}
		tried = true
		return f, err
	}, c)
}

func (p *pebbleRelief) Link(old, new string) error {
	if p.s.change("link "+new, leastGiven, func() error { return p.FS.Link(old, new) }) {
		return nil
	}
	return errors.Join(p.inDead(new), ignoreMissing(p.dead.Link(old, new)))
}

func (p *pebbleRelief) Rename(old, new string) error {
	if p.s.change("rename "+old, leastGiven, func() error { return p.FS.Rename(old, new) }) {
		return nil
	}
	return errors.Join(p.inDead(new), ignoreMissing(p.dead.Rename(old, new)))
}

func (p *pebbleRelief) MkdirAll(dir string, perm os.FileMode) error {
	if p.s.change("mkdir "+dir, leastGiven, func() error { return p.FS.MkdirAll(dir, perm) }) {
		return nil
	}
	return p.dead.MkdirAll(dir, perm)
}

func (p *pebbleRelief) Remove(name string) error {
	return p.remove(name, p.FS.Remove, p.dead.Remove)
}

func (p *pebbleRelief) RemoveAll(name string) error {
	return p.remove(name, p.FS.RemoveAll, p.dead.RemoveAll)
}

// remove lets Pebble learn that there is no such file: it asks.
func (p *pebbleRelief) remove(name string, onDisk, inMemory func(string) error) (err error) {
	done := p.s.change("remove "+name, leastGiven, func() error {
		if err = onDisk(name); missing(err) {
			return nil
		}
		return err
	})
	if done {
		return err
	}
	return ignoreMissing(inMemory(name))
}

// The rest reads. Pebble hands errors of these on to whoever asked.

func (p *pebbleRelief) Open(name string, o ...vfs.OpenOption) (f vfs.File, err error) {
	err = p.s.withDescriptor(func() error {
		f, err = p.pick(name).Open(name, o...)
		return err
	})
	return f, err
}

func (p *pebbleRelief) OpenDir(name string) (f vfs.File, err error) {
	err = p.s.withDescriptor(func() error {
		f, err = p.FS.OpenDir(name)
		return err
	})
	if err == nil {
		return &pebbleReliefFile{f, p.s, name}, nil
	}
	if p.s.failed() {
		return p.dead.OpenDir(name)
	}
	return nil, err
}

func (p *pebbleRelief) Lock(name string) (l io.Closer, err error) {
	err = p.s.space.insist("lock "+name, leastGiven, func() error {
		return p.s.withDescriptor(func() error {
			l, err = p.FS.Lock(name)
			return err
		})
	})
	return l, err
}

func (p *pebbleRelief) List(dir string) ([]string, error) {
	names, err := p.FS.List(dir)
	more, _ := p.dead.List(dir)
	if len(more) == 0 {
		return names, err
	}
	names = append(names, more...)
	slices.Sort(names)
	return slices.Compact(names), nil
}

func (p *pebbleRelief) Stat(name string) (vfs.FileInfo, error) { return p.pick(name).Stat(name) }

// Unwrap is for vfs.Root.
func (p *pebbleRelief) Unwrap() vfs.FS { return p.FS }

// pebbleReliefFile is a file or directory that was opened before the store failed.
type pebbleReliefFile struct {
	vfs.File
	s    *Store
	name string
}

// Write goes on where a shortage interrupted it.
func (f *pebbleReliefFile) Write(b []byte) (int, error) {
	done := 0
	f.s.change("write "+f.name, int64(len(b)), func() error {
		n, err := f.File.Write(b[done:])
		done += n
		return err
	})
	return len(b), nil
}

func (f *pebbleReliefFile) WriteAt(b []byte, off int64) (int, error) {
	f.s.change("write "+f.name, int64(len(b)), func() error {
		_, err := f.File.WriteAt(b, off)
		return err
	})
	return len(b), nil
}

// Preallocate is a hint: what it fails to take, the writes take.
func (f *pebbleReliefFile) Preallocate(offset, length int64) error {
	if !f.s.failed() {
		_ = f.File.Preallocate(offset, length)
	}
	return nil
}

// Syncs are final: what a failed one left behind is for the next start to find out.

func (f *pebbleReliefFile) Sync() error     { return f.sync(f.File.Sync) }
func (f *pebbleReliefFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *pebbleReliefFile) sync(sync func() error) error {
	if f.s.failed() {
		return nil
	}
	if err := sync(); err != nil {
		f.s.fail(fmt.Errorf("wal: pebble: sync %s: %w", f.name, err))
	}
	return nil
}

func (f *pebbleReliefFile) SyncTo(length int64) (full bool, err error) {
	err = f.sync(func() error {
		full, err = f.File.SyncTo(length)
		return err
	})
	return full, err
}

func (f *pebbleReliefFile) Close() error {
	if err := f.File.Close(); err != nil && !f.s.failed() {
		f.s.fail(fmt.Errorf("wal: pebble: close %s: %w", f.name, err))
	}
	return nil
}
