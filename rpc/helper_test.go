package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/rpc/rpctest"
	"github.com/quorumlog/quorumlog/wal/id"
)

// logBuffer collects what a component logs.
type logBuffer struct{ rpctest.Log }

func (l *logBuffer) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

func (l *logBuffer) lines() int { return strings.Count(l.String(), "\n") }

// startServer serves on a loopback port of its own until the test ends.
func startServer(t testing.TB, o ServerOptions) *Server {
	t.Helper()
	var err error
	if o.Listener == nil {
		if o.Listener, err = Listen(t.Context(), "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	s, err := NewServer(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeServer(t, s) })
	return s
}

func closeServer(t testing.TB, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
}

// eventually polls a condition, which must hold within the deadline.
func eventually(t testing.TB, within time.Duration, what string, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	due := time.After(within)
	for !cond() {
		select {
		case <-tick.C:
		case <-due:
			t.Fatalf("not within %s: %s", within, what)
		}
	}
}

func within[T any](t testing.TB, d time.Duration, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(d):
		t.Fatalf("not within %s: %s", d, what)
		panic("unreachable")
	}
}

// stepped is a message as a testPeer got it.
type stepped struct {
	from id.Node
	g    id.Group
	m    *raftpb.Message
}

// testPeer is a PeerHandler that checks hellos against self and hands all else to channels or counts.
type testPeer struct {
	self   PeerHello
	step   func(stepped)
	opened chan id.Node
	closed chan id.Node

	mu         sync.Mutex
	registered map[id.Node]uint64
	health     map[id.Node]Health
	news       func(from id.Node, session uint64, n News) bool
}

func newTestPeer(self PeerHello, step func(stepped)) *testPeer {
	return &testPeer{self: self, step: step, opened: make(chan id.Node, 1000), closed: make(chan id.Node, 1000), registered: map[id.Node]uint64{}}
}

func (p *testPeer) Hello(h PeerHello) (PeerHello, uint64, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	registered := p.registered[h.Node]
	return p.self, registered, CheckHello(p.self, h, registered)
}

func (p *testPeer) PeerOpened(from id.Node) { p.opened <- from }

// register has a node registered with a boot epoch.
func (p *testPeer) register(n id.Node, boot uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.registered[n] = boot
}

// Step keeps the reference for good: tests look later at what came.
func (p *testPeer) Step(from id.Node, g id.Group, m *raftpb.Message, _ Loan) {
	if p.step != nil {
		p.step(stepped{from, g, m})
	}
}

func (p *testPeer) Stepped() {}

func (p *testPeer) Health(from id.Node, h Health) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.health == nil {
		p.health = make(map[id.Node]Health)
	}
	p.health[from] = h
}

// healthOf is what a node said last.
func (p *testPeer) healthOf(n id.Node) (Health, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, ok := p.health[n]
	return h, ok
}

func (p *testPeer) News(from id.Node, session uint64, n News) bool {
	return p.news == nil || p.news(from, session, n)
}

func (p *testPeer) PeerClosed(from id.Node, _ uint64) { p.closed <- from }

func hello(n id.Node) PeerHello {
	return PeerHello{Versions: Spoken, ClusterID: "cluster-a", Node: n, Boot: 7}
}

// resolveTo resolves every node to one address.
func resolveTo(addr net.Addr) func(id.Node) []string {
	return func(id.Node) []string { return []string{addr.String()} }
}

// edges records the Up and Down calls of Peers.
type edges struct{ c chan string }

func newEdges() *edges { return &edges{c: make(chan string, 100)} }

func (e *edges) up(n id.Node)   { e.c <- fmt.Sprintf("up %d", n) }
func (e *edges) down(n id.Node) { e.c <- fmt.Sprintf("down %d", n) }

func startPeers(t testing.TB, o PeerOptions) *Peers {
	t.Helper()
	p, err := NewPeers(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p
}

// serve is a producer's handler that has f see each request.
func serve(p *ProduceStream, f func(ProduceRequest)) error { return p.Recv(f, nil) }
