package batch

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/quorumlog/quorumlog/wal/id"
)

var (
	// ErrCorrupt marks bytes whose checksum does not match: they changed on the way or on the disk. Kafka's CORRUPT_MESSAGE.
	ErrCorrupt = errors.New("batch: checksum mismatch")

	// ErrInvalid marks bytes that are not a batch that may be stored, whatever their checksum. Kafka's INVALID_RECORD.
	ErrInvalid = errors.New("batch: invalid")

	// ErrInvalidTimestamp marks batches that claim what only a broker may set. Kafka's INVALID_TIMESTAMP.
	ErrInvalidTimestamp = errors.New("batch: invalid timestamp")

	// ErrShort marks bytes that end before the batch does. It is also an ErrInvalid.
	ErrShort = fmt.Errorf("%w: the bytes end inside a batch", ErrInvalid)
)

// TooLargeError refuses a batch, or what it would decompress to. Kafka's MESSAGE_TOO_LARGE.
type TooLargeError struct {
	Size  int // bytes; what was seen before it was given up, when the whole is not known
	Limit int // bytes
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("batch: %d bytes, the limit is %d: send smaller batches or raise max.message.bytes", e.Size, e.Limit)
}

// Next cuts the first batch off b: for walking batches that stand one behind the other. Both results alias b. It looks at the
// fields that say where the batch ends and at nothing else; bytes of doubtful origin need Check. ErrShort says that b, if it
// is empty or cut off, is the beginning of a batch.
func Next(b []byte) (first Batch, rest []byte, err error) {
	size, err := Size(b)
	if err != nil {
		return nil, nil, err
	}
	if size > int64(len(b)) {
		return nil, nil, ErrShort
	}
	return Batch(b[:size:size]), b[size:], nil
}

// Size is how many bytes the batch has that b begins with, of which the header suffices. ErrShort says that there is less.
func Size(b []byte) (int64, error) {
	if len(b) < HeaderSize {
		return 0, ErrShort
	}
	if b[offMagic] != magic {
		return 0, magicError(b[offMagic])
	}
	length := int32(binary.BigEndian.Uint32(b[offLength:]))
	if length < HeaderSize-lengthOverhead {
		return 0, fmt.Errorf("%w: length field %d is less than a header", ErrInvalid, length)
	}
	return int64(length) + lengthOverhead, nil
}

// Check tells whether b is one whole batch, sound in its header and checksum. It does not look at the records.
func Check(b []byte) error {
	if err := checkHeader(b); err != nil {
		return err
	}
	return checkCRC(b)
}

// CheckProduce makes the checks that a broker makes of a batch from a producer: those of Check; size, with the limit in bytes;
// fields that only brokers set; and that the records, when they are not compressed, are well formed and as many as the header
// says. Compressed records are not opened: whoever reads them uses a Reader with a limit. It allocates nothing for good ones.
func CheckProduce(b []byte, maxBytes int) error {
	if len(b) > maxBytes {
		return &TooLargeError{Size: len(b), Limit: maxBytes}
	}
	if err := checkHeader(b); err != nil {
		return err
	}
	if err := checkProducerFields(Batch(b)); err != nil {
		return err
	}
	if err := checkCRC(b); err != nil {
		return err
	}
	if Batch(b).Compression() == None {
		return checkRecords(Batch(b).Payload(), Batch(b).Count())
	}
	return nil
}

func magicError(got byte) error {
	return fmt.Errorf("%w: magic %d, only RecordBatch v2 (magic %d) is stored: use a producer of Kafka 0.11 or later",
		ErrInvalid, int8(got), magic)
}

// checkHeader checks what must hold of every batch, wherever it is met.
func checkHeader(b []byte) error {
	if len(b) < HeaderSize {
		return ErrShort
	}
	if b[offMagic] != magic {
		return magicError(b[offMagic])
	}
	h := Batch(b)
	length := int32(binary.BigEndian.Uint32(b[offLength:]))
	if int64(length) != int64(len(b))-lengthOverhead {
		return fmt.Errorf("%w: length field %d in %d bytes, %d expected: exactly one batch is taken",
			ErrInvalid, length, len(b), len(b)-lengthOverhead)
	}
	count, delta := h.Count(), h.LastOffsetDelta()
	if count < 0 || delta < 0 || int64(delta) < int64(count)-1 {
		return fmt.Errorf("%w: %d records over an offset delta of %d", ErrInvalid, count, delta)
	}
	if base := h.BaseOffset(); base < 0 || base > math.MaxInt64-math.MaxInt32-1 {
		return fmt.Errorf("%w: base offset %d", ErrInvalid, base)
	}
	if c := h.Compression(); c > maxCompression {
		return fmt.Errorf("%w: compression codec %d is unknown", ErrInvalid, c)
	}
	return nil
}

