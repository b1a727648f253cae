package wal

import (
	"bytes"
	"testing"
)

// TestLoanOutlivesTheTail reads what was lent after the tail has let go of it, in both of the ways in which it does: by eviction and by
// truncation. Without the loan the same bytes are garbage by then, since freed memory is poisoned in tests.
func TestLoanOutlivesTheTail(t *testing.T) {
	s := mustOpen(t, Options{Dir: t.TempDir(), CacheBytes: mib, JournalFileBytes: mib})
	defer closeStore(t, s)
	d := newDriver(t, s, mustCreate(t, s, 1))
	submit := func(loan *Loan, sizes ...int) (given, kept [][]byte) {
		var entries []Entry
		for _, n := range sizes {
			e := d.batchEntry(n)
			given, entries = append(given, bytes.Clone(e.Data)), append(entries, e)
		}
		s.Submit([]*Append{{Log: d.l, Entries: entries, Loan: loan, Done: func(*Append) { d.done <- struct{}{} }}})
		for i := range entries {
			kept = append(kept, entries[i].Data)
		}
		d.wait(1)
		return given, kept
	}
	check := func(what string, given, kept [][]byte) {
		t.Helper()
		for i := range given {
			if !bytes.Equal(given[i], kept[i]) {
				t.Fatalf("%s: batch %d was reused while it was lent", what, i)
			}
		}
	}

	evicted := NewLoan()
	given, kept := submit(evicted, 100, 5000, 200_000, 70_000)
	d.commitAll()
	for range 40 { // several times the cache
		submit(nil, 200_000)
		d.commitAll()
	}
	eventually(t, "the tail let go of the first batches", func() bool {
		s.evict(0, evictAll)
		d.l.mu.Lock()
		defer d.l.mu.Unlock()
		return d.l.segs[0].tail.start(0) > 300_000
	})
	check("eviction", given, kept)
	evicted.Retain()
	evicted.Release()
	check("a second reference", given, kept)
	evicted.Release()
	if bytes.Equal(given[2], kept[2]) {
		t.Fatal("freed memory was not overwritten: this test proves nothing")
	}

	cut := NewLoan()
	first := d.last() + 1
	given, kept = submit(cut, 61, 3000, 9000)
	d.truncate(first)
	submit(nil, 500, 500)
	check("truncation", given, kept)
	cut.Release()
	d.check()
}
