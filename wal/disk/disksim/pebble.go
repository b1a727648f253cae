package disksim

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Pebble returns the file system for Pebble on this boot of the machine. Its operations go through the hook and count as steps.
func (d *Disk) Pebble() vfs.FS { return &pebbleFS{d: d, live: d.pebble, dead: d.scratch} }

// pebbleFS is a vfs.MemFS until the disk is halted. From then on live, which belongs to the next boot, is not changed any
// more: what the dead process writes goes to dead, and nothing fails for the reason of the halt.
type pebbleFS struct {
	d          *Disk
	live, dead *vfs.MemFS
}

var _ vfs.FS = (*pebbleFS)(nil)

// do runs an operation on the live file system, with d.mu held, or afterlife on a halted disk.
func (p *pebbleFS) do(kind OpKind, name, to string, bytes int64, live, afterlife func() error) error {
	err := p.d.do(Op{Kind: kind, Name: clean(name), New: to, Bytes: bytes, Pebble: true}, func(h how) error {
		if h == failed || h == part {
			return nil
		}
		return live()
	})
	if errors.Is(err, ErrHalted) {
		return afterlife()
	}
	return err
}

// inDead prepares the directory of a name that the dead process makes.
func (p *pebbleFS) inDead(name string) error {
	return p.dead.MkdirAll(p.dead.PathDir(name), 0)
}

func (p *pebbleFS) Create(name string, c vfs.DiskWriteCategory) (f vfs.File, err error) {
	var n *inode
	err = p.do(OpCreate, name, "", 0, func() (err error) {
		if err := p.mayCreate(name); err != nil {
			return err
		}
		if f, err = p.live.Create(name, c); err == nil {
			n = p.d.handed(p.d.pebbleNamed(name, &inode{}))
		}
		return err
	}, func() (err error) {
		if err = p.inDead(name); err == nil {
			f, err = p.dead.Create(name, c)
		}
		return err
	})
	return p.wrap(f, n, name, err)
}

// mayCreate tells whether there is a block and a descriptor for a new file. Called with d.mu.
func (p *pebbleFS) mayCreate(name string) error {
	if err := p.d.mayOpen(); err != nil {
		return pathError("create", name, err)
	}
	if p.d.roomForName() != nil {
		return pathError("create", name, syscall.ENOSPC)
	}
	return nil
}

// wrap makes the handle of a file; n is nil on the file system of the dead process and of a directory.
func (p *pebbleFS) wrap(f vfs.File, n *inode, name string, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &pebbleFile{File: f, fs: p, n: n, name: name, dead: p.pick(name) == p.dead}, nil
}

func (p *pebbleFS) Link(old, new string) error {
	return p.do(OpRename, old, new, 0, func() error {
		err := p.live.Link(old, new)
		if err == nil {
			p.d.pebbleNamed(new, p.d.pebbleFiles[clean(old)])
		}
		return err
	}, func() error {
		return errors.Join(p.inDead(new), ignoreMissing(p.dead.Link(old, new)))
	})
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) || os.IsNotExist(err) {
		return nil
	}
	return err
}

// pick returns the file system that a name is looked up in.
func (p *pebbleFS) pick(name string) *vfs.MemFS {
	if _, err := p.dead.Stat(name); err == nil {
		return p.dead
	}
	return p.live
}

func (p *pebbleFS) Open(name string, opts ...vfs.OpenOption) (f vfs.File, err error) {
	var n *inode
	err = p.do(OpOpen, name, "", 0, func() (err error) {
		if err := p.d.mayOpen(); err != nil {
			return pathError("open", name, err)
		}
		if f, err = p.live.Open(name); err == nil {
			n = p.d.handed(p.d.pebbleFiles[clean(name)])
		}
		return err
	}, func() (err error) {
		f, err = p.pick(name).Open(name)
		return err
	})
	return p.wrap(f, n, name, err)
}

func (p *pebbleFS) OpenReadWrite(name string, c vfs.DiskWriteCategory, _ ...vfs.OpenOption) (f vfs.File, err error) {
	var n *inode
	err = p.do(OpCreate, name, "", 0, func() (err error) {
		if n = p.d.pebbleFiles[clean(name)]; n == nil {
			if err := p.mayCreate(name); err != nil {
				return err
			}
			n = p.d.pebbleNamed(name, &inode{})
		} else if err := p.d.mayOpen(); err != nil {
			return pathError("open", name, err)
		}
		if f, err = p.live.OpenReadWrite(name, c); err == nil {
			p.d.handed(n)
		}
		return err
	}, func() (err error) {
		if err = p.inDead(name); err == nil {
			f, err = p.dead.OpenReadWrite(name, c)
		}
		return err
	})
	return p.wrap(f, n, name, err)
}

// OpenDir opens the directory that the living know: what the dead process syncs does not matter.
func (p *pebbleFS) OpenDir(name string) (f vfs.File, err error) {
	err = p.do(OpOpen, name, "", 0, func() (err error) {
		if err := p.d.mayOpen(); err != nil {
			return pathError("open", name, err)
		}
		if f, err = p.live.OpenDir(name); err == nil {
			p.d.handed(nil)
		}
		return err
	}, func() (err error) {
		if f, err = p.live.OpenDir(name); err != nil {
			f, err = p.dead.OpenDir(name)
		}
		return err
	})
	return p.wrap(f, nil, name, err)
}