// checkProducerFields checks what producers may say in the header. The header is known to be sound.
func checkProducerFields(b Batch) error {
	if base := b.BaseOffset(); base != 0 {
		return fmt.Errorf("%w: base offset %d, a producer's is 0", ErrInvalid, base)
	}
	count, delta := b.Count(), b.LastOffsetDelta()
	if count == 0 || delta != count-1 {
		return fmt.Errorf("%w: %d records with last offset delta %d, a producer's is the count less one", ErrInvalid, count, delta)
	}
	attributes := b.Attributes()
	if attributes.Control() {
		return fmt.Errorf("%w: control batches are written by brokers only", ErrInvalid)
	}
	if attributes.LogAppendTime() {
		return fmt.Errorf("%w: the log append time flag is set by brokers only", ErrInvalidTimestamp)
	}
	switch producer := b.Producer(); {
	case producer < id.NoProducer:
		return fmt.Errorf("%w: producer id %d", ErrInvalid, producer)
	case producer == id.NoProducer:
		if attributes.Transactional() {
			return fmt.Errorf("%w: transactional without a producer id", ErrInvalid)
		}
	case b.BaseSequence() < 0 || b.ProducerEpoch() < 0:
		return fmt.Errorf("%w: producer id %d with epoch %d and sequence %d, neither may be negative",
			ErrInvalid, producer, b.ProducerEpoch(), b.BaseSequence())
	}
	return nil
}

func checkCRC(b []byte) error {
	want := Batch(b).CRC()
	if got := crc32.Checksum(b[offAttributes:], castagnoli); got != want {
		return fmt.Errorf("%w: header says %08x, the bytes give %08x", ErrCorrupt, want, got)
	}
	return nil
}

// checkRecords walks uncompressed records: count of them, offset deltas 0, 1, 2 and so on, nothing left over.
func checkRecords(b []byte, count int32) error {
	at := 0
	for i := range count {
		next := quickCheck(b, at, i)
		if next < 0 {
			var reason string
			if next, reason = checkRecord(b, at, i); reason != "" {
				return recordError(int(i), reason)
			}
		}
		at = next
	}
	if at != len(b) {
		return fmt.Errorf("%w: %d bytes after the last of %d records", ErrInvalid, len(b)-at, count)
	}
	return nil
}

func checkRecord(b []byte, at int, offsetDelta int32) (end int, reason string) {
	var f recordFrame
	if end, reason = f.parse(b, at); reason != "" {
		return 0, reason
	}
	if f.offsetDelta != offsetDelta {
		return 0, "offset delta out of step"
	}
	return end, checkHeaders(b[f.headersAt:end], f.headers)
}

// quickCheck is checkRecord for what most records are, at a third of its price: less than 8 KiB, a key of less than 64 bytes,
// no headers, made within 8 s of the first. -1 says nothing about the record: checkRecord has to look.
func quickCheck(b []byte, at int, offsetDelta int32) (end int) {
	const most = 16 // bytes that the numbers before the key may take, and more
	if len(b)-at < most {
		return -1
	}
	p := b[at:]
	length, n := int(p[0]), 1
	if length >= 0x80 {
		length, n = length&0x7f|int(p[1])<<7, 2
	}
	if length&1 != 0 || length >= 1<<14 || length>>1 > len(p)-n {
		return -1
	}
	end = n + length>>1
	n++ // attributes
	if p[n] >= 0x80 {
		n++
	}
	if p[n] >= 0x80 {
		return -1
	}
	n++
	delta := int32(p[n])
	n++
	if delta >= 0x80 {
		delta = delta&0x7f | int32(p[n])<<7
		n++
		if delta >= 1<<14 {
			delta = delta&0x3fff | int32(p[n])<<14
			n++
		}
	}
	if delta >= 1<<21 || delta != offsetDelta<<1 {
		return -1
	}
	key := int(p[n])
	n++
	if key != 1 { // null
		if key&1 != 0 || key >= 0x80 {
			return -1
		}
		n += key >> 1
	}
	if n+2 > end {
		return -1
	}
	value := int(p[n])
	n++
	if value >= 0x80 {
		value = value&0x7f | int(p[n])<<7
		n++
	}
	if value != 1 {
		if value&1 != 0 || value >= 1<<14 {
			return -1
		}
		n += value >> 1
	}
	if n != end-1 || p[n] != 0 {
		return -1
	}
	return at + end
}

func recordError(i int, reason string) error {
	return fmt.Errorf("%w: record %d: %s", ErrInvalid, i, reason)
}
