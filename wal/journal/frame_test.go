package journal

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
)

const testEpoch = 0x1122334455667788

func buildFrame(t testing.TB, records []Record, seq, prev Seq) []byte {
	t.Helper()
	var f Frame
	addAll(&f, records)
	if err := f.Build(); err != nil {
		t.Fatal(err)
	}
	return f.finish(testEpoch, seq, prev)
}

func addAll(f *Frame, records []Record) {
	for _, r := range records {
		f.Add(r.Kind, r.Group, r.Replica, r.Payload)
	}
}

// readFrame finds the frame in b as recovery does.
func readFrame(b []byte) (records []Record, lost []RecordKey, ok, found bool) {
	for at := int64(0); at < int64(len(b)); at += disk.BlockSize {
		h, start, ok := blockFrame(b[at:at+disk.BlockSize], at, testEpoch)
		if ok && start == 0 && h.total == int64(len(b)) {
			records, lost, ok := decode(b, &h, nil, nil)
			return records, lost, ok, true
		}
	}
	return nil, nil, false, false
}

func sameRecords(a, b []Record) bool {
	return slices.EqualFunc(a, b, func(x, y Record) bool {
		return x.Kind == y.Kind && x.Group == y.Group && x.Replica == y.Replica && bytes.Equal(x.Payload, y.Payload)
	})
}

var genRecord = rapid.Custom(func(t *rapid.T) Record {
	return Record{
		Kind:    Kind(rapid.IntRange(1, 5).Draw(t, "kind")),
		Group:   id.Group(rapid.Uint64().Draw(t, "group")),
		Replica: id.Replica(rapid.Uint64().Draw(t, "replica")),
		Payload: rapid.SliceOfN(rapid.Byte(), -1, 3000).Draw(t, "payload"),
	}
})

func TestFrameRoundTrip(t *testing.T) {
	var f Frame // reused by all: what is left of an earlier frame must not show
	rapid.Check(t, func(t *rapid.T) {
		records := rapid.SliceOfN(genRecord, 0, 20).Draw(t, "records")
		f.Reset()
		for _, r := range records {
			cut := rapid.IntRange(0, len(r.Payload)).Draw(t, "cut")
			head := f.Scratch(cut)
			copy(head, r.Payload)
			f.Add(r.Kind, r.Group, r.Replica, head, nil, r.Payload[cut:])
		}
		if err := f.Build(); err != nil {
			t.Fatal(err)
		}
		b := f.finish(testEpoch, 7, 5)
		if int64(len(b)) != f.Size() || len(b)%disk.BlockSize != 0 {
			t.Fatalf("frame has %d bytes, Size is %d", len(b), f.Size())
		}
		h, ok := parseHeader(b, headMagic, testEpoch)
		if !ok || h.seq != 7 || h.prevDurable != 5 {
			t.Fatalf("header %+v, %v", h, ok)
		}
		if h2, ok := parseHeader(b[len(b)-headBytes:], footMagic, testEpoch); !ok || h2 != h {
			t.Fatalf("footer %+v differs from header %+v", h2, h)
		}
		got, lost, ok := decode(b, &h, nil, nil)
		if !ok || len(lost) > 0 || !sameRecords(got, records) {
			t.Fatalf("got %d records, %d lost, %v; want %d", len(got), len(lost), ok, len(records))
		}
		if _, ok := parseHeader(b, headMagic, testEpoch+1); ok {
			t.Fatal("a frame of another epoch parses")
		}
	})
}

// Every bit of a frame: a flip in any header costs nothing, in a payload exactly that record, in the padding nothing.
func TestFlippedBitCostsOneRecordAtMost(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var records []Record
	for i, n := range []int{0, 1, 700, 5000, 64, 3} {
		p := make([]byte, n)
		for k := range p {
			p[k] = byte(rng.Uint32())
		}
		records = append(records, Record{Kind: KindEntry, Group: id.Group(i + 1), Replica: 9, Payload: p})
	}
	b := buildFrame(t, records, 3, 2)
	payloads := headBytes + rowBytes*len(records)
	for at := range b {
		mask := byte(1) << rng.IntN(8)
		b[at] ^= mask
		got, lost, ok, found := readFrame(b)
		want, hit := slices.Clone(records), -1
		pos := payloads
		for i, r := range records {
			if at >= pos && at < pos+len(r.Payload) {
				hit = i
			}
			pos += len(r.Payload)
		}
		if hit >= 0 {
			want = slices.Delete(want, hit, hit+1)
		}
		if !found || !ok || !sameRecords(got, want) {
			t.Fatalf("bit flipped at %d: found %v, record headers %v, %d of %d records", at, found, ok, len(got), len(want))
		}
		if hit < 0 && len(lost) != 0 || hit >= 0 && (len(lost) != 1 || lost[0].Group != records[hit].Group) {
			t.Fatalf("bit flipped at %d: lost %v", at, lost)
		}
		b[at] ^= mask
	}
}

func TestBothCopiesGone(t *testing.T) {
	b := buildFrame(t, []Record{{Kind: KindEntry, Group: 1, Replica: 2, Payload: make([]byte, 9000)}}, 3, 2)
	for name, at := range map[string][2]int{
		"record headers": {headBytes + 8, len(b) - headBytes - 8},
		"headers":        {20, len(b) - 40},
	} {
		c := slices.Clone(b)
		c[at[0]] ^= 4
		c[at[1]] ^= 4
		records, lost, ok, found := readFrame(c)
		if len(records)+len(lost) != 0 || ok || found != (name == "record headers") {
			t.Errorf("%s: %d records, %d lost, %v, found %v", name, len(records), len(lost), ok, found)
		}
	}
}

