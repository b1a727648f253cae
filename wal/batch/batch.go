package batch

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/quorumlog/quorumlog/wal/id"
)

// The layout of a batch, big endian. The checksum covers everything from the attributes to the end.
//
//	 0  baseOffset            int64   stamped by the leader
//	 8  batchLength           int32   bytes after this field: size - 12
//	12  partitionLeaderEpoch  int32   stamped by the leader
//	16  magic                 int8    2
//	17  crc                   uint32  CRC-32C of [21, size)
//	21  attributes            int16   bits 0-2 codec, 3 log append time, 4 transactional, 5 control, 6 delete horizon
//	23  lastOffsetDelta       int32
//	27  baseTimestamp         int64   ms since 1970
//	35  maxTimestamp          int64   ms since 1970
//	43  producerId            int64   -1: not idempotent
//	51  producerEpoch         int16
//	53  baseSequence          int32
//	57  recordCount           int32
//	61  records               back to back, compressed as one piece when the codec is not 0
const (
	offBaseOffset      = 0
	offLength          = 8
	offEpoch           = 12
	offMagic           = 16
	offCRC             = 17
	offAttributes      = 21
	offLastOffsetDelta = 23
	offBaseTimestamp   = 27
	offMaxTimestamp    = 35
	offProducer        = 43
	offProducerEpoch   = 51
	offBaseSequence    = 53
	offCount           = 57

	// HeaderSize is the number of bytes before the records.
	HeaderSize = 61

	// PrefixSize is the number of bytes that a batch's CRC does not cover: those that a broker changes, and the CRC itself, at
	// their end. A checksum of the prefix and the CRC in it cover the whole batch.
	PrefixSize = offAttributes

	// lengthOverhead is what the length field does not count: the base offset and itself.
	lengthOverhead = offEpoch

	magic = 2
)

// NoTimestamp is Kafka's timestamp of a record that has none.
const NoTimestamp int64 = -1

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Batch is exactly one batch, as on the wire. Its accessors need a whole header and panic on less: a Batch comes from Next,
// Check, CheckProduce or a Builder, which make sure of that.
type Batch []byte

// Attributes are the flags of a batch.
type Attributes int16

const (
	attrCodec         Attributes = 0x07
	attrLogAppendTime Attributes = 0x08
	attrTransactional Attributes = 0x10
	attrControl       Attributes = 0x20
	attrDeleteHorizon Attributes = 0x40
)

// Compression returns the codec of the records.
func (a Attributes) Compression() Compression { return Compression(a & attrCodec) }

// LogAppendTime tells whether MaxTimestamp is the broker's clock and stands for the timestamp of every record.
func (a Attributes) LogAppendTime() bool { return a&attrLogAppendTime != 0 }

// Transactional tells whether the batch belongs to a transaction.
func (a Attributes) Transactional() bool { return a&attrTransactional != 0 }

// Control tells whether the records are markers for consumers' libraries and not data.
func (a Attributes) Control() bool { return a&attrControl != 0 }

// Size is the number of bytes of the batch.
func (b Batch) Size() int { return len(b) }

// BaseOffset is the offset of the first record; 0 before a leader stamped it.
func (b Batch) BaseOffset() id.Offset {
	return id.Offset(binary.BigEndian.Uint64(b[offBaseOffset:]))
}

// Epoch is the term of the leader that stamped the batch.
func (b Batch) Epoch() id.Epoch { return id.Epoch(binary.BigEndian.Uint32(b[offEpoch:])) }

// CRC is the checksum that the header claims for the bytes from the attributes on.
func (b Batch) CRC() uint32 { return binary.BigEndian.Uint32(b[offCRC:]) }

// Attributes returns the flags.
func (b Batch) Attributes() Attributes {
	return Attributes(binary.BigEndian.Uint16(b[offAttributes:]))
}

// Compression returns the codec of the records.
func (b Batch) Compression() Compression { return b.Attributes().Compression() }

// LastOffsetDelta is the distance from the first to the last offset.
func (b Batch) LastOffsetDelta() int32 {
	return int32(binary.BigEndian.Uint32(b[offLastOffsetDelta:]))
}

// Count is the number of records. It is LastOffsetDelta+1 unless a compaction took records out.
func (b Batch) Count() int32 { return int32(binary.BigEndian.Uint32(b[offCount:])) }

// LastOffset is the offset of the last record.
func (b Batch) LastOffset() id.Offset { return b.BaseOffset() + id.Offset(b.LastOffsetDelta()) }

// NextOffset is the base offset of the batch that follows.
func (b Batch) NextOffset() id.Offset { return b.LastOffset() + 1 }

// BaseTimestamp is the timestamp of the first record, in ms since 1970; the others' are stored as distances from it.
func (b Batch) BaseTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[offBaseTimestamp:])) }

// MaxTimestamp is the largest timestamp of the records, in ms since 1970.
func (b Batch) MaxTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[offMaxTimestamp:])) }

// Producer is the id of the producer, or id.NoProducer.
func (b Batch) Producer() id.Producer {
	return id.Producer(binary.BigEndian.Uint64(b[offProducer:]))
}

// ProducerEpoch is the epoch of the producer.
func (b Batch) ProducerEpoch() id.ProducerEpoch {
	return id.ProducerEpoch(binary.BigEndian.Uint16(b[offProducerEpoch:]))
}

// BaseSequence is the sequence of the first record; -1 without a producer id.
func (b Batch) BaseSequence() id.Sequence {
	return id.Sequence(binary.BigEndian.Uint32(b[offBaseSequence:]))
}

// LastSequence is the sequence of the last record; -1 without a producer id.
func (b Batch) LastSequence() id.Sequence {
	base := b.BaseSequence()
	if base < 0 {
		return base
	}
	return base.Add(b.LastOffsetDelta())
}

// Payload is what follows the header: the records, compressed or not. It aliases b.
func (b Batch) Payload() []byte { return b[HeaderSize:] }

// Stamp writes what the leader decides, in place: both fields lie outside the checksum.
func (b Batch) Stamp(base id.Offset, epoch id.Epoch) {
	binary.BigEndian.PutUint64(b[offBaseOffset:], uint64(base))
	binary.BigEndian.PutUint32(b[offEpoch:], uint32(epoch))
}

// String describes the batch for logs and dumps.
func (b Batch) String() string {
	if len(b) < HeaderSize {
		return fmt.Sprintf("batch of %d bytes, less than a header", len(b))
	}
	return fmt.Sprintf("batch offsets %d..%d, epoch %d, %d records, %d bytes, %s, producer %d/%d, sequence %d",
		b.BaseOffset(), b.LastOffset(), b.Epoch(), b.Count(), len(b), b.Compression(),
		b.Producer(), b.ProducerEpoch(), b.BaseSequence())
}
