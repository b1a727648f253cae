package disksim

import (
	"io"
	"io/fs"
	"syscall"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// file is a handle.
type file struct {
	d      *Disk
	n      *inode
	name   string
	write  bool
	closed bool // guarded by d.mu
}

var _ disk.File = (*file)(nil)

// usable is called with d.mu held.
func (f *file) usable(op string, write bool) error {
	switch {
	case f.closed:
		return pathError(op, f.name, fs.ErrClosed)
	case write && !f.write:
		return pathError(op, f.name, syscall.EBADF)
	}
	return nil
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	if err := f.WritevAt([][]byte{p}, off); err != nil {
		return 0, err
	}
	return len(p), nil
}

// WriteSyncAt is two operations: a crash may come between them, and either may fail.
func (f *file) WriteSyncAt(p []byte, off int64) (int, error) {
	n, err := f.WriteAt(p, off)
	if err != nil {
		return n, err
	}
	return n, f.Sync()
}

func (f *file) WritevAt(bufs [][]byte, off int64) error {
	bytes, err := disk.CheckVector(bufs, off)
	if err != nil {
		return err
	}
	op := Op{Kind: OpWrite, Name: f.name, Offset: off, Bytes: bytes}
	return f.d.do(op, func(h how) error {
		if err := f.usable("write", true); err != nil {
			return err
		}
		todo := bytes
		if h != whole {
			todo = f.d.rng.Int64N(bytes/disk.BlockSize+1) * disk.BlockSize
		}
		noSpace := f.d.take(f.n, off+todo)
		if noSpace != nil { // what fits below the bytes already taken is written
			todo = min(todo, max(f.n.taken-off, 0))
		}
		at := off
		for _, p := range bufs {
			p = p[:min(int64(len(p)), off+todo-at)]
			f.n.write(p, at)
			at += int64(len(p))
		}
		if noSpace != nil {
			return pathError("write", f.name, noSpace)
		}
		return nil
	})
}

func (f *file) ReadAt(p []byte, off int64) (n int, err error) {
	if err := disk.CheckAligned(p, off); err != nil {
		return 0, err
	}
	op := Op{Kind: OpRead, Name: f.name, Offset: off, Bytes: int64(len(p))}
	err = f.d.do(op, func(h how) error {
		if err := f.usable("read", false); err != nil {
			return err
		}
		if h == failed {
			return nil
		}
		if n = f.n.read(p, off); n < len(p) {
			return io.EOF
		}
		return nil
	})
	return n, err
}

func (f *file) Sync() error {
	return f.d.do(Op{Kind: OpSync, Name: f.name}, func(h how) error {
		if err := f.usable("sync", false); err != nil {
			return err
		}
		switch h {
		case whole:
			f.n.sync()
		case failed:
			f.n.failSync(f.d.rng, f.d.direct)
		case part: // which blocks are on the medium is decided by the power loss anyway
		}
		return nil
	})
}

func (f *file) Preallocate(size int64) error {
	return f.d.do(Op{Kind: OpPreallocate, Name: f.name, Bytes: size}, func(h how) error {
		if err := f.usable("preallocate", true); err != nil {
			return err
		}
		if h == failed {
			return nil
		}
		if err := f.d.take(f.n, size); err != nil {
			return pathError("preallocate", f.name, err)
		}
		if size > f.n.size {
			f.n.resize(size)
		}
		return nil
	})
}

func (f *file) Truncate(size int64) error {
	return f.d.do(Op{Kind: OpTruncate, Name: f.name, Bytes: size}, func(h how) error {
		if err := f.usable("truncate", true); err != nil {
			return err
		}
		if size < 0 {
			return pathError("truncate", f.name, syscall.EINVAL)
		}
		if h == failed {
			return nil
		}
		f.n.truncate(size)
		f.d.giveBack(f.n, size)
		return nil
	})
}

func (f *file) Size() (int64, error) {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.d.halted {
		return 0, ErrHalted
	}
	if err := f.usable("stat", false); err != nil {
		return 0, err
	}
	return f.n.size, nil
}

// Close works on a halted disk too, so that the dead process can be taken down.
func (f *file) Close() error {
	f.d.mu.Lock()
	defer f.d.mu.Unlock()
	if f.closed {
		return pathError("close", f.name, fs.ErrClosed)
	}
	f.closed = true
	f.d.released(f.n)
	return nil
}
