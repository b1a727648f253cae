package wal

import (
	"sync"
	"sync/atomic"
)

// Loan keeps the memory of an append's batches, as Submit left them in Append.Entries: whoever holds a reference may read their
// Data, whatever happens to the log meanwhile. It costs the tail's memory as long as anybody does.
type Loan struct {
	refs   atomic.Int32
	chunks []*chunk
	ended  func() // nil: nobody wants to know
}

var loans = sync.Pool{New: func() any { return new(Loan) }}

// NewLoan returns a loan of nothing, with one reference, for Append.Loan.
func NewLoan() *Loan {
	l := loans.Get().(*Loan)
	l.refs.Store(1)
	return l
}

// add takes a chunk into the loan, of which nobody but Submit knows yet.
func (l *Loan) add(c *chunk) {
	if n := len(l.chunks); n > 0 && l.chunks[n-1] == c {
		return
	}
	c.retain()
	l.chunks = append(l.chunks, c)
}

// AtEnd has ended called with the last release. It is for stores that are not wal's, and called before anybody else has the loan.
func (l *Loan) AtEnd(ended func()) { l.ended = ended }

// Retain adds a reference. The caller has one.
func (l *Loan) Retain() { l.refs.Add(1) }

// Release gives a reference back; the last one ends the loan, and the loan must not be touched any more.
func (l *Loan) Release() {
	switch n := l.refs.Add(-1); {
	case n > 0:
		return
	case n < 0:
		panic("wal: a loan was released once too often")
	}
	for i, c := range l.chunks {
		c.release()
		l.chunks[i] = nil
	}
	l.chunks = l.chunks[:0]
	if l.ended != nil {
		l.ended()
		l.ended = nil
	}
	loans.Put(l)
}
