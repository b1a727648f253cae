package client

import "sync"

// bufferPool keeps the buffers of fetches: a handful of sizes, as many as were in use at a time.
type bufferPool struct{ pool sync.Pool }

// copyOf returns a copy of b in a buffer of the pool.
func (p *bufferPool) copyOf(b []byte) []byte {
	if len(b) == 0 {
		return nil
	}
	if old, ok := p.pool.Get().(*[]byte); ok {
		return append((*old)[:0], b...)
	}
	return append([]byte(nil), b...)
}

func (p *bufferPool) put(b []byte) {
	if cap(b) > 0 {
		p.pool.Put(&b)
	}
}
