package rpc

import (
	"sync"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/rpc/budget"
	"github.com/quorumlog/quorumlog/rpc/memory"
)

// outbox is the queue of answers to one producer, bounded in bytes. What is put into it is packed at once, by copy, into
// trains: buffers of up to trainBytes that are later written as one drpc message each. A single item that is larger gets
// a train of its own. Putting and taking hold the lock for a copy at most; the writer writes without it.
//
//	if o.begin(size) {              // locked; room for size bytes was found
//		o.end(appendItem(o.train(), …))
//	}
//
// The memory of the trains is taken from the connection's share of the node's budget, and goes back when they are written: a producer to
// whom nothing is to be said holds none.
type outbox struct {
	bound int // of all bytes in mu.full and mu.last
	share *budget.Share
	wake  chan struct{} // capacity 1: there is something to take
	dirty atomic.Bool   // something was put since the last signal

	mu struct {
		sync.Mutex
		shut  bool             // nothing is accepted
		full  []*memory.Buffer // trains complete, oldest first
		last  *memory.Buffer   // the train being filled, or nil
		bytes int
	}
}

// firstTrain is the memory of a train until more is put into it.
const firstTrain = 4 << 10

func newOutbox(bound int, share *budget.Share) *outbox {
	return &outbox{bound: bound, share: share, wake: make(chan struct{}, 1)}
}

// begin finds room for an item of at most size bytes and leaves the outbox locked until end. False (and not locked): the
// outbox is shut, or full.
func (o *outbox) begin(size int) bool {
	o.mu.Lock()
	if o.mu.shut || o.mu.bytes+size > o.bound {
		o.mu.Unlock()
		return false
	}
	if o.mu.last != nil && len(o.mu.last.Bytes)+size > trainBytes {
		o.mu.full = append(o.mu.full, o.mu.last)
		o.mu.last = nil
		o.signal() // enough for a message: the writer need not wait for the end of the turn
	}
	if !o.roomLocked(size) {
		o.mu.Unlock()
		return false
	}
	return true
}

// roomLocked makes room for an item in the last train, if the node has the memory.
func (o *outbox) roomLocked(size int) bool {
	if o.mu.last == nil {
		b := memory.New(max(size, firstTrain))
		b.Bytes = b.Bytes[:0]
		if o.share.Take(int64(cap(b.Bytes))) != nil {
			b.Release()
			return false
		}
		o.mu.last = b
		return true
	}
	b := o.mu.last
	before := cap(b.Bytes)
	need := len(b.Bytes) + size
	if need <= before {
		return true
	}
	if o.share.Take(int64(memory.Size(need)-before)) != nil {
		return false
	}
	b.Grow(size)
	return true
}

// train is the buffer to append the item to, between begin and end.
func (o *outbox) train() []byte { return o.mu.last.Bytes }

// end takes the train with the item appended and unlocks.
func (o *outbox) end(train []byte) {
	o.mu.bytes += len(train) - len(o.mu.last.Bytes)
	o.mu.last.Bytes = train
	o.mu.Unlock()
	o.dirty.Store(true)
}

// signal wakes the writer if it sleeps.
func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// flushed tells whether something was put since the last call, for which somebody must write or the writer must be woken.
func (o *outbox) flushed() bool { return o.dirty.Load() && o.dirty.Swap(false) }

// takeSmall is take for somebody who must not write much: nil when there is more than limit bytes.
func (o *outbox) takeSmall(limit int) *memory.Buffer {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.mu.full) > 0 || o.mu.last != nil && len(o.mu.last.Bytes) > limit {
		return nil
	}
	return o.takeLocked()
}

// take returns the oldest train, nil when there is none. The writer owns it until done.
func (o *outbox) take() *memory.Buffer {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.takeLocked()
}

func (o *outbox) takeLocked() *memory.Buffer {
	var train *memory.Buffer
	switch {
	case len(o.mu.full) > 0:
		train = o.mu.full[0]
		o.mu.full[0] = nil
		o.mu.full = o.mu.full[1:]
	default:
		train, o.mu.last = o.mu.last, nil
	}
	if train != nil {
		o.mu.bytes -= len(train.Bytes)
	}
	return train
}

// done gives a train back that is written, or never will be.
func (o *outbox) done(train *memory.Buffer) {
	o.share.Give(int64(cap(train.Bytes)))
	train.Release()
}

// close drops all that is queued and accepts nothing from here on.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.shut = true
	for train := o.takeLocked(); train != nil; train = o.takeLocked() {
		o.done(train)
	}
	o.mu.full = nil
}

// overflows tells whether begin fails for want of room rather than because the outbox is shut.
func (o *outbox) overflows() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.mu.shut
}
