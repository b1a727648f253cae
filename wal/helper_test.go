package wal

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/wal/batch"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
)

func init() { poisonFreed = true }

// testBatch returns the bytes of a batch of records that end at total size n; fill makes its content.
func testBatch(base id.Offset, epoch id.Epoch, records, n int, ts int64, fill byte) []byte {
	n = max(n, 61)
	b := make([]byte, n)
	be := binary.BigEndian
	be.PutUint64(b[0:], uint64(base))
	be.PutUint32(b[8:], uint32(n-12))
	be.PutUint32(b[12:], uint32(epoch))
	b[16] = 2
	be.PutUint32(b[23:], uint32(records-1))
	be.PutUint64(b[27:], uint64(ts))
	be.PutUint64(b[35:], uint64(ts))
	be.PutUint64(b[43:], ^uint64(0))
	be.PutUint32(b[57:], uint32(records))
	for i := 61; i < n; i++ {
		b[i] = fill + byte(i)
	}
	be.PutUint32(b[17:], segment.Checksum(b[batch.PrefixSize:]))
	return b
}

// driver submits to one log and knows what it should hold.
type driver struct {
	t       testing.TB
	s       *Store
	l       *Log
	entries []Entry // from index start+1 on
	start   Start
	next    id.Offset
	term    id.Term
	done    chan struct{}
	commit  atomic.Uint64 // the last entry that was committed, for other goroutines
}

func newDriver(t testing.TB, s *Store, l *Log) *driver {
	return &driver{t: t, s: s, l: l, start: l.Start(), next: l.Start().Offset, term: 1, done: make(chan struct{}, 1024)}
}

func (d *driver) last() id.Index { return d.start.Index + id.Index(len(d.entries)) }

// batchEntry makes the next entry.
func (d *driver) batchEntry(size int) Entry {
	i := d.last() + 1
	records := 1 + int(i)%5
	e := Entry{Index: i, Term: d.term, Kind: KindBatch, Data: testBatch(d.next, id.EpochOf(d.term), records, size, int64(i)*10, byte(i)*3+byte(d.term))}
	d.next += id.Offset(records)
	d.entries = append(d.entries, e)
	return e
}

func (d *driver) controlEntry(kind EntryKind, data []byte) Entry {
	e := Entry{Index: d.last() + 1, Term: d.term, Kind: kind, Data: data}
	d.entries = append(d.entries, e)
	return e
}

// truncate drops entries from i on from the model and begins a new term.
func (d *driver) truncate(i id.Index) {
	for _, e := range d.entries[i-d.start.Index-1:] {
		if e.Kind == KindBatch {
			d.next -= id.Offset(binary.BigEndian.Uint32(e.Data[23:]) + 1)
		}
	}
	d.entries = d.entries[:i-d.start.Index-1]
	d.term++
}

// submit submits entries and returns without waiting.
func (d *driver) submit(entries ...Entry) {
	d.s.Submit([]*Append{{Log: d.l, Entries: entries, Done: func(*Append) { d.done <- struct{}{} }}})
}

func (d *driver) wait(n int) {
	d.t.Helper()
	for range n {
		select {
		case <-d.done:
		case <-d.s.failure:
			d.t.Fatalf("the store failed: %v", d.s.failCause)
		case <-time.After(20 * time.Second):
			d.t.Fatal("an append did not complete")
		}
	}
}

func (d *driver) commitAll() {
	d.l.SetCommit(d.last())
	d.commit.Store(uint64(d.last()))
}

// check compares the whole log with the model, by every way of reading.
func (d *driver) check() {
	d.t.Helper()
	checkLog(d.t, d.l, d.start, d.entries)
}

func checkLog(t testing.TB, l *Log, start Start, want []Entry) {
	t.Helper()
	if got := l.LastIndex(); got != start.Index+id.Index(len(want)) {
		t.Fatalf("%v: last index is %d, want %d", l, got, start.Index+id.Index(len(want)))
	}
	next := start.Offset
	var all []byte
	for i := start.Index + 1; i <= l.LastIndex(); {
		got, err := l.ReadEntries(i, l.LastIndex()+1, 256<<10)
		if err != nil || len(got) == 0 {
			t.Fatalf("%v: read entry %d: %d entries, %v", l, i, len(got), err)
		}
		for _, e := range got {
			w := want[i-start.Index-1]
			if e.Index != w.Index || e.Term != w.Term || e.Kind != w.Kind || !bytes.Equal(e.Data, w.Data) {
				t.Fatalf("%v: entry %d is %d/%d %v %d bytes, want %d/%d %v %d bytes", l, i, e.Index, e.Term, e.Kind, len(e.Data), w.Index, w.Term, w.Kind, len(w.Data))
			}
			if term, ok := l.Term(i); !ok || term != w.Term {
				t.Fatalf("%v: term of %d is %d %v, want %d", l, i, term, ok, w.Term)
			}
			if at := l.OffsetAt(i); at != next {
				t.Fatalf("%v: offset at entry %d is %d, want %d", l, i, at, next)
			}
			if e.Kind == KindBatch {
				next += id.Offset(binary.BigEndian.Uint32(e.Data[23:]) + 1)
				all = append(all, e.Data...)
			}
			i++
		}
	}
	if l.NextOffset() != next {
		t.Fatalf("%v: next offset is %d, want %d", l, l.NextOffset(), next)
	}
	var read []byte
	for from := start.Offset; from < next; {
		before := len(read)
		var err error
		if read, err = l.Read(read, from, next, 300<<10); err != nil || len(read) == before {
			t.Fatalf("%v: read offset %d: %d bytes, %v", l, from, len(read)-before, err)
		}
		for b := read[before:]; len(b) > 0; {
			from = id.Offset(binary.BigEndian.Uint64(b)) + id.Offset(binary.BigEndian.Uint32(b[23:])) + 1
			b = b[12+binary.BigEndian.Uint32(b[8:]):]
		}
	}
	if !bytes.Equal(read, all) {
		t.Fatalf("%v: Read gives %d bytes, want %d, or other ones", l, len(read), len(all))
	}
}

func testOptions(fs disk.FS, pfs vfs.FS, dir string) Options {
	return Options{
		Dir: dir, FS: fs, PebbleFS: pfs, JournalFileBytes: 1 * mib, CheckpointBytes: 4 * mib, CacheBytes: 64 * mib,
		SegmentBytes: 64 * mib, ReserveBytes: 1,
	}
}

func mustOpen(t testing.TB, o Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustCreate(t testing.TB, s *Store, n int) *Log {
	t.Helper()
	l, err := s.Create(context.Background(), Spec{
		Group: id.Group(n), Replica: id.Replica(n*10 + 1), Name: fmt.Sprintf("topic-%d", n),
		Start: Start{Index: 10, Term: 1, Offset: 0}, HardState: HardState{Term: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func findLog(t testing.TB, s *Store, g id.Group) *Log {
	t.Helper()
	for _, l := range s.Logs() {
		if l.Group() == g {
			return l
		}
	}
	t.Fatalf("group %d is gone; refused: %v", g, s.Refused())
	return nil
}
