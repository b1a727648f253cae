package loglimit

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const quiet = time.Minute
		l := New(quiet, 1)
		through := 0
		for range 100 {
			if _, ok := l.Allow("a"); ok {
				through++
			}
		}
		if _, ok := l.Allow("b"); !ok || through != 1 {
			t.Errorf("%d of 100 lines, the other key: %v", through, ok)
		}
		time.Sleep(quiet + time.Second) // of the bubble's clock
		if n, ok := l.Allow("a"); !ok || n != 99 {
			t.Errorf("after a while: %v, %d suppressed", ok, n)
		}
		lines := 0
		for i := range 100_000 {
			if _, ok := l.Allow(fmt.Sprint("spoofed", i)); ok {
				lines++
			}
		}
		if lines > MaxKeys || len(l.keys) > MaxKeys+1 {
			t.Errorf("%d lines, %d keys for as many senders as you like", lines, len(l.keys))
		}
		time.Sleep(quiet + time.Second)
		if _, ok := l.Allow("later"); !ok {
			t.Error("never recovers")
		}
	})
}

func TestLogSaysWhatIsLeftOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, nil))
		l := Strangers()
		for range 1000 {
			l.Log(log, slog.LevelInfo, "refused", "remote", "1.2.3.4")
			l.Log(log, slog.LevelDebug, "refused", "remote", "not enabled, not counted")
		}
		if n := strings.Count(out.String(), "\n"); n != 10 {
			t.Errorf("%d lines", n)
		}
		out.Reset()
		time.Sleep(time.Second) // of the bubble's clock
		l.Log(log, slog.LevelInfo, "refused", "remote", "1.2.3.4")
		if !strings.Contains(out.String(), "suppressed=990") {
			t.Error(out.String())
		}
	})
}
