package limit

import (
	"net"
	"sync"
)

// outlet writes frames to a connection: what gathers during one write goes out with the next.
type outlet struct {
	conn net.Conn

	mu     sync.Mutex
	wake   sync.Cond
	queue  []*buffer
	spare  []*buffer
	closed bool
}

func newOutlet(conn net.Conn) *outlet {
	o := &outlet{conn: conn}
	o.wake.L = &o.mu
	return o
}

// push hands over a frame, with a reference.
func (o *outlet) push(b *buffer) {
	o.mu.Lock()
	o.queue = append(o.queue, b)
	if len(o.queue) == 1 {
		o.wake.Signal()
	}
	o.mu.Unlock()
}

func (o *outlet) close() {
	o.mu.Lock()
	o.closed = true
	o.wake.Signal()
	o.mu.Unlock()
}

func (o *outlet) run(failed func(error)) {
	var pieces net.Buffers
	for {
		o.mu.Lock()
		for len(o.queue) == 0 && !o.closed {
			o.wake.Wait()
		}
		if o.closed {
			o.mu.Unlock()
			return
		}
		frames := o.queue
		o.queue, o.spare = o.spare[:0], frames
		o.mu.Unlock()
		pieces = pieces[:0]
		for _, b := range frames {
			pieces = append(pieces, b.frame())
		}
		rest := pieces // WriteTo consumes it
		if _, err := rest.WriteTo(o.conn); err != nil {
			failed(err)
			return
		}
		for _, b := range frames {
			b.release()
		}
	}
}

// acker writes acknowledgements to a connection: per file only the newest counts, so it never falls behind.
type acker struct {
	conn net.Conn

	mu     sync.Mutex
	wake   sync.Cond
	latest []uint64 // by file
	dirty  []int
	listed []bool
	closed bool
}

func newAcker(conn net.Conn, files int) *acker {
	a := &acker{conn: conn, latest: make([]uint64, files), listed: make([]bool, files)}
	a.wake.L = &a.mu
	return a
}

// done notes that the frames of a file are done up to sequence; false: that is nothing new.
func (a *acker) done(file int, sequence uint64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if sequence <= a.latest[file] {
		return false
	}
	a.latest[file] = sequence
	if !a.listed[file] {
		a.listed[file] = true
		a.dirty = append(a.dirty, file)
		a.wake.Signal()
	}
	return true
}

func (a *acker) close() {
	a.mu.Lock()
	a.closed = true
	a.wake.Signal()
	a.mu.Unlock()
}

func (a *acker) run() {
	var out []byte
	for {
		a.mu.Lock()
		for len(a.dirty) == 0 && !a.closed {
			a.wake.Wait()
		}
		if a.closed {
			a.mu.Unlock()
			return
		}
		out = out[:0]
		for _, file := range a.dirty {
			out = putAck(out, file, a.latest[file])
			a.listed[file] = false
		}
		a.dirty = a.dirty[:0]
		a.mu.Unlock()
		if _, err := a.conn.Write(out); err != nil {
			return // the reader of the connection notices
		}
	}
}
