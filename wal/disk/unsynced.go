package disk

import (
	"errors"
	"path"
)

// Unsynced returns fsys without its syncs: those of files, of directories and of WriteFile are dropped, all else is as it was.
// What is written survives the end of the process as ever, and the end of the machine no more, until SyncTree makes up for it. It
// is for comparisons with systems that acknowledge first and sync later.
func Unsynced(fsys FS) FS { return unsyncedFS{fsys} }

type unsyncedFS struct{ FS }

// Direct is for IsDirect: only syncs are dropped, not the way that bytes take.
func (u unsyncedFS) Direct() bool { return IsDirect(u.FS) }

func (u unsyncedFS) Create(name string) (File, error) { return unsynced(u.FS.Create(name)) }
func (u unsyncedFS) Open(name string) (File, error)   { return unsynced(u.FS.Open(name)) }

func (u unsyncedFS) OpenRead(name string) (File, error) { return unsynced(u.FS.OpenRead(name)) }

func (u unsyncedFS) WriteFile(name string, data []byte) error { return ReplaceFile(u, name, data) }

// SyncDir only fails as the real one would when there is no such directory.
func (u unsyncedFS) SyncDir(dir string) error {
	_, err := u.Stat(dir)
	return err
}

func unsynced(f File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return unsyncedFile{f}, nil
}

type unsyncedFile struct{ File }

// Sync only fails as the real one would when the file is closed: a bug of the caller stays one.
func (f unsyncedFile) Sync() error {
	_, err := f.Size()
	return err
}

func (f unsyncedFile) WriteSyncAt(p []byte, off int64) (int, error) { return f.WriteAt(p, off) }

// SyncTree makes a directory durable with everything in it, whoever wrote it and through whatever handle. The directory's own name
// is its parent's business, as with SyncDir. Nothing may be written to it meanwhile.
func SyncTree(fsys FS, dir string) error {
	names, err := fsys.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := syncNamed(fsys, path.Join(dir, name)); err != nil {
			return err
		}
	}
	return fsys.SyncDir(dir)
}

func syncNamed(fsys FS, name string) error {
	info, err := fsys.Stat(name)
	if err != nil {
		return err
	}
	if info.Dir {
		return SyncTree(fsys, name)
	}
	f, err := fsys.OpenRead(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