func TestFrameLimits(t *testing.T) {
	var f Frame
	big := make([]byte, 1<<20)
	for range MaxFrameBytes >> 20 {
		f.Add(KindEntry, 1, 1, big)
	}
	if err := f.Build(); err == nil {
		t.Fatal("a frame above the limit was built")
	}
	f.Reset()
	if err := f.Build(); err != nil || f.Size() != disk.BlockSize {
		t.Fatalf("empty frame: %v, %d bytes", err, f.Size())
	}
}

func TestScratchStays(t *testing.T) {
	var f Frame
	for range 3 {
		f.Reset()
		var pieces [][]byte
		for i := range 5000 {
			n := i % 97
			if i%500 == 499 {
				n = 2 * chunkBytes
			}
			p := f.Scratch(n)
			for k := range p {
				p[k] = byte(i)
			}
			pieces = append(pieces, p)
		}
		for i, p := range pieces {
			for _, c := range p {
				if c != byte(i) {
					t.Fatalf("piece %d was overwritten", i)
				}
			}
		}
	}
}

func TestFrameReuseDoesNotAllocate(t *testing.T) {
	var f Frame
	payload := make([]byte, 4000)
	round := func() {
		f.Reset()
		for g := range id.Group(100) {
			head := f.Scratch(40)
			f.Add(KindEntry, g, 1, head, payload)
		}
		if err := f.Build(); err != nil {
			t.Fatal(err)
		}
		f.finish(testEpoch, 5, 4)
	}
	round()
	if n := testing.AllocsPerRun(10, round); n > 0 {
		t.Fatalf("%v allocations for a round of 100 records", n)
	}
}

func TestFileInfoEncoding(t *testing.T) {
	info := FileInfo{Name: "00000017.journal", Number: 9, Epoch: 77, Bytes: 1 << 20, First: 12, End: 4096, Last: 13}
	b := info.Append([]byte("x"))[1:]
	got, err := ParseFileInfo(b)
	if err != nil || got != info {
		t.Fatalf("got %v, %v", got, err)
	}
	for i := range b {
		c := slices.Clone(b)
		c[i] ^= 1
		if _, err := ParseFileInfo(c); err == nil {
			t.Fatalf("byte %d may be anything", i)
		}
	}
	for n := range b {
		if _, err := ParseFileInfo(b[:n]); err == nil {
			t.Fatalf("%d bytes are enough", n)
		}
	}
	if s := fmt.Sprint(info); bytes.Contains([]byte(s), []byte("77")) {
		t.Fatalf("%q shows the epoch", s)
	}
}

// FuzzDecode damages a frame, or decodes anything. What is returned as intact must be what was written.
func FuzzDecode(f *testing.F) {
	records := []Record{
		{Kind: KindEntry, Group: 1, Replica: 2, Payload: bytes.Repeat([]byte("a"), 5000)},
		{Kind: KindHardState, Group: 3, Replica: 4, Payload: []byte("term and vote")},
		{Kind: KindTombstone, Group: 5, Replica: 6},
	}
	frame := buildFrame(f, records, 3, 2)
	f.Add([]byte{}, uint16(0), uint16(0))
	f.Add([]byte{1}, uint16(0), uint16(len(frame)))
	f.Add([]byte{0x80, 0, 0, 1}, uint16(len(frame)-headBytes), uint16(disk.BlockSize))
	f.Add(frame[:headBytes], uint16(disk.BlockSize), uint16(len(frame)))
	f.Fuzz(func(t *testing.T, mask []byte, at, size uint16) {
		b := slices.Clone(frame)
		for i, m := range mask {
			b[(int(at)+i)%len(b)] ^= m
		}
		for i := 0; i+disk.BlockSize <= len(b); i += disk.BlockSize {
			h, start, ok := blockFrame(b[i:i+disk.BlockSize], int64(i), testEpoch)
			if !ok || start < 0 || start >= int64(len(b)) {
				continue
			}
			end := min(start+h.total, int64(len(b)), max(start, int64(size)&^(disk.BlockSize-1)))
			got, lost, ok := decode(b[start:end], &h, nil, nil)
			if ok && len(got)+len(lost) != int(h.count) {
				t.Fatalf("%d of %d records accounted for", len(got)+len(lost), h.count)
			}
			for _, r := range got {
				if start == 0 && !slices.ContainsFunc(records, func(w Record) bool { return sameRecords([]Record{r}, []Record{w}) }) {
					t.Fatalf("a record that was not written: %v", r)
				}
			}
		}
		// The bytes by themselves, with a checksum that is right, as if somebody had forged them.
		raw := make([]byte, disk.BlockSize)
		copy(raw, mask)
		h, ok := parseHeader(raw, headMagic, testEpoch)
		if !ok {
			h = header{epoch: testEpoch, seq: 1, count: uint32(at), payload: int64(size)}
			h.total = frameBytes(int64(h.count), h.payload)
		}
		if records, _, _ := decode(raw, &h, nil, nil); len(records) > len(raw)/rowBytes {
			t.Fatalf("%d records in %d bytes", len(records), len(raw))
		}
	})
}
