// Package waiting is what waits for what: proposals for their entries, bytes for these to be applied, groups for a moment.
package waiting

import (
	"slices"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Waiter is somebody who waits for an entry. That is identified by index and term: an index alone may hold another entry by the time it is
// committed.
type Waiter[T any] struct {
	Index id.Index
	Term  id.Term
	Who   T
}

// Queue holds waiters in the order of their entries.
type Queue[T any] struct {
	buf  []Waiter[T]
	head int
}

// Len returns how many wait.
func (q *Queue[T]) Len() int { return len(q.buf) - q.head }

// Reached tells whether somebody waits for an entry at or below i.
func (q *Queue[T]) Reached(i id.Index) bool { return q.Len() > 0 && q.buf[q.head].Index <= i }

// Add inserts w. Nearly always that is at the end; a retry of a batch that is already in the log waits for an earlier one.
func (q *Queue[T]) Add(w Waiter[T]) {
	if n := len(q.buf); q.Len() == 0 || q.buf[n-1].Index <= w.Index {
		q.buf = append(q.buf, w)
		return
	}
	at := q.head
	for at < len(q.buf) && q.buf[at].Index <= w.Index {
		at++
	}
	q.buf = slices.Insert(q.buf, at, w)
}

// PopTo removes and returns the first waiter if its index is at most i.
func (q *Queue[T]) PopTo(i id.Index) (Waiter[T], bool) {
	if !q.Reached(i) {
		return Waiter[T]{}, false
	}
	w := q.buf[q.head]
	q.buf[q.head] = Waiter[T]{}
	q.head++
	switch {
	case q.head == len(q.buf):
		q.buf, q.head = q.buf[:0], 0
	case q.head >= 1024 && q.head*2 >= len(q.buf):
		n := copy(q.buf, q.buf[q.head:])
		clear(q.buf[n:])
		q.buf, q.head = q.buf[:n], 0
	}
	return w, true
}

// Remove removes the waiters that end takes care of.
func (q *Queue[T]) Remove(end func(Waiter[T]) bool) {
	kept := q.buf[:q.head]
	for _, w := range q.buf[q.head:] {
		if !end(w) {
			kept = append(kept, w)
		}
	}
	q.shorten(len(kept))
}

// Cut removes the waiters at from and above, giving each to end in order.
func (q *Queue[T]) Cut(from id.Index, end func(Waiter[T])) {
	at := len(q.buf)
	for at > q.head && q.buf[at-1].Index >= from {
		at--
	}
	for _, w := range q.buf[at:] {
		end(w)
	}
	q.shorten(at)
}

func (q *Queue[T]) shorten(n int) {
	clear(q.buf[n:])
	q.buf = q.buf[:n]
	if q.head == len(q.buf) {
		q.buf, q.head = q.buf[:0], 0
	}
}
