package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	filePerm = 0o640
	dirPerm  = 0o750
)

// osFS is the file system of the machine.
type osFS struct {
	flags int // to open files with, besides the access mode: O_DIRECT or nothing
}

// NewDirect returns the machine's file system with files that bypass the page cache. Opening one fails where the file
// system does not allow that: see NewOS.
func NewDirect() FS { return &osFS{flags: oDirect | unix.O_CLOEXEC} }

// NewBuffered returns the machine's file system with files that go through the page cache.
func NewBuffered() FS { return &osFS{flags: unix.O_CLOEXEC} }

// NewOS returns NewDirect where the file system that holds dir allows it, else NewBuffered. It makes dir if there is none.
func NewOS(dir string) (FS, error) {
	direct := NewDirect()
	if err := direct.MkdirAll(dir); err != nil {
		return nil, err
	}
	ok, err := probeDirect(dir)
	if err != nil {
		return nil, err
	}
	if !ok {
		return NewBuffered(), nil
	}
	return direct, nil
}

// Direct tells whether o bypasses the page cache: see IsDirect.
func (o *osFS) Direct() bool { return oDirect != 0 && o.flags&oDirect != 0 }

// probeName is a file of one block, which stays: a later start must be able to write it on a full disk.
const probeName = ".direct-probe"

// probeDirect writes one block with O_DIRECT: some file systems accept the flag and refuse the write. The first time it takes the block,
// through the page cache; later it overwrites it.
func probeDirect(dir string) (ok bool, err error) {
	if oDirect == 0 {
		return false, nil
	}
	name := filepath.Join(dir, probeName)
	if err := takeProbe(name); err != nil {
		return false, err
	}
	f, err := NewDirect().Open(name)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	_, err = f.WriteAt(AlignedBytes(BlockSize), 0)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return false, nil
	}
	return err == nil, err
}

// takeProbe makes the file for the probe unless it is there. Two processes may do that at once: nobody has a lock yet.
func takeProbe(name string) (err error) {
	buffered := NewBuffered()
	f, err := buffered.Create(name)
	if errors.Is(err, fs.ErrExist) {
		f, err = buffered.Open(name)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if size, err := f.Size(); err != nil || size >= BlockSize {
		return err
	}
	if _, err := f.WriteAt(AlignedBytes(BlockSize), 0); err != nil {
		return err
	}
	return f.Sync() // else a page would be dirty when the probe writes around it
}

func (o *osFS) Create(name string) (File, error) {
	return o.open(name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL)
}
func (o *osFS) Open(name string) (File, error)     { return o.open(name, unix.O_RDWR) }
func (o *osFS) OpenRead(name string) (File, error) { return o.open(name, unix.O_RDONLY) }

func (o *osFS) open(name string, flags int) (File, error) {
	for {
		fd, err := unix.Open(name, o.flags|flags, filePerm)
		if err == nil {
			return &osFile{fd: fd, name: name}, nil
		}
		if err != unix.EINTR {
			return nil, wrap("open", name, err)
		}
	}
}

func (o *osFS) MkdirAll(dir string) error    { return wrapPath(os.MkdirAll(dir, dirPerm)) }
func (o *osFS) Remove(name string) error     { return wrapPath(os.Remove(name)) }
func (o *osFS) RemoveAll(dir string) error   { return wrapPath(os.RemoveAll(dir)) }
func (o *osFS) Rename(old, new string) error { return wrapPath(os.Rename(old, new)) }

func (o *osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(wrapPath(d.Sync()), d.Close())
}

func (o *osFS) List(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (o *osFS) Stat(name string) (Info, error) {
	st, err := os.Stat(name)
	if err != nil {
		return Info{}, err
	}
	if st.IsDir() {
		return Info{Dir: true}, nil
	}
	return Info{Size: st.Size()}, nil
}

func (o *osFS) ReadFile(name string) ([]byte, error) { return ReadWhole(o, name) }

func (o *osFS) WriteFile(name string, data []byte) error { return ReplaceFile(o, name, data) }

func (o *osFS) FreeBytes(dir string) (int64, error) {
	var st unix.Statfs_t
	for {
		err := unix.Statfs(dir, &st)
		if err == nil {
			return int64(st.Bavail) * int64(st.Bsize), nil
		}
		if err != unix.EINTR {
			return 0, wrap("statfs", dir, err)
		}
	}
}

// Lock takes a flock, which the kernel drops with the process, and leaves the pid in the file for whoever comes in vain.
// The file stays behind: unlinking it would let two processes lock two files of the same name.
func (o *osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, filePerm)
	if err != nil {
		return nil, err
	}
	if err := flock(f); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = &LockedError{Name: name, PID: readPID(f)}
		}
		return nil, errors.Join(err, f.Close())
	}
	if err := writePID(f); err != nil {
		return nil, errors.Join(fmt.Errorf("disk: lock %s: %w", name, err), f.Close())
	}
	return f, nil
}

func flock(f *os.File) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return wrap("flock", f.Name(), err)
		}
		return nil
	}
}

func readPID(f *os.File) int {
	buf := make([]byte, 32)
	n, _ := f.ReadAt(buf, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		return 0
	}
	return pid
}

// pidWidth is the length of what writePID writes, for any pid.
const pidWidth = len("4194304\n")

// writePID writes over the pid that was there, which takes no space. The lock is held already: on a disk that is full from the beginning
// nobody learns by whom.
func writePID(f *os.File) error {
	_, err := fmt.Fprintf(io.NewOffsetWriter(f, 0), "%-*d\n", pidWidth-1, os.Getpid())
	if err = wrapPath(err); errors.Is(err, ErrNoSpace) {
		return nil
	}
	return err
}

// wrap says what was done to which file, and makes a full disk recognisable.
func wrap(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: filepath.ToSlash(name), Err: mark(err)}
}

// wrapPath marks an error of package os, which names operation and path already.
func wrapPath(err error) error {
	if err == nil {
		return nil
	}
	if marked := mark(err); marked != err {
		return marked
	}
	return err
}

func mark(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return noSpace{err}
	}
	return err
}

// noSpace is an error of the system that is also ErrNoSpace.
type noSpace struct{ error }

func (e noSpace) Is(target error) bool { return target == ErrNoSpace }
func (e noSpace) Unwrap() error        { return e.error }
