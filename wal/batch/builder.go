package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/quorumlog/quorumlog/wal/id"
)

// ErrEmpty is the answer to finishing a batch without records.
var ErrEmpty = errors.New("batch: no records to make a batch of")

// Builder packs records into a batch. The zero value is ready; it keeps its buffer over Reset, so that packing allocates
// nothing in the long run. It is not safe for concurrent use.
type Builder struct {
	records       []byte // encoded, back to back
	count         int32
	baseTimestamp int64
	maxTimestamp  int64
}

// Trailer is what is known of a batch only when it is closed. Producer must be id.NoProducer for batches that are not
// idempotent (0 is a producer); Plain makes such trailers.
type Trailer struct {
	Producer      id.Producer
	ProducerEpoch id.ProducerEpoch
	BaseSequence  id.Sequence
	Compression   Compression
}

// Plain is the trailer of a batch without idempotence.
func Plain(c Compression) Trailer {
	return Trailer{Producer: id.NoProducer, ProducerEpoch: -1, BaseSequence: -1, Compression: c}
}

// Reset empties the builder.
func (b *Builder) Reset() {
	*b = Builder{records: b.records[:0]}
}

// Count is the number of records so far.
func (b *Builder) Count() int { return int(b.count) }

// Len is the size in bytes of the batch so far, before compression.
func (b *Builder) Len() int { return HeaderSize + len(b.records) }

// MaxTimestamp is the largest timestamp of the records so far.
func (b *Builder) MaxTimestamp() int64 { return b.maxTimestamp }

// BaseTimestamp returns the timestamp of the first record.
func (b *Builder) BaseTimestamp() int64 { return b.baseTimestamp }

// LenWith is what Len would be with r appended: for closing a batch before it grows over a limit.
func (b *Builder) LenWith(r Record) int {
	size := r.bodySize(b.timestampDelta(&r), b.count)
	return b.Len() + varintSize(int64(size)) + size
}

// Append adds a copy of r, at the next offset.
func (b *Builder) Append(r Record) {
	delta := b.timestampDelta(&r)
	if b.count == 0 {
		b.baseTimestamp, b.maxTimestamp = r.Timestamp, r.Timestamp
	}
	b.maxTimestamp = max(b.maxTimestamp, r.Timestamp)
	b.records = r.appendTo(b.records, r.bodySize(delta, b.count), delta, b.count)
	b.count++
}

func (b *Builder) timestampDelta(r *Record) int64 {
	if b.count == 0 {
		return 0
	}
	return r.Timestamp - b.baseTimestamp
}

// Finish appends the batch to dst and returns the batch alone, which aliases dst when that had room. The base offset is 0 and
// the leader epoch -1 until a leader stamps them. Records that do not become smaller are left uncompressed. The builder is
// not changed: the same records can be finished again.
func (b *Builder) Finish(dst []byte, t Trailer) (Batch, error) {
	if b.count == 0 {
		return nil, ErrEmpty
	}
	if int64(len(b.records)) > math.MaxInt32-HeaderSize {
		return nil, &TooLargeError{Size: b.Len(), Limit: math.MaxInt32}
	}
	if t.Compression > maxCompression {
		return nil, fmt.Errorf("%w: compression codec %d is unknown", ErrInvalid, t.Compression)
	}
	if t.Producer < 0 {
		t = Plain(t.Compression)
	}
	start := len(dst)
	dst = append(dst, emptyHeader[:]...)
	dst, codec, err := appendCompressed(dst, b.records, t.Compression)
	if err != nil {
		return nil, err
	}
	out := Batch(dst[start:len(dst):len(dst)])
	binary.BigEndian.PutUint32(out[offLength:], uint32(len(out)-lengthOverhead))
	binary.BigEndian.PutUint32(out[offEpoch:], math.MaxUint32)
	out[offMagic] = magic
	binary.BigEndian.PutUint16(out[offAttributes:], uint16(codec))
	binary.BigEndian.PutUint32(out[offLastOffsetDelta:], uint32(b.count-1))
	binary.BigEndian.PutUint64(out[offBaseTimestamp:], uint64(b.baseTimestamp))
	binary.BigEndian.PutUint64(out[offMaxTimestamp:], uint64(b.maxTimestamp))
	binary.BigEndian.PutUint64(out[offProducer:], uint64(t.Producer))
	binary.BigEndian.PutUint16(out[offProducerEpoch:], uint16(t.ProducerEpoch))
	binary.BigEndian.PutUint32(out[offBaseSequence:], uint32(t.BaseSequence))
	binary.BigEndian.PutUint32(out[offCount:], uint32(b.count))
	binary.BigEndian.PutUint32(out[offCRC:], crc32.Checksum(out[offAttributes:], castagnoli))
	return out, nil
}

var emptyHeader [HeaderSize]byte