func (p *pebbleFS) Remove(name string) error {
	return p.do(OpRemove, name, "", 0, func() error {
		err := p.live.Remove(name)
		if err == nil {
			p.d.pebbleNamed(name, nil)
		}
		return err
	}, func() error {
		return ignoreMissing(p.dead.Remove(name))
	})
}

func (p *pebbleFS) RemoveAll(name string) error {
	return p.do(OpRemove, name, "", 0, func() error {
		err := p.live.RemoveAll(name)
		if err == nil {
			p.d.pebbleForget(name)
		}
		return err
	}, func() error {
		return p.dead.RemoveAll(name)
	})
}

func (p *pebbleFS) Rename(old, new string) error {
	return p.do(OpRename, old, new, 0, func() error {
		err := p.live.Rename(old, new)
		if n := p.d.pebbleFiles[clean(old)]; err == nil && n != nil {
			p.d.pebbleNamed(new, n)
			p.d.pebbleNamed(old, nil)
		}
		return err
	}, func() error {
		return errors.Join(p.inDead(new), ignoreMissing(p.dead.Rename(old, new)))
	})
}

// ReuseForWrite makes a new file, as it may: a recycled one of the dead process would have to be copied.
func (p *pebbleFS) ReuseForWrite(old, new string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := p.Remove(old); err != nil {
		return nil, err
	}
	return p.Create(new, c)
}

func (p *pebbleFS) MkdirAll(dir string, perm os.FileMode) error {
	return p.do(OpMkdir, dir, "", 0, func() error { return p.live.MkdirAll(dir, perm) }, func() error {
		return p.dead.MkdirAll(dir, perm)
	})
}

// Lock ends with the boot, so it is kept with the Disk.
func (p *pebbleFS) Lock(name string) (io.Closer, error) {
	l, err := p.d.Lock(name)
	if errors.Is(err, ErrHalted) {
		return nil, err
	}
	if err != nil {
		return nil, syscall.EAGAIN
	}
	return l, nil
}

func (p *pebbleFS) List(dir string) ([]string, error) {
	names, err := p.live.List(dir)
	more, _ := p.dead.List(dir)
	if len(more) > 0 {
		return append(names, more...), nil
	}
	return names, err
}

func (p *pebbleFS) Stat(name string) (vfs.FileInfo, error) { return p.pick(name).Stat(name) }

func (p *pebbleFS) PathBase(name string) string    { return p.live.PathBase(name) }
func (p *pebbleFS) PathJoin(elem ...string) string { return p.live.PathJoin(elem...) }
func (p *pebbleFS) PathDir(name string) string     { return p.live.PathDir(name) }
func (p *pebbleFS) Unwrap() vfs.FS                 { return nil }
func (p *pebbleFS) GetDiskUsage(string) (vfs.DiskUsage, error) {
	return vfs.DiskUsage{}, vfs.ErrUnsupported
}

// pebbleFile is a file of a pebbleFS. Reads go straight through: a handle outlives what the next boot does to the name.
type pebbleFile struct {
	vfs.File
	fs   *pebbleFS
	n    *inode // what it takes, nil of a directory
	name string
	pos  int64 // where Write goes on
	dead bool  // on the file system of the dead process
}

func (f *pebbleFile) Write(b []byte) (n int, err error) {
	n, err = f.write(b, f.pos, f.File.Write)
	f.pos += int64(n)
	return n, err
}

func (f *pebbleFile) WriteAt(b []byte, off int64) (n int, err error) {
	return f.write(b, off, func(b []byte) (int, error) { return f.File.WriteAt(b, off) })
}

// write writes what there is room for, as a real disk does.
func (f *pebbleFile) write(b []byte, at int64, write func([]byte) (int, error)) (n int, err error) {
	if f.dead || f.n == nil {
		return write(b)
	}
	err = f.fs.do(OpWrite, f.name, "", int64(len(b)), func() (err error) {
		todo, noSpace := f.fs.d.takeSome(f.n, at, int64(len(b)))
		if todo > 0 {
			n, err = write(b[:todo])
		}
		if noSpace && err == nil {
			err = pathError("write", f.name, syscall.ENOSPC)
		}
		return err
	}, func() error {
		n = len(b)
		return nil
	})
	return n, err
}

// Close gives the descriptor back, and the space of a file without a name.
func (f *pebbleFile) Close() error {
	f.fs.d.mu.Lock()
	f.fs.d.released(f.n)
	f.fs.d.mu.Unlock()
	return f.File.Close()
}

func (f *pebbleFile) Sync() error     { return f.sync(f.File.Sync) }
func (f *pebbleFile) SyncData() error { return f.sync(f.File.SyncData) }

func (f *pebbleFile) sync(sync func() error) error {
	return f.fs.do(OpSync, f.name, "", 0, sync, func() error { return nil })
}
