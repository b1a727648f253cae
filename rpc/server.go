package rpc

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3/raftpb"
	"storj.io/drpc/drpcmanager"
	"storj.io/drpc/drpcmux"
	"storj.io/drpc/drpcstream"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/loglimit"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Services is what a server serves. A nil one is refused to clients with kerr.UnsupportedVersion.
type Services struct {
	Admin pb.DRPCAdminServer
	Peer  PeerHandler
	// Produce and Fetch serve one stream each call, and return when its Recv has. Their error is sent to the client.
	Produce func(*ProduceStream) error
	Fetch   func(*FetchStream) error
}

// PeerHandler is the receiving end of the lanes of other nodes. Its methods are called from many goroutines and must
// not block.
type PeerHandler interface {
	// Hello decides whether a lane may open, before it changes anything, and returns this node's own hello and the boot epoch with which
	// the peer is registered (0: it is not). CheckHello knows the usual reasons to refuse.
	Hello(peer PeerHello) (self PeerHello, registered uint64, err error)
	// PeerOpened says that a control lane of a node has opened.
	PeerOpened(from id.Node)
	// Step takes ownership of m and all it points to; but the data of its entries is data's, of which Step takes over a reference.
	// nil: there is nothing to release.
	Step(from id.Node, g id.Group, m *raftpb.Message, data Loan)
	// Stepped is called after the Steps of one train, however few there were: for what is better done once for all of them. It must
	// not block.
	Stepped()
	// Health tells what a node says of itself: after the hello of its control lane, and again and again.
	Health(from id.Node, h Health)
	// News bring what a node tells on its control lane. Session numbers that lane among all: a higher one is newer, and what still comes of an
	// older one is not to be believed. The words' memory is used again, what they hold belongs to whoever keeps it. False asks the teller to
	// begin anew, as long as that is the last answer.
	News(from id.Node, session uint64, n News) bool
	// PeerClosed says that the newest control lane of a node has ended, by its number. The node passes it on to Peers.Lost.
	PeerClosed(from id.Node, session uint64)
}

// ServerOptions are the settings of a server.
type ServerOptions struct {
	Listener net.Listener // the server closes it. Make it with Listen, so that the sockets have their timeouts
	Services Services
	Node     id.Node // told to clients
	// ClusterID, when not empty, is the cluster of the node: administrative calls that are meant for another one are refused.
	ClusterID string
	// Age, when not nil, tells how old the node's knowledge of the cluster is; negative: it never had any. Told to clients with each pong.
	Age    func() time.Duration
	Logger *slog.Logger
	// MaxConnections, 4096 by default: more are closed at once.
	MaxConnections int
	// PeerConnections are those of other nodes beside MaxConnections: see reserve.go. 0: they count as all others.
	PeerConnections int
	// TLS, when not nil, is how the server shows who it is and asks clients who they are: auth.Credentials.Server. Calls among nodes are then
	// refused to all but those with the certificate of a node of the cluster ClusterName.
	TLS         *tls.Config
	ClusterName string
	// Calls, when not nil, is asked before each administrative call of a client, and told when it has ended.
	Calls func(context.Context, *broker.Caller) (done func(), err error)
	// Limits bound what the connections may cost together.
	Limits ServerLimits

	versions Versions // other than Spoken only in tests

	// WrapConn, when not nil, is applied to each accepted connection. It must not do I/O; tls.Server does not, the handshake
	// comes with the first read.
	WrapConn func(net.Conn) net.Conn
}

// Server serves one listener. One goroutine accepts; each connection has one that runs its calls one after the other, and
// drpc's two.
type Server struct {
	o           ServerOptions
	versions    Versions // what it speaks with clients; with peers it is in its hello
	unknownCall *kerr.Error
	log         *slog.Logger
	mux         *drpcmux.Mux

	closing, hard context.Context // no new call; every call is cut off
	close, cut    context.CancelFunc
	wg            sync.WaitGroup
	bounds        bounds
	lines         *loglimit.Limiter // for all that a stranger can cause

	mu struct {
		sync.Mutex
		conns   map[*conn]bool // true: between calls, or before the first
		reserve reserve
		hosts   map[netip.Prefix]int
		lanes   map[laneKey]*inbound

		sessions uint64                          // lanes that were let in
		believed func([]*x509.Certificate) error // what CloseUnbelieved went by; nil: it has not been called
	}
	counts struct {
		accepted, refused, dropped, panics, lanesRefused, calls atomic.Uint64
	}
}

