package disk

import (
	"io"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

const oDirect = unix.O_DIRECT

// iovMax is the kernel's limit of pieces in one pwritev (UIO_MAXIOV).
const iovMax = 1024

// The system calls, replaced by tests that need them to be interrupted or to come up short.
var (
	pwrite    = unix.Pwrite
	pread     = unix.Pread
	fdatasync = unix.Fdatasync
	fallocate = unix.Fallocate
	pwritev   = rawPwritev
	pwritev2  = rawPwritev2
)

// pwriteSync writes and syncs with one call, which saves the way out of the kernel and back in between: on a busy machine the thread waits
// for a processor each time. Drives that can write through their cache are spared the flush of all of it, too.
func pwriteSync(fd int, p []byte, off int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	vec := iovecPool.Get().(*iovecs)
	v := &vec.v[0]
	v.Base = &p[0]
	v.SetLen(len(p))
	n, err := pwritev2(fd, v, off, unix.RWF_DSYNC)
	v.Base = nil // do not keep the caller's memory alive
	iovecPool.Put(vec)
	if err != unix.ENOSYS && err != unix.EOPNOTSUPP {
		return n, err
	}
	if n, err = pwrite(fd, p, off); err != nil { // before Linux 4.7
		return n, err
	}
	return n, fdatasync(fd)
}

type iovecs struct {
	v [iovMax]unix.Iovec
}

var iovecPool = sync.Pool{New: func() any { return new(iovecs) }}

// writev writes all of bufs, whose lengths are multiples of BlockSize, whatever their number and size.
func writev(fd int, bufs [][]byte, off int64) error {
	vec := iovecPool.Get().(*iovecs)
	err := writevWith(vec, fd, bufs, off)
	clear(vec.v[:min(len(bufs), iovMax)]) // do not keep the caller's memory alive
	iovecPool.Put(vec)
	return err
}

func writevWith(vec *iovecs, fd int, bufs [][]byte, off int64) error {
	skip := 0 // bytes of bufs[0] that are written
	for {
		n, want := 0, 0
		for len(bufs) > 0 && skip == len(bufs[0]) {
			bufs, skip = bufs[1:], 0
		}
		for i := 0; i < len(bufs) && n < iovMax; i++ {
			p := bufs[i]
			if i == 0 {
				p = p[skip:]
			}
			if len(p) == 0 {
				continue
			}
			vec.v[n].Base = &p[0]
			vec.v[n].SetLen(len(p))
			n, want = n+1, want+len(p)
		}
		if n == 0 {
			return nil
		}
		done, err := pwriteSome(fd, vec.v[:n], off)
		if err != nil {
			return err
		}
		off += int64(done)
		for done > 0 {
			k := min(done, len(bufs[0])-skip)
			done, skip = done-k, skip+k
			if skip == len(bufs[0]) {
				bufs, skip = bufs[1:], 0
			}
		}
	}
}

// pwriteSome writes at least one whole block and returns the whole blocks written, in bytes.
func pwriteSome(fd int, v []unix.Iovec, off int64) (int, error) {
	for {
		n, err := pwritev(fd, v, off)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		if n = int(RoundDown(int64(n))); n <= 0 {
			return 0, io.ErrShortWrite
		}
		return n, nil
	}
}

// rawPwritev is unix.Pwritev without the allocation of the iovecs.
func rawPwritev(fd int, v []unix.Iovec, off int64) (int, error) {
	// The offset is passed in two halves; on 64-bit systems the second one is shifted out.
	n, _, errno := unix.Syscall6(unix.SYS_PWRITEV, uintptr(fd), uintptr(unsafe.Pointer(&v[0])), uintptr(len(v)),
		uintptr(off), uintptr(uint64(off)>>32), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// rawPwritev2 writes one piece.
func rawPwritev2(fd int, v *unix.Iovec, off int64, flags int) (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_PWRITEV2, uintptr(fd), uintptr(unsafe.Pointer(v)), 1, uintptr(off), uintptr(uint64(off)>>32), uintptr(flags))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func allocate(fd int, off, n int64) error {
	for {
		if err := fallocate(fd, 0, off, n); err != unix.EINTR {
			return err
		}
	}
}
