package rpc

import (
	"net/netip"
	"slices"

	"storj.io/drpc/drpcmetadata"
	"storj.io/drpc/drpcstream"

	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// Clients that leak connections must not keep the other nodes out: a node that lost its lanes would have them again only when a client gives
// up. So nodes have a budget of their own (ServerOptions.PeerConnections). Who is one is known late: with TLS when the handshake is over, and
// without when the first call is named. Until then a connection that finds no room among the clients is on trial, in the room that is the
// nodes'. If it turns out to be a client's, it is told that there is no room, and closed. When there are too many on trial, the oldest goes:
// a flood of them would have to be faster than a node says its first word.
type standing uint8

const (
	asClient standing = iota
	onTrial
	asPeer
	evicted // closed, to make room
)

// reserve counts the connections in the room of the nodes. The server's mutex guards it.
type reserve struct {
	peers int
	trial []*conn // oldest first
	gone  int     // evicted, and not ended yet
}

// clientsLocked is how many connections are those of clients. The server's mutex is held.
func (s *Server) clientsLocked() int {
	r := &s.mu.reserve
	return len(s.mu.conns) - r.peers - len(r.trial) - r.gone
}

// onTrialLocked puts a connection for which there is no room among the clients on trial, if it can.
func (s *Server) onTrialLocked(c *conn) bool {
	if !s.roomLocked() {
		return false
	}
	c.standing, c.host = onTrial, netip.Prefix{} // a node's host is not one of clients
	s.mu.reserve.trial = append(s.mu.reserve.trial, c)
	return true
}

// roomLocked tells whether there is room for one more among the nodes, and makes it if it can.
func (s *Server) roomLocked() bool {
	r := &s.mu.reserve
	if r.peers+len(r.trial) < s.o.PeerConnections {
		return true
	}
	if len(r.trial) == 0 {
		return false
	}
	oldest := r.trial[0]
	r.trial = slices.Delete(r.trial, 0, 1)
	oldest.standing = evicted
	r.gone++
	_ = oldest.Close()
	s.counts.refused.Add(1)
	return true
}

// proven notes that a connection is another node's. It counts among the clients no longer, if there is room for it among the nodes.
func (s *Server) proven(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch r := &s.mu.reserve; {
	case c.standing == onTrial:
		r.trial = slices.DeleteFunc(r.trial, func(other *conn) bool { return other == c })
	case c.standing != asClient || !s.roomLocked():
		return
	}
	c.standing = asPeer
	s.mu.reserve.peers++
	s.leaveHostLocked(c)
}

// leaveRoomLocked forgets a connection that has ended.
func (s *Server) leaveRoomLocked(c *conn) {
	switch r := &s.mu.reserve; c.standing {
	case onTrial:
		r.trial = slices.DeleteFunc(r.trial, func(other *conn) bool { return other == c })
	case asPeer:
		r.peers--
	case evicted:
		r.gone--
	}
}

// try judges a connection by its first call. The error is the last word to a client for which there is no room.
func (s *Server) try(c *conn, st *drpcstream.Stream, name string) error {
	if s.o.TLS != nil && c.caller.Peer {
		s.proven(c)
		return nil
	}
	s.mu.Lock()
	trial := c.standing == onTrial
	s.mu.Unlock()
	if !trial || s.o.TLS == nil && isPeerCall(st, name) {
		return nil // a lane is proven once it is let in; other calls of nodes prove nothing, since anybody may make them, and are soon over
	}
	s.refuse(c)
	return kerr.Errorf(kerr.BrokerNotAvailable, "%s: close some, or raise the limits of %s", c.refusal, nodeName(s.o.Node))
}

func isPeerCall(st *drpcstream.Stream, name string) bool {
	if name == rpcLane || peerCalls[name] {
		return true
	}
	meta, _ := drpcmetadata.Get(st.Context())
	return meta[forwardedKey] != ""
}
