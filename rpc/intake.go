package rpc

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// intake bounds the memory of the large messages that clients are in the middle of sending. Who wants to keep others out of it has to leave
// his messages unfinished, so when it is full the one that has taken longest, if that is a while, is given up together with its connection.
// Whoever needs room waits for that, in turn: here a connection is not read for a moment. Lanes of other nodes are not counted, they are few.
type intake struct {
	room    *semaphore.Weighted
	closing context.Context
	lines   func(message string, attrs ...any)

	mu struct {
		sync.Mutex
		open map[*arrival]struct{}
	}
	evicted atomic.Uint64
}

// arrival is the message that a connection is receiving.
type arrival struct {
	conn  *conn
	since time.Time
	bytes int64 // that are counted
}

const (
	// smallArrival is what a message may take without being counted: as much as one frame.
	smallArrival = 64 << 10
	// intakePatience is how long a message may take while others wait for its memory, and how long each of these waits for the next one to
	// be given up.
	intakePatience = time.Second
	intakeAttempts = 5
)

func newIntake(s *Server, total int64) *intake {
	in := &intake{
		room: semaphore.NewWeighted(max(total, 2*maxMessage)), closing: s.closing,
		lines: func(message string, attrs ...any) { s.lines.Log(s.log, slog.LevelInfo, message, attrs...) },
	}
	in.mu.open = make(map[*arrival]struct{})
	return in
}

// take has a message hold size bytes, of which it has some already. Of the connection's reading goroutine. The error ends the connection.
func (in *intake) take(a *arrival, size int) error {
	n := int64(size) - a.bytes
	if in == nil || size <= smallArrival || n <= 0 {
		return nil
	}
	if a.bytes == 0 {
		a.since = time.Now()
	}
	if !in.room.TryAcquire(n) && !in.wait(a.conn, n) {
		return &malformed{"the node had no memory for its message: too many are being received"}
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	a.bytes += n
	in.mu.open[a] = struct{}{}
	return nil
}

// wait waits for n bytes, for a bounded time. A connection that is given up meanwhile gets none.
func (in *intake) wait(c *conn, n int64) bool {
	for range intakeAttempts {
		select {
		case <-c.closed:
			return false
		default:
		}
		in.evict()
		ctx, cancel := context.WithTimeout(in.closing, intakePatience)
		err := in.room.Acquire(ctx, n)
		cancel()
		if err == nil || in.closing.Err() != nil {
			return err == nil
		}
	}
	return false
}

// evict closes the connection whose message has taken longest, if that is a while. Its memory is free when its reader notices.
func (in *intake) evict() {
	var oldest *arrival
	in.mu.Lock()
	for a := range in.mu.open {
		if oldest == nil || a.since.Before(oldest.since) {
			oldest = a
		}
	}
	var since time.Duration
	if oldest != nil {
		if since = time.Since(oldest.since); since < intakePatience {
			oldest = nil
		} else {
			delete(in.mu.open, oldest) // the next one that waits looks for another
		}
	}
	in.mu.Unlock()
	if oldest == nil {
		return
	}
	in.evicted.Add(1)
	in.lines("closed a connection that did not finish its message while others waited for the memory",
		"remote", oldest.conn.RemoteAddr().String(), "since", since.Round(time.Millisecond))
	_ = oldest.conn.Close()
}

// give gives back what a message holds.
func (in *intake) give(a *arrival) {
	if in == nil || a.bytes == 0 {
		return
	}
	in.mu.Lock()
	n := a.bytes
	a.bytes = 0
	delete(in.mu.open, a)
	in.mu.Unlock()
	in.room.Release(n)
}
