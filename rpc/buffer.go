package rpc

import (
	"math/bits"
	"sync"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/rpc/broker"
)

// Loan is memory that its owner uses again when the last reference is released.
type Loan = broker.Loan

// buffer is memory that a message was received in. It goes back to its pool with the last reference.
type buffer struct {
	bytes []byte
	refs  atomic.Int32
	class int
}

// buffers are pools of buffers of 2^i bytes.
var buffers [32]sync.Pool

// newBuffer returns n bytes, of any content, with one reference.
func newBuffer(n int) *buffer {
	class := bits.Len(uint(max(n, 4<<10) - 1))
	b, _ := buffers[class].Get().(*buffer)
	if b == nil {
		b = &buffer{bytes: make([]byte, 1<<class), class: class}
	}
	b.bytes = b.bytes[:n]
	b.refs.Store(1)
	return b
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
	buffers[b.class].Put(b)
}

// poisonReleased overwrites what nobody may look at any more, so that tests find who does.
var poisonReleased bool
