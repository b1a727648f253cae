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
	// ReceiveBytes bounds the large messages that clients are in the middle of sending, 128 MiB by default.
	ReceiveBytes int64
	// AdminBytes bounds the requests of administrative calls, and their large answers, 64 MiB each by default. AdminCalls is how many calls
	// of a kind are under way at once, 64 by default: those that look, those that change something, and those of other nodes.
	AdminBytes, AdminCalls int64
}

const (
	leastPerAddress    = 64
	defaultAnswerBytes = 64 << 20
	defaultReceive     = 128 << 20
	defaultAdminBytes  = 64 << 20
	defaultAdminCalls  = 64
	answersFloor       = 4 * firstTrain // one being filled, one being written, and some more
)

func (l ServerLimits) withDefaults(maxConnections int) ServerLimits {
	if l.ConnectionsPerAddress == 0 {
		l.ConnectionsPerAddress = max(maxConnections/4, leastPerAddress)
	}
	for _, d := range []struct {
		value *int64
		or    int64
	}{
		{&l.AnswerBytes, defaultAnswerBytes}, {&l.ReceiveBytes, defaultReceive}, {&l.AdminBytes, defaultAdminBytes}, {&l.AdminCalls, defaultAdminCalls},
	} {
		if *d.value <= 0 {
			*d.value = d.or
		}
	}
	return l
}

// bounds are what all connections of a server share.
type bounds struct {
	answers, requests *budget.Fair
	intake            *intake
	gate              *gate
}

func (s *Server) newBounds(l ServerLimits) bounds {
	return bounds{
		answers: budget.NewFair(l.AnswerBytes, answersFloor), requests: budget.NewFair(l.AdminBytes, 0),
		intake: newIntake(s, l.ReceiveBytes), gate: newGate(s.o.Node, l.AdminCalls, l.AdminBytes),
	}
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

// admit counts a connection in. Else the connection's refusal says what there are too many of, or nothing when the server is closing. There
// may be room for it all the same, if it is a node's: see reserve.go.
func (s *Server) admit(c *conn) bool {
	c.host = hostOf(c.RemoteAddr())
	most := s.o.Limits.ConnectionsPerAddress
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing.Err() != nil:
		return false
	case s.clientsLocked() >= s.o.MaxConnections:
		c.refusal = "connection refused: the node has as many as it may"
	case c.host.IsValid() && most > 0 && s.mu.hosts[c.host] >= most:
		c.refusal = "connection refused: its host has as many as one may"
	}
	if c.refusal != "" && !s.onTrialLocked(c) {
		return false
	}
	s.mu.conns[c] = true
	c.intake, c.guard.requests = s.bounds.intake, s.bounds.requests.Share(4*maxAdminRequest)
	if c.host.IsValid() {
		s.mu.hosts[c.host]++
	}
	return true
}

// refuse notes a connection for which there is no room.
func (s *Server) refuse(c *conn) {
	s.counts.refused.Add(1)
	if c.refusal != "" {
		s.lines.Log(s.log, slog.LevelWarn, c.refusal, "remote", c.RemoteAddr().String(),
			"limit", s.o.MaxConnections, "limit_per_host", s.o.Limits.ConnectionsPerAddress)
	}
}

// release counts a connection out that nobody reads any more.
func (s *Server) release(c *conn) {
	c.guard.requests.Give(c.guard.requests.Held())
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.mu.conns, c)
	s.leaveRoomLocked(c)
	s.leaveHostLocked(c)
}

// leaveHostLocked counts a connection out of those of its host.
func (s *Server) leaveHostLocked(c *conn) {
	if !c.host.IsValid() {
		return
	}
	if s.mu.hosts[c.host]--; s.mu.hosts[c.host] == 0 {
		delete(s.mu.hosts, c.host)
	}
	c.host = netip.Prefix{}
}
