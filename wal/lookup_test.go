package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// timed is an entry of a test of lookups: a batch's times, or none for a control entry.
type timed struct {
	entry Entry
	base  id.Offset
	times []int64
}

func timedBatch(t *testing.T, rng *rand.Rand, index id.Index, term id.Term, base id.Offset) timed {
	e := timed{entry: Entry{Index: index, Term: term, Kind: KindBatch}, base: base}
	var b batch.Builder
	for range 1 + rng.IntN(4) {
		e.times = append(e.times, rng.Int64N(1000))
		b.Append(batch.Record{Timestamp: e.times[len(e.times)-1], Value: make([]byte, rng.IntN(2000))})
	}
	data, err := b.Finish(nil, batch.Plain([]batch.Compression{batch.None, batch.Zstd}[rng.IntN(2)]))
	if err != nil {
		t.Fatal(err)
	}
	data.Stamp(base, id.EpochOf(term))
	e.entry.Data = data
	return e
}

// TestLookups compares lookups by time and of epochs with a search of everything: times in no order within and between batches, starts inside
// of batches, elections, truncations, segments on the disk and in memory, before and after a restart, a start that moves, and a reset.
func TestLookups(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	sim := disksim.New(disksim.Options{Direct: true})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.SegmentBytes = 64 * kib
	s := mustOpen(t, o)
	l := mustCreate(t, s, 0)
	d := newDriver(t, s, l)
	var log []timed
	end := func() id.Offset {
		if n := len(log); n > 0 {
			return log[n-1].base + id.Offset(len(log[n-1].times))
		}
		return d.start.Offset
	}
	add := func(e timed) {
		d.submit(e.entry)
		d.wait(1)
		log = append(log, e)
	}
	term, committed := id.Term(1), 0
	grow := func(n int) {
		for range n {
			next := d.start.Index + id.Index(len(log)) + 1
			switch {
			case rng.IntN(12) > 0:
				add(timedBatch(t, rng, next, term, end()))
				if rng.IntN(3) > 0 {
					committed = len(log)
					l.SetCommit(next)
				}
				continue
			case rng.IntN(2) == 0 && committed < len(log):
				log = log[:committed+rng.IntN(len(log)-committed)]
			}
			term += 1 + id.Term(rng.IntN(3))
			next = d.start.Index + id.Index(len(log)) + 1
			add(timed{entry: Entry{Index: next, Term: term, Kind: KindEmpty}, base: end()})
		}
		committed = len(log)
		l.SetCommit(l.LastIndex())
	}
	grow(300)
	check := func(what string) {
		t.Helper()
		for range 300 {
			ts, from := rng.Int64N(1100), d.start.Offset+id.Offset(rng.Int64N(int64(end()-d.start.Offset)+1))
			limit := end()
			if rng.IntN(4) == 0 {
				limit = log[rng.IntN(len(log))].base
			}
			want, at := id.NoOffset, int64(-1)
			for _, e := range log {
				for i, has := range e.times {
					offset := e.base + id.Offset(i)
					if want == id.NoOffset && has >= ts && offset >= from && e.base+id.Offset(len(e.times)) <= limit {
						want, at = offset, has
					}
				}
			}
			got, has, ok, err := l.OffsetForTime(t.Context(), ts, from, limit)
			if err != nil || got != want || has != at || ok != (want != id.NoOffset) {
				t.Fatalf("%s: time %d in [%d, %d) is at %d (%d), %v, %v; want %d (%d)", what, ts, from, limit, got, has, ok, err, want, at)
			}
		}
		for epoch := id.Epoch(-1); epoch <= id.EpochOf(term)+1; epoch++ {
			wantEpoch, want, ok := epoch, id.NoOffset, epoch >= 0 && epoch <= id.EpochOf(term)
			if ok && epoch >= id.EpochOf(d.start.Term) {
				wantEpoch, want = id.EpochOf(d.start.Term), end()
				for _, e := range log {
					if has := id.EpochOf(e.entry.Term); has <= epoch {
						wantEpoch = has
					} else {
						want = e.base
						break
					}
				}
			} else if ok {
				want = d.start.Offset
			}
			if !ok {
				wantEpoch = -1
			}
			gotEpoch, got, found, err := l.EpochEnd(epoch)
			if err != nil || found != ok || gotEpoch != wantEpoch || got != want {
				t.Fatalf("%s: epoch %d: %d ends at %d, %v, %v; want %d, %d, %v", what, epoch, gotEpoch, got, found, err, wantEpoch, want, ok)
			}
		}
	}
	restart := func() {
		closeStore(t, s)
		s = mustOpen(t, o)
		l = findLog(t, s, l.group)
		d.s, d.l = s, l
	}
	check("in memory")
	s.checkpoints.force()
	eventually(t, "segments are sealed", func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return len(l.segs) > 3 && l.segs[len(l.segs)-2].stage == segSealed
	})
	check("on the disk")
	restart()
	check("after a restart")

	infos := l.Segments()
	below := infos[1+rng.IntN(len(infos)-1)].Base
	eventually(t, "the start moves", func() bool {
		l.Trim(below)
		l.TakeCut(State{Applied: l.LastIndex()})
		s.checkpoints.force()
		return l.StartOffset() == below
	})
	trimmed := func() {
		log = log[l.Start().Index-d.start.Index:]
		d.start, committed = l.Start(), len(log)
	}
	trimmed()
	check("after the start moved")
	grow(40)
	check("with more behind it")
	restart()
	check("with more behind it, after a restart")

	term += 2
	reset := &Reset{Start: Start{Index: l.LastIndex() + 100, Term: term, Offset: end() + 50}}
	reset.State.Applied = reset.Start.Index
	s.Submit([]*Append{{Log: l, Reset: reset, Done: func(*Append) { d.done <- struct{}{} }}})
	d.wait(1)
	d.start, log, committed = reset.Start, nil, 0
	grow(40)
	check("after a reset")
	restart()
	check("after a reset and a restart")
	closeStore(t, s)
}

