package disk

import (
	"errors"
	"fmt"
	"io"
	"unsafe"
)

// BlockSize is the unit of every read and write, in bytes: the page size, and a multiple of the logical block size of every
// disk that matters.
const BlockSize = 4096

// FS is a file system. Names are slash-separated; those of the real file systems mean what they mean to the process,
// relative ones are relative to its working directory. All methods may be called by any goroutine.
//
// Errors wrap fs.ErrNotExist, fs.ErrExist, ErrNoSpace and so on, for errors.Is.
type FS interface {
	// Create makes a file that must not exist yet and opens it for reading and writing. Its name is durable after SyncDir.
	Create(name string) (File, error)
	// Open opens an existing file for reading and writing.
	Open(name string) (File, error)
	// OpenRead opens an existing file for reading only.
	OpenRead(name string) (File, error)
	// MkdirAll makes a directory and the missing ones above it. Each new one is durable after SyncDir of its parent.
	MkdirAll(dir string) error
	// Remove unlinks a file or an empty directory. Handles that are open go on working.
	Remove(name string) error
	// RemoveAll unlinks a directory with all that it holds, or a file; it is no error when there is none.
	RemoveAll(dir string) error
	// Rename gives a file or directory another name, atomically; a file that had the new name is gone.
	Rename(old, new string) error
	// SyncDir makes the names in a directory durable: creates, renames and unlinks.
	SyncDir(dir string) error
	// List returns the names in a directory, sorted.
	List(dir string) ([]string, error)
	// Stat describes a file or directory.
	Stat(name string) (Info, error)
	// ReadFile returns the whole of a small file.
	ReadFile(name string) ([]byte, error)
	// WriteFile replaces a small file atomically, and durably on return: the name holds either the old bytes or the new.
	// One writer a name at a time; a temporary file name+".tmp" stands beside it meanwhile.
	WriteFile(name string, data []byte) error
	// FreeBytes returns the space that is left for files in dir.
	FreeBytes(dir string) (int64, error)
	// Lock takes the exclusive lock that the file stands for, until the closer or the process ends. The error wraps
	// ErrLocked when somebody else has it.
	Lock(name string) (io.Closer, error)
}

// File is an open file. Methods may be called by any goroutine; which writes may overlap in time is the caller's business.
type File interface {
	// WriteAt writes all of p, which, like off, must be aligned to BlockSize in address and length. p is not kept.
	WriteAt(p []byte, off int64) (int, error)
	// WriteSyncAt is WriteAt of p followed by a Sync of it: p is durable when it returns, with what is needed to read it. Other bytes
	// may or may not be. It is one system call where the system has one, and one wait for the disk instead of two.
	WriteSyncAt(p []byte, off int64) (int, error)
	// WritevAt writes the pieces one after the other from off, as WriteAt would their concatenation; each piece must be
	// aligned like p. bufs and the pieces are neither changed nor kept. On an error any part of the range may be written.
	WritevAt(bufs [][]byte, off int64) error
	// ReadAt reads into p, aligned like WriteAt's, with the semantics of io.ReaderAt at the end of the file.
	ReadAt(p []byte, off int64) (int, error)
	// Sync makes all bytes whose write returned before, and the length, durable (fdatasync).
	Sync() error
	// Preallocate makes the file at least size bytes long, the new ones zero, and takes the space for them.
	Preallocate(size int64) error
	// Truncate sets the length to any number of bytes. New bytes are zero; no space is taken for them.
	Truncate(size int64) error
	// Size returns the length in bytes.
	Size() (int64, error)
	// Close closes the file without syncing it. Calls in progress complete; later ones fail with fs.ErrClosed.
	Close() error
}

// IsDirect tells whether fsys bypasses the page cache. If it does, what is read comes from the medium (or its own cache, which
// a sync empties); else it may come from pages that a failed writeback left clean, and no sync will bring them to the medium.
func IsDirect(fsys FS) bool {
	d, ok := fsys.(interface{ Direct() bool })
	return ok && d.Direct()
}

// Info describes a file or directory.
type Info struct {
	Size int64 // bytes, of a file
	Dir  bool
}

// Errors that FS and File wrap.
var (
	// ErrNoSpace says that the disk, its quota or the simulated disk's capacity is full.
	ErrNoSpace = errors.New("no space left on disk")
	// ErrUnaligned says that memory, length or offset of a read or write is not a multiple of BlockSize: a bug of the caller.
	ErrUnaligned = errors.New("not aligned to 4096 bytes")
	// ErrLocked says that another process (or this one) holds the lock.
	ErrLocked = errors.New("locked by another process")
)

// LockedError tells who holds a lock.
type LockedError struct {
	Name string
	PID  int // 0 if unknown
}

func (e *LockedError) Error() string {
	if e.PID == 0 {
		return fmt.Sprintf("disk: %s: %v: stop it first", e.Name, ErrLocked)
	}
	return fmt.Sprintf("disk: %s: %v, pid %d: stop it first", e.Name, ErrLocked, e.PID)
}

// Unwrap returns ErrLocked.
func (e *LockedError) Unwrap() error { return ErrLocked }

// AlignedBytes returns n zero bytes whose address is a multiple of BlockSize.
func AlignedBytes(n int) []byte {
	b := make([]byte, n+BlockSize-1)
	skip := 0
	if n > 0 {
		if r := int(uintptr(unsafe.Pointer(unsafe.SliceData(b))) % BlockSize); r != 0 {
			skip = BlockSize - r
		}
	}
	return b[skip : skip+n : skip+n]
}

// RoundUp returns the smallest multiple of BlockSize that is not below n.
func RoundUp(n int64) int64 { return (n + BlockSize - 1) &^ (BlockSize - 1) }

// RoundDown returns the largest multiple of BlockSize that is not above n.
func RoundDown(n int64) int64 { return n &^ (BlockSize - 1) }

// CheckAligned returns an error that wraps ErrUnaligned unless the address and length of p and off are aligned. It is for
// implementations of File.
func CheckAligned(p []byte, off int64) error {
	if (uintptr(unsafe.Pointer(unsafe.SliceData(p)))|uintptr(len(p))|uintptr(off))%BlockSize != 0 && (len(p) != 0 || off%BlockSize != 0) || off < 0 {
		return unaligned(p, off)
	}
	return nil
}

// unaligned is apart so that CheckAligned does not allocate.
func unaligned(p []byte, off int64) error {
	return fmt.Errorf("disk: %d bytes at offset %d from address %#x: %w",
		len(p), off, uintptr(unsafe.Pointer(unsafe.SliceData(p))), ErrUnaligned)
}

// CheckVector is CheckAligned for the pieces of WritevAt; it returns the sum of their lengths.
func CheckVector(bufs [][]byte, off int64) (int64, error) {
	if err := CheckAligned(nil, off); err != nil {
		return 0, err
	}
	var n int64
	for _, p := range bufs {
		if err := CheckAligned(p, off+n); err != nil {
			return 0, err
		}
		n += int64(len(p))
	}
	return n, nil
}
