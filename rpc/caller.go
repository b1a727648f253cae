package rpc

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"net"
	"net/netip"

	"storj.io/drpc/drpcmetadata"

	"github.com/quorumlog/quorumlog/rpc/auth"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Metadata of administrative calls that say who calls.
const (
	// clientKey is what the client calls itself.
	clientKey = "client-id"
	// forwardedKey marks a call that another node has passed on. It is not passed on again, so that two nodes that each believe the other to
	// be the controller cannot play ping-pong.
	forwardedKey = "quorumlog-forwarded"
	// callerKey is who has made a call that was passed on, as JSON.
	callerKey = "quorumlog-caller"
)

// peerCalls are the administrative calls that nodes make, and nobody else.
var peerCalls = map[string]bool{
	"/quorumlog.Admin/Identify":     true,
	"/quorumlog.Admin/RegisterNode": true,
	"/quorumlog.Admin/CheckReach":   true,
}

// meet notes who is at the other end of a connection, before its first call. False: he was believed when he shook hands, and is not any more.
func (s *Server) meet(c *conn) bool {
	c.caller = s.callerOf(c)
	secured, ok := c.Conn.(*secured)
	if !ok {
		return true
	}
	s.mu.Lock()
	c.chain = secured.ConnectionState().PeerCertificates // from here on CloseUnbelieved finds it
	believed := s.mu.believed
	s.mu.Unlock()
	return len(c.chain) == 0 || believed == nil || believed(c.chain) == nil
}

// CloseUnbelieved closes the connections on which a chain of certificates was shown that is not believed any more, and tells how many. Those that
// have shaken hands and not called yet are closed when they do.
func (s *Server) CloseUnbelieved(believed func(chain []*x509.Certificate) error) int {
	s.mu.Lock()
	s.mu.believed = believed
	chains := make(map[*conn][]*x509.Certificate, len(s.mu.conns))
	for c := range s.mu.conns {
		if len(c.chain) > 0 {
			chains[c] = c.chain
		}
	}
	s.mu.Unlock()
	closed := 0
	for c, chain := range chains {
		if believed(chain) != nil {
			_ = c.Close()
			closed++
		}
	}
	return closed
}

// CloseUnbelieved breaks the lanes to nodes whose certificates are not believed any more, and tells how many.
func (p *Peers) CloseUnbelieved(believed func(chain []*x509.Certificate) error) int {
	closed := 0
	for _, target := range *p.byNode.Load() {
		for _, l := range append([]*lane{target.ctl}, target.bulk...) {
			k := l.link.Load()
			if k == nil {
				continue
			}
			if secured, ok := k.conn.Conn.(*secured); ok && believed(secured.ConnectionState().PeerCertificates) != nil {
				l.breakNow()
				closed++
			}
		}
	}
	return closed
}

// callerOf is who is at the other end of a connection, as far as the connection shows it. With TLS the handshake must be over.
func (s *Server) callerOf(c *conn) *broker.Caller {
	caller := &broker.Caller{Principal: broker.Anonymous, Host: addressOf(c.RemoteAddr()), Node: id.NoNode, Peer: s.o.TLS == nil}
	secured, ok := c.Conn.(*secured)
	if !ok {
		return caller
	}
	certs := secured.ConnectionState().PeerCertificates
	if len(certs) == 0 {
		return caller
	}
	who, err := auth.Of(certs[0])
	if err != nil {
		return caller // the handshake has refused it: auth.Server
	}
	c.certified = who
	caller.Principal = who.Principal
	if who.IsNode(s.o.ClusterName) {
		caller.Peer, caller.Node = true, who.Node
	}
	return caller
}

func addressOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// named is the caller of a connection under the name that it gives itself.
func named(c *broker.Caller, clientID string) *broker.Caller {
	if c.ClientID == clientID {
		return c
	}
	other := *c
	other.ClientID = clientID
	return &other
}

// checkPeer refuses a call among nodes to whoever is none. what is what only nodes do.
func (s *Server) checkPeer(c *conn, what string) error {
	if c.caller.Peer {
		return nil
	}
	remedy := "and shows no certificate"
	if len(c.chain) > 0 {
		remedy = "and shows the certificate of " + c.certified.String()
	}
	return kerr.Errorf(kerr.ClusterAuthorizationFailed, "only nodes of cluster %q %s, with their certificates: who asks is none, %s", s.o.ClusterName, what, remedy)
}

// checkHello refuses a lane whose hello is not that of the node that the certificate names.
func (s *Server) checkHello(c *conn, hello PeerHello) error {
	if err := s.checkPeer(c, "open lanes"); err != nil {
		return err
	}
	if !c.caller.MayBe(hello.Node) {
		return kerr.Errorf(kerr.ClusterAuthorizationFailed, "who says that it is node %d shows the certificate of %s", hello.Node, c.certified)
	}
	return nil
}

type callerValue struct{}

// CallerOf returns who has made the administrative call with this context. A node that passes a call on says for whom. nil: the call came
// from nowhere else, this process makes it itself.
func CallerOf(ctx context.Context) *broker.Caller {
	caller, _ := ctx.Value(callerValue{}).(*broker.Caller)
	return caller
}

// PassOn marks the calls made with a context as passed on: for whom, if that is not nil. See broker.IsForwarded, which is how they arrive.
func PassOn(ctx context.Context, caller *broker.Caller) context.Context {
	out := withMetadata(ctx, forwardedKey, "1")
	if caller != nil {
		text, err := json.Marshal(caller)
		if err != nil {
			panic(err) // it has nothing that cannot be encoded
		}
		out = withMetadata(out, callerKey, string(text))
	}
	return out
}

// receive makes the context of an administrative call. Nothing of the metadata that came stays in it: a call that the handler makes with it
// is the node's own, unless the handler says otherwise with PassOn. A stranger could speak in the node's name.
func (s *Server) receive(ctx context.Context, c *conn, name string) (context.Context, error) {
	meta, _ := drpcmetadata.Get(ctx)
	caller, forwarded := named(c.caller, broker.CleanClientID(meta[clientKey])), meta[forwardedKey] != ""
	c.client = caller.ClientID
	if peerCalls[name] || forwarded {
		if err := s.checkPeer(c, "make this call"); err != nil {
			return nil, err
		}
	}
	ctx = withoutMetadata{ctx}
	if forwarded {
		ctx = broker.Forwarded(ctx)
		if text := meta[callerKey]; text != "" {
			caller = &broker.Caller{}
			if err := json.Unmarshal([]byte(text), caller); err != nil {
				return nil, kerr.Errorf(kerr.InvalidRequest, "a node passes a call on and does not say for whom: %v", err)
			}
		}
	}
	return context.WithValue(ctx, callerValue{}, caller), nil
}
