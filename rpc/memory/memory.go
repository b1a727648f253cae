// Package memory is what messages are received in and written from: buffers that are used again.
package memory

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Buffer is memory that a message was received in, or is being written from. It goes back to its pool with the last reference. So whoever
// has nothing to receive or to say holds none. Any goroutine that has a reference may release it; the Bytes are for one at a time.
type Buffer struct {
	Bytes []byte
	refs  atomic.Int32
}

// buffers are pools: those of number i have 2^i bytes, or more.
var buffers [32]sync.Pool

// leastClass is the class of the smallest buffers.
const leastClass = 12

// classOf returns the class of the buffers that have n bytes for certain.
func classOf(n int) int { return max(bits.Len(uint(max(n, 1)-1)), leastClass) }

// Size returns how much memory a new Buffer of n bytes takes.
func Size(n int) int { return 1 << classOf(n) }

// New returns n bytes, of any content, with one reference.
func New(n int) *Buffer {
	class := classOf(n)
	b, _ := buffers[class].Get().(*Buffer)
	if b == nil {
		b = &Buffer{Bytes: make([]byte, Size(n))}
	}
	b.Bytes = b.Bytes[:n]
	b.refs.Store(1)
	return b
}

// Grow makes room for n bytes more, behind what is there.
func (b *Buffer) Grow(n int) {
	if need := len(b.Bytes) + n; need > cap(b.Bytes) {
		b.Bytes = append(make([]byte, 0, Size(need)), b.Bytes...)
	}
}

// Retain adds a reference.
func (b *Buffer) Retain() { b.refs.Add(1) }

// Release takes a reference back.
func (b *Buffer) Release() {
	switch n := b.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("memory: a buffer was released once too often")
	}
	b.Bytes = b.Bytes[:cap(b.Bytes)]
	if Poison {
		for i := range b.Bytes {
			b.Bytes[i] = 0xDB
		}
	}
	if class := bits.Len(uint(len(b.Bytes))) - 1; class >= leastClass && class < len(buffers) { // it may have grown
		buffers[class].Put(b)
	}
}

// Poison has what nobody may look at any more overwritten, so that tests find who does. They set it before anything else.
var Poison bool
