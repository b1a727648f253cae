package rpc

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// pair returns the two ends of a TCP connection.
func pair(t *testing.T) (net.Conn, net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func TestConnIdle(t *testing.T) {
	a, b := pair(t)
	c := newConn(a)
	c.guard.open = true
	c.established(maxMessage, 200*time.Millisecond)
	frame := wireFrame(kindMessage, 1, 1, []byte("x"))
	ticker := time.NewTicker(40 * time.Millisecond)
	defer ticker.Stop()
	buf := make([]byte, 100)
	start := time.Now()
	for time.Since(start) < 500*time.Millisecond { // kept alive well beyond its idle time
		<-ticker.C
		_, _ = b.Write(frame)
		if _, err := c.Read(buf); err != nil {
			t.Fatal(err)
		}
	}
	start = time.Now()
	if _, err := c.Read(buf); !isTimeout(err) {
		t.Fatal(err)
	}
	if d := time.Since(start); d < 100*time.Millisecond || d > 400*time.Millisecond {
		t.Errorf("silence was noticed after %s", d)
	}
}

// A write to a peer that does not read ends, and leaves no half frame to be continued.
func TestConnHurry(t *testing.T) {
	a, _ := pair(t)
	c := newConn(a)
	c.hurry()
	start := time.Now()
	var err error
	for piece := make([]byte, 1<<20); err == nil; {
		_, err = c.Write(piece)
	}
	if d := time.Since(start); !isTimeout(err) || d > 3*time.Second {
		t.Errorf("%v after %s", err, d)
	}
	if _, err := c.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a write after it: %v", err)
	}
}

// Someone listens but never answers.
func TestDialTimeout(t *testing.T) {
	defer leaktest.AfterTest(t)()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := &Dialer{Timeout: 100 * time.Millisecond}
	start := time.Now()
	if _, err := d.DialProduce(t.Context(), l.Addr().String()); err == nil || !strings.Contains(err.Error(), "no answer from "+l.Addr().String()) {
		t.Errorf("produce: %v", err)
	}
	if _, err := d.DialFetch(t.Context(), l.Addr().String()); err == nil {
		t.Error("fetch: opened")
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("took %s", d)
	}
	if _, err := d.DialFetch(t.Context(), "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody there: %v", err)
	}
}

// Both kinds of streams answer a client's pings, also while nothing else is said.
func TestStreamPings(t *testing.T) {
	defer leaktest.AfterTest(t)()
	s := startServer(t, ServerOptions{Services: Services{
		Produce: func(p *ProduceStream) error { return serve(p, func(ProduceRequest) {}) },
		Fetch:   func(f *FetchStream) error { return f.Recv(func(FetchCommand) error { return nil }) },
	}})
	defer closeServer(t, s)
	p, err := new(Dialer).DialProduce(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	f, err := new(Dialer).DialFetch(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() { ended <- p.Recv(func(ProduceResponse) { t.Error("an answer") }) }()
	go func() { ended <- f.Recv(func(FetchEvent) { t.Error("an event") }) }()
	for _, c := range []*client{p.client, f.client} {
		before := c.conn.received.Load()
		if err := transmit(c.st, frameOf(framePing)); err != nil {
			t.Fatal(err)
		}
		eventually(t, time.Second, "a pong", func() bool { return c.conn.received.Load() > before })
	}
	_, _ = p.Close(), f.Close()
	within(t, time.Second, "the produce stream ended", ended)
	within(t, time.Second, "the fetch stream ended", ended)
	if err := p.Recv(func(ProduceResponse) {}); kerr.CodeOf(err) != kerr.NetworkException {
		t.Errorf("Recv after Close: %v", err)
	}
}

// Close inside Recv's callback must not wait for the callback.
func TestCloseInCallback(t *testing.T) {
	defer leaktest.AfterTest(t)()
	s := startServer(t, ServerOptions{Services: Services{Produce: func(p *ProduceStream) error {
		return serve(p, func(r ProduceRequest) { p.Send(ProduceResponse{}) })
	}}})
	defer closeServer(t, s)
	c, err := new(Dialer).DialProduce(t.Context(), s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.Send(ProduceRequest{}), c.Flush()); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- c.Recv(func(ProduceResponse) { _ = c.Close() }) }()
	within(t, time.Second, "Recv returned", done)
	<-c.Done()
}

// A node that restarted takes the place of its former self, whose end is then no news.
func TestLaneSuperseded(t *testing.T) {
	defer leaktest.AfterTest(t)()
	peer := newTestPeer(hello(1), nil)
	s := startServer(t, ServerOptions{Services: Services{Peer: peer}})
	defer closeServer(t, s)
	ups := newEdges()
	var log logBuffer
	former := startPeers(t, PeerOptions{Self: hello(2), Resolve: resolveTo(s.Addr()), Up: ups.up, Logger: log.logger()})
	defer former.Close()
	former.Reset(1)
	within(t, time.Second, "up", ups.c)
	restarted := hello(2)
	restarted.Boot++
	later := startPeers(t, PeerOptions{Self: restarted, Resolve: resolveTo(s.Addr()), Up: ups.up})
	defer later.Close()
	later.Reset(1)
	within(t, time.Second, "up", ups.c)
	eventually(t, 3*time.Second, "the former self is refused", func() bool {
		return strings.Contains(log.String(), "start 8 of node 2 is connected: start 7 must be over")
	})
	if len(peer.closed) != 0 {
		t.Errorf("PeerClosed(%d)", <-peer.closed)
	}
	_ = later.Close()
	if n := within(t, time.Second, "PeerClosed", peer.closed); n != id.Node(2) {
		t.Errorf("PeerClosed(%d)", n)
	}
}
