package wal

import (
	"sort"
	"sync"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
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

// forget drops the entries of a log that is gone: where memory is not short nobody would ever come to them, and they keep the log.
func (e *evictor) forget(l *Log) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for i := range e.n {
		if x := e.ring[(e.head+i)%len(e.ring)]; x != l {
			e.ring[(e.head+n)%len(e.ring)] = x
			n++
		}
	}
	for i := n; i < e.n; i++ {
		e.ring[(e.head+i)%len(e.ring)] = nil
	}
	e.n = n
}

func (e *evictor) len() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.n
}

// evictTo is what eviction leaves in use: a little less than it may, or it would begin again at once.
func (s *Store) evictTo() int64 { return s.o.CacheBytes - s.o.CacheBytes/8 }

// evict drops the oldest chunks that are flushed and committed, with their rows, until the tails take no more than target, looking at
// no more than limit of them. It returns whether it got there.
func (s *Store) evict(target int64, limit int) bool {
	limit = min(limit, s.lru.len())
	for ; limit > 0 && s.memory.held() > target; limit-- {
		l := s.lru.next()
		if l == nil {
			break
		}
		if !l.evictOne() {
			s.lru.grown(l, 1) // later
		}
	}
	return s.memory.held() <= target
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
		if sg.stage != segSealed {
			limit = id.Position(disk.RoundDown(int64(limit)))
		}
		if sg.tail.evict(int64(limit)) == 0 && sg.tail.shrink(&l.s.memory, int64(limit)) == 0 {
			return false
		}
		l.tellEvictor(sg) // of what is left in a smaller chunk
		l.forgetRows(sg)
		return true
	}
	return true
}

// forgetRows drops the rows of entries that are neither in the tail nor missing in the index on disk. Whoever shortens the tail or
// writes the index calls it: there is no other way for a row to become one of these. Called with mu.
func (l *Log) forgetRows(sg *seg) {
	start := id.Position(sg.tail.start(int64(sg.end)))
	n := sort.Search(len(sg.rows), func(n int) bool { return sg.rows[n].Index >= sg.indexed || sg.rows[n].End() > start })
	if n < len(sg.rows)/2 || n == 0 {
		return // moving the rest would cost more than it frees
	}
	sg.timeBefore = sg.rows[n-1].MaxTimestamp
	sg.rows = append([]segment.Row(nil), sg.rows[n:]...)
	sg.rowBase += id.Index(n)
	l.s.memory.countRows(sg)
}
