package batch

import (
	"bytes"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/wal/id"
)

func seeds(f *testing.F) {
	f.Add(goldenBytes(f))
	f.Add(append(goldenBytes(f), goldenBytes(f)...))
	var b Builder
	textRecords(&b, 20)
	for _, c := range allCodecs {
		got, err := b.Finish(nil, Plain(c))
		require.NoError(f, err)
		f.Add([]byte(got))
		if c == None {
			f.Add([]byte(reframe(got, xerial(got.Payload(), 100), Snappy)))
			f.Add([]byte(reframe(got, zstdStream(f, got.Payload()), Zstd)))
		}
	}
}

// FuzzNext: whatever the bytes, walking them ends, and takes each byte once.
func FuzzNext(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		taken := 0
		for rest := b; len(rest) > 0; {
			first, next, err := Next(rest)
			if err != nil {
				require.ErrorIs(t, err, ErrInvalid)
				break
			}
			require.GreaterOrEqual(t, len(first), HeaderSize)
			require.Equal(t, len(rest), len(first)+len(next))
			require.Equal(t, b[taken:taken+len(first)], []byte(first))
			taken += len(first)
			_ = first.String()
			rest = next
		}
	})
}

// FuzzCheck: no panic, one of the known errors, and what is good for a producer is good to be stored and to be read.
func FuzzCheck(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, fix := range []bool{false, true} {
			if fix && len(b) >= HeaderSize {
				b = bytes.Clone(b)
				fixCRC(b) // or few inputs would get past it
			}
			stored, produced := Check(b), CheckProduce(b, 1<<20)
			for _, err := range []error{stored, produced} {
				known := err == nil || errors.Is(err, ErrInvalid) || errors.Is(err, ErrCorrupt) || errors.Is(err, ErrInvalidTimestamp)
				require.True(t, known || errors.As(err, new(*TooLargeError)), "%v", err)
			}
			if produced != nil {
				continue
			}
			require.NoError(t, stored)
			if b := Batch(b); b.Compression() == None {
				r := b.Records()
				n := int32(0)
				for r.Next() {
					n++
				}
				require.NoError(t, r.Err())
				require.Equal(t, b.Count(), n)
			}
		}
	})
}

// FuzzRecord: what the quick check takes, the thorough one takes too, and both see the same end.
func FuzzRecord(f *testing.F) {
	var b Builder
	for _, r := range goldenRecords() {
		b.Append(r)
	}
	textRecords(&b, 300)
	f.Add(b.records, 3, int32(0))
	f.Add(b.records, 0, int32(0))
	f.Add(b.records[len(b.records)-150:], 10, int32(290))
	f.Fuzz(func(t *testing.T, b []byte, at int, offsetDelta int32) {
		if at < 0 || at > len(b) || offsetDelta < 0 {
			return
		}
		if quick := quickCheck(b, at, offsetDelta); quick >= 0 {
			end, reason := checkRecord(b, at, offsetDelta)
			require.Empty(t, reason)
			require.Equal(t, end, quick)
		}
	})
}

// FuzzFirstAt: whatever a producer compressed, the answer is that of a walk through all records, or where one cannot tell, one that is not
// too late; and what it costs is paid for.
func FuzzFirstAt(f *testing.F) {
	lookups := func(in []byte) {
		at := int64(0)
		if len(in) >= HeaderSize {
			at = Batch(in).MaxTimestamp()
		}
		f.Add(in, at, int64(1), 1<<16)
		f.Add(in, at-5, int64(0), 100)
	}
	var b Builder
	textRecords(&b, 20)
	b.Append(Record{Timestamp: 1 << 40})
	b.Append(Record{Timestamp: 1 << 41})
	for _, c := range allCodecs {
		got, err := b.Finish(nil, Plain(c))
		require.NoError(f, err)
		lookups(got)
		if c == None {
			lookups(reframe(got, xerial(got.Payload(), 100), Snappy))
			lookups(reframe(got, zstdStream(f, got.Payload()), Zstd))
		}
	}
	f.Fuzz(func(t *testing.T, in []byte, ts, from int64, budget int) {
		if checkHeader(in) != nil || budget > 1<<20 {
			return
		}
		b, left := Batch(in), budget
		offset, at, ok := b.FirstAt(ts, id.Offset(from), &left)
		require.LessOrEqual(t, left, budget)
		require.True(t, left == budget || left >= 0, left)
		if ok {
			require.GreaterOrEqual(t, at, ts)
			require.GreaterOrEqual(t, offset, max(b.BaseOffset(), id.Offset(from)))
			require.Less(t, offset, b.NextOffset())
		}
		if b.MaxTimestamp() < ts {
			require.False(t, ok)
			return
		}
		var r Reader
		r.Reset(b, 1<<20)
		for r.Next() {
			if r.Offset() >= id.Offset(from) && r.Record().Timestamp >= ts {
				require.True(t, ok, "left out")
				require.LessOrEqual(t, offset, r.Offset(), "too late")
				first := b.BaseTimestamp() >= ts && offset == b.BaseOffset() || at == b.MaxTimestamp()
				require.True(t, offset == r.Offset() || first, "too early")
				return
			}
		}
		if r.Err() == nil && b.BaseTimestamp() < ts && r.Size() < budget && !b.Attributes().LogAppendTime() {
			require.False(t, ok)
		}
	})
}

// FuzzReader: no panic, no more memory than the limit, no record outside the batch's offsets; and the pooled decompressors
// work as before, whatever they were fed.
func FuzzReader(f *testing.F) {
	seeds(f)
	var b Builder
	textRecords(&b, 20)
	var good []Batch
	for _, c := range allCodecs {
		g, err := b.Finish(nil, Plain(c))
		require.NoError(f, err)
		good = append(good, g)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		const limit = 1 << 16
		var r Reader
		for c := range Compression(8) {
			if len(in) >= HeaderSize {
				in = bytes.Clone(in)
				in[offAttributes+1] = in[offAttributes+1]&^byte(attrCodec) | byte(c)
			}
			r.Reset(Batch(in), limit)
			last := int32(-1)
			for r.Next() {
				delta := r.Record().OffsetDelta
				require.Greater(t, delta, last)
				require.LessOrEqual(t, delta, Batch(in).LastOffsetDelta())
				last = delta
			}
			if err := r.Err(); err != nil {
				require.True(t, errors.Is(err, ErrInvalid) || errors.As(err, new(*TooLargeError)), "%v", err)
			}
			require.LessOrEqual(t, cap(r.buffer), 2*limit+2*zstdSlack)
		}
		for _, g := range good {
			r.Reset(g, limit)
			n := 0
			for r.Next() {
				n++
			}
			require.NoError(t, r.Err())
			require.Equal(t, 20, n)
		}
	})
}
