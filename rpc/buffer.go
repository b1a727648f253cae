package rpc

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/rpc/broker"
)

// Loan is memory that its owner uses again when the last reference is released.
type Loan = broker.Loan

// buffer is memory that a message was received in, or is being written from. It goes back to its pool with the last reference. So whoever
// has nothing to receive or to say holds none.
type buffer struct {
	bytes []byte
	refs  atomic.Int32
}

// buffers are pools: those of number i have 2^i bytes, or more.
var buffers [32]sync.Pool

// leastClass is the class of the smallest buffers.
const leastClass = 12

// classOf returns the class of the buffers that have n bytes for certain.
func classOf(n int) int { return max(bits.Len(uint(max(n, 1)-1)), leastClass) }

// newBuffer returns n bytes, of any content, with one reference.
func newBuffer(n int) *buffer {
	class := classOf(n)
	b, _ := buffers[class].Get().(*buffer)
	if b == nil {
		b = &buffer{bytes: make([]byte, 1<<class)}
	}
	b.bytes = b.bytes[:n]
	b.refs.Store(1)
	return b
}

// grow makes room for n bytes more, behind what is there.
func (b *buffer) grow(n int) {
	if need := len(b.bytes) + n; need > cap(b.bytes) {
		b.bytes = append(make([]byte, 0, 1<<classOf(need)), b.bytes...)
	}
}

// Retain implements Loan.
func (b *buffer) Retain() { b.refs.Add(1) }

// Release implements Loan.
func (b *buffer) Release() {
	switch n := b.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("rpc: a buffer was released once too often")
	}
	b.bytes = b.bytes[:cap(b.bytes)]
	if poisonReleased {
		for i := range b.bytes {
			b.bytes[i] = 0xDB
		}
	}
	if class := bits.Len(uint(len(b.bytes))) - 1; class >= leastClass && class < len(buffers) { // it may have grown
		buffers[class].Put(b)
	}
}

// poisonReleased overwrites what nobody may look at any more, so that tests find who does.
var poisonReleased bool
