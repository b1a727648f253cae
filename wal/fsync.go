package wal

import (
	"errors"
	"fmt"
	"path"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// FsyncClass says what a completed append is safe from.
type FsyncClass int

const (
	// FsyncAll syncs everything that a promise rests on: what is complete survives any crash. The default.
	FsyncAll FsyncClass = iota
	// FsyncNone drops every sync: of the journal, of segments, of directories, of Pebble. What is complete survives the end of the
	// process; a power failure may take any of it, and leave a directory from which not all of the rest can be recovered. Close
	// syncs everything at once. It is for comparisons with systems that acknowledge before they sync.
	FsyncNone
)

// String names the class.
func (c FsyncClass) String() string {
	switch c {
	case FsyncAll:
		return "fsync"
	case FsyncNone:
		return "none"
	}
	return fmt.Sprintf("FsyncClass(%d)", int(c))
}

// unsynced are the file systems below those that drop syncs: what a store of FsyncNone needs to sync when it is closed.
type unsynced struct {
	fs     disk.FS
	pebble vfs.FS
}

// dropSyncs puts file systems that drop syncs under everything that the store opens from now on.
func (s *Store) dropSyncs() {
	s.unsynced = &unsynced{s.fs, s.o.PebbleFS}
	s.fs, s.o.PebbleFS = disk.Unsynced(s.fs), unsyncedPebble{s.o.PebbleFS}
	s.space.ballast.fs = disk.Unsynced(s.space.ballast.fs)
}

// syncLate makes a closed store durable whose syncs were dropped, as if each of them had been done. It names the parts instead of
// taking all of Dir: that may be the root of a file system, with a lost+found that is not ours to read.
func (s *Store) syncLate() error {
	if s.unsynced == nil {
		return nil
	}
	u, dir := s.unsynced, s.o.Dir
	err := errors.Join(
		disk.SyncTree(u.fs, path.Join(dir, "journal")), disk.SyncTree(u.fs, s.logsDir), syncFile(u.fs, path.Join(dir, guardName)), u.fs.SyncDir(dir),
		syncPebbleTree(u.pebble, path.Join(dir, "meta")), syncMetaDir(u.pebble, dir), syncMetaDir(u.pebble, path.Dir(dir)),
	)
	if err != nil {
		return fmt.Errorf("wal: sync what was written without: %w", err)
	}
	return nil
}

func syncFile(fs disk.FS, name string) error {
	f, err := fs.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// syncPebbleTree is disk.SyncTree for Pebble's kind of file system.
func syncPebbleTree(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := syncPebbleFile(fs, fs.PathJoin(dir, name)); err != nil {
			return err
		}
	}
	return syncMetaDir(fs, dir)
}

func syncPebbleFile(fs vfs.FS, name string) error {
	info, err := fs.Stat(name)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return syncPebbleTree(fs, name)
	}
	f, err := fs.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// unsyncedPebble is disk.Unsynced for Pebble's kind of file system. Files that are opened for reading are not synced by anybody.
type unsyncedPebble struct{ vfs.FS }

func (u unsyncedPebble) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return unsyncedVFS(u.FS.Create(name, c))
}

func (u unsyncedPebble) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return unsyncedVFS(u.FS.OpenReadWrite(name, c, o...))
}

func (u unsyncedPebble) ReuseForWrite(old, new string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return unsyncedVFS(u.FS.ReuseForWrite(old, new, c))
}

func (u unsyncedPebble) OpenDir(name string) (vfs.File, error) {
	return unsyncedVFS(u.FS.OpenDir(name))
}

// Unwrap is for vfs.Root.
func (u unsyncedPebble) Unwrap() vfs.FS { return u.FS }

func unsyncedVFS(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return unsyncedPebbleFile{f}, nil
}

type unsyncedPebbleFile struct{ vfs.File }

func (unsyncedPebbleFile) Sync() error                { return nil }
func (unsyncedPebbleFile) SyncData() error            { return nil }
func (unsyncedPebbleFile) SyncTo(int64) (bool, error) { return false, nil } // it only begins a sync, and says so
