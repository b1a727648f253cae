package wal

import (
	"fmt"
	"path"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// openMeta opens Pebble.
func (s *Store) openMeta() error {
	fs := s.o.PebbleFS
	if fs == nil {
		fs = vfs.Default
	}
	db, err := pebble.Open(path.Join(s.o.Dir, "meta"), &pebble.Options{
		FS:                 fs,
		Logger:             pebbleLogger{s},
		FormatMajorVersion: pebble.FormatValueSeparation,
		MemTableSize:       8 * mib,
		MaxOpenFiles:       256,
		BytesPerSync:       512 * kib,
		WALBytesPerSync:    512 * kib,
	})
	if err != nil {
		return fmt.Errorf("wal: open %s: %w", path.Join(s.o.Dir, "meta"), err)
	}
	s.meta = db
	return nil
}

// pebbleLogger drops Pebble's chatter, and takes its fatal errors for the store's.
type pebbleLogger struct{ s *Store }

func (l pebbleLogger) Infof(string, ...any) {}
func (l pebbleLogger) Errorf(format string, args ...any) {
	l.s.o.Logger.Warn("pebble: " + fmt.Sprintf(format, args...))
}
func (l pebbleLogger) Fatalf(format string, args ...any) {
	l.s.fail(fmt.Errorf("wal: pebble: "+format, args...))
}
