package batch

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"math"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/wal/id"
)

// golden is a batch written down from the format's description, field by field. Its checksum was computed by crc32c below,
// which shares no code with the package.
const golden = `
	0000000000000000  base offset 0
	00000071          batch length 113 = 125 - 12
	ffffffff          leader epoch -1
	02                magic
	0e84aeda          crc
	0000              attributes
	00000002          last offset delta 2
	00000192a1b2c3d4  base timestamp 1729289700308
	00000192a1b2c40e  max timestamp +58
	0000000000001092  producer 4242
	0007              producer epoch 7
	7ffffffe          base sequence 2^31-2
	00000003          three records

	24                length 18
	00 00 00          attributes, timestamp delta, offset delta
	06 6b6579         key "key"
	0a 76616c7565     value "value"
	02                one header
	02 68 02 31       "h": "1"

	26                length 19
	00 74 02          timestamp delta 58, offset delta 1
	01                null key
	00                empty value
	04                two headers
	0a 656d707479 00  "empty": empty
	08 6e756c6c 01    "null": null

	30                length 24
	00 13 04          timestamp delta -10, offset delta 2
	24 303132333435363738396162636465663031 key of 18 bytes
	01                null value
	00                no headers
`

func goldenBytes(t testing.TB) []byte {
	var digits strings.Builder
	for line := range strings.Lines(golden) {
		for _, word := range strings.Fields(line) {
			if len(word)%2 != 0 || strings.Trim(word, "0123456789abcdef") != "" {
				break
			}
			digits.WriteString(word)
		}
	}
	b, err := hex.DecodeString(digits.String())
	require.NoError(t, err)
	return b
}

func goldenRecords() []Record {
	const base = 0x192a1b2c3d4
	return []Record{
		{Timestamp: base, Key: []byte("key"), Value: []byte("value"), Headers: []Header{{"h", []byte("1")}}},
		{Timestamp: base + 58, Value: []byte{}, Headers: []Header{{"empty", []byte{}}, {"null", nil}}, OffsetDelta: 1},
		{Timestamp: base - 10, Key: []byte("0123456789abcdef01"), OffsetDelta: 2},
	}
}

// crc32c is the checksum bit by bit, as RFC 3720 says it.
func crc32c(b []byte) uint32 {
	crc := ^uint32(0)
	for _, c := range b {
		crc ^= uint32(c)
		for range 8 {
			crc = crc>>1 ^ 0x82f63b78&-(crc&1)
		}
	}
	return ^crc
}

func TestGoldenBytes(t *testing.T) {
	want := goldenBytes(t)
	require.Equal(t, uint32(0xe3069283), crc32c([]byte("123456789")), "the check value of CRC-32C")
	require.Equal(t, crc32c(want[21:]), binary.BigEndian.Uint32(want[17:]), "the golden bytes' own checksum")

	var b Builder
	for _, r := range goldenRecords() {
		want := b.LenWith(r)
		b.Append(r)
		require.Equal(t, want, b.Len())
	}
	got, err := b.Finish(nil, Trailer{Producer: 4242, ProducerEpoch: 7, BaseSequence: math.MaxInt32 - 1})
	require.NoError(t, err)
	require.Equal(t, hex.Dump(want), hex.Dump(got))
	require.Equal(t, len(got), b.Len())
	require.Equal(t, 3, b.Count())
	require.NoError(t, Check(got))
	require.NoError(t, CheckProduce(got, len(got)))
}

func TestAccessors(t *testing.T) {
	b := Batch(goldenBytes(t))
	b.Stamp(1000, 9)
	require.Equal(t, len(b), b.Size())
	require.Equal(t, id.Offset(1000), b.BaseOffset())
	require.Equal(t, id.Offset(1002), b.LastOffset())
	require.Equal(t, id.Offset(1003), b.NextOffset())
	require.Equal(t, id.Epoch(9), b.Epoch())
	require.Equal(t, int32(2), b.LastOffsetDelta())
	require.Equal(t, int32(3), b.Count())
	require.Equal(t, int64(1729289700308), b.BaseTimestamp())
	require.Equal(t, int64(1729289700308+58), b.MaxTimestamp())
	require.Equal(t, id.Producer(4242), b.Producer())
	require.Equal(t, id.ProducerEpoch(7), b.ProducerEpoch())
	require.Equal(t, id.Sequence(math.MaxInt32-1), b.BaseSequence())
	require.Equal(t, id.Sequence(0), b.LastSequence(), "sequences wrap after 2^31-1")
	require.Equal(t, None, b.Compression())
	require.NoError(t, Check(b), "stamping lies outside the checksum")
	require.ErrorIs(t, CheckProduce(b, len(b)), ErrInvalid, "a producer does not choose offsets")
	require.Contains(t, b.String(), "offsets 1000..1002, epoch 9, 3 records")
	require.Contains(t, Batch(nil).String(), "less than a header")
}

