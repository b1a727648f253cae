package wal

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// The memory of tails: arenas of arenaBytes outside of the Go heap, divided by a buddy allocator into chunks of 4 KiB to 16 MiB.
// Arenas are never returned to the system while the store is open, only their chunks are used again: a consumer of a slow
// connection or a write in flight may hold a chunk for long.
const (
	minOrder      = 12 // 4 KiB
	maxOrder      = 24 // 16 MiB; larger chunks are made one by one on the heap
	orders        = maxOrder - minOrder + 1
	arenaBlocks   = arenaBytes >> minOrder
	noBlock       = int32(-1)
	heapAllocated = int8(-1)
)

// poisonFreed fills chunks with garbage when their last reference goes, so that tests see who still reads them.
var poisonFreed bool

// memory hands out chunks. It has its own lock, which is the innermost of all.
type memory struct {
	used    atomic.Int64 // bytes of chunks that are referenced
	rows    atomic.Int64 // bytes of index rows that segments hold
	largest atomic.Int64 // bytes of the largest chunk that a tail grows by, but for batches that are larger

	mu     sync.Mutex
	arenas []*arena
	free   [orders][]block // stacks of free blocks; entries whose block was merged since are stale and skipped
	pool   []*chunk        // chunk headers for reuse
	ahead  [][]byte        // mappings for the next arenas, with their pages in place
	closed bool

	hungry chan struct{} // capacity 1: an arena was taken from ahead, or mapped for want of one
}

// held is what CacheBytes bounds: the chunks of the tails, and the rows that say what is in them or are not in an index yet. A row is
// more than half as large as the smallest batch.
func (m *memory) held() int64 { return m.used.Load() + m.rows.Load() }

const rowMemory = int64(unsafe.Sizeof(segment.Row{}))

// countRows follows the capacity of a segment's rows. Called with the log's mu, after each change of them.
func (m *memory) countRows(sg *seg) {
	if n := cap(sg.rows); n != sg.counted {
		m.rows.Add(int64(n-sg.counted) * rowMemory)
		sg.counted = n
	}
}

// arenasAhead is how many arenas are prepared at most before anybody needs them. The first touch of a page costs more than writing it
// (the kernel zeroes it, and under a hypervisor the host may, too: milliseconds for a huge page), and it would happen on a shard
// worker, in front of all its groups.
const arenasAhead = 8

// prepareAhead keeps arenas ready until stop is closed, up to limit bytes in all: one when none is used yet, and the more the faster
// the tails grow, that is to say as many as are used.
func (m *memory) prepareAhead(stop <-chan struct{}, limit int64) {
	for {
		select {
		case <-stop:
			return
		case <-m.hungry:
		}
		for m.wantsAhead(limit) {
			buf, err := mapArena(arenaBytes)
			if err != nil {
				break // whoever needs one says so
			}
			populate(buf, func(took time.Duration) { m.pause(stop, took) })
			m.mu.Lock()
			m.ahead = append(m.ahead, buf)
			m.mu.Unlock()
		}
	}
}

// While there is an arena left the next one is prepared with rests, restAfterPages times as long as each step took: on a busy machine,
// or one whose nodes all grow at the same pace, steps without a rest are tens of milliseconds in which nobody else has a processor.
// The longest rest is short against the time in which the fastest tails fill an arena.
const (
	restAfterPages   = 4
	longestPagesRest = 10 * time.Millisecond
)

func (m *memory) pause(stop <-chan struct{}, took time.Duration) {
	m.mu.Lock()
	left := len(m.ahead)
	m.mu.Unlock()
	if left == 0 {
		return
	}
	timer := time.NewTimer(min(restAfterPages*took, longestPagesRest))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-stop:
	}
}

func (m *memory) wantsAhead(limit int64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.ahead) < min(max(len(m.arenas), 1), arenasAhead) && int64(len(m.arenas)+len(m.ahead))*arenaBytes < limit
}

// mapping returns memory for an arena, prepared if possible. Called with mu.
func (m *memory) mapping() ([]byte, error) {
	select {
	case m.hungry <- struct{}{}:
	default:
	}
	if n := len(m.ahead); n > 0 {
		buf := m.ahead[n-1]
		m.ahead = m.ahead[:n-1]
		return buf, nil
	}
	return mapArena(arenaBytes)
}

// block names a piece of an arena by the number of its first 4 KiB.
type block struct {
	arena *arena
	at    int32
}

// arena is one mapping. state[i] is 1+order for the first 4 KiB of a free block, 0 for everything else.
type arena struct {
	buf   []byte
	state [arenaBlocks]int8
	// stacked[i] says that a stack holds the block that begins at i, of that order; it keeps stacks from growing with
	// stale entries of blocks that are merged and split again.
	stacked [arenaBlocks]uint16
}

