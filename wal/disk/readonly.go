package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// ErrReadOnly says that something was to be written through ReadOnly.
var ErrReadOnly = errors.New("opened for reading only")

// ReadOnly returns fsys without everything that changes something, for those who look at files that are not theirs. What makes directories
// or syncs finds that there is nothing to do, since nothing is changed; all else fails.
func ReadOnly(fsys FS) FS { return readOnly{fsys} }

type readOnly struct{ FS }

func refuse(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: ErrReadOnly} }

func (r readOnly) Direct() bool { return IsDirect(r.FS) }

func (r readOnly) Create(name string) (File, error)      { return nil, refuse("create", name) }
func (r readOnly) Open(name string) (File, error)        { return r.FS.OpenRead(name) }
func (r readOnly) Remove(name string) error              { return refuse("remove", name) }
func (r readOnly) RemoveAll(dir string) error            { return refuse("remove", dir) }
func (r readOnly) Rename(old, _ string) error            { return refuse("rename", old) }
func (r readOnly) WriteFile(name string, _ []byte) error { return refuse("write", name) }
func (r readOnly) Lock(name string) (io.Closer, error)   { return nil, refuse("lock", name) }
func (r readOnly) SyncDir(dir string) error              { return r.MkdirAll(dir) }
func (r readOnly) ReadFile(name string) ([]byte, error)  { return ReadWhole(r, name) }
func (r readOnly) MkdirAll(dir string) error {
	_, err := r.Stat(dir)
	return err
}

// LockShared takes part in the lock that the file stands for, on the machine's file system, without writing to it: nobody has or gets
// Lock until the closer, and others may look, too. The error wraps ErrLocked when somebody has it, and fs.ErrNotExist when nobody ever had.
func LockShared(name string) (io.Closer, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
		if err != unix.EINTR {
			break
		}
	}
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = &LockedError{Name: name, PID: readPID(f)}
	} else if err != nil {
		err = fmt.Errorf("disk: lock %s: %w", name, err)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
