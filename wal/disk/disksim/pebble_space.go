package disksim

import (
	"strings"
	"syscall"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// The space that Pebble's files take, beside the MemFS that holds their bytes. Inodes without content stand for the files. All is
// called with d.mu.

// pebbleNamed gives a name of Pebble's to a file, or with nil to none. Whatever had it before has a name less.
func (d *Disk) pebbleNamed(name string, n *inode) *inode {
	name = clean(name)
	old := d.pebbleFiles[name]
	if n != nil {
		n.links++
		d.pebbleFiles[name] = n
	} else {
		delete(d.pebbleFiles, name)
	}
	if old != nil {
		d.unlinked(old)
	}
	return n
}

// pebbleForget takes the names of a directory and of all below it away.
func (d *Disk) pebbleForget(dir string) {
	dir = clean(dir)
	for name := range d.pebbleFiles {
		if name == dir || strings.HasPrefix(name, dir+"/") {
			d.pebbleNamed(name, nil)
		}
	}
}

// countPebble takes stock of Pebble's files after a crash.
func (d *Disk) countPebble(dir string) {
	names, err := d.pebble.List(dir)
	if err != nil {
		return
	}
	for _, name := range names {
		name = d.pebble.PathJoin(dir, name)
		info, err := d.pebble.Stat(name)
		switch {
		case err != nil:
		case info.IsDir():
			d.countPebble(name)
		default:
			n := d.pebbleNamed(name, &inode{taken: disk.RoundUp(info.Size())})
			d.used += n.taken
		}
	}
}

// takeSome accounts for as much of [at, at+bytes) of a file as there is room for.
func (d *Disk) takeSome(n *inode, at, bytes int64) (todo int64, noSpace bool) {
	if d.take(n, at+bytes) == nil {
		return bytes, false
	}
	todo = min(max(n.taken+disk.RoundDown(max(d.capacity-d.used, 0))-at, 0), bytes)
	_ = d.take(n, at+todo)
	return todo, true
}

// roomForName says whether there is the block that a new name may need.
func (d *Disk) roomForName() error {
	if d.capacity != 0 && d.used+disk.BlockSize > d.capacity {
		return disk.ErrNoSpace
	}
	return nil
}

// mayOpen says whether there is a descriptor for one more file.
func (d *Disk) mayOpen() error {
	if d.openFiles > 0 && d.handles >= d.openFiles {
		return syscall.EMFILE
	}
	return nil
}

// handed counts a handle of a file; n is nil of a directory.
func (d *Disk) handed(n *inode) *inode {
	d.handles++
	if n != nil {
		n.opens++
	}
	return n
}

// released takes back a handle; n is nil of a directory.
func (d *Disk) released(n *inode) {
	if d.halted {
		return
	}
	d.handles--
	if n != nil {
		n.opens--
		d.reap(n)
	}
}
