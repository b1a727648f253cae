package wal

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

// TestUnreadableCutCostsOneReplica damages the cut of one log: that replica is refused, for good, and the other one is there. Its
// files can be deleted although its cut does not say where they are.
func TestUnreadableCutCostsOneReplica(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.DirectAppendBytes = 1
	s := mustOpen(t, o)
	good := newDriver(t, s, mustCreate(t, s, 1))
	l, err := s.Create(t.Context(), Spec{Group: 2, Replica: 77, Name: good.l.Name(), HardState: HardState{Term: 1}})
	if err != nil {
		t.Fatal(err)
	}
	bad := newDriver(t, s, l)
	for _, d := range []*driver{good, bad} {
		for range 50 { // until there are files
			d.submit(d.batchEntry(20 << 10))
			d.wait(1)
			d.commitAll()
		}
	}
	s.checkpoints.force()
	dir := "/data/logs/" + bad.l.dir
	key := cutKey(bad.l.Group(), bad.l.Replica())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, o)
	if err := s.metaSet(key, []byte("no cut")); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for start := range 3 {
		s = mustOpen(t, o)
		r := s.Refused()
		if start == 2 && len(r) == 0 { // deleted by the start before
			r = []Refusal{{Group: bad.l.Group(), Replica: bad.l.Replica()}}
		}
		if len(r) != 1 || r[0].Group != bad.l.Group() || r[0].Replica != bad.l.Replica() {
			t.Errorf("refused: %+v", r)
		}
		if logs := s.Logs(); len(logs) != 1 {
			t.Errorf("open: %v", logs)
		}
		checkLog(t, findLog(t, s, 1), good.start, good.entries)
		if _, err := sim.Stat(dir); err != nil && start < 2 {
			t.Error(err)
		}
		if start == 1 {
			if err := s.DeleteRefused(t.Context(), r[0]); err != nil {
				t.Fatal(err)
			}
			if _, err := sim.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("the files of the deleted replica are still there: %v", err)
			}
			again := Spec{Group: bad.l.Group(), Replica: bad.l.Replica(), Name: bad.l.Name()}
			if _, err := s.Create(t.Context(), again); !errors.Is(err, ErrDeleted) {
				t.Errorf("it can be made again: %v", err)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