// NewServer starts to serve.
func NewServer(o ServerOptions) (*Server, error) {
	if o.Listener == nil {
		return nil, errors.New("rpc: ServerOptions.Listener is missing")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.MaxConnections <= 0 {
		o.MaxConnections = 4096
	}
	if o.versions == (Versions{}) {
		o.versions = Spoken
	}
	o.Limits = o.Limits.withDefaults(o.MaxConnections)
	s := &Server{o: o, versions: o.versions, log: o.Logger, lines: loglimit.Strangers(), mux: drpcmux.New()}
	s.unknownCall = kerr.Errorf(kerr.UnsupportedVersion, "%s does not know the call: it is of release %s and speaks protocol %s; upgrade it, or use the tools of its release",
		nodeName(o.Node), Release, s.versions)
	if o.Services.Admin != nil {
		if err := pb.DRPCRegisterAdmin(s.mux, o.Services.Admin); err != nil {
			return nil, fmt.Errorf("rpc: register the administrative calls: %w", err)
		}
	}
	s.closing, s.close = context.WithCancel(context.Background())
	s.hard, s.cut = context.WithCancel(context.Background())
	s.bounds = s.newBounds(o.Limits)
	s.mu.conns, s.mu.hosts = make(map[*conn]bool), make(map[netip.Prefix]int)
	s.mu.lanes = make(map[laneKey]*inbound)
	s.wg.Go(s.accept)
	return s, nil
}

func (s *Server) age() time.Duration {
	if s.o.Age == nil {
		return 0
	}
	return s.o.Age()
}

// Addr is the address the server listens on.
func (s *Server) Addr() net.Addr { return s.o.Listener.Addr() }

// accept takes connections until the listener is closed. Running out of file descriptors is no reason to end.
func (s *Server) accept() {
	backoff := 5 * time.Millisecond
	for {
		raw, err := s.o.Listener.Accept()
		switch {
		case s.closing.Err() != nil:
			if err == nil {
				_ = raw.Close()
			}
			return
		case errors.Is(err, net.ErrClosed):
			s.log.Error("the rpc listener was closed by someone else; this node takes no more connections", "address", s.Addr().String())
			return
		case err != nil:
			s.lines.Log(s.log, slog.LevelWarn, "cannot accept a connection", "reason", err.Error())
			select {
			case <-time.After(backoff):
			case <-s.closing.Done():
			}
			backoff = min(2*backoff, time.Second)
			continue
		}
		backoff = 5 * time.Millisecond
		s.counts.accepted.Add(1)
		if s.o.WrapConn != nil {
			raw = s.o.WrapConn(raw)
		}
		if s.o.TLS != nil {
			raw = secureServer(raw, s.o.TLS)
		}
		c := newConn(raw)
		if !s.admit(c) {
			s.refuse(c)
			_ = c.Close()
			continue
		}
		s.wg.Go(func() { s.serve(c) })
	}
}

// waiting notes that a connection is between calls (true) or in one. False: the server is closing, no other call may begin.
func (s *Server) waiting(c *conn, between bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.conns[c] = between
	return s.closing.Err() == nil
}

// serve runs the calls of one connection in sequence, as drpc has it.
func (s *Server) serve(c *conn) {
	defer func() {
		_ = c.Close()
		s.release(c)
	}()
	m := drpcmanager.NewWithOptions(c, managerOptions())
	defer func() { _ = m.Close() }()
	for first := true; ; first = false {
		st, name, err := m.NewServerStream(s.hard)
		if err != nil {
			if first || isMalformed(err) {
				s.drop(c, err)
			}
			return
		}
		if !s.waiting(c, false) {
			return
		}
		if first {
			if !s.meet(c) {
				return
			}
			if err := s.try(c, st, name); err != nil {
				c.hurry()
				_ = st.SendError(toWire(err))
				linger(c, m)
				return
			}
		}
		if again := s.call(c, st, name); !again || !s.waiting(c, true) {
			linger(c, m)
			return
		}
	}
}

func isMalformed(err error) bool {
	var bad *malformed
	return errors.As(err, &bad)
}

// drop notes a connection that never got as far as a call, or broke the framing. One that said nothing and closed is no news: port checks do so.
func (s *Server) drop(c *conn, err error) {
	s.counts.dropped.Add(1)
	if s.closing.Err() != nil || (c.received.Load() == 0 && (errors.Is(err, io.EOF) || errors.Is(err, context.Canceled))) {
		return
	}
	s.lines.Log(s.log, slog.LevelInfo, "dropped a connection", "remote", c.RemoteAddr().String(), "bytes", c.received.Load(),
		"reason", dropReason(err))
}

func dropReason(err error) string {
	var bad *malformed
	var timeout net.Error
	switch {
	case errors.As(err, &bad):
		return bad.reason
	case errors.As(err, &timeout) && timeout.Timeout():
		return "silent for " + preludeTimeout.String()
	case errors.Is(err, io.EOF), errors.Is(err, context.Canceled):
		return "closed in the middle of it"
	}
	return err.Error()
}

// call runs one call and ends its stream. It returns whether another may follow on the connection.
func (s *Server) call(c *conn, st *drpcstream.Stream, name string) (again bool) {
	unary := name != rpcLane && name != rpcProduce && name != rpcFetch
	if !unary {
		// A stream ends when the server closes; a call is given time to finish.
		ended := make(chan struct{})
		stop := context.AfterFunc(s.closing, func() {
			defer close(ended)
			c.endStream(st, errShutdown)
		})
		defer func() {
			if !stop() {
				<-ended
			}
		}()
	}
	err := s.dispatch(c, st, name)
	if unary {
		c.setDeadline(pooledTimeout)
	}
	if err == nil {
		return st.CloseSend() == nil && unary
	}
	if isMalformed(err) {
		s.drop(c, err)
	} else {
		s.log.Debug("call ended", "call", shorten(name), "remote", c.RemoteAddr().String(), "client", c.client, "reason", err.Error())
	}
	if !unary {
		c.hurry()
	}
	if err == error(s.unknownCall) {
		c.setDeadline(preludeTimeout) // as if it had said nothing
	}
	return st.SendError(toWire(err)) == nil && unary
}

var errShutdown = kerr.Errorf(kerr.BrokerNotAvailable, "the node is shutting down: another one leads its partitions in a moment")

// dispatch runs the handler of a call. A panic ends this call only: logged here, with a bare code for the client.
func (s *Server) dispatch(c *conn, st *drpcstream.Stream, name string) (err error) {
	defer func() {
		if p := recover(); p != nil {
			s.counts.panics.Add(1)
			value, stack := panicDetails(p)
			s.lines.Log(s.log, slog.LevelError, "panic in a call; the call failed, the node goes on", "call", shorten(name), "remote", c.RemoteAddr().String(),
				"client", c.client, "panic", value, "stack", stack)
			err = kerr.Errorf(kerr.Unknown, "internal error: see the log of node %d", s.o.Node)
		}
	}()
	v := &s.o.Services
	switch {
	case name == rpcLane && v.Peer != nil:
		return s.serveLane(c, st)
	case name == rpcProduce && v.Produce != nil:
		return s.serveProduce(c, st)
	case name == rpcFetch && v.Fetch != nil:
		return s.serveFetch(c, st)
	case v.Admin != nil:
		s.counts.calls.Add(1)
		return s.serveAdmin(c, st, name)
	}
	return s.unknownCall
}

// linger lets the client read the last word: closing a socket that holds unread bytes resets it, and takes the word away.
func linger(c *conn, m *drpcmanager.Manager) {
	if !c.closeWrite() {
		return
	}
	timer := time.NewTimer(lingerTimeout)
	defer timer.Stop()
	select {
	case <-m.Closed():
	case <-timer.C:
	}
}

// bidFarewell ends a connection on which no call is under way: the client closes in turn, or is given up. With TLS that is a word to be written,
// and a client that does not read has it wait until its connection is given up: each connection has a goroutine for it.
func bidFarewell(c *conn) {
	c.setDeadline(lingerTimeout)
	if !c.closeWrite() {
		_ = c.Close()
	}
}

// Close stops accepting, ends the streams with kerr.BrokerNotAvailable, lets administrative calls finish until ctx ends, and
// waits for every goroutine. An error means that a handler did not return even then.
func (s *Server) Close(ctx context.Context) error {
	s.close()
	_ = s.o.Listener.Close()
	s.mu.Lock()
	for c, between := range s.mu.conns {
		if between {
			s.wg.Go(func() { bidFarewell(c) })
		}
	}
	s.mu.Unlock()
	done := make(chan struct{})
	go func() {
		s.wg.Wait()
		close(done)
	}()
	defer s.cut()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
	}
	s.cut()
	select {
	case <-done:
		return nil
	case <-time.After(unaryGrace):
		return fmt.Errorf("rpc: closing the server: %d connections still have a handler that does not return", s.Metrics().Connections)
	}
}

