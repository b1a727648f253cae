package wal

import (
	"errors"
	"fmt"
	"path"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// openMeta opens Pebble.
func (s *Store) openMeta() error {
	fs := newPebbleRelief(s.o.PebbleFS, s)
	// Pebble syncs neither the directory it finds nor what is above.
	err := fs.MkdirAll(path.Join(s.o.Dir, "meta"), 0o755)
	for _, dir := range []string{s.o.Dir, path.Dir(s.o.Dir)} {
		if err == nil {
			err = syncMetaDir(fs, dir)
		}
	}
	if err != nil {
		return fmt.Errorf("wal: create %s: %w", path.Join(s.o.Dir, "meta"), err)
	}
	db, err := pebble.Open(path.Join(s.o.Dir, "meta"), &pebble.Options{
		FS:                 fs,
		Logger:             pebbleLogger{s},
		FormatMajorVersion: pebble.FormatValueSeparation,
		MemTableSize:       uint64(s.o.memTableBytes()),
		MaxOpenFiles:       256,
		BytesPerSync:       512 * kib,
		WALBytesPerSync:    512 * kib,
	})
	s.meta = db
	if err = errors.Join(s.cause(), err); err != nil {
		return fmt.Errorf("wal: open %s: %w", path.Join(s.o.Dir, "meta"), err)
	}
	return nil
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
	if err := s.cause(); err != nil {
		return err
	}
	if err := s.meta.Set(key, value, pebble.Sync); err != nil {
		return err
	}
	return s.cause()
}

func (s *Store) metaCommit(b *pebble.Batch, sync *pebble.WriteOptions) error {
	if err := s.cause(); err != nil {
		return err
	}
	if err := b.Commit(sync); err != nil {
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
