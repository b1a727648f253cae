package rpc

import (
	"fmt"
	"runtime/debug"
	"sync"
	"time"
)

// limiter keeps a flood of bad connections from becoming a flood of log lines: ten a second pass.
type limiter struct {
	mu         sync.Mutex
	until      time.Time
	used       int
	suppressed int
}

const linesPerSecond = 10

// allow tells whether a line may be written now, and how many were not since the last one.
func (l *limiter) allow() (suppressed int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); now.After(l.until) {
		l.until, l.used = now.Add(time.Second), 0
	}
	if l.used >= linesPerSecond {
		l.suppressed++
		return 0, false
	}
	l.used++
	suppressed, l.suppressed = l.suppressed, 0
	return suppressed, true
}

// panicDetails returns what a recovered panic was about, and where. Called from the deferred function that recovered it.
func panicDetails(p any) (value, stack string) {
	if carried, ok := p.(*panicked); ok {
		return fmt.Sprint(carried.value), string(carried.stack)
	}
	return fmt.Sprint(p), string(debug.Stack())
}

// shorten bounds a text that came from outside, for logs and messages.
func shorten(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
