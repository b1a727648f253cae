package batch

import (
	"fmt"
	"iter"

	"github.com/quorumlog/quorumlog/wal/id"
)

// DefaultLimit is the number of bytes that Records lets a batch decompress to.
const DefaultLimit = 64 << 20

// Reader walks the records of a batch:
//
//	r.Reset(b, limit)
//	for r.Next() {
//		use(r.Offset(), r.Record())
//	}
//	err := r.Err()
//
// The zero value is ready for Reset. It keeps its buffers from batch to batch: reading allocates nothing per record, and
// nothing per batch in the long run. It trusts nothing it reads, but checks no checksum. It is not safe for concurrent use.
type Reader struct {
	batch   Batch
	records []byte // uncompressed: of the batch, or buffer
	at      int
	read    int32 // records so far
	last    int32 // offset delta of the record before; -1 at the start
	record  Record
	err     error

	buffer  []byte // decompressed records
	headers []Header
	keys    map[string]string // header keys seen lately, so that each is allocated once
}

// Header keys that are kept from record to record: at most so many, each of at most so many bytes.
const (
	maxKeys   = 64
	maxKeyLen = 128
)

// Records returns a reader of b that lets it decompress to DefaultLimit bytes. Those who read batch after batch keep a Reader.
func (b Batch) Records() *Reader {
	r := new(Reader)
	r.Reset(b, DefaultLimit)
	return r
}

// Reset starts with batch b, which stays the caller's and must not change while it is read. limit is the most bytes that b may
// decompress to: beyond it the reader fails with a TooLargeError, whatever the compressed bytes claim. Failures show in Err.
func (r *Reader) Reset(b Batch, limit int) {
	*r = Reader{last: -1, buffer: r.buffer[:0], headers: r.headers[:0], keys: r.keys}
	if len(b) < HeaderSize {
		r.err = ErrShort
		return
	}
	r.batch = b
	codec := b.Compression()
	if codec == None {
		r.records = b.Payload()
		return
	}
	r.buffer, r.err = decompress(r.buffer, b.Payload(), codec, limit)
	r.records = r.buffer
}

// Next goes to the next record. False is the end, or an error: see Err.
func (r *Reader) Next() bool {
	if r.err != nil || r.batch == nil {
		return false
	}
	if r.read >= r.batch.Count() {
		if r.at != len(r.records) {
			r.err = fmt.Errorf("%w: %d bytes after the last of %d records", ErrInvalid, len(r.records)-r.at, r.read)
		}
		return false
	}
	if reason := r.parse(); reason != "" {
		r.err = recordError(int(r.read), reason)
		return false
	}
	r.read++
	return true
}

func (r *Reader) parse() (reason string) {
	var f recordFrame
	end, reason := f.parse(r.records, r.at)
	if reason != "" {
		return reason
	}
	if f.offsetDelta <= r.last || f.offsetDelta > r.batch.LastOffsetDelta() {
		return "offset delta out of step"
	}
	r.headers = r.headers[:0]
	if f.headers > 0 {
		reason = r.parseHeaders(r.records[f.headersAt:end], f.headers)
	} else if f.headersAt != end {
		reason = "bytes after its last field"
	}
	if reason != "" {
		return reason
	}
	timestamp := r.batch.BaseTimestamp() + f.timestampDelta
	if r.batch.Attributes().LogAppendTime() {
		timestamp = r.batch.MaxTimestamp()
	}
	r.at, r.last = end, f.offsetDelta
	r.record = Record{Timestamp: timestamp, Key: f.key, Value: f.value, Headers: r.headers, OffsetDelta: f.offsetDelta}
	return ""
}

func (r *Reader) parseHeaders(b []byte, count int) (reason string) {
	if reason := checkHeaders(b, count); reason != "" {
		return reason
	}
	at := 0
	for range count {
		var key, value []byte
		key, at = readBytes(b, at)
		value, at = readBytes(b, at)
		r.headers = append(r.headers, Header{Key: r.key(key), Value: value})
	}
	return ""
}

// key returns b as a string of its own. Records of one producer carry the same few header keys, so those are kept.
func (r *Reader) key(b []byte) string {
	if k, ok := r.keys[string(b)]; ok {
		return k
	}
	k := string(b)
	if len(k) <= maxKeyLen {
		if r.keys == nil || len(r.keys) >= maxKeys {
			r.keys = make(map[string]string)
		}
		r.keys[k] = k
	}
	return k
}

// Record is the record that Next went to. What it aliases is said at Record.
func (r *Reader) Record() Record { return r.record }

// Offset is the offset of the record that Next went to.
func (r *Reader) Offset() id.Offset { return r.batch.BaseOffset() + id.Offset(r.last) }

// Size is the number of bytes of all records of the batch when they are not compressed.
func (r *Reader) Size() int { return len(r.records) }

// Err is what ended the walk before the last record, or nil.
func (r *Reader) Err() error { return r.err }

// All walks the rest of the records; see Err afterwards.
func (r *Reader) All() iter.Seq2[id.Offset, Record] {
	return func(yield func(id.Offset, Record) bool) {
		for r.Next() {
			if !yield(r.Offset(), r.record) {
				return
			}
		}
	}
}
