package wal

import (
	"bytes"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/journal"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// drawRun makes a valid run and its payload.
func drawRun(t *rapid.T, form recordForm) (runRecord, []byte) {
	r := runRecord{
		key:    segment.Key{Base: id.Offset(rapid.Int64Range(0, 1<<40).Draw(t, "base")), ID: rapid.Uint32().Draw(t, "id")},
		commit: id.Index(rapid.Uint64().Draw(t, "commit")),
	}
	pos := id.Position(rapid.Int64Range(0, 1<<20).Draw(t, "pos"))
	index, offset, first := id.Index(rapid.Uint64Range(1, 1<<40).Draw(t, "index")), r.key.Base+5, pos
	for range rapid.IntRange(1, 5).Draw(t, "rows") {
		row := segment.Row{Index: index, Position: pos, Offset: offset, Term: 3, Kind: uint8(KindEmpty)}
		if rapid.Bool().Draw(t, "batch") {
			row.Kind, row.Records = uint8(KindBatch), 2
			row.Length = uint32(rapid.IntRange(61, 9000).Draw(t, "length"))
		} else {
			r.controls = append(r.controls, rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "control"))
		}
		index, pos, offset = index+1, row.End(), row.NextOffset()
		r.rows = append(r.rows, row)
	}
	data := first
	if form == formReference {
		r.to = id.Position(disk.RoundDown(int64(pos)))
		if r.to == 0 {
			return drawRun(t, form)
		}
		r.from = min(r.to-disk.BlockSize, id.Position(disk.RoundDown(int64(first))))
		data = r.to
	} else if rapid.Bool().Draw(t, "fragment") {
		r.fragment = bytes.Repeat([]byte{7}, int(first%disk.BlockSize))
	}
	r.data = bytes.Repeat([]byte{9}, int(pos-data))
	control := 0
	for _, c := range r.controls {
		control += 4 + len(c)
	}
	b := make([]byte, runHeaderBytes+segment.RowSize*len(r.rows))
	putRunHeader(b, &r, len(r.fragment), control, len(r.data))
	b = append(b, r.fragment...)
	for _, c := range r.controls {
		b = append(b, byte(len(c)), 0, 0, 0)
		b = append(b, c...)
	}
	return r, append(b, r.data...)
}

func TestRunRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		form := recordForm(rapid.IntRange(0, 1).Draw(t, "form"))
		want, b := drawRun(t, form)
		var got runRecord
		if err := got.parse(b, form); err != nil {
			t.Fatal(err)
		}
		if got.key != want.key || got.commit != want.commit || got.from != want.from || got.to != want.to ||
			!reflect.DeepEqual(got.rows, want.rows) || !bytes.Equal(got.fragment, want.fragment) || !bytes.Equal(got.data, want.data) ||
			len(got.controls) != len(want.controls) {
			t.Fatalf("%+v came back as %+v", want, got)
		}
		if n := rapid.IntRange(0, len(b)-1).Draw(t, "cut"); got.parse(b[:n], form) == nil {
			t.Fatalf("%d of %d bytes parse", n, len(b))
		}
	})
}

func TestHardStateAndResetRoundTrip(t *testing.T) {
	hs := HardState{Term: 1 << 40, Vote: 7, Commit: 9}
	b := make([]byte, hardStateBytes)
	putHardState(b, hs)
	if got, err := parseHardState(b); err != nil || got != hs {
		t.Errorf("%+v came back as %+v: %v", hs, got, err)
	}
	r := Reset{Start: Start{Index: 5, Term: 2, Offset: 77}, State: State{Applied: 5, ConfState: []byte("conf"), View: []byte("view")}}
	b = make([]byte, resetFixedBytes)
	putReset(b, &r)
	b = append(append(b, r.State.ConfState...), r.State.View...)
	if got, err := parseReset(b); err != nil || !reflect.DeepEqual(got, r) {
		t.Errorf("%+v came back as %+v: %v", r, got, err)
	}
	for n := range b {
		if _, err := parseReset(b[:n]); err == nil {
			t.Errorf("%d of %d bytes of a reset parse", n, len(b))
		}
	}
}

func testCut() *cut {
	row := segment.Row{Index: 20, Position: 10, Length: 90, Records: 3, Offset: 40, Kind: uint8(KindBatch), Term: 2}
	return &cut{
		covered: 99, topic: id.NewTopic(), name: "orders-0", dir: "orders-0.7", segmentBytes: 1 << 20,
		start: Start{Index: 9, Term: 1, Offset: 5}, next: 43, hs: HardState{Term: 3, Vote: 1, Commit: 20},
		state: State{Applied: 20, ConfState: []byte("c")}, view: viewMark{7, 0xDEADBEEF}, since: 4711,
		epochs: []epoch{{9, 1}, {15, 2}}, controls: []control{{12, []byte("x")}},
		segs: []cutSegment{
			{key: segment.Key{Base: 5}, sealed: true, first: 10, end: 5000, w: 5000, indexed: 20, maxTime: 8},
			{key: segment.Key{Base: 40, ID: 2}, first: 20, end: 100, indexed: 20, maxTime: -1, rows: []segment.Row{row}, tail: bytes.Repeat([]byte{4}, 100)},
		},
	}
}

func TestCutRoundTrip(t *testing.T) {
	want := testCut()
	b := want.append(nil)
	got, err := parseCut(b)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v came back as %+v: %v", want, got, err)
	}
	for i := range b {
		b[i] ^= 0x10
		if _, err := parseCut(b); err == nil {
			t.Fatalf("a flipped bit in byte %d of a cut was not seen", i)
		}
		b[i] ^= 0x10
		if _, err := parseCut(b[:i]); err == nil {
			t.Fatalf("%d of %d bytes of a cut parse", i, len(b))
		}
	}
}

// FuzzRecords makes sure that no payload panics, allocates out of proportion or is taken for what it cannot be.
func FuzzRecords(f *testing.F) {
	b := make([]byte, hardStateBytes)
	putHardState(b, HardState{1, 2, 3})
	f.Add(uint8(journal.KindHardState), b)
	row := segment.Row{Index: 1, Kind: uint8(KindEmpty)}
	run := runRecord{rows: []segment.Row{row}}
	b = make([]byte, runHeaderBytes+segment.RowSize)
	putRunHeader(b, &run, 0, 4, 0)
	f.Add(uint8(journal.KindEntry), append(b, 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		var r runRecord
		for _, form := range []recordForm{formEntries, formReference} {
			if r.parse(b, form) == nil && int64(len(r.data)) != int64(r.rows[len(r.rows)-1].End()-max(r.to, r.rows[0].Position)) && form == formEntries {
				t.Fatalf("%d bytes of data for %+v", len(r.data), r.rows)
			}
		}
		_, _ = parseHardState(b)
		_, _ = parseReset(b)
	})
}

// FuzzCut puts a right checksum behind every input, so that the decoder's own checks are what is tried.
func FuzzCut(f *testing.F) {
	b := testCut().append(nil)
	f.Add(b[:len(b)-4])
	f.Fuzz(func(t *testing.T, b []byte) {
		sum := segment.Checksum(b)
		c, err := parseCut(append(clone(b), byte(sum), byte(sum>>8), byte(sum>>16), byte(sum>>24)))
		if err == nil && len(c.append(nil)) != len(b)+4 {
			t.Fatalf("a cut of %d bytes is stored in %d", len(b), len(c.append(nil)))
		}
	})
}
