package wal

import (
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// TestUnreadableCutCostsOneReplica damages the cut of one log: that replica is refused, for good, and the other one is there.
func TestUnreadableCutCostsOneReplica(t *testing.T) {
	o := testOptions(nil, nil, t.TempDir())
	s := mustOpen(t, o)
	bad, good := mustCreate(t, s, 1), mustCreate(t, s, 2)
	d := newDriver(t, s, good)
	d.submit(d.batchEntry(100))
	d.wait(1)
	key := cutKey(bad.Group(), bad.Replica())
	last := good.LastIndex()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	db, err := pebble.Open(filepath.Join(o.Dir, "meta"), &pebble.Options{FormatMajorVersion: pebble.FormatValueSeparation})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Set(key, []byte("no cut"), pebble.Sync); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	for start := range 3 {
		s = mustOpen(t, o)
		r := s.Refused()
		if start == 2 && len(r) == 0 { // deleted by the start before
			r = []Refusal{{Group: bad.Group(), Replica: bad.Replica()}}
		}
		if len(r) != 1 || r[0].Group != bad.Group() || r[0].Replica != bad.Replica() {
			t.Errorf("refused: %+v", r)
		}
		if logs := s.Logs(); len(logs) != 1 || logs[0].LastIndex() != last {
			t.Errorf("open: %v", logs)
		}
		if start == 1 {
			if err := s.DeleteRefused(t.Context(), r[0]); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
