package wal

import (
	"sync"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	evictAtOnce = 256 // chunks looked at on the committer's time
	evictAll    = 1 << 20
)

// evictor remembers in which order tails grew: one entry for each chunk, so that the oldest bytes of the node go first.
type evictor struct {
	mu   sync.Mutex
	ring []*Log // a ring buffer
	head int
	n    int
}

// grown notes that a log's tail has n more chunks.
func (e *evictor) grown(l *Log, n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for range n {
		if e.n == len(e.ring) {
			bigger := make([]*Log, max(64, 2*len(e.ring)))
			for i := range e.n {
				bigger[i] = e.ring[(e.head+i)%len(e.ring)]
			}
			e.ring, e.head = bigger, 0
		}
		e.ring[(e.head+e.n)%len(e.ring)] = l
		e.n++
	}
}

func (e *evictor) next() *Log {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.n == 0 {
		return nil
	}
	l := e.ring[e.head]
	e.ring[e.head] = nil
	e.head = (e.head + 1) % len(e.ring)
	e.n--
	return l
}

func (e *evictor) len() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.n
}

// evict drops the oldest chunks that are flushed and committed until the tails take no more than target, looking at no more
// than limit of them. It returns whether it got there.
func (s *Store) evict(target int64, limit int) bool {
	limit = min(limit, s.lru.len())
	for ; limit > 0 && s.memory.used.Load() > target; limit-- {
		l := s.lru.next()
		if l == nil {
			break
		}
		if !l.evictOne() {
			s.lru.grown(l, 1) // later
		}
	}
	return s.memory.used.Load() <= target
}

// tellEvictor passes on how much a segment's tail grew. Called with mu.
func (l *Log) tellEvictor(sg *seg) {
	if sg.tail.fresh > 0 {
		l.s.lru.grown(l, sg.tail.fresh)
		sg.tail.fresh = 0
	}
}

// evictOne drops the log's oldest chunk if it is flushed and committed, or as much as is of a last one. It returns false when there
// is one of which nothing can go.
func (l *Log) evictOne() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.blocked > 0 && !l.s.o.off.evictWaits {
		return false // the watermark comes down when the truncation is complete: until then it speaks of other bytes
	}
	for k, sg := range l.segs {
		if len(sg.tail.chunks) == 0 {
			continue
		}
		limit := min(sg.w, l.committedEnd(k))
		if !sg.sealed {
			limit = id.Position(disk.RoundDown(int64(limit)))
		}
		if sg.tail.evict(int64(limit)) == 0 && sg.tail.shrink(&l.s.memory, int64(limit)) == 0 {
			return false
		}
		l.tellEvictor(sg) // of what is left in a smaller chunk
		sg.forgetRows(id.Position(sg.tail.start(int64(sg.end))))
		return true
	}
	return true
}

// forgetRows drops the rows of entries that are neither in the tail nor missing in the index on disk. Called with mu.
func (sg *seg) forgetRows(start id.Position) {
	n := 0
	for n < len(sg.rows) && sg.rows[n].Index < sg.indexed && sg.rows[n].End() <= start {
		n++
	}
	if n < len(sg.rows)/2 || n == 0 {
		return // moving the rest would cost more than it frees
	}
	sg.timeBefore = sg.rows[n-1].MaxTimestamp
	sg.rows = append(sg.rows[:0:0], sg.rows[n:]...)
	sg.rowBase += id.Index(n)
}
