package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
)

// ReplaceFile is WriteFile in terms of the other methods of fsys, for implementations of FS.
func ReplaceFile(fsys FS, name string, data []byte) error {
	tmp := name + ".tmp"
	if err := fsys.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeNew(fsys, tmp, data); err != nil {
		return err
	}
	if err := fsys.Rename(tmp, name); err != nil {
		return err
	}
	return fsys.SyncDir(path.Dir(name))
}

// writeNew makes a file of exactly data, and syncs it.
func writeNew(fsys FS, name string, data []byte) (err error) {
	f, err := fsys.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if len(data) > 0 {
		padded := AlignedBytes(int(RoundUp(int64(len(data)))))
		copy(padded, data)
		if _, err := f.WriteAt(padded, 0); err != nil {
			return err
		}
		if err := f.Truncate(int64(len(data))); err != nil {
			return err
		}
	}
	return f.Sync()
}

// ReadWhole is ReadFile in terms of the other methods of fsys, for implementations of FS.
func ReadWhole(fsys FS, name string) (data []byte, err error) {
	f, err := fsys.OpenRead(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	buf := AlignedBytes(int(RoundUp(size)))
	n, err := f.ReadAt(buf, 0)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if int64(n) < size {
		return nil, fmt.Errorf("disk: read %s: %d of %d bytes: %w", name, n, size, io.ErrUnexpectedEOF)
	}
	return buf[:size], nil
}
