package wal

import (
	"errors"
	"maps"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

var errMedium = errors.New("input/output error")

// TestCrashesWithErrors lets one operation of each boot fail, of Pebble's too (invariant 17): the store stops or it does not
// matter, and what it acknowledged is there afterwards.
func TestCrashesWithErrors(t *testing.T) {
	crashTest(t, 25, func(seed uint64) crashConfig {
		rng := rand.New(rand.NewPCG(seed, 3))
		var ops, at atomic.Int64
		at.Store(rng.Int64N(300))
		return crashConfig{boots: 8, ops: 60, fault: func(op disksim.Op) error {
			if op.Kind == disksim.OpRead || op.Kind == disksim.OpOpen {
				return nil
			}
			if n := ops.Add(1); n == at.Load() {
				at.Add(100 + int64(seed*7919%500))
				return errMedium
			}
			return nil
		}}
	})
}

// TestDeletionFailsOnce lets each operation of a deletion fail once, at the start that finds the log which was to be deleted: the
// second attempt has to leave nothing behind, also if the power fails after it.
func TestDeletionFailsOnce(t *testing.T) {
	doomed := func(op disksim.Op) bool {
		return op.Kind == disksim.OpRemove && strings.Contains(op.Name, deleteSuffix)
	}
	for _, c := range []struct {
		name string
		hit  func(disksim.Op) bool
	}{
		{"rename", func(op disksim.Op) bool {
			return op.Kind == disksim.OpRename && strings.HasSuffix(op.New, deleteSuffix)
		}},
		{"sync", func(op disksim.Op) bool { return op.Kind == disksim.OpSyncDir && op.Name == "/data/logs" }},
		{"remove file", func(op disksim.Op) bool { return doomed(op) && !strings.HasSuffix(op.Name, deleteSuffix) }},
		{"remove directory", func(op disksim.Op) bool { return doomed(op) && strings.HasSuffix(op.Name, deleteSuffix) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			for seed := range uint64(40) { // what a power loss takes differs
				failDeletionOnce(t, seed, c.hit)
			}
		})
	}
}

func failDeletionOnce(t *testing.T, seed uint64, hit func(disksim.Op) bool) {
	var armed, begun atomic.Bool
	r := newCrashRun(crashConfig{seed: seed, fault: func(op disksim.Op) error {
		if op.Kind == disksim.OpRename && strings.HasSuffix(op.New, deleteSuffix) {
			begun.Store(true) // from here on nobody else is at work on the log
		}
		if begun.Load() && !op.Pebble && hit(op) && armed.CompareAndSwap(true, false) {
			return errMedium
		}
		return nil
	}})
	r.opts.DirectAppendBytes, r.opts.SegmentBytes = 1, 1<<20
	maps.DeleteFunc(r.names, func(name string, _ *replica) bool { return name != "topic-0" })
	r.open(0)
	r.create()
	m := r.live()[0]
	for range 10 { // of which some have bytes for a segment
		r.store.Submit([]*Append{r.makeAppend(m, r.extend(m, true))})
		r.settle()
	}
	r.poll("files", func() bool { return r.ready(m) })
	m.deleting = true // and that was all: the process dies
	r.end()
	r.disk = r.disk.Crash(disksim.Kill)
	for boot := 1; boot <= 2 && r.failure() == nil; boot++ {
		armed.Store(boot == 1)
		if r.open(boot) {
			r.verify()
		}
		if r.failure() == nil && (!m.deleted || armed.Load()) {
			t.Fatalf("seed %d, boot %d: deleted: %v; the error is still to come: %v", seed, boot, m.deleted, armed.Load())
		}
		r.disk.Halt()
		r.end()
		r.disk = r.disk.Crash(disksim.PowerLoss)
	}
	if err := r.failure(); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
}

// TestCrashesOnFullDisk has the disk run full again and again: no acknowledgement is lost, and everything goes on once there
// is space.
func TestCrashesOnFullDisk(t *testing.T) {
	crashTest(t, 15, func(seed uint64) crashConfig {
		return crashConfig{boots: 6, ops: 60, full: true}
	})
}

// TestVotesOnFullDisk fills the disk and checks that terms and votes are still made durable, and that data is refused.
func TestVotesOnFullDisk(t *testing.T) {
	r := newCrashRun(crashConfig{seed: 5})
	r.opts.ReserveBytes, r.opts.DirectAppendBytes = 1<<20, 8<<10
	r.open(0)
	r.create()
	m := r.live()[0]
	limit := r.disk.Used() + 8<<20
	r.disk.SetCapacity(limit)
	full := false
	for range 5000 {
		if full = r.store.Pressure() == PressureNoSpace; full || r.over() {
			break
		}
		sub := r.newEntries(m)
		r.store.Submit([]*Append{r.makeAppend(m, sub)})
		r.settle()
		m.commitTo(m.cur.last()) // else truncations keep the log short
		r.logs[m].SetCommit(m.told)
	}
	if !full {
		t.Errorf("the pressure on a full disk is %v, with %d bytes of %d in use", r.store.Pressure(), r.disk.Used(), limit)
	}
	for range 200 {
		r.store.Submit([]*Append{r.makeAppend(m, submission{hs: r.newTerm(m)})})
		r.settle()
	}
	if err := r.failure(); err != nil {
		t.Fatal(err)
	}
	r.end()
	r.disk = r.disk.Crash(disksim.PowerLoss)
	r.disk.SetCapacity(0)
	if r.open(1) {
		r.verify()
		r.end()
	}
	if err := r.failure(); err != nil {
		t.Fatal(err)
	}
}

// TestStuckGroupDoesNotHoldTheJournal is invariant 19: a group that never commits anything has its bytes flushed and cut like
// all others, so that journal files come free.
func TestStuckGroupDoesNotHoldTheJournal(t *testing.T) {
	r := newCrashRun(crashConfig{seed: 1})
	r.opts.JournalFileBytes, r.opts.CheckpointBytes, r.opts.CacheBytes = 64<<10, 128<<10, 64<<20
	r.opts.DirectAppendBytes = 1 << 40
	r.open(0)
	r.create()
	all := r.live()
	all[0].stuck = true
	most := 0
	for i := range 400 {
		m := all[i%2]
		r.store.Submit([]*Append{r.makeAppend(m, r.extend(m, i%10 < 2))})
		r.settle()
		if !m.stuck {
			m.commitTo(m.cur.last())
			r.logs[m].SetCommit(m.told)
		}
		if i%20 == 0 { // a checkpoint may take a while on a busy machine
			r.poll("a checkpoint", func() bool { return r.store.Metrics().UncutBytes < r.opts.CheckpointBytes })
			most = max(most, r.store.Metrics().JournalFiles)
		}
		if err := r.failure(); err != nil {
			t.Fatal(err)
		}
	}
	written := r.store.Metrics().JournalBytes
	r.end()
	if err := r.failure(); err != nil {
		t.Fatal(err)
	}
	if written < 20*uint64(r.opts.CheckpointBytes) || most > 8 {
		t.Errorf("%d bytes were written, at most %d files of %d bytes were live", written, most, r.opts.JournalFileBytes)
	}
}

// TestFlippedBitIsNotServed damages a segment: what it held is refused, never served.
func TestFlippedBitIsNotServed(t *testing.T) {
	for seed := range uint64(10) {
		r := newCrashRun(crashConfig{seed: seed})
		r.opts.DirectAppendBytes, r.opts.SegmentBytes, r.opts.CacheBytes = 1, 16<<10, 32<<10
		r.open(0)
		r.create()
		m := r.live()[0]
		for range 60 {
			r.store.Submit([]*Append{r.makeAppend(m, r.extend(m, true))})
			r.settle()
			m.commitTo(m.cur.last())
			r.logs[m].SetCommit(m.told)
			r.serve()
		}
		l := r.logs[m]
		r.within("Close", r.store.Close)
		if err := r.failure(); err != nil {
			t.Fatal(err)
		}
		r.disk = r.disk.Crash(disksim.Kill)
		name := flipSomething(t, r.disk, "/data/logs/"+l.dir, seed)
		r.open(1)
		if err := r.failure(); err != nil {
			t.Fatal(err)
		}
		checkDamaged(t, r, m, name)
		r.end()
	}
}

// flipSomething changes a bit below the middle of a segment of batches.
func flipSomething(t *testing.T, d *disksim.Disk, dir string, seed uint64) string {
	names, err := d.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if info, err := d.Stat(dir + "/" + name); err == nil && strings.HasSuffix(name, ".log") && info.Size > 2*disk.BlockSize {
			if err := d.Flip(dir+"/"+name, int64(seed*997)%(info.Size/2), 1<<(seed%8)); err != nil {
				t.Fatal(err)
			}
			return name
		}
	}
	t.Fatal("there is no segment with enough in it")
	return ""
}

func checkDamaged(t *testing.T, r *crashRun, m *replica, name string) {
	for _, l := range r.store.Logs() {
		if l.Replica() != m.replica {
			continue
		}
		bad := 0
		for i := m.cur.start.Index + 1; i <= m.cur.last(); i++ {
			entries, err := l.ReadEntries(i, i+1, 1<<30)
			if err != nil {
				if !errors.Is(err, ErrCorrupt) {
					t.Fatalf("%s: entry %d: %v", name, i, err)
				}
				bad++
			} else if err := sameEntries(&m.cur, i, i+1, entries); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if bad == 0 {
			t.Fatalf("%s: nobody noticed the flipped bit", name)
		}
		return
	}
	t.Fatalf("the log is not there: %+v", r.store.Refused())
}
