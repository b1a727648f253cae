package batch

import (
	"encoding/binary"
	"math"
	"math/bits"
)

// Record is one message. In a Record that a Reader returns, Key, Value and the header values alias the batch or the reader's
// buffer, and Headers is the reader's own: all of it is good until the next call of the reader.
type Record struct {
	Timestamp   int64  // ms since 1970
	Key, Value  []byte // nil is Kafka's null, which is not the same as empty
	Headers     []Header
	OffsetDelta int32 // from the batch's base offset; Builder.Append ignores it and counts
}

// Header is a named value beside a record.
type Header struct {
	Key   string
	Value []byte // nil is null
}

// A record, inside the records of a batch. Numbers are zigzag varints, those marked int32 of at most five bytes.
//
//	length          int32  bytes after this field
//	attributes      byte   unused
//	timestampDelta  int64  from the batch's base timestamp, ms
//	offsetDelta     int32  from the batch's base offset
//	keyLength       int32  -1: null
//	key
//	valueLength     int32  -1: null
//	value
//	headers         int32  count, then for each
//	  keyLength     int32
//	  key                  UTF-8
//	  valueLength   int32  -1: null
//	  value

// varintSize is the number of bytes that v takes as a zigzag varint.
func varintSize(v int64) int {
	return (bits.Len64(uint64(v<<1)^uint64(v>>63)|1) + 6) / 7
}

func bytesSize(b []byte) int {
	if b == nil {
		return 1
	}
	return varintSize(int64(len(b))) + len(b)
}

// bodySize is the value of the record's length field.
func (r *Record) bodySize(timestampDelta int64, offsetDelta int32) int {
	n := 1 + varintSize(timestampDelta) + varintSize(int64(offsetDelta)) + bytesSize(r.Key) + bytesSize(r.Value)
	n += varintSize(int64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		n += varintSize(int64(len(h.Key))) + len(h.Key) + bytesSize(h.Value)
	}
	return n
}

// appendTo encodes the record; size is its bodySize.
func (r *Record) appendTo(dst []byte, size int, timestampDelta int64, offsetDelta int32) []byte {
	dst = binary.AppendVarint(dst, int64(size))
	dst = append(dst, 0)
	dst = binary.AppendVarint(dst, timestampDelta)
	dst = binary.AppendVarint(dst, int64(offsetDelta))
	dst = appendBytes(dst, r.Key)
	dst = appendBytes(dst, r.Value)
	dst = binary.AppendVarint(dst, int64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		dst = binary.AppendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendBytes(dst, h.Value)
	}
	return dst
}

func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 1) // zigzag of -1
	}
	dst = binary.AppendVarint(dst, int64(len(b)))
	return append(dst, b...)
}

// readVarint decodes the zigzag varint at b[at:] and returns where it ends, or -1 when there is none. A negative at is passed
// on, so that a chain of reads needs one check at its end.
func readVarint(b []byte, at int) (int64, int) {
	if uint(at) < uint(len(b)) && b[at] < 0x80 {
		return int64(int8(b[at]>>1 ^ -(b[at] & 1))), at + 1
	}
	return readLongVarint(b, at)
}

func readLongVarint(b []byte, at int) (int64, int) {
	if at < 0 || at >= len(b)-1 {
		return 0, -1
	}
	if c := b[at+1]; c < 0x80 {
		u := int64(b[at]&0x7f) | int64(c)<<7
		return u>>1 ^ -(u & 1), at + 2
	}
	v, n := binary.Varint(b[at:])
	if n <= 0 {
		return 0, -1
	}
	return v, at + n
}

// readBytes decodes a length and the bytes it announces; the bytes alias b. Null gives nil, empty gives an empty slice.
func readBytes(b []byte, at int) ([]byte, int) {
	n, at := readVarint(b, at)
	if at < 0 || n < -1 || n > int64(len(b)-at) {
		return nil, -1
	}
	if n == -1 {
		return nil, at
	}
	end := at + int(n)
	return b[at:end:end], end
}

// recordFrame is a record up to its headers.
type recordFrame struct {
	timestampDelta int64
	offsetDelta    int32
	key, value     []byte
	headers        int // how many
	headersAt      int // where they begin
}

// parse reads the record at b[at:] and returns where it ends. The reason is "" for a sound one; headers are not looked into.
func (f *recordFrame) parse(b []byte, at int) (end int, reason string) {
	length, at := readVarint(b, at)
	if at < 0 || length < 0 || length > int64(len(b)-at) {
		return 0, "its length reaches over the end"
	}
	end = at + int(length)
	b = b[:end]
	at++ // attributes
	delta, at := readVarint(b, at)
	f.timestampDelta = delta
	delta, at = readVarint(b, at)
	if at < 0 || delta < 0 || delta > math.MaxInt32 {
		return 0, "bad timestamp or offset delta"
	}
	f.offsetDelta = int32(delta)
	f.key, at = readBytes(b, at)
	if at < 0 {
		return 0, "its key reaches over the end"
	}
	f.value, at = readBytes(b, at)
	if at < 0 {
		return 0, "its value reaches over the end"
	}
	count, at := readVarint(b, at)
	// A header takes two bytes at least.
	if at < 0 || count < 0 || count > int64(end-at)/2 {
		return 0, "bad header count"
	}
	f.headers, f.headersAt = int(count), at
	return end, ""
}

// checkHeaders walks count headers, which must fill b.
func checkHeaders(b []byte, count int) (reason string) {
	at := 0
	for range count {
		var key []byte
		key, at = readBytes(b, at)
		if at < 0 || key == nil {
			return "bad header key"
		}
		if _, at = readBytes(b, at); at < 0 {
			return "bad header value"
		}
	}
	if at != len(b) {
		return "bytes after its last field"
	}
	return ""
}
