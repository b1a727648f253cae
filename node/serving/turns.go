package serving

import (
	"sync"
	"sync/atomic"
)

// Turns are the connections to whom something was said in turns that have not ended yet: each is flushed once a turn, not once an answer.
type Turns struct {
	some atomic.Bool

	mu      sync.Mutex // held for no I/O
	waiting []*appender
}

func (t *Turns) add(a *appender) {
	if a.unflushed.Load() || a.unflushed.Swap(true) {
		return
	}
	t.mu.Lock()
	t.waiting = append(t.waiting, a)
	t.mu.Unlock()
	t.some.Store(true)
}

// Done is called at the end of each turn. What another worker's turn said meanwhile goes along.
func (t *Turns) Done() {
	if !t.some.Load() || !t.some.Swap(false) {
		return
	}
	t.mu.Lock()
	waiting := t.waiting
	t.waiting = nil
	t.mu.Unlock()
	for i, a := range waiting {
		a.unflushed.Store(false) // before the flush: what is said after it puts the connection into the list again
		a.answered()
		waiting[i] = nil
	}
	t.mu.Lock()
	if t.waiting == nil {
		t.waiting = waiting[:0]
	}
	t.mu.Unlock()
}
