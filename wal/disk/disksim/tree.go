package disksim

import (
	"errors"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/quorumlog/quorumlog/wal/disk"
)

var _ disk.FS = (*Disk)(nil)

// change is one change of names. It is kept or lost as a whole by a power loss, and in order within a directory.
type change struct {
	from     *inode // directory that loses a name; nil of a create
	fromName string
	to       *inode // directory that gains one; nil of an unlink
	toName   string
	node     *inode
}

// apply makes the change in one of the two sets of names, unless what it starts from is not there.
func (c *change) apply(names func(dir *inode) map[string]*inode) {
	if c.from != nil {
		if names(c.from)[c.fromName] != c.node {
			return
		}
		delete(names(c.from), c.fromName)
	}
	if c.to != nil {
		names(c.to)[c.toName] = c.node
	}
}

// dir is the directory whose sync makes the change durable.
func (c *change) dir() *inode {
	if c.to != nil {
		return c.to
	}
	return c.from
}

// record makes a change for the running system and leaves it pending for the medium.
func (d *Disk) record(c change) {
	if c.to != nil {
		if old := c.to.names[c.toName]; old != nil {
			d.unlinked(old)
		}
	}
	c.apply(func(dir *inode) map[string]*inode { return dir.names })
	if c.to == nil {
		d.unlinked(c.node)
	} else if c.from == nil {
		c.node.links++
	}
	d.pending = append(d.pending, c)
}

func (d *Disk) unlinked(n *inode) {
	n.links--
	d.reap(n)
}

// reap gives back the space of a file that nobody can reach any more.
func (d *Disk) reap(n *inode) {
	if n.links == 0 && n.opens == 0 {
		d.used -= n.taken
		n.taken = 0
	}
}

func clean(name string) string { return path.Clean("/" + name) }