// chunk is a piece of a tail: memory that is the image of a range of a segment file.
//
// References are held by the tail, by appends until their round completed, by writes and by readers; the last one to
// release gives the memory back. Bytes below end are never changed while a reference exists. pos and end belong to the
// tail's log and are guarded by its lock; holders of a reference know the bytes they may touch from their piece.
type chunk struct {
	mem   *memory
	buf   []byte
	refs  atomic.Int32
	order int8
	block block

	pos int64 // file position of buf[0], a multiple of 4 KiB
	end int   // bytes of buf that are in use
}

// piece is a range of a chunk, with a reference to it.
type piece struct {
	c      *chunk
	lo, hi int
}

func (p piece) bytes() []byte { return p.c.buf[p.lo:p.hi:p.hi] }

// orderFor returns the order of the smallest chunk of at least n bytes.
func orderFor(n int) int8 {
	return int8(max(bits.Len(uint(max(n, 1)-1)), minOrder))
}

// alloc returns a chunk of at least n bytes with one reference.
func (m *memory) alloc(n int) *chunk {
	order := orderFor(n)
	m.mu.Lock()
	var c *chunk
	if k := len(m.pool); k > 0 {
		c, m.pool = m.pool[k-1], m.pool[:k-1]
	} else {
		c = &chunk{mem: m}
	}
	if order <= maxOrder {
		c.block = m.take(order)
		c.order = order
		at := int(c.block.at) << minOrder
		c.buf = c.block.arena.buf[at : at+1<<order : at+1<<order]
	}
	m.mu.Unlock()
	if order > maxOrder {
		c.order = heapAllocated
		c.buf = disk.AlignedBytes(int(disk.RoundUp(int64(n))))
	}
	c.pos, c.end = 0, 0
	c.refs.Store(1)
	m.used.Add(int64(len(c.buf)))
	return c
}

// take returns a block of an order, splitting a larger one when there is none. Called with mu.
func (m *memory) take(order int8) block {
	for o := order; o <= maxOrder; o++ {
		if b, ok := m.pop(o); ok {
			return m.split(b, o, order)
		}
	}
	buf, err := m.mapping()
	if err != nil {
		panic(fmt.Sprintf("wal: out of memory for tails: %v", err))
	}
	a := &arena{buf: buf}
	m.arenas = append(m.arenas, a)
	step := int32(1) << (maxOrder - minOrder)
	for at := int32(0); at < arenaBlocks; at += step {
		m.push(block{a, at}, maxOrder)
	}
	b, _ := m.pop(maxOrder)
	return m.split(b, maxOrder, order)
}

// pop takes a free block of exactly this order.
func (m *memory) pop(order int8) (block, bool) {
	stack := &m.free[order-minOrder]
	for len(*stack) > 0 {
		b := (*stack)[len(*stack)-1]
		*stack = (*stack)[:len(*stack)-1]
		b.arena.stacked[b.at] &^= 1 << (order - minOrder)
		if b.arena.state[b.at] == order+1 {
			b.arena.state[b.at] = 0
			return b, true
		}
	}
	return block{}, false
}

func (m *memory) push(b block, order int8) {
	b.arena.state[b.at] = order + 1
	if bit := uint16(1) << (order - minOrder); b.arena.stacked[b.at]&bit == 0 {
		b.arena.stacked[b.at] |= bit
		m.free[order-minOrder] = append(m.free[order-minOrder], b)
	}
}

func (m *memory) split(b block, have, want int8) block {
	for have > want {
		have--
		m.push(block{b.arena, b.at + 1<<(have-minOrder)}, have)
	}
	return b
}

// give returns a block, merging it with its buddy as often as that is free.
func (m *memory) give(b block, order int8) {
	for order < maxOrder {
		buddy := b.at ^ 1<<(order-minOrder)
		if b.arena.state[buddy] != order+1 {
			break
		}
		b.arena.state[buddy] = 0
		b.at = min(b.at, buddy)
		order++
	}
	m.push(b, order)
}

func (c *chunk) retain() { c.refs.Add(1) }

func (c *chunk) release() {
	n := c.refs.Add(-1)
	if n > 0 {
		return
	}
	if n < 0 {
		panic("wal: a chunk was released once too often")
	}
	if poisonFreed {
		c.buf[0] = 0xDB
		for n := 1; n < len(c.buf); n *= 2 {
			copy(c.buf[n:], c.buf[:n])
		}
	}
	m := c.mem
	m.used.Add(-int64(len(c.buf)))
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.order != heapAllocated && !m.closed {
		m.give(c.block, c.order)
	}
	c.buf, c.block = nil, block{}
	m.pool = append(m.pool, c)
}

// close unmaps the arenas unless somebody still holds a chunk; then they stay, since a fault would be worse than a leak.
func (m *memory) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, buf := range m.ahead {
		unmapArena(buf)
	}
	m.ahead = nil
	if m.used.Load() != 0 {
		return
	}
	for _, a := range m.arenas {
		unmapArena(a.buf)
	}
	m.arenas = nil
}