func TestReadGolden(t *testing.T) {
	b := Batch(goldenBytes(t))
	b.Stamp(77, 1)
	var got []Record
	r := b.Records()
	for offset, record := range r.All() {
		require.Equal(t, id.Offset(77+len(got)), offset)
		record.Headers = append([]Header(nil), record.Headers...)
		if len(record.Headers) == 0 {
			record.Headers = nil
		}
		got = append(got, record)
	}
	require.NoError(t, r.Err())
	require.Equal(t, goldenRecords(), got)
	require.False(t, r.Next(), "the end stays the end")
}

func TestLogAppendTime(t *testing.T) {
	b := Batch(goldenBytes(t))
	b[offAttributes+1] |= byte(attrLogAppendTime)
	fixCRC(b)
	require.NoError(t, Check(b))
	require.ErrorIs(t, CheckProduce(b, len(b)), ErrInvalidTimestamp)
	for _, record := range b.Records().All() {
		require.Equal(t, b.MaxTimestamp(), record.Timestamp)
	}
}

func fixCRC(b []byte) { binary.BigEndian.PutUint32(b[offCRC:], crc32c(b[offAttributes:])) }

func TestCheckProduceRefuses(t *testing.T) {
	put16 := func(at int, v uint16) func([]byte) { return func(b []byte) { binary.BigEndian.PutUint16(b[at:], v) } }
	put32 := func(at int, v uint32) func([]byte) { return func(b []byte) { binary.BigEndian.PutUint32(b[at:], v) } }
	put64 := func(at int, v uint64) func([]byte) { return func(b []byte) { binary.BigEndian.PutUint64(b[at:], v) } }
	put8 := func(at int, v byte) func([]byte) { return func(b []byte) { b[at] = v } }
	all := func(fs ...func([]byte)) func([]byte) {
		return func(b []byte) {
			for _, f := range fs {
				f(b)
			}
		}
	}
	for _, c := range []struct {
		name   string
		change func([]byte)
		want   error
		stored error // what Check says; nil: it is for producers only
	}{
		{"offset", put64(offBaseOffset, 1), ErrInvalid, nil},
		{"negative offset", put64(offBaseOffset, math.MaxUint64), ErrInvalid, ErrInvalid},
		{"offset overflow", put64(offBaseOffset, math.MaxInt64-1), ErrInvalid, ErrInvalid},
		{"length too small", put32(offLength, 10), ErrInvalid, ErrInvalid},
		{"length too large", put32(offLength, 1<<20), ErrInvalid, ErrInvalid},
		{"negative length", put32(offLength, math.MaxUint32), ErrInvalid, ErrInvalid},
		{"magic 1", put8(offMagic, 1), ErrInvalid, ErrInvalid},
		{"codec 5", put16(offAttributes, 5), ErrInvalid, ErrInvalid},
		{"control", put16(offAttributes, uint16(attrControl)), ErrInvalid, nil},
		{"log append time", put16(offAttributes, uint16(attrLogAppendTime)), ErrInvalidTimestamp, nil},
		{"delta above count", put32(offLastOffsetDelta, 3), ErrInvalid, nil},
		{"delta below count", put32(offLastOffsetDelta, 1), ErrInvalid, ErrInvalid},
		{"negative delta", put32(offLastOffsetDelta, math.MaxUint32), ErrInvalid, ErrInvalid},
		{"negative count", put32(offCount, math.MaxUint32), ErrInvalid, ErrInvalid},
		{"no records", all(put32(offCount, 0), put32(offLastOffsetDelta, 0)), ErrInvalid, nil},
		{"fewer records than bytes", all(put32(offCount, 2), put32(offLastOffsetDelta, 1)), ErrInvalid, nil},
		{"more records than bytes", all(put32(offCount, 4), put32(offLastOffsetDelta, 3)), ErrInvalid, nil},
		{"producer -2", put64(offProducer, math.MaxUint64-1), ErrInvalid, nil},
		{"negative producer epoch", put16(offProducerEpoch, math.MaxUint16), ErrInvalid, nil},
		{"negative sequence", put32(offBaseSequence, math.MaxUint32), ErrInvalid, nil},
		{"transaction of nobody", all(put64(offProducer, math.MaxUint64), put16(offAttributes, uint16(attrTransactional))), ErrInvalid, nil},
		{"offset deltas", put8(HeaderSize+3, 2), ErrInvalid, nil},
		{"record length", put8(HeaderSize, 0x26), ErrInvalid, nil},
		{"key length", put8(HeaderSize+4, 0x7e), ErrInvalid, nil},
		{"header count", put8(HeaderSize+14, 4), ErrInvalid, nil},
		{"null header key", put8(HeaderSize+15, 1), ErrInvalid, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := goldenBytes(t)
			c.change(b)
			fixCRC(b)
			require.ErrorIs(t, CheckProduce(b, 1<<20), c.want)
			if c.stored == nil {
				require.NoError(t, Check(b))
			} else {
				require.ErrorIs(t, Check(b), c.stored)
			}
		})
	}
}

