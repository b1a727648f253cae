package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
)

// A frame is one round. All numbers are little-endian, positions are bytes.
//
//	0        64                                                                    total-64  total
//	+--------+---------------+---------------------------+---------+---------------+---------+
//	| header | n record      | payloads, one after the   | zeros   | n record      | footer  |
//	|        | headers, 32 n | other, without gaps       | to fill | headers, 32 n |         |
//	+--------+---------------+---------------------------+---------+---------------+---------+
//
//	header and footer                                  record header
//	 0  4  magic "QLJH", footer "QLJF"                  0  1  kind
//	 4  2  version, 1                                   1  7  zero
//	 6  2  zero                                         8  8  group
//	 8  8  epoch of the file                           16  8  replica
//	16  8  sequence                                    24  4  payload length
//	24  8  prevDurable: all frames up to this          28  4  CRC32C of the payload
//	       sequence are durable, as are the segment
//	       writes of their rounds
//	32  4  n, number of records
//	36  4  CRC32C of the n record headers
//	40  8  sum of the payload lengths
//	48  8  total, a multiple of 4096
//	56  4  zero
//	60  4  CRC32C of the 60 bytes before
//
// The header names the checksum of the record headers, these name those of the payloads: bytes that an older frame left in
// a block that was not written do not check. Header and record headers stand twice, and any one of each suffices to read
// the frame: a flipped bit in them costs nothing, one in a payload costs that record, and only the loss of both copies
// leaves open which groups a frame touched. From a footer total leads back to the frame's start, so a frame whose first
// block is gone is found by its last.
const (
	headMagic    = 'Q' | 'L'<<8 | 'J'<<16 | 'H'<<24
	footMagic    = 'Q' | 'L'<<8 | 'J'<<16 | 'F'<<24
	frameVersion = 1
	headBytes    = 64
	rowBytes     = 32
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// header is a header or footer without its checksum.
type header struct {
	epoch       uint64
	seq         Seq
	prevDurable Seq
	count       uint32
	tableCRC    uint32
	payload     int64
	total       int64
}

func (h *header) put(b []byte, magic uint32) {
	le := binary.LittleEndian
	b = b[:headBytes]
	clear(b)
	le.PutUint32(b, magic)
	le.PutUint16(b[4:], frameVersion)
	le.PutUint64(b[8:], h.epoch)
	le.PutUint64(b[16:], uint64(h.seq))
	le.PutUint64(b[24:], uint64(h.prevDurable))
	le.PutUint32(b[32:], h.count)
	le.PutUint32(b[36:], h.tableCRC)
	le.PutUint64(b[40:], uint64(h.payload))
	le.PutUint64(b[48:], uint64(h.total))
	le.PutUint32(b[60:], crc32.Checksum(b[:60], castagnoli))
}

// parseHeader returns the header at the start of b if it is one of the given epoch and its numbers fit each other. Nothing
// is allocated and nothing beyond the header is looked at, so total may still be more than there is.
func parseHeader(b []byte, magic uint32, epoch uint64) (h header, ok bool) {
	le := binary.LittleEndian
	if len(b) < headBytes || le.Uint32(b) != magic || le.Uint64(b[8:]) != epoch {
		return h, false
	}
	if le.Uint16(b[4:]) != frameVersion || crc32.Checksum(b[:60], castagnoli) != le.Uint32(b[60:]) {
		return h, false
	}
	h = header{
		epoch: epoch, seq: Seq(le.Uint64(b[16:])), prevDurable: Seq(le.Uint64(b[24:])),
		count: le.Uint32(b[32:]), tableCRC: le.Uint32(b[36:]),
		payload: int64(le.Uint64(b[40:])), total: int64(le.Uint64(b[48:])),
	}
	sane := h.seq != 0 && h.seq != MaxSeq && h.prevDurable < h.seq && h.payload >= 0 && h.payload <= MaxFrameBytes &&
		h.total == frameBytes(int64(h.count), h.payload) && h.total <= MaxFrameBytes
	return h, sane
}

// frameBytes is the size of a frame of n records.
func frameBytes(n, payload int64) int64 {
	return disk.RoundUp(2*(headBytes+rowBytes*n) + payload)
}

// Frame builds the frame of a round in memory that it keeps. The zero value is ready. It is not safe for use by more than
// one goroutine at a time.
type Frame struct {
	rows    []row
	pieces  [][]byte
	payload int64
	scratch arena
	buf     []byte // aligned; the frame, once built
	total   int    // bytes of buf that are the frame; 0: not built
}

// row is a record that was added: its header, and how many of the pieces are its.
type row struct {
	kind    Kind
	group   id.Group
	replica id.Replica
	bytes   uint32
	pieces  uint32
}

// keepBytes is the memory that a frame keeps across Reset; more than this after a large round is given back.
const keepBytes = 16 << 20

// Reset empties the frame. What Scratch returned becomes invalid.
func (f *Frame) Reset() {
	clear(f.pieces) // so that they do not keep their memory alive
	f.rows, f.pieces, f.payload, f.total = f.rows[:0], f.pieces[:0], 0, 0
	f.scratch.reset()
	if len(f.buf) > keepBytes {
		f.buf = nil
	}
}

// Add adds a record whose payload is the concatenation of the pieces. They are copied by Build, once: they must not change
// before that.
func (f *Frame) Add(kind Kind, group id.Group, replica id.Replica, pieces ...[]byte) {
	r := row{kind: kind, group: group, replica: replica, pieces: uint32(len(pieces))}
	n := int64(0)
	for _, p := range pieces {
		n += int64(len(p))
	}
	r.bytes = uint32(min(n, MaxFrameBytes)) // Build refuses the frame if it was more
	f.payload += n
	f.pieces = append(f.pieces, pieces...)
	f.rows = append(f.rows, r)
	f.total = 0
}

// Scratch returns n bytes that stay where they are until Reset: for the small encoded parts of payloads.
func (f *Frame) Scratch(n int) []byte { return f.scratch.take(n) }

// Count is the number of records.
func (f *Frame) Count() int { return len(f.rows) }

// Size is the number of bytes that the frame takes in the journal.
func (f *Frame) Size() int64 { return frameBytes(int64(len(f.rows)), f.payload) }

// Build copies the payloads and computes their checksums: all the work of a round that does not need its sequence. Write
// does it if it was not done before. The pieces are not used afterwards.
func (f *Frame) Build() error {
	if f.total != 0 {
		return nil
	}
	total := f.Size()
	if total > MaxFrameBytes {
		return fmt.Errorf("%w: %d bytes in %d records, limit %d", ErrFrameTooLarge, total, len(f.rows), MaxFrameBytes)
	}
	if int64(len(f.buf)) < total {
		f.buf = disk.AlignedBytes(int(disk.RoundUp(total + total/4)))
	}
	f.fill(f.buf[:total])
	f.total = int(total)
	return nil
}

// fill lays out everything but header and footer.
func (f *Frame) fill(b []byte) {
	n := len(f.rows)
	table := b[headBytes : headBytes+rowBytes*n]
	at := headBytes + len(table)
	le := binary.LittleEndian
	pieces := f.pieces
	for i, r := range f.rows {
		crc := uint32(0)
		for _, p := range pieces[:r.pieces] {
			at, crc = copySum(b, at, p, crc)
		}
		pieces = pieces[r.pieces:]
		t := table[rowBytes*i : rowBytes*(i+1)]
		clear(t[:8])
		t[0] = byte(r.kind)
		le.PutUint64(t[8:], uint64(r.group))
		le.PutUint64(t[16:], uint64(r.replica))
		le.PutUint32(t[24:], r.bytes)
		le.PutUint32(t[28:], crc)
	}
	end := len(b) - headBytes - len(table)
	clear(b[at:end])
	copy(b[end:], table)
}

// copySum copies p to b at the given position and adds it to the checksum, in steps that stay in the cache.
func copySum(b []byte, at int, p []byte, crc uint32) (int, uint32) {
	const step = 16 << 10
	for len(p) > 0 {
		n := copy(b[at:], p[:min(len(p), step)])
		crc = crc32.Update(crc, castagnoli, b[at:at+n])
		at, p = at+n, p[n:]
	}
	return at, crc
}

// finish puts header and footer around a built frame and returns it.
func (f *Frame) finish(epoch uint64, seq, prevDurable Seq) []byte {
	b := f.buf[:f.total]
	h := header{
		epoch: epoch, seq: seq, prevDurable: prevDurable, count: uint32(len(f.rows)),
		tableCRC: crc32.Checksum(b[headBytes:headBytes+rowBytes*len(f.rows)], castagnoli),
		payload:  f.payload, total: int64(f.total),
	}
	h.put(b, headMagic)
	h.put(b[f.total-headBytes:], footMagic)
	return b
}

// arena hands out small pieces of memory that do not move.
type arena struct {
	chunks [][]byte // chunks[:used] are in use, the last of them partly
	used   int
	free   []byte
}

const chunkBytes = 64 << 10

func (a *arena) reset() {
	a.chunks = slices.DeleteFunc(a.chunks, func(c []byte) bool { return len(c) > chunkBytes })
	if len(a.chunks) > keepBytes/chunkBytes {
		a.chunks = slices.Delete(a.chunks, keepBytes/chunkBytes, len(a.chunks))
	}
	a.used, a.free = 0, nil
}

func (a *arena) take(n int) []byte {
	if n > len(a.free) {
		if a.used == len(a.chunks) || n > len(a.chunks[a.used]) {
			a.chunks = slices.Insert(a.chunks, a.used, make([]byte, max(n, chunkBytes)))
		}
		a.free = a.chunks[a.used]
		a.used++
	}
	p := a.free[:n:n]
	a.free = a.free[n:]
	return p
}
