package wal

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"

	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// viewAt is a large view as of an index.
func viewAt(i id.Index, size int) []byte {
	return append(fmt.Appendf(nil, "as of %d.", i), bytes.Repeat([]byte{byte(i)}, size)...)
}

// answerCuts gives the state as of the last entry that the driver has committed whenever it is asked for, which may be at any time.
func answerCuts(s *Store, d *driver, size int) {
	s.SetCutTaker(func(l *Log) {
		at := max(id.Index(d.commit.Load()), d.start.Index)
		l.TakeCut(State{Applied: at, View: viewAt(at, size)})
	})
}

// checkpointed appends a few bytes, commits them and waits for a checkpoint.
func checkpointed(t *testing.T, d *driver, bytes int) {
	t.Helper()
	d.submit(d.batchEntry(bytes))
	d.wait(1)
	d.commitAll()
	anotherCheckpoint(t, d.s, d.s.checkpoints.force)
}

// anotherCheckpoint waits for the checkpoint that cause causes.
func anotherCheckpoint(t *testing.T, s *Store, cause func()) {
	t.Helper()
	count := s.Metrics().Checkpoints
	cause()
	eventually(t, "a checkpoint", func() bool { return s.Metrics().Checkpoints > count })
}

// TestViewsCostNoMoreThanTheLog: a large view and little traffic. The view is written once the log has grown by as much, and a start finds
// a state whose entries since are all there. Without the rule each checkpoint writes all of it.
func TestViewsCostNoMoreThanTheLog(t *testing.T) {
	const size, checkpoints, bytesEach = 512 * kib, 60, 16 * kib
	var wrote [2]uint64
	for i, off := range []rules{{viewWaits: true}, {}} {
		sim := disksim.New(disksim.Options{})
		o := testOptions(sim, sim.Pebble(), "/data")
		o.off = off
		s := mustOpen(t, o)
		d := newDriver(t, s, mustCreate(t, s, 1))
		answerCuts(s, d, size)
		for range checkpoints {
			checkpointed(t, d, bytesEach)
		}
		wrote[i] = s.Metrics().ViewBytes
		t.Logf("rule off: %v: %d checkpoints after %d bytes each wrote %d bytes of views and %d bytes to Pebble's log",
			off.viewWaits, checkpoints, bytesEach, wrote[i], s.meta.Metrics().WAL.BytesWritten)
		sim.Halt()
		_ = s.Close()
		sim = sim.Crash(disksim.PowerLoss)
		s = mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
		d.s, d.l = s, findLog(t, s, 1)
		d.check()
		st := d.l.State()
		if !bytes.Equal(st.View, viewAt(st.Applied, size)) {
			t.Errorf("the view is not the one as of %d", st.Applied)
		}
		if since := int(d.last()-st.Applied) * bytesEach; since > size+bytesEach {
			t.Errorf("%d bytes of the log are above the state, whose view has %d", since, size)
		}
		closeStore(t, s)
	}
	if most := uint64(checkpoints*bytesEach + size + 2*kib); wrote[1] > most {
		t.Errorf("%d bytes of views were written, %d of the log", wrote[1], most)
	}
	if wrote[0] < 10*wrote[1] {
		t.Errorf("%d bytes of views with the rule, %d without", wrote[1], wrote[0])
	}
}

// TestGrowthSinceAStateOutlivesStarts: lives that end before the log has grown by as much as the view takes. What a start has to apply
// again does not become more and more.
func TestGrowthSinceAStateOutlivesStarts(t *testing.T) {
	const size = 256 * kib
	sim := disksim.New(disksim.Options{})
	s := mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
	d := newDriver(t, s, mustCreate(t, s, 1))
	for life := range 12 {
		answerCuts(s, d, size)
		checkpointed(t, d, size/4)
		d.submit(d.batchEntry(size / 16)) // which only the journal has
		d.wait(1)
		d.commitAll()
		sim.Halt()
		_ = s.Close()
		sim = sim.Crash(disksim.PowerLoss)
		s = mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
		d.s, d.l = s, findLog(t, s, 1)
		d.check()
		above := d.l.State().Applied
		n := 0
		for _, e := range d.entries[above-d.start.Index:] {
			n += len(e.Data)
		}
		if n > size+size/2 {
			t.Fatalf("life %d: %d bytes of the log are above the state, whose view has %d", life, n, size)
		}
	}
	closeStore(t, s)
}

