package inspect

import (
	"errors"
	"fmt"
	"io"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// source reads a file in order, a window at a time.
type source struct {
	file disk.File
	size int64
	buf  []byte
	off  int64
	n    int64
}

const windowBytes = 1 << 20

func openSource(fsys disk.FS, name string) (*source, error) {
	f, err := fsys.OpenRead(name)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &source{file: f, size: size}, nil
}

func (s *source) close() { _ = s.file.Close() } // it was only read

// bytes returns n bytes at pos, which stay valid until the next call.
func (s *source) bytes(pos, n int64) ([]byte, error) {
	if pos+n > s.size {
		return nil, fmt.Errorf("the file ends at %d, %d bytes at %d are needed", s.size, n, pos)
	}
	if pos < s.off || pos+n > s.off+s.n {
		start := disk.RoundDown(pos)
		want := max(disk.RoundUp(pos+n)-start, windowBytes)
		if int64(len(s.buf)) < want {
			s.buf = disk.AlignedBytes(int(want))
		}
		got, err := s.file.ReadAt(s.buf[:want], start)
		s.off, s.n = start, int64(got)
		if err != nil && !errors.Is(err, io.EOF) {
			s.n = 0
			return nil, err
		}
		if pos+n > s.off+s.n {
			return nil, io.ErrUnexpectedEOF
		}
	}
	return s.buf[pos-s.off : pos-s.off+n], nil
}

// zeros tells whether the file holds nothing but zeros from pos on.
func (s *source) zeros(pos int64) bool {
	for pos < s.size {
		n := min(s.size-pos, windowBytes-disk.BlockSize)
		b, err := s.bytes(pos, n)
		if err != nil {
			return false
		}
		for _, c := range b {
			if c != 0 {
				return false
			}
		}
		pos += n
	}
	return true
}
