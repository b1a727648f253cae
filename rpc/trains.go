package rpc

import (
	"sync"
	"sync/atomic"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal/id"
)

// train is a message of a lane that is being put together. Its batches stay where they are, lent by the log, until they are written.
type train struct {
	heads  []byte // with trainHead bytes kept free
	bodies [][]byte
	copied []byte // memory of bodies that nobody lends
	loans  []Loan
	size   int // of heads and bodies
}

const (
	keepHeads  = 64 << 10 // capacity that a train keeps for its next use
	keepTrains = 16
)

// add packs a message. Data of its entries is kept by reference if it is lent, and copied otherwise.
func (t *train) add(g id.Group, m *raftpb.Message, data Loan) {
	before := len(t.bodies)
	t.size -= len(t.heads)
	t.heads = appendHead(t.heads, g, m)
	t.size += len(t.heads)
	for _, e := range m.Entries {
		if !inBodies(e) {
			continue
		}
		body := e.Data
		if data == nil { // should this move copied, bodies before keep what they are in
			at := len(t.copied)
			t.copied = append(t.copied, body...)
			body = t.copied[at:]
		}
		t.bodies = append(t.bodies, body)
		t.size += len(body)
	}
	if data != nil && len(t.bodies) > before {
		data.Retain()
		t.loans = append(t.loans, data)
	}
}

// empty gives back what is lent and makes the train ready for its next use.
func (t *train) empty() {
	for i, l := range t.loans {
		t.loans[i] = nil
		l.Release()
	}
	clear(t.bodies)
	if cap(t.heads) > keepHeads {
		t.heads = nil
	}
	if cap(t.copied) > trainBytes {
		t.copied = nil
	}
	t.heads = append(t.heads[:0], zeros[:trainHead]...)
	t.bodies, t.copied, t.loans, t.size = t.bodies[:0], t.copied[:0], t.loans[:0], trainHead
}

// trains is the queue of messages to the writer of a lane, bounded in bytes, those that are only referred to included. What is put
// into it is packed at once into trains of up to trainBytes, or one of its own for a larger message.
type trains struct {
	bound int
	wake  chan struct{} // capacity 1: there is something to take
	dirty atomic.Bool   // something was put since the last signal

	mu struct {
		sync.Mutex
		version trainVersion // of the codec that packed what is queued
		shut    bool         // nothing is accepted
		full    []*train     // complete, oldest first
		last    *train       // being filled, or nil
		bytes   int
		free    []*train // written, for reuse
	}
}

func newTrains(bound int, v trainVersion) *trains {
	q := &trains{bound: bound, wake: make(chan struct{}, 1)}
	q.mu.version = v
	return q
}

// agreed says which version the lane speaks now. Messages are packed when they are put, from before the hello is answered on, in the version
// of the stream before; should this one speak another, they are dropped: Raft repeats itself. It tells whether that was so.
func (q *trains) agreed(v trainVersion) (dropping bool) {
	q.mu.Lock()
	var dropped []*train
	if dropping = q.mu.version != v; dropping {
		dropped = q.emptyLocked()
		q.mu.version = v
	}
	q.mu.Unlock()
	for _, t := range dropped {
		t.empty()
	}
	return dropping
}

// put packs a message of at most size bytes. False: the queue is shut, or full, or the other side would not know what to do with it.
func (q *trains) put(size int, g id.Group, m *raftpb.Message, data Loan) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.shut || q.mu.bytes+size > q.bound || m.GetType() == raftpb.MsgSnap && q.mu.version < snapshotProtocol {
		return false
	}
	if q.mu.last != nil && q.mu.last.size+size > trainBytes {
		q.mu.full = append(q.mu.full, q.mu.last)
		q.mu.last = nil
		q.signal() // enough for a message: the writer need not wait for the end of the turn
	}
	if q.mu.last == nil {
		q.mu.last = q.freshLocked()
	}
	before := q.mu.last.size
	q.mu.last.add(g, m, data)
	q.mu.bytes += q.mu.last.size - before
	q.dirty.Store(true)
	return true
}

func (q *trains) freshLocked() *train {
	if n := len(q.mu.free); n > 0 {
		t := q.mu.free[n-1]
		q.mu.free = q.mu.free[:n-1]
		return t
	}
	t := &train{}
	t.empty()
	return t
}

// signal wakes the writer if it sleeps.
func (q *trains) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// flushed tells whether something was put since the last call, for which somebody must write or the writer must be woken.
func (q *trains) flushed() bool { return q.dirty.Load() && q.dirty.Swap(false) }

// takeSmall is take for somebody who must not write much: nil when there is more than limit bytes.
func (q *trains) takeSmall(limit int) *train {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.mu.full) > 0 || q.mu.last == nil || q.mu.last.size > limit {
		return nil
	}
	return q.takeLocked() // under the same lock: others are filling it
}

// take returns the oldest train, nil when there is none. The writer owns it until done.
func (q *trains) take() *train {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.takeLocked()
}

func (q *trains) takeLocked() *train {
	var t *train
	if len(q.mu.full) > 0 {
		t = q.mu.full[0]
		q.mu.full[0] = nil
		q.mu.full = q.mu.full[1:]
	} else {
		t, q.mu.last = q.mu.last, nil
	}
	if t != nil {
		q.mu.bytes -= t.size - trainHead
	}
	return t
}

// done gives a train back after it was written, or failed to be.
func (q *trains) done(t *train) {
	t.empty()
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.mu.free) < keepTrains {
		q.mu.free = append(q.mu.free, t)
	}
}

// trim lets go of what is kept for reuse: nothing has been sent for a while.
func (q *trains) trim() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.free = nil
}

// close drops all that is queued and accepts nothing from here on, until open.
func (q *trains) close() {
	q.mu.Lock()
	dropped := q.emptyLocked()
	q.mu.shut = true
	q.mu.Unlock()
	for _, t := range dropped {
		t.empty()
	}
}

// emptyLocked takes everything out.
func (q *trains) emptyLocked() []*train {
	all := q.mu.full
	if q.mu.last != nil {
		all = append(all, q.mu.last)
	}
	q.mu.full, q.mu.last, q.mu.bytes = nil, nil, 0
	return all
}

// open accepts again.
func (q *trains) open() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mu.shut = false
}
