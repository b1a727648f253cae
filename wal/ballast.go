package wal

import (
	"errors"
	"io/fs"
	"path"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// ballast is the file that holds space for a full disk: see space. Growth is synced: a power loss that took it would leave its space to
// others, and a start without any. Giving up is not: a power loss may bring some of it back.
type ballast struct {
	fs   disk.FS
	name string
}

const ballastName = "ballast"

func ballastIn(fsys disk.FS, dir string) ballast { return ballast{fsys, path.Join(dir, ballastName)} }

func (b ballast) size() int64 {
	info, err := b.fs.Stat(b.name)
	if err != nil {
		return 0
	}
	return info.Size
}

// giveUp frees bytes, or what there is; false: nothing.
func (b ballast) giveUp(bytes int64) bool {
	have := b.size()
	if have == 0 {
		return false
	}
	return b.with(func(f disk.File) error {
		return f.Truncate(disk.RoundDown(max(have-max(bytes, leastGiven), 0)))
	}) == nil
}

// shrink is for one that is larger than it has to be.
func (b ballast) shrink(size int64) error {
	return b.with(func(f disk.File) error { return f.Truncate(size) })
}

func (b ballast) grow(size int64) error {
	return b.with(func(f disk.File) error { return errors.Join(f.Preallocate(size), f.Sync()) })
}

func (b ballast) with(do func(disk.File) error) (err error) {
	f, err := b.fs.Open(b.name)
	made := errors.Is(err, fs.ErrNotExist)
	if made {
		f, err = b.fs.Create(b.name)
	}
	if err != nil {
		return err
	}
	if err = errors.Join(do(f), f.Close()); made {
		err = errors.Join(err, b.fs.SyncDir(path.Dir(b.name)))
	}
	return err
}