// ServerMetrics counts what a server has seen since its start.
type ServerMetrics struct {
	Connections               int // now
	Accepted, Refused         uint64
	Dropped                   uint64 // connections that made no valid call
	Calls                     uint64 // administrative ones
	LanesRefused              uint64 // hellos of other nodes, or of who says so
	Panics                    uint64
	Evicted                   uint64 // connections that did not finish their message while others waited for its memory
	CallsRefused              uint64 // administrative calls that found too many under way
	AnswersRefused            uint64 // answers for which there was no room, since others were not read
	ControlLanes, BulkInbound int    // lanes of other nodes, now
}

// Metrics returns the counts.
func (s *Server) Metrics() ServerMetrics {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := ServerMetrics{
		Connections: len(s.mu.conns), Accepted: s.counts.accepted.Load(), Refused: s.counts.refused.Load(),
		Dropped: s.counts.dropped.Load(), Panics: s.counts.panics.Load(), LanesRefused: s.counts.lanesRefused.Load(),
		Evicted: s.bounds.intake.evicted.Load(), CallsRefused: s.bounds.gate.refused.Load() + s.bounds.requests.Refused(),
		AnswersRefused: s.bounds.answers.Refused(), Calls: s.counts.calls.Load(),
	}
	for k := range s.mu.lanes {
		if k.lane == LaneCtl {
			m.ControlLanes++
		} else {
			m.BulkInbound++
		}
	}
	return m
}