func pathError(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// maxName is how long a name may be, as on the file systems of real machines (NAME_MAX).
const maxName = 255

// find returns what has a name.
func (d *Disk) find(op, name string) (*inode, error) {
	n := d.root
	for part := range strings.SplitSeq(strings.Trim(clean(name), "/"), "/") {
		if part == "" {
			continue
		}
		if len(part) > maxName {
			return nil, pathError(op, name, syscall.ENAMETOOLONG)
		}
		if !n.dir {
			return nil, pathError(op, name, syscall.ENOTDIR)
		}
		if n = n.names[part]; n == nil {
			return nil, pathError(op, name, fs.ErrNotExist)
		}
	}
	return n, nil
}

// parent returns the directory that name is or would be in, and its last part.
func (d *Disk) parent(op, name string) (*inode, string, error) {
	dir, err := d.find(op, path.Dir(clean(name)))
	if err != nil {
		return nil, "", err
	}
	if !dir.dir {
		return nil, "", pathError(op, name, syscall.ENOTDIR)
	}
	base := path.Base(clean(name))
	if len(base) > maxName {
		return nil, "", pathError(op, name, syscall.ENAMETOOLONG)
	}
	return dir, base, nil
}

// Create implements disk.FS.
func (d *Disk) Create(name string) (disk.File, error) {
	op := Op{Kind: OpCreate, Name: clean(name)}
	var f *file
	err := d.do(op, func(h how) error {
		if h == failed {
			return nil
		}
		dir, base, err := d.parent("create", op.Name)
		if err != nil {
			return err
		}
		if dir.names[base] != nil {
			return pathError("create", op.Name, fs.ErrExist)
		}
		if err := errors.Join(d.mayOpen(), d.roomForName()); err != nil {
			return pathError("create", op.Name, err)
		}
		n := d.newInode(false)
		d.record(change{to: dir, toName: base, node: n})
		f = d.open(n, op.Name, true)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Open implements disk.FS.
func (d *Disk) Open(name string) (disk.File, error) { return d.openNamed(name, true) }

// OpenRead implements disk.FS.
func (d *Disk) OpenRead(name string) (disk.File, error) { return d.openNamed(name, false) }

func (d *Disk) openNamed(name string, write bool) (disk.File, error) {
	op := Op{Kind: OpOpen, Name: clean(name)}
	var f *file
	err := d.do(op, func(h how) error {
		if h == failed {
			return nil
		}
		n, err := d.find("open", op.Name)
		if err != nil {
			return err
		}
		if n.dir {
			return pathError("open", op.Name, syscall.EISDIR)
		}
		if err := d.mayOpen(); err != nil {
			return pathError("open", op.Name, err)
		}
		f = d.open(n, op.Name, write)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d *Disk) open(n *inode, name string, write bool) *file {
	return &file{d: d, n: d.handed(n), name: name, write: write}
}

// MkdirAll implements disk.FS. Each directory is a step.
func (d *Disk) MkdirAll(dir string) error {
	dir = clean(dir)
	if dir == "/" {
		return nil
	}
	if info, err := d.Stat(dir); err == nil {
		if !info.Dir {
			return pathError("mkdir", dir, syscall.ENOTDIR)
		}
		return nil
	}
	if err := d.MkdirAll(path.Dir(dir)); err != nil {
		return err
	}
	return d.do(Op{Kind: OpMkdir, Name: dir}, func(h how) error {
		if h == failed {
			return nil
		}
		up, base, err := d.parent("mkdir", dir)
		if err != nil || up.names[base] != nil {
			return err
		}
		if err := d.roomForName(); err != nil {
			return pathError("mkdir", dir, err)
		}
		d.record(change{to: up, toName: base, node: d.newInode(true)})
		return nil
	})
}

// Remove implements disk.FS.
func (d *Disk) Remove(name string) error {
	name = clean(name)
	return d.do(Op{Kind: OpRemove, Name: name}, func(h how) error {
		if h == failed {
			return nil
		}
		dir, base, err := d.parent("remove", name)
		if err != nil {
			return err
		}
		n := dir.names[base]
		if n == nil {
			return pathError("remove", name, fs.ErrNotExist)
		}
		if len(n.names) > 0 {
			return pathError("remove", name, syscall.ENOTEMPTY)
		}
		d.record(change{from: dir, fromName: base, node: n})
		return nil
	})
}

// RemoveAll implements disk.FS. Each unlink is a step, so that a crash leaves part of the tree.
func (d *Disk) RemoveAll(dir string) error {
	info, err := d.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Dir {
		names, err := d.List(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			if err := d.RemoveAll(path.Join(dir, name)); err != nil {
				return err
			}
		}
	}
	return d.Remove(dir)
}

// Rename implements disk.FS.
func (d *Disk) Rename(old, new string) error {
	op := Op{Kind: OpRename, Name: clean(old), New: clean(new)}
	return d.do(op, func(h how) error {
		if h == failed {
			return nil
		}
		from, fromName, err := d.parent("rename", op.Name)
		if err != nil {
			return err
		}
		to, toName, err := d.parent("rename", op.New)
		if err != nil {
			return err
		}
		n, old := from.names[fromName], to.names[toName]
		switch {
		case n == nil:
			return pathError("rename", op.Name, fs.ErrNotExist)
		case n == old:
			return nil
		case old != nil && old.dir != n.dir:
			return pathError("rename", op.New, syscall.EISDIR)
		case old != nil && len(old.names) > 0:
			return pathError("rename", op.New, syscall.ENOTEMPTY)
		}
		d.record(change{from: from, fromName: fromName, to: to, toName: toName, node: n})
		return nil
	})
}

// SyncDir implements disk.FS.
func (d *Disk) SyncDir(dir string) error {
	dir = clean(dir)
	return d.do(Op{Kind: OpSyncDir, Name: dir}, func(h how) error {
		n, err := d.find("syncdir", dir)
		if err != nil {
			return err
		}
		if !n.dir {
			return pathError("syncdir", dir, syscall.ENOTDIR)
		}
		d.settle(n, func() bool { return h == whole || d.rng.IntN(2) == 0 })
		return nil
	})
}

// settle makes the pending changes of a directory durable, in order, until more says no.
func (d *Disk) settle(dir *inode, more func() bool) {
	stopped := false
	d.pending = slices.DeleteFunc(d.pending, func(c change) bool {
		if stopped || c.dir() != dir {
			return false
		}
		if stopped = !more(); stopped {
			return false
		}
		c.apply(func(dir *inode) map[string]*inode { return dir.durable })
		return true
	})
}

// List implements disk.FS.
func (d *Disk) List(dir string) ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.halted {
		return nil, ErrHalted
	}
	n, err := d.find("list", dir)
	if err != nil {
		return nil, err
	}
	if !n.dir {
		return nil, pathError("list", dir, syscall.ENOTDIR)
	}
	return slices.Sorted(maps.Keys(n.names)), nil
}

// Stat implements disk.FS.
func (d *Disk) Stat(name string) (disk.Info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.halted {
		return disk.Info{}, ErrHalted
	}
	n, err := d.find("stat", name)
	if err != nil {
		return disk.Info{}, err
	}
	return disk.Info{Size: n.size, Dir: n.dir}, nil
}

// ReadFile implements disk.FS.
func (d *Disk) ReadFile(name string) ([]byte, error) { return disk.ReadWhole(d, name) }

// WriteFile implements disk.FS.
func (d *Disk) WriteFile(name string, data []byte) error { return disk.ReplaceFile(d, name, data) }
