package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// openMeta opens Pebble.
func (s *Store) openMeta() error {
	pfs := newPebbleRelief(s.o.PebbleFS, s)
	// Pebble syncs neither the directory it finds nor what is above.
	err := pfs.MkdirAll(path.Join(s.o.Dir, "meta"), 0o755)
	for _, dir := range []string{s.o.Dir, path.Dir(s.o.Dir)} {
		if err == nil {
			err = syncMetaDir(pfs, dir)
		}
	}
	if err != nil {
		return fmt.Errorf("wal: create %s: %w", path.Join(s.o.Dir, "meta"), err)
	}
	if err := s.guard.open(); err != nil {
		return err
	}
	db, err := s.openPebble(&pebble.Options{
		FS:                 pfs,
		ErrorIfNotExists:   s.guard.gen > 0, // it would begin anew, and remove what is left
		EventListener:      &pebble.EventListener{BackgroundError: s.pebbleFailed, DataCorruption: s.pebbleRotten},
		Logger:             pebbleLogger{s},
		FormatMajorVersion: pebble.FormatValueSeparation,
		MemTableSize:       uint64(s.o.memTableBytes()),
		MaxOpenFiles:       s.o.pebbleFiles(),
		BytesPerSync:       512 * kib,
		WALBytesPerSync:    512 * kib,
	})
	s.meta = db
	cause := s.cause() // of which Pebble knows nothing
	if errors.Is(cause, ErrDamagedRecords) {
		return cause
	}
	if cause != nil {
		return fmt.Errorf("wal: open %s: %w", path.Join(s.o.Dir, "meta"), cause)
	}
	if err != nil {
		return s.openError(err)
	}
	return nil
}

func (s *Store) openPebble(o *pebble.Options) (*pebble.DB, error) {
	db, err := s.tryPebble(o)
	if err == nil || errors.Is(err, pebble.ErrCorruption) || passing(err) || s.dropOptions() != nil {
		return db, err
	}
	if again, e := s.tryPebble(o); e == nil {
		s.o.Logger.Warn("what pebble wrote about its options was damaged, and is written again", "dir", path.Join(s.o.Dir, "meta"), "error", err)
		return again, nil
	}
	return nil, err
}

// tryPebble takes a panic for an error: Pebble has them where only a damaged file leads to.
func (s *Store) tryPebble(o *pebble.Options) (db *pebble.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: panic: %v", pebble.ErrCorruption, p)
		}
	}()
	return pebble.Open(path.Join(s.o.Dir, "meta"), o)
}

// openError gives an error of opening Pebble its remedy. What is not about the files' contents can be put right, and is not worth a node.
func (s *Store) openError(err error) error {
	dir := path.Join(s.o.Dir, "meta")
	if passing(err) {
		return fmt.Errorf("wal: open %s: %w", dir, shortage(err))
	}
	if disk.Unreadable(err) { // a controller and a cable come back, and a bad block is a reason to look first, too
		return fmt.Errorf("wal: open %s: %w: the disk does not read: have it checked and start again; if these files stay unreadable, "+
			"start this node with an empty data directory and an unused node id", dir, err)
	}
	if errors.Is(err, pebble.ErrDBDoesNotExist) {
		err = fmt.Errorf("the records are gone, or what names them; restore the directory as a whole if you have it (%w)", err)
	}
	return s.damagedRecords(err)
}

// dropOptions removes what Pebble wrote about the options of the last start. It reads them to find out whether it can go on under
// today's, which it can: what is in them stands in this program too. So a bit that flipped there costs nothing.
func (s *Store) dropOptions() error {
	dir := path.Join(s.o.Dir, "meta")
	names, err := s.o.PebbleFS.List(dir)
	for _, name := range names {
		if strings.HasPrefix(name, "OPTIONS-") {
			err = errors.Join(err, s.o.PebbleFS.Remove(path.Join(dir, name)))
		}
	}
	return err
}

// passing tells whether an error of Pebble's is about what the process has or may do.
func passing(err error) bool {
	for _, e := range [...]error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EAGAIN,
		disk.ErrNoSpace, fs.ErrPermission} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// pebbleFailed is told of errors of Pebble's own work, which it tries again. A table that has rotted does not get better.
func (s *Store) pebbleFailed(err error) {
	if errors.Is(err, pebble.ErrCorruption) {
		s.fail(s.damagedRecords(err))
		return
	}
	s.o.Logger.Warn("pebble: background work failed", "error", err)
}

// pebbleRotten is told of a table that somebody read, and that has rotted.
func (s *Store) pebbleRotten(info pebble.DataCorruptionInfo) {
	s.fail(s.damagedRecords(fmt.Errorf("%s: %w", info.Path, info.Details)))
}

func syncMetaDir(fs vfs.FS, dir string) error {
	f, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// pebbleLogger drops Pebble's chatter, and takes its fatal errors for the store's.
type pebbleLogger struct{ s *Store }

func (l pebbleLogger) Infof(string, ...any) {}
func (l pebbleLogger) Errorf(format string, args ...any) {
	if l.s.failed() {
		return // it reads what was not written
	}
	l.s.o.Logger.Warn("pebble: " + fmt.Sprintf(format, args...))
}
func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.s.fail(fmt.Errorf("wal: pebble: "+format, args...))
}

// The writes to Pebble. It learns nothing of failed ones (see pebbleRelief) and goes on as if nothing had happened: so what it returned
// counts only while the store has not failed. And nothing is written once it has: what a failed sync left behind is for the next start to
// find out.

func (s *Store) metaSet(key, value []byte) error {
	b := s.meta.NewBatch()
	defer func() { _ = b.Close() }()
	if err := b.Set(key, value, nil); err != nil {
		return err
	}
	return s.metaCommit(b, pebble.Sync)
}

func (s *Store) metaCommit(b *pebble.Batch, sync *pebble.WriteOptions) error {
	if err := s.cause(); err != nil {
		return err
	}
	if err := s.guard.commit(b, sync); err != nil {
		return err
	}
	return s.cause()
}

// cause is why the store failed, nil when it did not.
func (s *Store) cause() error {
	if s.failed() {
		return s.failCause
	}
	return nil
}
