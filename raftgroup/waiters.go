package raftgroup

import (
	"slices"

	"github.com/quorumlog/quorumlog/wal/id"
)

// waiter is a proposal that waits for its entry. It is identified by index and term: an index alone may hold another entry by
// the time it is committed.
type waiter struct {
	index id.Index
	term  id.Term
	p     *Proposal
}

// waiters is a queue ordered by index.
type waiters struct {
	buf  []waiter
	head int
}

func (q *waiters) len() int       { return len(q.buf) - q.head }
func (q *waiters) first() *waiter { return &q.buf[q.head] }

// add inserts w. Nearly always that is at the end; a retry of a batch that is already in the log waits for an earlier one.
func (q *waiters) add(w waiter) {
	if n := len(q.buf); q.len() == 0 || q.buf[n-1].index <= w.index {
		q.buf = append(q.buf, w)
		return
	}
	at := q.head
	for at < len(q.buf) && q.buf[at].index <= w.index {
		at++
	}
	q.buf = slices.Insert(q.buf, at, w)
}

// popTo removes and returns the first waiter if its index is at most i.
func (q *waiters) popTo(i id.Index) (waiter, bool) {
	if q.head == len(q.buf) || q.buf[q.head].index > i {
		return waiter{}, false
	}
	w := q.buf[q.head]
	q.buf[q.head] = waiter{}
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

// remove removes the waiters that end takes care of.
func (q *waiters) remove(end func(waiter) bool) {
	kept := q.buf[:q.head]
	for _, w := range q.buf[q.head:] {
		if !end(w) {
			kept = append(kept, w)
		}
	}
	clear(q.buf[len(kept):])
	q.buf = kept
	if q.head == len(q.buf) {
		q.buf, q.head = q.buf[:0], 0
	}
}

// cut removes the waiters at from and above, giving each to end in order.
func (q *waiters) cut(from id.Index, end func(waiter)) {
	at := len(q.buf)
	for at > q.head && q.buf[at-1].index >= from {
		at--
	}
	for _, w := range q.buf[at:] {
		end(w)
	}
	clear(q.buf[at:])
	q.buf = q.buf[:at]
	if q.head == len(q.buf) {
		q.buf, q.head = q.buf[:0], 0
	}
}
