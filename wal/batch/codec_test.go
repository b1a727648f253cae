package batch

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/wal/id"
)

var allCodecs = []Compression{None, Gzip, Snappy, LZ4, Zstd}

func TestCompressionNames(t *testing.T) {
	for _, c := range allCodecs {
		got, err := ParseCompression(c.String())
		require.NoError(t, err)
		require.Equal(t, c, got)
		text, err := c.MarshalText()
		require.NoError(t, err)
		var back Compression
		require.NoError(t, back.UnmarshalText(text))
		require.Equal(t, c, back)
	}
	_, err := ParseCompression("brotli")
	require.ErrorContains(t, err, "use none, gzip")
	require.Equal(t, "codec 9", Compression(9).String())
}

// genBytes makes null, empty, random and compressible bytes of many sizes.
func genBytes(t *rapid.T, label string) []byte {
	switch rapid.IntRange(0, 3).Draw(t, label) {
	case 0:
		return nil
	case 1:
		return []byte{}
	case 2:
		return rapid.SliceOfN(rapid.Byte(), 1, 80).Draw(t, label)
	}
	return bytes.Repeat([]byte{rapid.Byte().Draw(t, label)}, rapid.IntRange(1, 20000).Draw(t, label))
}

func genRecord(t *rapid.T) Record {
	r := Record{
		Timestamp: rapid.OneOf(rapid.Int64Range(0, 1e13), rapid.Int64()).Draw(t, "timestamp"),
		Key:       genBytes(t, "key"),
		Value:     genBytes(t, "value"),
	}
	for range rapid.IntRange(0, 3).Draw(t, "headers") {
		r.Headers = append(r.Headers, Header{Key: rapid.String().Draw(t, "name"), Value: genBytes(t, "header")})
	}
	return r
}

func clone(r Record) Record {
	r.Key, r.Value = bytes.Clone(r.Key), bytes.Clone(r.Value)
	r.Headers = slices.Clone(r.Headers)
	if len(r.Headers) == 0 {
		r.Headers = nil
	}
	for i := range r.Headers {
		r.Headers[i].Value = bytes.Clone(r.Headers[i].Value)
	}
	return r
}

// TestRoundTrip: what a builder packs is what a reader gives, for every codec, with one builder and one reader used again and
// again.
func TestRoundTrip(t *testing.T) {
	var b Builder
	var r Reader
	rapid.Check(t, func(t *rapid.T) {
		trailer := Trailer{
			Producer:      id.Producer(rapid.Int64Range(-1, math.MaxInt64).Draw(t, "producer")),
			ProducerEpoch: id.ProducerEpoch(rapid.Int16Range(0, math.MaxInt16).Draw(t, "epoch")),
			BaseSequence:  id.Sequence(rapid.Int32Range(0, math.MaxInt32).Draw(t, "sequence")),
			Compression:   rapid.SampledFrom(allCodecs).Draw(t, "codec"),
		}
		want := rapid.SliceOfN(rapid.Custom(genRecord), 1, 20).Draw(t, "records")
		newest := int64(math.MinInt64)
		b.Reset()
		for i := range want {
			want[i].OffsetDelta = int32(i)
			newest = max(newest, want[i].Timestamp)
			room := b.LenWith(want[i])
			b.Append(want[i])
			require.Equal(t, room, b.Len())
		}
		got, err := b.Finish([]byte("before"), trailer)
		require.NoError(t, err)
		require.LessOrEqual(t, got.Size(), b.Len())
		require.NoError(t, CheckProduce(got, got.Size()))
		require.EqualValues(t, len(want), got.Count())
		require.Equal(t, want[0].Timestamp, got.BaseTimestamp())
		require.Equal(t, newest, got.MaxTimestamp())
		require.Equal(t, trailer.Producer, got.Producer())
		if got.Producer() >= 0 {
			require.Equal(t, trailer.ProducerEpoch, got.ProducerEpoch())
			require.Equal(t, trailer.BaseSequence, got.BaseSequence())
		}
		base := id.Offset(rapid.Int64Range(0, 1<<40).Draw(t, "offset"))
		got.Stamp(base, 3)
		require.NoError(t, Check(got))

		r.Reset(got, b.Len()-HeaderSize)
		var back []Record
		for offset, record := range r.All() {
			require.Equal(t, base+id.Offset(len(back)), offset)
			back = append(back, clone(record))
		}
		require.NoError(t, r.Err())
		require.Equal(t, want, back)
		if got.Compression() != None {
			r.Reset(got, b.Len()-HeaderSize-1)
			require.False(t, r.Next())
			require.ErrorAs(t, r.Err(), new(*TooLargeError))
		}
	})
}

