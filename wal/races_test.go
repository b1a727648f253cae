package wal

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/journal"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// slowFS holds up one sync of the first segment's index until the test says so. Those of others are the preparer's.
type slowFS struct {
	disk.FS
	armed   atomic.Bool
	entered chan struct{}
	leave   chan struct{}
}
type slowFile struct {
	disk.File
	fs *slowFS
}

func (f *slowFS) wrap(name string, x disk.File, err error) (disk.File, error) {
	if err != nil || !strings.HasSuffix(name, segment.Key{}.Index()) {
		return x, err
	}
	return &slowFile{x, f}, nil
}
func (f *slowFS) Create(name string) (disk.File, error) {
	x, err := f.FS.Create(name)
	return f.wrap(name, x, err)
}
func (f *slowFS) Open(name string) (disk.File, error) {
	x, err := f.FS.Open(name)
	return f.wrap(name, x, err)
}
func (f *slowFile) Sync() error {
	err := f.File.Sync()
	if f.fs.armed.CompareAndSwap(true, false) {
		close(f.fs.entered)
		<-f.fs.leave // a sync that takes a little longer
	}
	return err
}

// TestSealAndIndexDoNotCountRowsTwice has the preparer seal a segment while the checkpointer appends rows to its index.
func TestSealAndIndexDoNotCountRowsTwice(t *testing.T) {
	dir := t.TempDir()
	fs := &slowFS{FS: disk.NewBuffered(), entered: make(chan struct{}), leave: make(chan struct{})}
	o := testOptions(fs, nil, dir)
	o.SegmentBytes = 512 * kib
	o.CheckpointBytes = 1 << 40
	s := mustOpen(t, o)
	l := mustCreate(t, s, 1)
	d := newDriver(t, s, l)
	put := func(n int) {
		var e []Entry
		for range n {
			e = append(e, d.batchEntry(4096))
		}
		d.submit(e...)
		d.wait(1)
		d.commitAll()
	}
	put(100)
	if err := s.flush(l, true); err != nil {
		t.Fatal(err)
	}
	put(60) // rolls
	if len(l.segs) != 2 {
		t.Fatal(len(l.segs))
	}
	eventually(t, "files of the second segment, whose syncs are none of this", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.segs[1].names == namesReady && l.preparing == 0
	})
	fs.armed.Store(true)
	done := make(chan error)
	go func() { done <- s.flushIndex(l) }() // the checkpointer
	<-fs.entered
	if err := s.flush(l, true); err != nil { // the preparer's catch-up: seals
		t.Fatal(err)
	}
	close(fs.leave)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got, want := l.segs[0].indexed, l.segs[1].first; got > want {
		t.Errorf("rows below %d are said to be indexed; the segment's entries end before %d", got, want)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal("open: ", err)
	}
	_ = s.Close()
}

// TestViewFindsRowsThatWereIndexedMeanwhile has a checkpoint and the evictor come between the steps of a read.
func TestViewFindsRowsThatWereIndexedMeanwhile(t *testing.T) {
	o := testOptions(nil, nil, t.TempDir())
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	l := mustCreate(t, s, 1)
	d := newDriver(t, s, l)
	for range 16 {
		var e []Entry
		for range 64 {
			e = append(e, d.batchEntry(4096))
		}
		d.submit(e...)
		d.wait(1)
	}
	d.commitAll()
	if err := s.flush(l, true); err != nil {
		t.Fatal(err)
	}
	for len(l.segs[0].tail.chunks) > 3 || l.segs[0].tail.chunks[0].pos < 8192 {
		if !l.evictOne() { // the bytes leave the tail; the rows stay, they are not indexed yet
			t.Fatal("evict")
		}
	}
	l.mu.Lock()
	v := l.view(0) // a consumer's Read begins
	l.mu.Unlock()
	first := v.sg.first
	var row segment.Row
	if err := v.row(first, &row); err != nil {
		t.Fatal("before", err)
	}
	if err := s.flushIndex(l); err != nil { // a checkpoint
		t.Fatal(err)
	}
	for range 2 {
		l.evictOne() // the next round finds the cache full
	}
	if err := v.row(first, &row); err != nil { // and goes on
		t.Error(err)
	}
}

// TestNothingRunsAheadOfATruncation: entries behind a truncation in flight are committed, as others have them, and not durable here, while
// the log that was durable reached further. Neither rows nor a state of them may be taken for what a cut can have.
func TestNothingRunsAheadOfATruncation(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.CheckpointBytes, o.CheckpointInterval, o.trimInterval = 1<<40, time.Hour, time.Hour
	s := mustOpen(t, o)
	d := newDriver(t, s, mustCreate(t, s, 1))
	batches := func(n int) (es []Entry) {
		for range n {
			es = append(es, d.batchEntry(500))
		}
		return es
	}
	d.submit(batches(300)...)
	d.wait(1)
	d.l.SetCommit(d.l.FirstIndex() + 8)
	entered, leave := make(chan struct{}), make(chan struct{})
	sim.SetHook(func(op disksim.Op) error {
		if !op.Pebble && op.Kind == disksim.OpWrite && strings.HasPrefix(op.Name, "/data/journal/") && op.Bytes > 4*kib && op.Bytes < 64*kib {
			// No empty frame, and nothing of a new file.
			entered <- struct{}{}
			<-leave
		}
		return nil
	})
	d.truncate(d.l.FirstIndex() + 10)
	d.submit(batches(10)...)
	<-entered // the round with the truncation
	d.submit(batches(100)...)
	d.commitAll()
	if err := s.flushIndex(d.l); err != nil {
		t.Fatal(err)
	}
	d.l.TakeCut(State{Applied: d.last()})
	d.l.letsGo()
	leave <- struct{}{}
	d.wait(1)
	<-entered // the next one
	d.l.mu.Lock()
	done, indexed, applied := d.l.doneIndex, d.l.segs[0].indexed, d.l.state.Applied
	d.l.mu.Unlock()
	if indexed > done+1 || applied > done {
		t.Errorf("entries up to %d are durable; rows below %d are indexed, and the state is that of entry %d", done, indexed, applied)
	} else if _, _, ok, err := d.l.takeCut(journal.Seq(s.completed.Load()), longestTail); !ok || err != nil {
		t.Errorf("between the rounds: %v, %v", ok, err)
	}
	sim.SetHook(nil)
	leave <- struct{}{}
	d.wait(1)
	d.cut()
	d.check()
	closeStore(t, s)
	s = mustOpen(t, o)
	d.s, d.l = s, findLog(t, s, 1)
	d.check()
	closeStore(t, s)
}
