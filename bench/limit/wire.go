package limit

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"
)

// A frame is what travels, and what is written, as it is:
//
//	 0       4      8           12      16         24
//	┌───────┬──────┬───────────┬───────┬──────────┬─────────┐
//	│ bytes │ file │ partition │ count │ sequence │ records │
//	└───────┴──────┴───────────┴───────┴──────────┴─────────┘
//
// bytes is the length of the whole frame. sequence counts the frames of the file, from 1. A record is the lengths of its value
// (4 bytes) and key (2 bytes), the key and the value. All numbers are big-endian.
const (
	headerBytes = 24
	recordBytes = 6 // beside key and value
)

// frameBytes is the size of a full frame, and of every buffer.
const frameBytes = 64 << 10

// blockBytes is what files are aligned to.
const blockBytes = 4096

type header struct {
	bytes, file, partition, count uint32
	sequence                      uint64
}

func (h header) put(b []byte) {
	binary.BigEndian.PutUint32(b, h.bytes)
	binary.BigEndian.PutUint32(b[4:], h.file)
	binary.BigEndian.PutUint32(b[8:], h.partition)
	binary.BigEndian.PutUint32(b[12:], h.count)
	binary.BigEndian.PutUint64(b[16:], h.sequence)
}

func headerOf(b []byte) header {
	return header{
		binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:]), binary.BigEndian.Uint32(b[12:]),
		binary.BigEndian.Uint64(b[16:]),
	}
}

func (h header) check(files int) error {
	if h.bytes < headerBytes || h.bytes > frameBytes || int(h.file) >= files {
		return fmt.Errorf("limit: a frame of %d bytes for file %d", h.bytes, h.file)
	}
	return nil
}

func appendRecord(frame, key, value []byte) []byte {
	frame = binary.BigEndian.AppendUint32(frame, uint32(len(value)))
	frame = binary.BigEndian.AppendUint16(frame, uint16(len(key)))
	return append(append(frame, key...), value...)
}

// An acknowledgement says that all frames of a file up to a sequence are done: 4 bytes file, 8 bytes sequence.
const ackBytes = 12

func putAck(b []byte, file int, sequence uint64) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(file))
	return binary.BigEndian.AppendUint64(b, sequence)
}

func ackOf(b []byte) (file int, sequence uint64) {
	return int(binary.BigEndian.Uint32(b)), binary.BigEndian.Uint64(b[4:])
}

// buffer holds one frame in memory that O_DIRECT takes. It goes back to its pool when all its users have released it.
type buffer struct {
	pool *pool
	refs atomic.Int32
	b    []byte // frameBytes
	n    int    // of the frame
}

func (b *buffer) frame() []byte { return b.b[:b.n] }

func (b *buffer) release() {
	if b.refs.Add(-1) == 0 {
		b.pool.free <- b
	}
}

// pool bounds the frames that a process holds: a reader waits when the slowest user is this far behind.
type pool struct{ free chan *buffer }

func newPool(bytes int) *pool {
	p := &pool{free: make(chan *buffer, bytes/frameBytes)}
	memory := aligned(cap(p.free) * frameBytes)
	for i := range cap(p.free) {
		p.free <- &buffer{pool: p, b: memory[i*frameBytes : (i+1)*frameBytes : (i+1)*frameBytes]}
	}
	return p
}

func aligned(n int) []byte {
	b := make([]byte, n+blockBytes)
	skip := blockBytes - int(uintptr(unsafe.Pointer(&b[0]))%blockBytes)
	return b[skip : skip+n : skip+n]
}