// TestQuickCheck: most records are taken by the quick check, and what it takes is what the thorough one takes.
func TestQuickCheck(t *testing.T) {
	var b Builder
	rapid.Check(t, func(t *rapid.T) {
		b.Reset()
		b.count = rapid.SampledFrom([]int32{0, 1, 63, 64, 8191, 8192, 1<<20 - 1, 1 << 20, math.MaxInt32 - 1}).Draw(t, "offset delta")
		r := genRecord(t)
		b.baseTimestamp = r.Timestamp - rapid.SampledFrom([]int64{0, -1, 1, 63, 64, -8192, 8191, 8192, -100_000}).Draw(t, "timestamp delta")
		delta := b.count
		b.Append(r)
		b.records = append(b.records, make([]byte, 16)...)
		end, reason := checkRecord(b.records, 0, delta)
		require.Empty(t, reason)
		if quick := quickCheck(b.records, 0, delta); quick != -1 {
			require.Equal(t, end, quick)
			return
		}
		usual := r.Headers == nil && len(r.Key) < 64 && end < 8000 && delta < 1<<20 && math.Abs(float64(r.Timestamp-b.baseTimestamp)) < 8192
		require.False(t, usual, "%d bytes, %+v", end, r)
	})
}

func textRecords(b *Builder, n int) {
	b.Reset()
	for i := range n {
		b.Append(Record{Timestamp: int64(i), Key: []byte("user-17"), Value: []byte(strings.Repeat("a line of a log file, ", 1+i%7))})
	}
}

func TestIncompressibleStaysAsItIs(t *testing.T) {
	rnd := rand.NewChaCha8([32]byte{1})
	value := make([]byte, 10000)
	_, _ = rnd.Read(value)
	var b Builder
	b.Append(Record{Value: value})
	for _, c := range allCodecs {
		got, err := b.Finish(nil, Plain(c))
		require.NoError(t, err)
		require.Equal(t, None, got.Compression())
		require.Equal(t, b.Len(), got.Size())
	}
}

// reframe makes a batch of another payload, with the codec c.
func reframe(b Batch, payload []byte, c Compression) Batch {
	out := Batch(append(bytes.Clone(b[:HeaderSize]), payload...))
	out[offAttributes+1] = byte(c)
	binary.BigEndian.PutUint32(out[offLength:], uint32(len(out)-lengthOverhead))
	fixCRC(out)
	return out
}

// xerial frames records as the Java client's snappy does.
func xerial(records []byte, chunk int) []byte {
	head := append(bytes.Clone(xerialMagic), 0, 0, 0, 1, 0, 0, 0, 1)
	out := bytes.Clone(head)
	for part := range slices.Chunk(records, chunk) {
		block := s2.EncodeSnappy(nil, part)
		out = binary.BigEndian.AppendUint32(out, uint32(len(block)))
		out = append(out, block...)
		if len(out)%2 == 0 {
			out = append(out, head...) // as of streams that were put together
		}
	}
	return out
}

func TestXerialSnappy(t *testing.T) {
	var b Builder
	textRecords(&b, 500)
	plain, err := b.Finish(nil, Plain(None))
	require.NoError(t, err)
	framed := xerial(plain.Payload(), 32<<10)
	whole := reframe(plain, framed, Snappy)
	require.NoError(t, CheckProduce(whole, 1<<20))
	r := whole.Records()
	n := 0
	for range r.All() {
		n++
	}
	require.NoError(t, r.Err())
	require.Equal(t, 500, n)

	for _, cut := range []int{3, 9, 17, 19, 21, len(framed) / 2, len(framed) - 1} {
		r.Reset(reframe(plain, framed[:cut], Snappy), DefaultLimit)
		for r.Next() {
		}
		require.ErrorIs(t, r.Err(), ErrInvalid, "cut at %d", cut)
	}
	r.Reset(whole, len(plain.Payload())-1)
	require.False(t, r.Next())
	require.ErrorAs(t, r.Err(), new(*TooLargeError))
}

func zstdStream(t require.TestingT, b []byte) []byte {
	var buf bytes.Buffer
	w, err := zstd.NewWriter(&buf, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(8<<20))
	require.NoError(t, err)
	_, err = w.Write(b)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return buf.Bytes()
}

// TestZstdWithoutSize: the Java client streams, so its frames do not say how long their content is.
func TestZstdWithoutSize(t *testing.T) {
	var b Builder
	for range 2000 {
		b.Append(Record{Value: make([]byte, 1000)})
	}
	plain, err := b.Finish(nil, Plain(None))
	require.NoError(t, err)
	r := reframe(plain, zstdStream(t, plain.Payload()), Zstd).Records()
	n := 0
	for range r.All() {
		n++
	}
	require.NoError(t, r.Err())
	require.Equal(t, 2000, n)
}

