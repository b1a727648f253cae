package client

import "sync"

// calling is a queue that has callbacks to call.
type calling interface{ callBack() }

// caller is the goroutine of a producer that calls the user's callbacks, and the list of the queues that have some to call. It is none of
// those that receive answers: a callback that blocks would keep a connection from being read, which a node closes after some seconds. The
// batches in front of a callback that blocks keep their part of the budget, so that what is held back then is Produce.
//
// A queue is in the list at most once, which keeps the order of its callbacks. Those of different partitions take turns, a run of batches each.
type caller struct {
	wake chan struct{} // capacity 1
	done chan struct{} // closed when the goroutine has ended

	mu struct {
		sync.Mutex
		queues []calling // each once
		last   bool      // ends when the list is empty
	}
}

func (c *caller) init() {
	c.wake = make(chan struct{}, 1)
	c.done = make(chan struct{})
}

// push puts a queue into the list. Called with the queue's mutex.
func (c *caller) push(q calling) {
	c.mu.Lock()
	c.mu.queues = append(c.mu.queues, q)
	c.mu.Unlock()
	poke(c.wake)
}

// finish lets the goroutine end once everything that is in the list by now has been called.
func (c *caller) finish() {
	c.mu.Lock()
	c.mu.last = true
	c.mu.Unlock()
	poke(c.wake)
}

func (c *caller) run() {
	defer close(c.done)
	for {
		c.mu.Lock()
		queues, last := c.mu.queues, c.mu.last
		c.mu.queues = nil
		c.mu.Unlock()
		for _, q := range queues {
			q.callBack()
		}
		switch {
		case len(queues) > 0:
		case last:
			return
		default:
			<-c.wake
		}
	}
}
