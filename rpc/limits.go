package rpc

import (
	"log/slog"
	"net"
	"net/netip"

	"github.com/quorumlog/quorumlog/rpc/budget"
)

// ServerLimits bound what all connections of a server may cost together; zero values take the defaults. What a client may have in
// flight is the handler's to bound.
type ServerLimits struct {
	// ConnectionsPerAddress is how many connections one host may have: a quarter of MaxConnections by default, but at least 64. A negative
	// number: no such limit. An IPv6 host is its /64, of which it has all addresses. Loopback is not limited: who is on this machine can do
	// worse, and proxies and tunnels bring the clients of many hosts from there.
	ConnectionsPerAddress int
	// AnswerBytes bounds the answers that producers have not read, 64 MiB by default. Those that leave them unread lose their streams.
	AnswerBytes int64
}

const (
	leastPerAddress    = 64
	defaultAnswerBytes = 64 << 20
	answersFloor       = 4 * firstTrain // one being filled, one being written, and some more
)

func (l ServerLimits) withDefaults(maxConnections int) ServerLimits {
	if l.ConnectionsPerAddress == 0 {
		l.ConnectionsPerAddress = max(maxConnections/4, leastPerAddress)
	}
	if l.AnswerBytes <= 0 {
		l.AnswerBytes = defaultAnswerBytes
	}
	return l
}

// bounds are the budgets of a server.
type bounds struct {
	answers *budget.Fair
}

func newBounds(l ServerLimits) bounds {
	return bounds{answers: budget.NewFair(l.AnswerBytes, answersFloor)}
}

// hostOf returns what connections per address are counted by; not valid: they are not.
func hostOf(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	host := tcp.AddrPort().Addr().Unmap()
	if host.IsLoopback() {
		return netip.Prefix{}
	}
	bits := 64
	if host.Is4() {
		bits = 32
	}
	p, _ := host.WithZone("").Prefix(bits) // fails for no address at all
	return p
}

// admit counts a connection in. Else it says what there are too many of, or nothing when the server is closing.
func (s *Server) admit(c *conn) (tooMany string, ok bool) {
	c.host = hostOf(c.RemoteAddr())
	most := s.o.Limits.ConnectionsPerAddress
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing.Err() != nil:
		return "", false
	case len(s.mu.conns) >= s.o.MaxConnections:
		return "connection refused: the node has as many as it may", false
	case c.host.IsValid() && most > 0 && s.mu.hosts[c.host] >= most:
		return "connection refused: its host has as many as one may", false
	}
	s.mu.conns[c] = true
	if c.host.IsValid() {
		s.mu.hosts[c.host]++
	}
	return "", true
}

// refuse closes a connection that was not admitted.
func (s *Server) refuse(c *conn, tooMany string) {
	s.counts.refused.Add(1)
	_ = c.Close()
	if tooMany != "" {
		s.lines.Log(s.log, slog.LevelWarn, tooMany, "remote", c.RemoteAddr().String(),
			"limit", s.o.MaxConnections, "limit_per_host", s.o.Limits.ConnectionsPerAddress)
	}
}

// release counts a connection out.
func (s *Server) release(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.conns, c)
	if !c.host.IsValid() {
		return
	}
	if s.mu.hosts[c.host]--; s.mu.hosts[c.host] == 0 {
		delete(s.mu.hosts, c.host)
	}
}