func TestCheckSize(t *testing.T) {
	b := goldenBytes(t)
	var tooLarge *TooLargeError
	require.ErrorAs(t, CheckProduce(b, len(b)-1), &tooLarge)
	require.Equal(t, TooLargeError{Size: len(b), Limit: len(b) - 1}, *tooLarge)
	require.ErrorIs(t, Check(append(b, 0)), ErrInvalid, "exactly one batch")
	for n := range b {
		require.ErrorIs(t, Check(b[:n]), ErrInvalid)
		_, _, err := Next(b[:n])
		require.ErrorIs(t, err, ErrShort)
	}
}

// TestEveryFlippedBit: no single flipped bit passes, except in the two fields that the checksum leaves out.
func TestEveryFlippedBit(t *testing.T) {
	b := goldenBytes(t)
	for at := range b {
		for bit := range 8 {
			b[at] ^= 1 << bit
			err := Check(b)
			switch {
			case at < offLength:
				require.True(t, err == nil || errors.Is(err, ErrInvalid), "byte %d", at)
			case at < offMagic && at >= offEpoch:
				require.NoError(t, err, "byte %d", at)
			default:
				require.True(t, errors.Is(err, ErrCorrupt) || errors.Is(err, ErrInvalid), "byte %d bit %d: %v", at, bit, err)
			}
			b[at] ^= 1 << bit
		}
	}
}

func TestNextWalks(t *testing.T) {
	one := goldenBytes(t)
	all := bytes.Repeat(one, 3)
	rest := all
	for i := range 3 {
		var first Batch
		var err error
		first, rest, err = Next(rest)
		require.NoError(t, err)
		require.Equal(t, Batch(one), first)
		require.Equal(t, len(first), cap(first), "appending to a batch must not reach into the next one")
		require.Len(t, rest, (2-i)*len(one))
	}
	_, _, err := Next(rest)
	require.ErrorIs(t, err, ErrShort)
	one[offMagic] = 1
	_, _, err = Next(one)
	require.ErrorContains(t, err, "magic 1")
}

func TestFinishRefuses(t *testing.T) {
	var b Builder
	_, err := b.Finish(nil, Plain(None))
	require.ErrorIs(t, err, ErrEmpty)
	b.Append(Record{})
	_, err = b.Finish(nil, Plain(5))
	require.ErrorIs(t, err, ErrInvalid)
}

func TestFinishAppends(t *testing.T) {
	var b Builder
	b.Append(Record{Value: []byte("v")})
	prefix := make([]byte, 3, 1000)
	got, err := b.Finish(prefix, Trailer{Producer: id.NoProducer, BaseSequence: 5})
	require.NoError(t, err)
	require.Same(t, &prefix[:4][3], &got[0], "in the room of dst")
	require.Equal(t, id.NoProducer, got.Producer())
	require.Equal(t, id.Sequence(-1), got.BaseSequence())
	require.Equal(t, id.Sequence(-1), got.LastSequence())
	require.Equal(t, id.ProducerEpoch(-1), got.ProducerEpoch())
	require.Equal(t, id.Epoch(-1), got.Epoch())
	require.Equal(t, got.CRC(), crc32.Checksum(got[21:], castagnoli))
	b.Reset()
	require.Equal(t, HeaderSize, b.Len())
	require.Zero(t, b.Count())
}
