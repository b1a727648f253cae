package membership

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"sync"
	"time"
)

// limiter lets one line through for each key in a while, and counts the rest: whoever sends garbage must not be able to fill the disk with
// complaints about it.
type limiter struct {
	mu struct {
		sync.Mutex
		keys map[string]*quiet
	}
}

type quiet struct {
	until      time.Time
	suppressed int
}

const (
	quietTime    = time.Minute
	maxQuietKeys = 256 // beyond that, all others share one
)

// allow tells whether a line may be written now, and how many were not since the last one.
func (l *limiter) allow(key string) (suppressed int, ok bool) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.keys == nil {
		l.mu.keys = make(map[string]*quiet)
	}
	q := l.mu.keys[key]
	if q == nil {
		l.forgetLocked(now)
		if len(l.mu.keys) >= maxQuietKeys {
			key = ""
			q = l.mu.keys[key]
		}
	}
	if q == nil {
		q = &quiet{}
		l.mu.keys[key] = q
	}
	if now.Before(q.until) {
		q.suppressed++
		return 0, false
	}
	suppressed, q.suppressed, q.until = q.suppressed, 0, now.Add(quietTime)
	return suppressed, true
}

func (l *limiter) forgetLocked(now time.Time) {
	if len(l.mu.keys) < maxQuietKeys {
		return
	}
	for k, q := range l.mu.keys {
		if now.After(q.until) {
			delete(l.mu.keys, k)
		}
	}
}

// logBridge turns memberlist's lines, "[LEVEL] memberlist: text", into records.
type logBridge struct {
	log   *slog.Logger
	limit limiter
}

func newLogBridge(l *slog.Logger) *log.Logger {
	return log.New(&logBridge{log: l}, "", 0)
}

// expected are lines that memberlist warns of and that are part of every restart or stop.
var expected = [][]byte{[]byte("use of closed network connection"), []byte("Got ping for unexpected node"), []byte("Refuting "), []byte("Failed UDP ping"), []byte("Failed fallback TCP ping")}

// Write implements io.Writer for one line.
func (b *logBridge) Write(line []byte) (int, error) {
	n := len(line)
	level, text := splitLevel(bytes.TrimSpace(line))
	for _, e := range expected {
		if bytes.Contains(text, e) {
			level = slog.LevelDebug
		}
	}
	ctx := context.Background()
	if !b.log.Enabled(ctx, level) {
		return n, nil
	}
	const maxLine = 300 // lines quote what peers sent
	if len(text) > maxLine {
		text = text[:maxLine]
	}
	suppressed, ok := 0, true
	if level > slog.LevelDebug {
		suppressed, ok = b.limit.allow(lineKey(text))
	}
	if ok {
		attrs := []slog.Attr{slog.String("memberlist", string(text))}
		if suppressed > 0 {
			attrs = append(attrs, slog.Int("suppressed", suppressed))
		}
		b.log.LogAttrs(ctx, level, "gossip", attrs...)
	}
	return n, nil
}

// lineKey is what lines of one kind have in common: the words up to the first thing that differs, a number, an address or a quote.
func lineKey(text []byte) string {
	if i := bytes.IndexAny(text, "0123456789'\"(="); i >= 0 {
		text = text[:i]
	}
	return string(text)
}

func splitLevel(line []byte) (slog.Level, []byte) {
	level := slog.LevelWarn
	if rest, ok := bytes.CutPrefix(line, []byte("[")); ok {
		if name, text, ok := bytes.Cut(rest, []byte("] ")); ok {
			line = text
			switch string(name) {
			case "DEBUG", "INFO": // Up and Down say it better
				level = slog.LevelDebug
			}
		}
	}
	return level, bytes.TrimPrefix(line, []byte("memberlist: "))
}
