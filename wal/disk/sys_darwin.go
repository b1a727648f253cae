package disk

import (
	"io"

	"golang.org/x/sys/unix"
)

// There is no O_DIRECT: the machines of developers run buffered.
const oDirect = 0

var (
	pwrite    = unix.Pwrite
	pread     = unix.Pread
	fdatasync = func(fd int) error {
		_, err := unix.FcntlInt(uintptr(fd), unix.F_FULLFSYNC, 0) // fsync alone stays in the drive's cache
		return err
	}
)

func pwriteSync(fd int, p []byte, off int64) (int, error) {
	n, err := pwrite(fd, p, off)
	if err != nil {
		return n, err
	}
	return n, fdatasync(fd)
}

func writev(fd int, bufs [][]byte, off int64) error {
	for _, p := range bufs {
		for len(p) > 0 {
			n, err := pwrite(fd, p, off)
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return err
			}
			if n <= 0 {
				return io.ErrShortWrite
			}
			p, off = p[n:], off+int64(n)
		}
	}
	return nil
}

func allocate(int, int64, int64) error { return unix.EOPNOTSUPP }