// TestBombs: a small batch that decompresses to a large one costs no more memory than the limit allows, whether it claims its
// size or not.
func TestBombs(t *testing.T) {
	const size, limit = 64 << 20, 1 << 20
	zeros := make([]byte, size)
	var b Builder
	b.Append(Record{})
	head, err := b.Finish(nil, Plain(None))
	require.NoError(t, err)
	for _, c := range allCodecs[1:] {
		payload, used, err := appendCompressed(nil, zeros, c)
		require.NoError(t, err)
		require.Equal(t, c, used)
		t.Run(c.String(), func(t *testing.T) { requireBounded(t, reframe(head, payload, c), limit) })
	}
	t.Run("zstd that does not say its size", func(t *testing.T) {
		requireBounded(t, reframe(head, zstdStream(t, zeros), Zstd), limit)
	})
}

func requireBounded(t *testing.T, bomb Batch, limit int) {
	var before, after runtime.MemStats
	var r Reader
	r.Reset(bomb, limit) // fills the pools
	r = Reader{}
	runtime.ReadMemStats(&before)
	r.Reset(bomb, limit)
	runtime.ReadMemStats(&after)
	require.False(t, r.Next())
	var tooLarge *TooLargeError
	require.ErrorAs(t, r.Err(), &tooLarge)
	require.Equal(t, limit, tooLarge.Limit)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(10*limit))
	require.LessOrEqual(t, cap(r.buffer), 2*limit)
}

// TestZstdBound: room is found before decoding and is always enough, whatever mixture of frames.
func TestZstdBound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var src, want []byte
		for range rapid.IntRange(1, 3).Draw(t, "frames") {
			content := bytes.Repeat(genBytes(t, "content"), rapid.IntRange(1, 20).Draw(t, "times"))
			switch rapid.IntRange(0, 2).Draw(t, "kind") {
			case 0:
				src = zstdEncoder().EncodeAll(content, src)
				want = append(want, content...)
			case 1:
				src = append(src, zstdStream(t, content)...)
				want = append(want, content...)
			case 2:
				src = append(src, 0x53, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 'a', 'b', 'c') // to be skipped
			}
		}
		bound, err := zstdBound(src)
		require.NoError(t, err)
		require.GreaterOrEqual(t, bound, int64(len(want)))
		got, err := decompress(nil, src, Zstd, len(want))
		require.NoError(t, err)
		require.True(t, bytes.Equal(want, got))
		if len(want) > 0 {
			_, err = decompress(nil, src, Zstd, len(want)-1)
			require.ErrorAs(t, err, new(*TooLargeError))
		}
	})
}

// TestLyingLengths: lengths that the bytes do not back cost nothing.
func TestLyingLengths(t *testing.T) {
	var b Builder
	b.Append(Record{})
	head, err := b.Finish(nil, Plain(None))
	require.NoError(t, err)
	var r Reader
	for _, c := range []struct {
		name    string
		payload []byte
		codec   Compression
	}{
		{"snappy block of 1 GiB", []byte{0x80, 0x80, 0x80, 0x80, 0x04, 0, 0}, Snappy},
		{"xerial chunk of 2 GiB", append(bytes.Clone(xerialMagic), 0, 0, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff), Snappy},
		{"record of 2 GiB", binary.AppendVarint(nil, math.MaxInt32), None},
		{"key of 2 GiB", append([]byte{20, 0, 0, 0}, binary.AppendVarint(nil, math.MaxInt32)...), None},
		{"2^31 headers", append(append([]byte{20, 0, 0, 0, 1, 1}, binary.AppendVarint(nil, math.MaxInt32)...), 0), None},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := reframe(head, c.payload, c.codec)
			require.Less(t, testing.AllocsPerRun(10, func() {
				r.Reset(b, DefaultLimit)
				for r.Next() {
				}
			}), 20.0)
			require.ErrorIs(t, r.Err(), ErrInvalid)
			require.Less(t, cap(r.buffer), 1<<20)
		})
	}
}

// TestAllocations: packing, checking and reading allocate nothing per record, and nothing per batch in the long run.
func TestAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops at random under the race detector")
	}
	var b Builder
	var r Reader
	buf := make([]byte, 0, 1<<20)
	record := Record{Timestamp: 1, Key: []byte("key"), Value: make([]byte, 100), Headers: []Header{{Key: "trace", Value: []byte("1")}}}
	for _, c := range allCodecs {
		require.Less(t, testing.AllocsPerRun(20, func() {
			b.Reset()
			for range 1000 {
				b.Append(record)
			}
			got, err := b.Finish(buf, Plain(c))
			require.NoError(t, err)
			require.NoError(t, CheckProduce(got, 1<<20))
			r.Reset(got, 1<<20)
			for r.Next() {
			}
			require.NoError(t, r.Err())
		}), 3.0, c)
	}
}
