package wal

import (
	"sort"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// The sizes by which tails grow: small logs stay small, busy ones get chunks that make large writes.
const (
	firstChunk    = 4 * kib
	smallestShare = 16 * kib // what chunks may grow to however many logs there are
	largestChunk  = mib      // and however few, but for batches that are larger
)

// tail holds the newest bytes of a segment as the image of its file. The log's lock guards it.
//
// Chunks are in the order of their positions. Each one is the image from its pos up to the pos of the next, or for the last
// one up to its end. A chunk may reach further than the next one's pos: a batch lies in one chunk as a whole, so one that
// does not fit begins a new chunk at the block it begins in, with a copy of that block's first bytes. Hence the rule for
// finding a batch: it is in the last chunk whose pos is not above the batch's.
type tail struct {
	chunks []*chunk
	// closed says that the next append begins a new chunk: the last one may have bytes beyond the tail's end, which a
	// truncation dropped and others may be reading.
	closed bool
	fresh  int // chunks added since the evictor was told
}

// append copies a batch to position pos, which is the tail's end, and returns where it lies, without a reference.
func (t *tail) append(m *memory, pos int64, data []byte) piece {
	c := t.last()
	at := 0
	if c != nil {
		at = int(pos - c.pos)
	}
	if c == nil || t.closed || at+len(data) > len(c.buf) {
		c = t.grow(m, pos, len(data))
		at = int(pos - c.pos)
	}
	copy(c.buf[at:], data)
	c.end = at + len(data)
	return piece{c, at, c.end}
}

func (t *tail) last() *chunk {
	if len(t.chunks) == 0 {
		return nil
	}
	return t.chunks[len(t.chunks)-1]
}

// grow adds a chunk with room for n bytes at pos.
func (t *tail) grow(m *memory, pos int64, n int) *chunk {
	start := disk.RoundDown(pos)
	head := int(pos - start)
	size := firstChunk
	largest := int(m.largest.Load())
	if c := t.last(); c != nil {
		size = max(size, min(4*len(c.buf), largest))
	}
	if need := head + n; need > size {
		size = need
		if need > largest/4 { // several large batches a chunk, or the rest of each chunk would be wasted
			size = max(need, min(4*need, 4*largest))
		}
	}
	c := m.alloc(size)
	c.pos = start
	if head > 0 {
		if from := t.find(start); from != nil {
			copy(c.buf[:head], from.buf[start-from.pos:pos-from.pos])
		}
	}
	c.end = head
	if old := t.last(); old != nil && old.pos == start { // only its first block's beginning was in use
		t.chunks = t.chunks[:len(t.chunks)-1]
		old.release()
	}
	t.chunks = append(t.chunks, c)
	t.closed = false
	t.fresh++
	return c
}

// find returns the chunk that holds what begins at pos, or nil.
func (t *tail) find(pos int64) *chunk {
	i := sort.Search(len(t.chunks), func(i int) bool { return t.chunks[i].pos > pos })
	if i == 0 {
		return nil
	}
	return t.chunks[i-1]
}

// start is the first position that the tail holds, or end when it holds nothing.
func (t *tail) start(end int64) int64 {
	if len(t.chunks) == 0 {
		return end
	}
	return t.chunks[0].pos
}

// get returns where the batch [pos, pos+n) lies, without a reference; false when it is not in the tail.
func (t *tail) get(pos int64, n int) (piece, bool) {
	c := t.find(pos)
	if c == nil || int(pos-c.pos)+n > c.end {
		return piece{}, false
	}
	lo := int(pos - c.pos)
	return piece{c, lo, lo + n}, true
}

// pieces appends the image of [from, to) to dst, with a reference to each piece; false, and nothing, when the tail does not
// hold all of it. The pieces end at multiples of 4 KiB except for the last one.
func (t *tail) pieces(dst []piece, from, to int64) ([]piece, bool) {
	i := sort.Search(len(t.chunks), func(i int) bool { return t.chunks[i].pos > from }) - 1
	n := len(dst)
	for ; from < to; i++ {
		if i < 0 || i >= len(t.chunks) {
			return release(dst, n), false
		}
		c := t.chunks[i]
		hi := c.pos + int64(c.end)
		if i+1 < len(t.chunks) {
			hi = t.chunks[i+1].pos
		}
		hi = min(hi, to)
		if hi <= from || hi > c.pos+int64(c.end) {
			return release(dst, n), false
		}
		c.retain()
		dst = append(dst, piece{c, int(from - c.pos), int(hi - c.pos)})
		from = hi
	}
	return dst, true
}

// release gives up the references of pieces[n:].
func release(pieces []piece, n int) []piece {
	for i := n; i < len(pieces); i++ {
		pieces[i].c.release()
		pieces[i] = piece{}
	}
	return pieces[:n]
}

// truncate drops everything from pos on. What others hold a reference to stays as it is: the block that pos lies in gets a
// fresh chunk with a copy of the bytes before pos, and that is where the tail goes on. It returns the chunk's piece
// [floor(pos), pos), empty when pos is a multiple of 4 KiB, and false if the tail does not hold those bytes.
func (t *tail) truncate(m *memory, pos int64) (piece, bool) {
	start := disk.RoundDown(pos)
	head := int(pos - start)
	var fresh *chunk
	if head > 0 {
		from := t.find(start)
		if from == nil || from.pos+int64(from.end) < pos {
			return piece{}, false
		}
		fresh = m.alloc(firstChunk)
		fresh.pos, fresh.end = start, head
		copy(fresh.buf, from.buf[start-from.pos:pos-from.pos])
	}
	for c := t.last(); c != nil && c.pos >= start; c = t.last() {
		t.chunks[len(t.chunks)-1] = nil
		t.chunks = t.chunks[:len(t.chunks)-1]
		c.release()
	}
	if c := t.last(); c != nil {
		c.end = min(c.end, int(pos-c.pos))
	}
	if fresh == nil {
		t.closed = true
		return piece{}, true
	}
	t.chunks = append(t.chunks, fresh)
	t.closed = false
	t.fresh++
	return piece{fresh, 0, head}, true
}

// evict drops the first chunk if all it holds is below limit. It returns the bytes of memory that this frees once nobody
// else refers to it.
func (t *tail) evict(limit int64) int64 {
	if len(t.chunks) == 0 {
		return 0
	}
	c := t.chunks[0]
	if c.pos+int64(c.end) > limit {
		return 0
	}
	copy(t.chunks, t.chunks[1:])
	t.chunks[len(t.chunks)-1] = nil
	t.chunks = t.chunks[:len(t.chunks)-1]
	n := int64(len(c.buf))
	c.release()
	return n
}

// shrink moves what the last chunk holds from limit on, a multiple of 4 KiB, into a chunk of its size, if that is at most half as
// large. Without it a thousand logs that are written now and then would hold a thousand large chunks, nearly empty, for ever. What
// others hold a reference to stays as it is. It returns the bytes of memory that this frees once nobody else refers to it.
func (t *tail) shrink(m *memory, limit int64) int64 {
	c := t.last()
	if len(t.chunks) != 1 {
		return 0
	}
	from := max(int(min(limit, disk.RoundDown(c.pos+int64(c.end)))-c.pos), 0)
	if 2*max(c.end-from, firstChunk) > len(c.buf) {
		return 0
	}
	fresh := m.alloc(c.end - from)
	fresh.pos = c.pos + int64(from)
	fresh.end = copy(fresh.buf, c.buf[from:c.end])
	t.chunks[0] = fresh
	t.fresh++
	n := int64(len(c.buf) - len(fresh.buf))
	c.release()
	return n
}

// clear drops everything.
func (t *tail) clear() {
	for _, c := range t.chunks {
		c.release()
	}
	clear(t.chunks)
	t.chunks, t.closed = t.chunks[:0], false
}
