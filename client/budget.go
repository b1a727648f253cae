package client

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/wal/batch"
)

// budget bounds the bytes of the records that have no outcome yet. Taking from it is one atomic operation until it is full.
type budget struct {
	limit   int64
	used    atomic.Int64
	blocked atomic.Int32 // callers that wait

	mu    sync.Mutex
	freed chan struct{} // closed and replaced when bytes come back while somebody waits
}

func (b *budget) init(limit int64) {
	b.limit = limit
	b.freed = make(chan struct{})
}

// tryAcquire takes n bytes if they are there. A record larger than the whole budget may be alone in it.
func (b *budget) tryAcquire(n int64) bool {
	for {
		used := b.used.Load()
		if used > 0 && used+n > b.limit {
			return false
		}
		if b.used.CompareAndSwap(used, used+n) {
			return true
		}
	}
}

// acquire takes n bytes, and waits for them; stalled is called each time before it waits.
func (b *budget) acquire(ctx context.Context, closed <-chan struct{}, n int64, stalled func()) error {
	if b.tryAcquire(n) {
		return nil
	}
	b.blocked.Add(1)
	defer b.blocked.Add(-1)
	for {
		b.mu.Lock()
		freed := b.freed
		b.mu.Unlock()
		if b.tryAcquire(n) {
			return nil
		}
		stalled()
		select {
		case <-freed:
		case <-closed:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// release gives n bytes back.
func (b *budget) release(n int64) {
	b.used.Add(-n)
	if b.blocked.Load() == 0 {
		return
	}
	b.mu.Lock()
	close(b.freed)
	b.freed = make(chan struct{})
	b.mu.Unlock()
}

// recordOverhead is an upper bound of what a record costs beside its bytes, and a header beside its own.
const (
	recordOverhead = 36
	headerOverhead = 10
)

// chargeOf is an upper bound of the record's size in a batch of its own.
func chargeOf(r *batch.Record) int64 {
	n := batch.HeaderSize + recordOverhead + len(r.Key) + len(r.Value)
	for i := range r.Headers {
		n += headerOverhead + len(r.Headers[i].Key) + len(r.Headers[i].Value)
	}
	return int64(n)
}
