package kafka

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/budget"
	"github.com/quorumlog/quorumlog/rpc/loglimit"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Options are what a Server needs. Listener and Broker have no default.
type Options struct {
	Listener  net.Listener // the server closes it
	Broker    broker.Broker
	Node      id.Node
	ClusterID string
	TLS       *tls.Config // nil: connections are plain
	Logger    *slog.Logger
	// MaxConnections and ConnectionsPerAddress bound the connections. Default: 4096, and a quarter of that for one host, but at least 64; a
	// negative number: no bound for a host. Loopback has none.
	MaxConnections, ConnectionsPerAddress int
	// RequestBytes bounds one request, as Kafka's socket.request.max.bytes. Default: 100 MiB. Those that are no Produce are smaller.
	RequestBytes int
	// InFlightBytes bounds the requests of all connections that are being received or answered, AnswerBytes the answers that are being
	// written. Default: 256 MiB each.
	InFlightBytes, AnswerBytes int64
}

const (
	defaultConnections  = 4096
	leastPerAddress     = 64
	defaultRequestBytes = 100 << 20
	defaultBytes        = 256 << 20

	// requestFloor and answerFloor are what a connection may always have, whatever the others do.
	requestFloor = 2 * firstRead
	answerFloor  = 2 * pieceRoom
)

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	o.MaxConnections = cmp.Or(max(o.MaxConnections, 0), defaultConnections)
	o.ConnectionsPerAddress = cmp.Or(o.ConnectionsPerAddress, max(o.MaxConnections/4, leastPerAddress))
	o.RequestBytes = cmp.Or(o.RequestBytes, defaultRequestBytes)
	o.InFlightBytes = cmp.Or(o.InFlightBytes, defaultBytes)
	o.AnswerBytes = cmp.Or(o.AnswerBytes, defaultBytes)
	return o
}

// Server serves Kafka's protocol on one listener. One goroutine accepts; each connection has one that reads and one that writes.
type Server struct {
	options Options
	apis    []api
	lines   *loglimit.Limiter // for all that a stranger can cause

	closing, hard context.Context // nothing more is read; everything is cut off
	close, cut    context.CancelFunc
	wg            sync.WaitGroup

	requests, answers *budget.Fair
	decoding          *semaphore.Weighted // one large request at a time: messages take many times their bytes

	mu    sync.Mutex
	conns map[*conn]struct{}
	hosts map[netip.Prefix]int
}

// NewServer starts to serve.
func NewServer(o Options) *Server {
	o = o.withDefaults()
	s := &Server{
		options: o, apis: apis, lines: loglimit.Strangers(), decoding: semaphore.NewWeighted(1),
		requests: budget.NewFair(o.InFlightBytes, requestFloor), answers: budget.NewFair(o.AnswerBytes, answerFloor),
		conns: make(map[*conn]struct{}), hosts: make(map[netip.Prefix]int),
	}
	s.closing, s.close = context.WithCancel(context.Background())
	s.hard, s.cut = context.WithCancel(context.Background())
	s.wg.Go(s.accept)
	return s
}

// Addr is the address the server listens on.
func (s *Server) Addr() net.Addr { return s.options.Listener.Addr() }

// apiOf returns the row of a key; nil: it is not served.
func (s *Server) apiOf(key int16) *api {
	for i := range s.apis {
		if s.apis[i].key.Int16() == key {
			return &s.apis[i]
		}
	}
	return nil
}

// accept takes connections until the listener is closed. Running out of file descriptors is no reason to end.
func (s *Server) accept() {
	const first = 5 * time.Millisecond
	backoff := first
	for {
		raw, err := s.options.Listener.Accept()
		switch {
		case s.closing.Err() != nil:
			if err == nil {
				_ = raw.Close()
			}
			return
		case errors.Is(err, net.ErrClosed):
			s.options.Logger.Error("the kafka listener was closed by someone else; this node takes no more connections of Kafka clients", "address", s.Addr().String())
			return
		case err != nil:
			s.lines.Log(s.options.Logger, slog.LevelWarn, "cannot accept a connection of a Kafka client", "reason", err.Error())
			select {
			case <-time.After(backoff):
			case <-s.closing.Done():
			}
			backoff = min(2*backoff, time.Second)
			continue
		}
		backoff = first
		c := newConn(s, raw)
		if refusal := s.admit(c); refusal != "" {
			s.lines.Log(s.options.Logger, slog.LevelWarn, refusal, "remote", raw.RemoteAddr().String(),
				"limit", s.options.MaxConnections, "limit_per_host", s.options.ConnectionsPerAddress)
			_ = raw.Close()
			continue
		}
		s.wg.Go(c.serve)
	}
}

// admit counts a connection in, or says why not.
func (s *Server) admit(c *conn) (refusal string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	most := s.options.ConnectionsPerAddress
	switch {
	case len(s.conns) >= s.options.MaxConnections:
		return "kafka connection refused: the node has as many as it may"
	case c.host.IsValid() && most > 0 && s.hosts[c.host] >= most:
		return "kafka connection refused: its host has as many as one may"
	}
	s.conns[c] = struct{}{}
	if c.host.IsValid() {
		s.hosts[c.host]++
	}
	return ""
}

// release counts a connection out.
func (s *Server) release(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	if !c.host.IsValid() {
		return
	}
	if s.hosts[c.host]--; s.hosts[c.host] == 0 {
		delete(s.hosts, c.host)
	}
}

// hostOf returns what connections per address are counted by, an IPv6 host being its /64; not valid: they are not.
func hostOf(a net.Addr) netip.Prefix {
	host := addressOf(a)
	if !host.IsValid() || host.IsLoopback() {
		return netip.Prefix{}
	}
	bits := 64
	if host.Is4() {
		bits = 32
	}
	p, _ := host.WithZone("").Prefix(bits) // fails for no address at all
	return p
}

func addressOf(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// Close stops accepting and reading, lets what has been asked be answered until ctx ends, and waits for every goroutine. An error means that a
// request did not end even then.
func (s *Server) Close(ctx context.Context) error {
	s.close()
	_ = s.options.Listener.Close()
	s.mu.Lock()
	for c := range s.conns {
		c.stopReading()
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
	case <-time.After(cutGrace):
		return fmt.Errorf("kafka: closing the server: requests of %d connections do not end", s.Connections())
	}
}

// cutGrace is how long requests may take to notice that they are cut off.
const cutGrace = 2 * time.Second

// Connections is how many there are.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}
