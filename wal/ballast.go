package wal

import (
	"errors"
	"io"
	"io/fs"
	"path"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// ballast is the file that holds space for a full disk: see space. It is not synced: a power loss that takes it leaves its space free, or
// brings some of it back.
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

func (b ballast) grow(size int64) error {
	return b.with(func(f disk.File) error { return f.Preallocate(size) })
}

func (b ballast) with(do func(disk.File) error) (err error) {
	f, err := b.fs.Open(b.name)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = b.fs.Create(b.name)
	}
	if err != nil {
		return err
	}
	return errors.Join(do(f), f.Close())
}

// WithBallast returns fsys for those who write a few small files in the directory of a store before they open it, or beside it: when the
// disk is full, the ballast of the store makes room for them.
func WithBallast(fsys disk.FS, dir string) disk.FS { return ballastFS{fsys, ballastIn(fsys, dir)} }

// OpenDisk is disk.NewOS for the directory of a store: on a full disk the store's ballast makes room for what it tries.
func OpenDisk(dir string) (fsys disk.FS, err error) {
	err = ballastIn(disk.NewBuffered(), dir).relieve(func() error {
		fsys, err = disk.NewOS(dir)
		return err
	})
	return fsys, err
}

func (b ballast) relieve(op func() error) error {
	for {
		if err := op(); !isNoSpace(err) || !b.giveUp(leastGiven) {
			return err
		}
	}
}

type ballastFS struct {
	disk.FS
	ballast ballast
}

// Direct is for disk.IsDirect.
func (b ballastFS) Direct() bool { return disk.IsDirect(b.FS) }

func (b ballastFS) WriteFile(name string, data []byte) error {
	return b.ballast.relieve(func() error { return b.FS.WriteFile(name, data) })
}

func (b ballastFS) Lock(name string) (l io.Closer, err error) {
	err = b.ballast.relieve(func() error {
		l, err = b.FS.Lock(name)
		return err
	})
	return l, err
}