// TestLookupIsBounded: batches claim a time that no record of theirs has, one in each segment. A lookup reads no more than it may, leaves
// nothing out, and ends with whoever asked.
func TestLookupIsBounded(t *testing.T) {
	sim := disksim.New(disksim.Options{Direct: true})
	o := testOptions(sim, sim.Pebble(), "/data")
	o.SegmentBytes, o.CacheBytes, o.lookupLimit = 1*mib, 128*kib, 1*mib
	s := mustOpen(t, o)
	defer closeStore(t, s)
	d := newDriver(t, s, mustCreate(t, s, 1))
	put := func(ts, claim int64) {
		var bb batch.Builder
		bb.Append(batch.Record{Timestamp: ts, Value: make([]byte, 50*kib)})
		data, err := bb.Finish(nil, batch.Plain(batch.None))
		if err != nil {
			t.Fatal(err)
		}
		data.Stamp(d.next, 1)
		binary.BigEndian.PutUint64(data[35:], uint64(claim))
		binary.BigEndian.PutUint32(data[17:], segment.Checksum(data[batch.PrefixSize:]))
		e := Entry{Index: d.last() + 1, Term: 1, Kind: KindBatch, Data: data}
		d.next++
		d.entries = append(d.entries, e)
		d.submit(e)
		d.wait(1)
	}
	for i := range 120 {
		claim := int64(1000)
		if i%20 == 0 {
			claim = 1_000_000
		}
		put(1000, claim)
	}
	has := d.next
	put(500_000, 500_000)
	d.commitAll()
	if err := s.checkpoints.checkpoint(); err != nil {
		t.Fatal(err)
	}
	before := s.Metrics().ReadDiskBytes
	offset, at, ok, err := d.l.OffsetForTime(t.Context(), 500_000, 0, d.next)
	if err != nil || !ok || offset > has || at < 500_000 {
		t.Errorf("offset %d (%d), %v, %v; the record is at %d", offset, at, ok, err, has)
	}
	if n := int64(s.Metrics().ReadDiskBytes - before); n > o.lookupLimit+2*lookupBytes {
		t.Errorf("%d KiB were read, of %d that may be", n>>10, o.lookupLimit>>10)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, _, err := d.l.OffsetForTime(ctx, 500_000, 0, d.next); !errors.Is(err, context.Canceled) {
		t.Errorf("nobody waits any more: %v", err)
	}
}

// TestLookupBehindControlEntries: a segment of nothing but control entries has the base of the one behind it.
func TestLookupBehindControlEntries(t *testing.T) {
	d := startDriver(t)
	d.submit(d.controlEntry(KindEmpty, nil))
	d.l.Roll()
	d.submit(d.batchEntry(500))
	d.wait(2)
	d.commitAll()
	if _, _, ok, err := d.l.OffsetForTime(t.Context(), -5, 0, d.next); !ok || err != nil {
		t.Errorf("the batch behind it is not found: %v", err)
	}
}

// TestLookupReadsFewBlocks: where times grow evenly one or two blocks of an index are read for a time, of 64; where they do not, a few more
// than halving reads.
func TestLookupReadsFewBlocks(t *testing.T) {
	for _, c := range []struct {
		name string
		time func(n int) int64 // of batch n
		most int
	}{
		{"even", func(n int) int64 { return int64(n) * 10 }, 2},
		{"uneven", func(n int) int64 { return 1 << (n / 100) }, 6 + timeProbes},
	} {
		t.Run(c.name, func(t *testing.T) {
			const each = 64 * segment.RowsPerBlock
			sim := disksim.New(disksim.Options{Direct: true})
			o := testOptions(sim, sim.Pebble(), "/data")
			s := mustOpen(t, o)
			d := newDriver(t, s, mustCreate(t, s, 1))
			for range 3 { // the third one so that the second is sealed
				var es []Entry
				for range each {
					n := len(d.entries)
					e := Entry{Index: d.last() + 1, Term: 1, Kind: KindBatch, Data: testBatch(d.next, 1, 1, 70, c.time(n%each)+c.time(each)*int64(n/each), 0)}
					d.next++
					d.entries, es = append(d.entries, e), append(es, e)
				}
				d.l.Roll()
				d.submit(es...)
				d.wait(1)
				d.commitAll()
			}
			closeStore(t, s)
			s = mustOpen(t, o)
			defer closeStore(t, s)
			l := findLog(t, s, 1)
			if err := s.checkpoints.flushAll([]*Log{l}, 0); err != nil {
				t.Fatal(err)
			}
			s.evict(0, evictAll)
			var reads atomic.Int64
			sim.SetHook(func(op disksim.Op) error {
				if op.Kind == disksim.OpRead && strings.HasSuffix(op.Name, segment.IndexSuffix) {
					reads.Add(1)
				}
				return nil
			})
			worst := int64(0)
			for n := each + 3; n < 2*each; n += 131 {
				s.rows.forget(l.segs[1])
				before := reads.Load()
				ts := c.time(n%each) + c.time(each)
				offset, at, ok, err := l.OffsetForTime(t.Context(), ts, 0, d.next)
				if err != nil || !ok || at != ts || offset > id.Offset(n) || c.name == "even" && offset != id.Offset(n) {
					t.Fatalf("time %d is at %d (%d), %v, %v; want %d", ts, offset, at, ok, err, n)
				}
				worst = max(worst, reads.Load()-before)
			}
			if worst == 0 || worst > int64(c.most) {
				t.Errorf("up to %d blocks were read for one time", worst)
			}
		})
	}
}
