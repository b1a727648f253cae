package disk

import (
	"io"
	"io/fs"
	"math"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// osFile is a file descriptor. The descriptor is closed when Close has been called and the last call in progress has
// returned: closed earlier, the system could give its number to another file, and a late write would land there.
type osFile struct {
	fd   int
	name string
	// uses is the number of calls in progress, plus closing once Close was called.
	uses atomic.Int64
}

const closing = math.MinInt64 / 2

// acquire must be followed by release when it returns true.
func (f *osFile) acquire() bool {
	if f.uses.Add(1) > 0 {
		return true
	}
	f.release()
	return false
}

func (f *osFile) release() {
	if f.uses.Add(-1) == closing {
		f.closeOnce()
	}
}

// closeOnce closes the descriptor for the one who moves uses away from closing; nobody else comes by that value again.
func (f *osFile) closeOnce() error {
	if !f.uses.CompareAndSwap(closing, closing*3/2) {
		return nil
	}
	if err := unix.Close(f.fd); err != nil && err != unix.EINTR { // after EINTR the descriptor is gone too
		return wrap("close", f.name, err)
	}
	return nil
}

func (f *osFile) Close() error {
	for {
		n := f.uses.Load()
		if n < 0 {
			return f.closed("close")
		}
		if f.uses.CompareAndSwap(n, n+closing) {
			break
		}
	}
	return f.closeOnce()
}

func (f *osFile) closed(op string) error { return wrap(op, f.name, fs.ErrClosed) }

func (f *osFile) WriteAt(p []byte, off int64) (int, error) { return f.writeAt(pwrite, p, off) }

func (f *osFile) WriteSyncAt(p []byte, off int64) (int, error) { return f.writeAt(pwriteSync, p, off) }

func (f *osFile) writeAt(write func(fd int, p []byte, off int64) (int, error), p []byte, off int64) (int, error) {
	if err := CheckAligned(p, off); err != nil {
		return 0, err
	}
	if !f.acquire() {
		return 0, f.closed("write")
	}
	defer f.release()
	done := 0
	for done < len(p) {
		n, err := write(f.fd, p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, wrap("write", f.name, err)
		}
		n = int(RoundDown(int64(n))) // the rest of a block is written again with it
		if n <= 0 {
			return done, wrap("write", f.name, io.ErrShortWrite)
		}
		done += n
	}
	return done, nil
}

func (f *osFile) ReadAt(p []byte, off int64) (int, error) {
	if err := CheckAligned(p, off); err != nil {
		return 0, err
	}
	if !f.acquire() {
		return 0, f.closed("read")
	}
	defer f.release()
	done := 0
	for done < len(p) {
		n, err := pread(f.fd, p[done:], off+int64(done))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return done, wrap("read", f.name, err)
		}
		done += n
		if n == 0 || n%BlockSize != 0 { // a direct read ends inside a block only at the end of the file
			if done < len(p) {
				return done, io.EOF
			}
		}
	}
	return done, nil
}

func (f *osFile) WritevAt(bufs [][]byte, off int64) error {
	if _, err := CheckVector(bufs, off); err != nil {
		return err
	}
	if !f.acquire() {
		return f.closed("write")
	}
	defer f.release()
	if err := writev(f.fd, bufs, off); err != nil {
		return wrap("write", f.name, err)
	}
	return nil
}

func (f *osFile) Sync() error {
	if !f.acquire() {
		return f.closed("sync")
	}
	defer f.release()
	for {
		err := fdatasync(f.fd)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return wrap("sync", f.name, err)
		}
	}
}

func (f *osFile) Truncate(size int64) error {
	if !f.acquire() {
		return f.closed("truncate")
	}
	defer f.release()
	return f.truncate(size)
}

func (f *osFile) truncate(size int64) error {
	for {
		err := unix.Ftruncate(f.fd, size)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return wrap("truncate", f.name, err)
		}
	}
}

func (f *osFile) Size() (int64, error) {
	if !f.acquire() {
		return 0, f.closed("stat")
	}
	defer f.release()
	return f.size()
}

func (f *osFile) size() (int64, error) {
	var st unix.Stat_t
	for {
		err := unix.Fstat(f.fd, &st)
		if err == nil {
			return st.Size, nil
		}
		if err != unix.EINTR {
			return 0, wrap("stat", f.name, err)
		}
	}
}

// Preallocate extends the length too (it is not KEEP_SIZE): a write below the length takes the file system's short path.
func (f *osFile) Preallocate(size int64) error {
	if !f.acquire() {
		return f.closed("preallocate")
	}
	defer f.release()
	have, err := f.size()
	if err != nil || have >= size {
		return err
	}
	err = allocate(f.fd, have, size-have)
	if err == unix.EOPNOTSUPP || err == unix.ENOSYS {
		err = f.zeroFill(have, size)
	}
	if err != nil {
		_ = f.truncate(have) // what was taken before the space ran out
		return wrap("preallocate", f.name, err)
	}
	return nil
}

// zeroFill extends the file by writing zeros, for file systems that cannot reserve.
func (f *osFile) zeroFill(from, to int64) error {
	zeros := AlignedBytes(int(min(RoundUp(to)-RoundDown(from), 1<<20)))
	for at := RoundUp(from); at < to; {
		n := min(int64(len(zeros)), RoundUp(to)-at)
		if err := writev(f.fd, [][]byte{zeros[:n]}, at); err != nil {
			return err
		}
		at += n
	}
	return f.truncate(to)
}
