package partition

import (
	"sync"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/wal/id"
)

// ReadLimit is what bounds a reader: he sees records below it, and waits for it to move.
type ReadLimit uint8

// The limits of readers. Below the last stable offset, the limit of those who read committed transactions only, comes with transactions.
const (
	// ToHighWatermark is below the high watermark: everything that is committed by Raft.
	ToHighWatermark ReadLimit = iota

	readLimits // how many there are
)

// Waiter is somebody who waits for news of one partition. He is roused once: then he is on no list until he waits again, so what comes
// before he has looked costs nothing. His zero value, with a Rouser, is ready for use.
type Waiter struct {
	Rouser Rouser

	// on is the list that he is on: 0, or 1 + its index. Written with the partition's Waiters locked.
	on         atomic.Int32
	prev, next *Waiter
}

// Rouser is told of the news. Rouse is called in a turn of the partition's worker, with a lock held: it must not block, nor call the
// partition.
type Rouser interface{ Rouse() }

// Waiters are those who wait for one partition. The zero value is an empty one.
//
// Who waits does so first and looks at the partition then; who has news stores them first and rouses then. Either the look finds them,
// or the waiter is found: no news are missed.
type Waiters struct {
	mu      sync.Mutex // held for moments, but also in turns
	move    waiterList
	records [readLimits]waiterList
}

// waiterList is a list of waiters, in no order.
type waiterList struct {
	first *Waiter
	some  atomic.Bool // first is not nil, so that a commit for which nobody waits takes no lock
}

const onMove int32 = 1

func onRecords(limit ReadLimit) int32 { return onMove + 1 + int32(limit) }

// AwaitRecords has w roused once, when the limit has moved, the leader has, or the replica is gone.
func (l *Waiters) AwaitRecords(w *Waiter, limit ReadLimit) {
	// Who is on the list now is roused by whatever comes after this look.
	if on := onRecords(limit); w.on.Load() != on {
		l.put(w, on)
	}
}

// AwaitMove has w roused once, when the leader has moved or the replica is gone. Who awaits records already goes on doing so.
func (l *Waiters) AwaitMove(w *Waiter) {
	if w.on.Load() == 0 {
		l.put(w, onMove)
	}
}

// StopWaiting has w on no list any more. He may have been roused just before.
func (l *Waiters) StopWaiting(w *Waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.take(w)
}

func (l *Waiters) put(w *Waiter, on int32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.take(w)
	list := l.list(on)
	if w.next = list.first; w.next != nil {
		w.next.prev = w
	}
	list.first = w
	list.some.Store(true)
	w.on.Store(on)
}

func (l *Waiters) take(w *Waiter) {
	on := w.on.Load()
	if on == 0 {
		return
	}
	list := l.list(on)
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		list.first = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
	list.some.Store(list.first != nil)
	w.on.Store(0)
}

func (l *Waiters) list(on int32) *waiterList {
	if on == onMove {
		return &l.move
	}
	return &l.records[on-onMove-1]
}

// Advanced rouses who awaits records: the limit has moved.
func (l *Waiters) Advanced(limit ReadLimit) {
	list := &l.records[limit]
	if !list.some.Load() {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	list.rouse()
}

// Moved rouses everybody.
func (l *Waiters) Moved() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.move.rouse()
	for i := range l.records {
		l.records[i].rouse()
	}
}

// rouse empties the list. Each is off it before he is roused: who waits again at once is on it again.
func (l *waiterList) rouse() {
	w := l.first
	l.first = nil
	l.some.Store(false)
	for w != nil {
		next := w.next
		w.prev, w.next = nil, nil
		w.on.Store(0)
		w.Rouser.Rouse()
		w = next
	}
}

// AwaitRecords has w roused once, when the limit has moved, the leader has, or the replica is gone. The caller looks at the partition
// afterwards: what has come before is news already.
func (p *Partition) AwaitRecords(w *Waiter, limit ReadLimit) { p.waiters.AwaitRecords(w, limit) }

// AwaitMove has w roused once, when the leader has moved or the replica is gone. The caller looks afterwards, as with AwaitRecords.
func (p *Partition) AwaitMove(w *Waiter) { p.waiters.AwaitMove(w) }

// StopWaiting has w, who waits for p, wait no more. He may have been roused just before.
func (p *Partition) StopWaiting(w *Waiter) { p.waiters.StopWaiting(w) }

// Limit returns the offset before which a reader with this limit may read, as far as this replica knows.
func (p *Partition) Limit(ReadLimit) id.Offset { return p.HighWatermark() }
