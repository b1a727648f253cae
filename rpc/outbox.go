package rpc

import (
	"sync"
	"sync/atomic"
)

// outbox is the queue of answers to one producer, bounded in bytes. What is put into it is packed at once, by copy, into
// trains: buffers of up to trainBytes that are later written as one drpc message each. A single item that is larger gets
// a train of its own. Putting and taking hold the lock for a copy at most; the writer writes without it.
//
//	if o.begin(size) {              // locked; room for size bytes was found
//		o.end(appendItem(o.train(), …))
//	}
type outbox struct {
	chunk int           // capacity of a new train; it grows if need be
	bound int           // of all bytes in mu.full and mu.last
	wake  chan struct{} // capacity 1: there is something to take
	dirty atomic.Bool   // something was put since the last signal

	mu struct {
		sync.Mutex
		shut  bool     // nothing is accepted
		full  [][]byte // trains complete, oldest first
		last  []byte   // the train being filled, or nil
		bytes int
		free  [][]byte // written trains, for reuse
		idle  int      // capacity of free
	}
}

func newOutbox(chunk, bound int) *outbox {
	return &outbox{chunk: chunk, bound: bound, wake: make(chan struct{}, 1)}
}

// begin finds room for an item of at most size bytes and leaves the outbox locked until end. False (and not locked): the
// outbox is shut, or full.
func (o *outbox) begin(size int) bool {
	o.mu.Lock()
	if o.mu.shut || o.mu.bytes+size > o.bound {
		o.mu.Unlock()
		return false
	}
	if o.mu.last != nil && len(o.mu.last)+size > trainBytes {
		o.mu.full = append(o.mu.full, o.mu.last)
		o.mu.last = nil
		o.signal() // enough for a message: the writer need not wait for the end of the turn
	}
	if o.mu.last == nil {
		o.mu.last = o.buffer(size)
	}
	return true
}

// train is the buffer to append the item to, between begin and end.
func (o *outbox) train() []byte { return o.mu.last }

// end takes the train with the item appended and unlocks.
func (o *outbox) end(train []byte) {
	o.mu.bytes += len(train) - len(o.mu.last)
	o.mu.last = train
	o.mu.Unlock()
	o.dirty.Store(true)
}

// buffer returns an empty train with room for n bytes: the one that was written last, if it is large enough.
func (o *outbox) buffer(n int) []byte {
	for i := len(o.mu.free) - 1; i >= 0; i-- {
		b := o.mu.free[i]
		if cap(b) < n {
			continue
		}
		last := len(o.mu.free) - 1
		o.mu.free[i] = o.mu.free[last]
		o.mu.free[last] = nil
		o.mu.free = o.mu.free[:last]
		o.mu.idle -= cap(b)
		return b[:0]
	}
	return make([]byte, 0, max(n, o.chunk))
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
func (o *outbox) takeSmall(limit int) []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.mu.full) > 0 || len(o.mu.last) > limit {
		return nil
	}
	return o.takeLocked()
}

// take returns the oldest train, nil when there is none. The writer owns it until done.
func (o *outbox) take() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.takeLocked()
}

func (o *outbox) takeLocked() []byte {
	var train []byte
	switch {
	case len(o.mu.full) > 0:
		train = o.mu.full[0]
		o.mu.full[0] = nil
		o.mu.full = o.mu.full[1:]
	default:
		train, o.mu.last = o.mu.last, nil
	}
	if train != nil {
		o.mu.bytes -= len(train)
	}
	return train
}

// done gives a written train back.
func (o *outbox) done(train []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.mu.idle+cap(train) <= o.bound/4 {
		o.mu.free = append(o.mu.free, train[:0])
		o.mu.idle += cap(train)
	}
}

// close drops all that is queued and accepts nothing from here on.
func (o *outbox) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.mu.shut = true
	o.mu.full, o.mu.last, o.mu.bytes = nil, nil, 0
}

// overflows tells whether begin fails for want of room rather than because the outbox is shut.
func (o *outbox) overflows() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.mu.shut
}
