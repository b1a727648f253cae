package membership

import (
	"bytes"
	"context"
	"log"
	"log/slog"
	"time"

	"github.com/quorumlog/quorumlog/rpc/loglimit"
)

// quietTime is how long lines of one kind are not repeated: whoever sends garbage must not be able to fill the disk with complaints about it.
const quietTime = time.Minute

// logBridge turns memberlist's lines, "[LEVEL] memberlist: text", into records.
type logBridge struct {
	log   *slog.Logger
	limit *loglimit.Limiter
}

func newLogBridge(l *slog.Logger) *log.Logger {
	return log.New(&logBridge{log: l, limit: loglimit.New(quietTime, 1)}, "", 0)
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
		suppressed, ok = b.limit.Allow(lineKey(text))
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
