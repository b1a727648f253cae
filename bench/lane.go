package bench

import (
	"fmt"
	"slices"
	"sort"
	"sync"
	"time"
)

// lane is what one producer sends to one partition: records numbered from 0, which must come back once each, ascending. It
// remembers what was sent and acknowledged and read as ranges of numbers, so its size depends on what goes wrong and not on
// how many records there are.
//
// One goroutine sends; outcomes and records that were read come from any.
type lane struct {
	every uint64 // each so-manieth record is timed

	mu     sync.Mutex
	sent   uint64 // numbers below it may be anywhere
	marks  []mark // of timed records without outcome, ascending
	acked  ranges
	failed ranges // ended with an error: may be there or not
	moves  []move
	mixed  bool // moves do not ascend: outcomes came out of order
	read   ranges
	next   uint64 // one above the highest number read
}

// mark says when a record was due.
type mark struct {
	number uint64
	due    time.Duration
}

// move says that records from number on were acknowledged at offset number + delta, until the next move. A producer that is
// alone in its partition, and never fails, moves once.
type move struct {
	from  uint64
	delta int64
}

// timesNext tells the sender whether the next record is a timed one.
func (l *lane) timesNext() bool { return l.sent%l.every == 0 }

// take gives the next record its number. A refused record gives it back with untake.
func (l *lane) take(due time.Duration) (number uint64) {
	l.mu.Lock()
	number = l.sent
	l.sent++
	if number%l.every == 0 {
		l.marks = append(l.marks, mark{number, due})
	}
	l.mu.Unlock()
	return number
}

// untake takes the last number back: the producer refused the record.
func (l *lane) untake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent--
	if n := len(l.marks); n > 0 && l.marks[n-1].number == l.sent {
		l.marks = l.marks[:n-1]
	}
}

// ended takes an outcome and calls timed for each timed record in it.
func (l *lane) ended(o Outcome, timed func(due time.Duration)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from, to := o.First, o.First+uint64(o.Count)
	if o.Err != nil {
		l.failed.add(from, to)
	} else {
		l.acked.add(from, to)
		if o.Offset >= 0 {
			delta := o.Offset - int64(from)
			if n := len(l.moves); n == 0 || l.moves[n-1].delta != delta {
				l.mixed = l.mixed || n > 0 && l.moves[n-1].from > from
				l.moves = append(l.moves, move{from, delta})
			}
		}
	}
	lo := sort.Search(len(l.marks), func(i int) bool { return l.marks[i].number >= from })
	hi := lo
	for ; hi < len(l.marks) && l.marks[hi].number < to; hi++ {
		if o.Err == nil {
			timed(l.marks[hi].due)
		}
	}
	if lo == 0 {
		l.marks = l.marks[hi:] // the usual case
	} else {
		l.marks = slices.Delete(l.marks, lo, hi)
	}
}

// saw compares a record that was read with what was sent.
func (l *lane) saw(number uint64, offset int64, r *Audit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case number >= l.sent:
		r.problem(&r.Foreign, "record %d was read and only %d were sent", number, l.sent)
		return
	case l.read.add(number, number+1) > 0:
		r.problem(&r.Duplicated, "record %d at offset %d was read before", number, offset)
		return
	case number < l.next:
		r.problem(&r.Reordered, "record %d at offset %d came behind record %d", number, offset, l.next-1)
	case l.misplaced(number, offset):
		r.problem(&r.Reordered, "record %d was read at offset %d, and acknowledged elsewhere", number, offset)
	}
	l.next = max(l.next, number+1)
}

// misplaced tells whether a record was acknowledged at another offset.
func (l *lane) misplaced(number uint64, offset int64) bool {
	n := len(l.moves)
	if n == 0 || l.mixed || number < l.moves[0].from {
		return false
	}
	at := n - 1
	if number < l.moves[at].from {
		at = sort.Search(n, func(i int) bool { return l.moves[i].from > number }) - 1
	}
	return offset != int64(number)+l.moves[at].delta && l.acked.has(number)
}

// finish adds what is missing to the audit.
func (l *lane) finish(r *Audit) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Sent += int64(l.sent)
	r.Acked += int64(l.acked.count())
	r.Read += int64(l.read.count())
	lost := l.acked.without(&l.read)
	for _, s := range lost.spans {
		r.Lost += int64(s.to-s.from) - 1
		r.problem(&r.Lost, "records %d to %d were acknowledged and are not there", s.from, s.to-1)
	}
	more := l.read.without(&l.acked)
	r.Unacknowledged += int64(more.count())
}

// Audit is the outcome of reading everything back. Nothing may be lost, duplicated, reordered, changed or foreign.
type Audit struct {
	Sent       int64 `json:"records_sent"`
	Acked      int64 `json:"records_acked"`
	Read       int64 `json:"records_read"`
	Lost       int64 `json:"lost"`
	Duplicated int64 `json:"duplicated"`
	Reordered  int64 `json:"reordered"`
	Changed    int64 `json:"changed"` // other bytes than were sent
	Foreign    int64 `json:"foreign"` // never sent
	// Unacknowledged records are there although nobody promised it.
	Unacknowledged int64  `json:"unacknowledged"`
	First          string `json:"first_problem,omitempty"`
}

func (a *Audit) problem(count *int64, format string, args ...any) {
	*count++
	if a.First == "" {
		a.First = fmt.Sprintf(format, args...)
	}
}

// OK tells whether everything acknowledged was found, once, in order and unchanged.
func (a *Audit) OK() bool {
	return a.Lost == 0 && a.Duplicated == 0 && a.Reordered == 0 && a.Changed == 0 && a.Foreign == 0
}