// TestCondemnedLogIsCutAnew: what rotted in a log that goes on being served is below the state of its next cut, however large the view.
func TestCondemnedLogIsCutAnew(t *testing.T) {
	const size = 256 * kib
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.OnCondemned = func(*Log, Condemnation, Refusal) {}
	s := mustOpen(t, o)
	d := newDriver(t, s, mustCreate(t, s, 1))
	answerCuts(s, d, size)
	checkpointed(t, d, kib)
	before := d.l.State().Applied
	checkpointed(t, d, kib)
	if now := d.l.State().Applied; now != before {
		t.Fatalf("the state went from %d to %d: the view is not large enough for this test", before, now)
	}
	anotherCheckpoint(t, s, func() { s.condemn(d.l, CondemnedReads, "for a test") })
	if now := d.l.State().Applied; now != d.last() {
		t.Errorf("the state is as of %d, the log ends at %d", now, d.last())
	}
	closeStore(t, s)
}

// TestLateStateIsCut: an owner that does not answer in time gives the state that is wanted to the checkpoint after, although nothing else
// has changed by then.
func TestLateStateIsCut(t *testing.T) {
	const size = 256 * kib
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.OnCondemned = func(*Log, Condemnation, Refusal) {}
	s := mustOpen(t, o)
	d := newDriver(t, s, mustCreate(t, s, 1))
	answerCuts(s, d, size)
	checkpointed(t, d, kib)
	before := d.l.State().Applied
	checkpointed(t, d, kib)
	s.SetCutTaker(func(l *Log) { l.DeclineCut() })
	anotherCheckpoint(t, s, func() { s.condemn(d.l, CondemnedReads, "for a test") })
	if now := d.l.State().Applied; now != before {
		t.Fatalf("the state went from %d to %d, and nobody gave one", before, now)
	}
	answerCuts(s, d, size)
	anotherCheckpoint(t, s, s.checkpoints.force)
	if now := d.l.State().Applied; now != d.last() {
		t.Errorf("the state is as of %d, the log ends at %d", now, d.last())
	}
	closeStore(t, s)
}

// TestRoomForViews: a checkpoint on a full disk reckons with the views that it will ask for, and with those that were given.
func TestRoomForViews(t *testing.T) {
	const size = 256 * kib
	sim := disksim.New(disksim.Options{})
	s := mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
	d := newDriver(t, s, mustCreate(t, s, 1))
	answerCuts(s, d, size)
	checkpointed(t, d, kib)
	if n := d.l.cutBytes(longestTail); n >= size {
		t.Errorf("a cut with a view that is stored takes %d bytes", n)
	}
	d.l.wantState()
	if n := d.l.cutBytes(longestTail); n < size {
		t.Errorf("a cut for which a new view is asked takes %d bytes", n)
	}
	d.l.TakeCut(State{Applied: d.last(), View: viewAt(d.last(), 2*size)})
	if n := d.l.cutBytes(longestTail); n < 2*size {
		t.Errorf("a cut with a view that was given takes %d bytes", n)
	}
	closeStore(t, s)
}

// TestViewOfAnotherCut: a view that is not the one of its cut costs the replica, and nobody else.
func TestViewOfAnotherCut(t *testing.T) {
	for what, spoil := range map[string]func(*pebble.Batch, []byte) error{
		"gone":    func(b *pebble.Batch, key []byte) error { return b.Delete(key, nil) },
		"another": func(b *pebble.Batch, key []byte) error { return b.Set(key, viewAt(12, 100), nil) },
	} {
		t.Run(what, func(t *testing.T) {
			sim := disksim.New(disksim.Options{})
			s := mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
			d, other := newDriver(t, s, mustCreate(t, s, 1)), mustCreate(t, s, 2)
			other.TakeCut(State{Applied: 10, View: []byte("whole")})
			answerCuts(s, d, 100)
			checkpointed(t, d, 1000)
			b := s.meta.NewBatch()
			if err := spoil(b, viewKey(d.l.group, d.l.replica)); err != nil {
				t.Fatal(err)
			}
			if err := s.metaCommit(b, pebble.Sync); err != nil {
				t.Fatal(err)
			}
			sim.Halt()
			_ = s.Close()
			sim = sim.Crash(disksim.PowerLoss)
			s = mustOpen(t, testOptions(sim, sim.Pebble(), "/data"))
			defer closeStore(t, s)
			if r := s.Refused(); len(r) != 1 || r[0].Group != 1 || r[0].Name != "topic-1" {
				t.Errorf("refused are %+v", r)
			}
			findLog(t, s, 2)
		})
	}
}
