package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

const (
	// lookupInterval is the pause between two attempts to resolve a name, lookupTimeout bounds one.
	lookupInterval = 500 * time.Millisecond
	lookupTimeout  = 5 * time.Second
	// reminder is how often the log says again what has been said and is still so.
	reminder = time.Minute
	// maxAddress bounds the text of an address: the metadata stores no more.
	maxAddress = 255
)

// splitAddress takes host:port apart. The port is a number: names of services mean different things on different hosts.
func splitAddress(address string) (host string, port uint16, err error) {
	if len(address) > maxAddress {
		return "", 0, fmt.Errorf("address of %d bytes: at most %d", len(address), maxAddress)
	}
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not host:port: %w", address, err)
	}
	number, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("%q is not host:port: the port %q is no number from 0 to 65535", address, text)
	}
	if strings.ContainsFunc(host, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", 0, fmt.Errorf("%q is not host:port: the host has characters that no name has", address)
	}
	return host, uint16(number), nil
}

// checkDialable returns an error unless other hosts may find somebody at the address: a wildcard and port 0 are for those who listen.
func checkDialable(address string) error {
	host, port, err := splitAddress(address)
	if err != nil {
		return err
	}
	if port == 0 {
		return fmt.Errorf("%q cannot be dialled: 0 is no port, name one from 1 to 65535", address)
	}
	return checkHost(address, host)
}

func checkHost(address, host string) error {
	ip, err := netip.ParseAddr(host)
	if host == "" || err == nil && (ip.Unmap().IsUnspecified() || ip.IsMulticast()) {
		return fmt.Errorf("%q cannot be dialled by other hosts: it needs a name or address that they reach", address)
	}
	return nil
}

// sleep waits; false: ctx has ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// seldom logs what is tried again and again: at once when there is something new, else once a minute. For one goroutine.
type seldom struct {
	logger *slog.Logger
	said   map[string]time.Time // several reasons may take turns
}

// maxSaid bounds what a seldom remembers.
const maxSaid = 64

func (s *seldom) warn(message string, args ...any) { s.log(slog.LevelWarn, message, args...) }

func (s *seldom) info(message string, args ...any) { s.log(slog.LevelInfo, message, args...) }

func (s *seldom) log(level slog.Level, message string, args ...any) {
	text := message + fmt.Sprint(args...)
	if when, ok := s.said[text]; ok && time.Since(when) < reminder {
		return
	}
	if s.said == nil || len(s.said) >= maxSaid {
		s.said = make(map[string]time.Time)
	}
	s.said[text] = time.Now()
	s.logger.Log(context.Background(), level, message, args...)
}

// over says that it is over: the next time is news.
func (s *seldom) over() { clear(s.said) }
