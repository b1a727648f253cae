package node

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestSeldom has two reasons take turns, five times a second, for ten minutes and a bit.
func TestSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := seldom{logger: slog.New(slog.NewTextHandler(&log, nil))}
		for begin := time.Now(); time.Since(begin) < 10*time.Minute+time.Second; time.Sleep(100 * time.Millisecond) {
			s.info("waiting", "for", "a")
			s.warn("waiting", "for", "b")
		}
		if a, b := strings.Count(log.String(), "for=a"), strings.Count(log.String(), "for=b"); a != 11 || b != 11 {
			t.Errorf("it says so %d and %d times", a, b)
		}
		s.over()
		s.info("waiting", "for", "a")
		if a := strings.Count(log.String(), "for=a"); a != 12 {
			t.Errorf("what is over and comes again is news: %d", a)
		}
	})
}

// TestAddresses are those that flags, and other nodes, may name.
func TestAddresses(t *testing.T) {
	for address, want := range map[string][2]bool{ // to listen on, to dial
		"host:1": {true, true}, "host:65535": {true, true}, "10.0.0.1:9192": {true, true}, "[::1]:9192": {true, true},
		"host:0": {true, false}, ":1": {true, false}, "0.0.0.0:1": {true, false}, "[::]:1": {true, false}, "[::ffff:0.0.0.0]:1": {true, false},
		"224.0.0.1:1": {true, false}, "host:65536": {}, "host:99999": {}, "host:-1": {}, "host:http": {}, "host:": {}, "host": {}, "": {}, "abc": {},
		"a b:1": {}, "a\n:1": {}, "::1:9192": {}, strings.Repeat("a", 254) + ":1": {},
	} {
		_, _, err := splitAddress(address)
		if got := [2]bool{err == nil, checkDialable(address) == nil}; got != want {
			t.Errorf("%q: to listen on %v, to dial %v; want %v", address, got[0], got[1], want)
		}
	}
}
