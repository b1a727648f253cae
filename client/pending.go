package client

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// identity is under which name a partition knows its producer. Each partition has an epoch of its own: it grows when the
// sequence has to start anew there.
type identity struct {
	producer id.Producer
	epoch    id.ProducerEpoch
}

var noIdentity = identity{producer: id.NoProducer, epoch: -1}

// pending is a batch on its way: from its first record to its outcome. It belongs to one queue and is guarded by that queue's
// mutex, except that builder and buffer belong to the sender while the batch is queue.sending, and that whoever holds a reference
// may read wire.
type pending struct {
	next *pending // in the list that it is in

	builder   batch.Builder
	callbacks []recordCallback // of the records that have one, in order
	charge    int64            // bytes taken from the budget
	serial    uint64           // unique in the producer: tells this use of the struct from the one before
	created   time.Time
	due       bool   // does not wait for more records
	pinned    bool   // has a record whose partition the user has named
	origin    uint64 // serial of the batch that this one is a part of; 0: it is none

	// Once it has been given a sequence, it has the identity and sequence for all attempts: that is what makes them one.
	sequenced bool
	identity  identity
	sequence  id.Sequence
	wire      batch.Batch // encoded with them; aliases buffer. nil: not yet
	buffer    []byte

	attempts    int
	correlation uint64 // of the attempt that is under way; 0: none
	doubt       bool   // an attempt has ended in a way that leaves open whether the batch was written
	sentAt      time.Time
	cause       error // why the last attempt failed

	done    bool // has its outcome: offset and err
	offset  id.Offset
	err     error
	flushes []*flush

	references atomic.Int32
}

// recordCallback is what a record that somebody waits for is told with.
type recordCallback struct {
	record    int32 // number in the batch
	call      func(Ack)
	timestamp int64
	opaque    any // as its Record came with
}

var pendingPool = sync.Pool{New: func() any { return new(pending) }}

var pendingSerial atomic.Uint64

// newPending returns an empty batch with one reference, the queue's.
func newPending(now time.Time) *pending {
	b := pendingPool.Get().(*pending)
	b.serial = pendingSerial.Add(1)
	b.created = now
	b.references.Store(1)
	return b
}

func (b *pending) retain() { b.references.Add(1) }

// release drops a reference; the last one recycles the batch.
func (b *pending) release() {
	switch n := b.references.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("client: batch released twice")
	}
	b.builder.Reset()
	clear(b.callbacks)
	clear(b.flushes)
	b.callbacks, b.flushes = b.callbacks[:0], b.flushes[:0]
	b.next, b.charge, b.due, b.pinned, b.origin = nil, 0, false, false, 0
	b.sequenced, b.identity, b.sequence, b.wire = false, noIdentity, 0, nil
	b.attempts, b.correlation, b.doubt, b.sentAt, b.cause = 0, 0, false, time.Time{}, nil
	b.done, b.offset, b.err = false, 0, nil
	pendingPool.Put(b)
}

// forget takes identity and sequence back. Only right when no attempt under them can have been written.
func (b *pending) forget() {
	if b.attempts > 0 {
		b.buffer = nil // a sender that is stuck in its last attempt may still be reading it
	}
	b.sequenced, b.identity, b.sequence, b.wire = false, noIdentity, 0, nil
}

func (b *pending) count() int { return b.builder.Count() }

// trailer is what the batch is closed with, as things are now.
func (b *pending) trailer(c batch.Compression) batch.Trailer {
	if !b.sequenced {
		return batch.Plain(c)
	}
	return batch.Trailer{Producer: b.identity.producer, ProducerEpoch: b.identity.epoch, BaseSequence: b.sequence, Compression: c}
}

// encode returns the batch as it is sent, in buffer. The caller is the queue's sender and holds a reference, not the mutex:
// nobody else touches builder or buffer meanwhile.
func (b *pending) encode(t batch.Trailer) (batch.Batch, error) {
	b.buffer = slices.Grow(b.buffer[:0], b.builder.Len())
	wire, err := b.builder.Finish(b.buffer, t)
	if err != nil {
		return nil, fmt.Errorf("client: encode a batch: %w", err)
	}
	return wire, nil
}

// pendingList is a list of batches in the order in which they are to be written.
type pendingList struct {
	head, tail *pending
	n          int
}

func (l *pendingList) pushBack(b *pending) {
	b.next = nil
	if l.tail == nil {
		l.head = b
	} else {
		l.tail.next = b
	}
	l.tail = b
	l.n++
}

func (l *pendingList) pushFront(b *pending) {
	b.next = l.head
	l.head = b
	if l.tail == nil {
		l.tail = b
	}
	l.n++
}

func (l *pendingList) popFront() *pending {
	b := l.head
	if b == nil {
		return nil
	}
	l.head = b.next
	if l.head == nil {
		l.tail = nil
	}
	b.next = nil
	l.n--
	return b
}

// take empties the list into the result.
func (l *pendingList) take() pendingList {
	out := *l
	*l = pendingList{}
	return out
}

// prepend puts front before l.
func (l *pendingList) prepend(front pendingList) {
	if front.n == 0 {
		return
	}
	front.tail.next = l.head
	if l.tail == nil {
		l.tail = front.tail
	}
	l.head = front.head
	l.n += front.n
}

// flush counts the batches that one call of Flush waits for.
type flush struct {
	open atomic.Int64
	done chan struct{}
}

func (f *flush) add(b *pending) {
	f.open.Add(1)
	b.flushes = append(b.flushes, f)
}

// once is add for a batch that it may wait for already.
func (f *flush) once(b *pending) {
	if !slices.Contains(b.flushes, f) {
		f.add(b)
	}
}

func (f *flush) finish() {
	if f.open.Add(-1) == 0 {
		close(f.done)
	}
}
