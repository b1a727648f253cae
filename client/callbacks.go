package client

import "sync"

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
		queues []*queue // each has calls set
		last   bool     // ends when the list is empty
	}
}

func (c *caller) init() {
	c.wake = make(chan struct{}, 1)
	c.done = make(chan struct{})
}

// push puts a queue into the list. Called with the queue's mutex.
func (c *caller) push(q *queue) {
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

// calledLocked hands the queue to the caller if there are callbacks to be called. Called after every change.
func (q *queue) calledLocked() {
	if q.ended.head == nil || q.calls {
		return
	}
	q.calls = true
	q.producer.caller.push(q)
}

// callBack calls the callbacks of the batches that have their outcome by now. Only the caller's goroutine does.
func (q *queue) callBack() {
	q.mu.Lock()
	q.calling = q.ended.take()
	for {
		b := q.calling.head
		if b == nil {
			break
		}
		q.mu.Unlock()
		q.callBackOne(b)
		q.mu.Lock()
		q.calling.popFront()
		for _, f := range b.flushes {
			f.finish()
		}
		b.release()
	}
	q.calls = false
	q.calledLocked()
	q.mu.Unlock()
}
