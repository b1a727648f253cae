package loglimit

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// MaxKeys bounds the kinds of lines that are told apart; beyond it all others share one, so that who makes keys up costs no memory.
const MaxKeys = 256

// Limiter lets some lines of each kind through. Any goroutine may use it.
type Limiter struct {
	every time.Duration
	burst int

	mu   sync.Mutex
	keys map[string]*kind
}

type kind struct {
	pace       *rate.Limiter
	suppressed int
}

// New returns a limiter that lets burst lines of each kind through at once, and then one in every.
func New(every time.Duration, burst int) *Limiter {
	return &Limiter{every: every, burst: burst, keys: make(map[string]*kind)}
}

// Strangers is the pace for lines that anybody who reaches a port can cause: ten a second of each kind.
func Strangers() *Limiter { return New(time.Second/10, 10) }

// Allow tells whether a line of a kind may be written now, and how many of it were not since the last one.
func (l *Limiter) Allow(key string) (suppressed int, ok bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.keys[key]
	if k == nil {
		l.forgetLocked(now)
		if len(l.keys) >= MaxKeys {
			key = ""
			k = l.keys[key]
		}
	}
	if k == nil {
		k = &kind{pace: rate.NewLimiter(rate.Every(l.every), l.burst)}
		l.keys[key] = k
	}
	if !k.pace.AllowN(now, 1) {
		k.suppressed++
		return 0, false
	}
	suppressed, k.suppressed = k.suppressed, 0
	return suppressed, true
}

// forgetLocked makes room when there are too many kinds: those that have been quiet begin anew.
func (l *Limiter) forgetLocked(now time.Time) {
	if len(l.keys) < MaxKeys {
		return
	}
	for key, k := range l.keys {
		if k.pace.TokensAt(now) >= float64(l.burst) {
			delete(l.keys, key)
		}
	}
}

// Log writes a line, whose message is its kind, if one may be written now, with the number of those that were not since the last.
func (l *Limiter) Log(log *slog.Logger, level slog.Level, message string, attrs ...any) {
	ctx := context.Background()
	if !log.Enabled(ctx, level) {
		return
	}
	if suppressed, ok := l.Allow(message); ok {
		if suppressed > 0 {
			attrs = append(attrs, "suppressed", suppressed)
		}
		log.Log(ctx, level, message, attrs...)
	}
}
