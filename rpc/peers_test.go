package rpc

import (
	"bytes"
	"fmt"
	"math"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/quorumlog/quorumlog/wal/id"
)

func heartbeat(i uint64) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgHeartbeat.Enum(), To: new(i), From: new(uint64(2)), Term: new(uint64(3)), Commit: new(i), Context: []byte("12345678")}
}

func appendOf(i uint64, data []byte) *raftpb.Message {
	return &raftpb.Message{Type: raftpb.MsgApp.Enum(), To: new(i), From: new(uint64(2)), Term: new(uint64(3)), Index: new(i), LogTerm: new(uint64(3)), Commit: new(i),
		Entries: []*raftpb.Entry{{Term: new(uint64(3)), Index: new(i + 1), Type: raftpb.EntryNormal.Enum(), Data: data}}}
}

func TestPeersCarryMessages(t *testing.T) {
	defer leaktest.AfterTest(t)()
	var mu sync.Mutex
	next := map[id.Group]uint64{} // per group, messages of a lane arrive in order
	var heartbeats, appends atomic.Int64
	peer := newTestPeer(hello(1), func(s stepped) {
		if s.from != 2 {
			t.Errorf("from %d", s.from)
		}
		if s.m.GetType() == raftpb.MsgHeartbeat {
			if string(s.m.Context) != "12345678" {
				t.Errorf("context %q", s.m.Context)
			}
			heartbeats.Add(1)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if i := s.m.GetIndex(); i != next[s.g] {
			t.Errorf("group %d: index %d, expected %d", s.g, i, next[s.g])
		} else if d := s.m.Entries[0].Data; len(d) != 1000+int(i)*3000 || bytes.Count(d, []byte{byte(i)}) != len(d) {
			t.Errorf("group %d, index %d: %d bytes", s.g, i, len(d))
		}
		next[s.g]++
		appends.Add(1)
	})
	s := startServer(t, ServerOptions{Services: Services{Peer: peer}})
	defer closeServer(t, s)
	up := newEdges()
	var log logBuffer
	p := startPeers(t, PeerOptions{Self: hello(2), Resolve: resolveTo(s.Addr()), Up: up.up, Down: up.down, Logger: log.logger()})
	defer func() {
		if t.Failed() {
			t.Logf("%+v\n%s", p.Metrics(), log.String())
		}
	}()
	p.Reset(1)
	if e := within(t, 2*time.Second, "up", up.c); e != "up 1" {
		t.Fatal(e)
	}
	eventually(t, time.Second, "three lanes", func() bool { m := s.Metrics(); return m.ControlLanes == 1 && m.BulkInbound == 2 })
	const groups, each = 8, 100
	var workers sync.WaitGroup
	for g := range id.Group(groups) {
		workers.Go(func() {
			data := make([]byte, 1000+each*3000)
			for i := range uint64(each) {
				d := data[:1000+i*3000]
				for j := range d {
					d[j] = byte(i)
				}
				p.Send(1, g, appendOf(i, d), nil)
				p.Send(1, g, heartbeat(i), nil)
				p.Flush()
				eventually(t, 5*time.Second, "the group's message arrives", func() bool {
					mu.Lock()
					defer mu.Unlock()
					return next[g] == i+1 // so that reusing data cannot be seen, and no queue overflows
				})
			}
		})
	}
	workers.Wait()
	eventually(t, 5*time.Second, "all have arrived", func() bool { return appends.Load() == groups*each && heartbeats.Load() == groups*each })
	if m := p.Metrics(); m.Dropped != 0 || m.Messages != 2*groups*each || m.Connects != 3 || m.Breaks != 0 {
		t.Errorf("%+v", m)
	}
	_ = p.Close()
	if n := within(t, time.Second, "PeerClosed", peer.closed); n != 2 {
		t.Errorf("PeerClosed(%d)", n)
	}
}

// A lane that is not read fills its queue and drops; it never blocks Send, and the control lane goes on.
func TestPeersOverflow(t *testing.T) {
	defer leaktest.AfterTest(t)()
	release := make(chan struct{})
	var heartbeats atomic.Int64
	peer := newTestPeer(hello(1), func(s stepped) {
		if s.m.GetType() == raftpb.MsgHeartbeat {
			heartbeats.Add(1)
		} else {
			<-release
		}
	})
	s := startServer(t, ServerOptions{Services: Services{Peer: peer}})
	defer closeServer(t, s)
	up := newEdges()
	var dropped atomic.Int64
	p := startPeers(t, PeerOptions{Self: hello(2), Resolve: resolveTo(s.Addr()), Up: up.up, BulkBytes: 2 << 20,
		Dropped: func(to id.Node, g id.Group, m *raftpb.Message) {
			if to == 1 && m.GetType() == raftpb.MsgApp {
				dropped.Add(1)
			}
		}})
	defer p.Close()
	p.Reset(1)
	within(t, 2*time.Second, "up", up.c)
	data := make([]byte, 100_000)
	for i := range uint64(600) { // 60 MB
		p.Send(1, 2, appendOf(i, data), nil)
		p.Flush()
	}
	if dropped.Load() == 0 || p.Metrics().Dropped != uint64(dropped.Load()) {
		t.Errorf("dropped %d, %+v", dropped.Load(), p.Metrics())
	}
	p.Send(1, 2, heartbeat(1), nil)
	p.Flush()
	eventually(t, time.Second, "a heartbeat passes", func() bool { return heartbeats.Load() == 1 })
	close(release)
}

func TestPeersDownAndUp(t *testing.T) {
	defer leaktest.AfterTest(t)()
	peer := newTestPeer(hello(1), nil)
	s := startServer(t, ServerOptions{Services: Services{Peer: peer}})
	addr := s.Addr().String()
	up := newEdges()
	var log logBuffer
	p := startPeers(t, PeerOptions{Self: hello(2), Resolve: resolveTo(s.Addr()), Up: up.up, Down: up.down, Logger: log.logger()})
	defer p.Close()
	p.Send(1, 1, heartbeat(1), nil) // opens the lanes
	if e := within(t, 2*time.Second, "up", up.c); e != "up 1" {
		t.Fatal(e)
	}
	// A killed process: the kernel closes its sockets.
	start := time.Now()
	_ = s.o.Listener.Close()
	s.mu.Lock()
	for c := range s.mu.conns {
		_ = c.Close()
	}
	s.mu.Unlock()
	if e := within(t, time.Second, "down", up.c); e != "down 1" {
		t.Fatal(e)
	}
	if d := time.Since(start); d > 50*time.Millisecond {
		t.Errorf("down after %s", d)
	}
	closeServer(t, s)
	p.Lost(1) // no second report
	eventually(t, 3*time.Second, "a few dials failed", func() bool { return strings.Contains(log.String(), "refused") })
	p.Send(1, 1, heartbeat(1), nil)
	l, err := Listen(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	s = startServer(t, ServerOptions{Listener: l, Services: Services{Peer: peer}})
	defer closeServer(t, s)
	start = time.Now()
	p.Reset(1)
	if e := within(t, time.Second, "up again", up.c); e != "up 1" {
		t.Fatal(e)
	}
	if d := time.Since(start); d > 200*time.Millisecond {
		t.Errorf("up %s after a reset", d)
	}
	if n := log.lines(); n > 4 {
		t.Errorf("%d lines for one outage:\n%s", n, log.String())
	}
}

// blackhole forwards connections to a server until it is told to swallow everything: a frozen process, or a cut cable.
type blackhole struct {
	l       net.Listener
	to      string
	wg      sync.WaitGroup
	mu      sync.Mutex
	conns   []net.Conn
	swallow atomic.Bool
	last    atomic.Int64 // when bytes passed last, in nanoseconds since 1970
}

func newBlackhole(t *testing.T, to string) *blackhole {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := &blackhole{l: l, to: to}
	b.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial("tcp", to)
			if err != nil {
				_ = c.Close()
				continue
			}
			b.mu.Lock()
			b.conns = append(b.conns, c, d)
			b.mu.Unlock()
			b.wg.Go(func() { b.forward(c, d) })
			b.wg.Go(func() { b.forward(d, c) })
		}
	})
	return b
}

func (b *blackhole) forward(from, to net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			if !b.swallow.Load() {
				_ = to.Close()
			}
			return
		}
		if !b.swallow.Load() {
			b.last.Store(time.Now().UnixNano())
			_, _ = to.Write(buf[:n])
		}
	}
}

func (b *blackhole) close() {
	_ = b.l.Close()
	b.mu.Lock()
	for _, c := range b.conns {
		_ = c.Close()
	}
	b.mu.Unlock()
	b.wg.Wait()
}

func TestPeersMissedPings(t *testing.T) {
	defer leaktest.AfterTest(t)()
	peer := newTestPeer(hello(1), nil)
	var log, serverLog logBuffer
	s := startServer(t, ServerOptions{Services: Services{Peer: peer}, Logger: serverLog.logger()})
	defer closeServer(t, s)
	hole := newBlackhole(t, s.Addr().String())
	defer hole.close()
	up := newEdges()
	p := startPeers(t, PeerOptions{Self: hello(2), Resolve: resolveTo(hole.l.Addr()), Up: up.up, Down: up.down, Ping: 50 * time.Millisecond, Logger: log.logger()})
	defer p.Close()
	p.Reset(1)
	within(t, 2*time.Second, "up", up.c)
	quiet := time.NewTimer(600 * time.Millisecond) // more than the lane survives without pings
	select {
	case e := <-up.c:
		t.Fatalf("%s while all is well", e)
	case <-quiet.C:
	}
	hole.swallow.Store(true)
	start := time.Now()
	if e := within(t, 2*time.Second, "down", up.c); e != "down 1" {
		t.Fatal(e)
	}
	// Silence began with the last bytes that passed, which on a busy machine is a while before the start.
	if d, silent := time.Since(start), time.Since(time.Unix(0, hole.last.Load())); silent < 100*time.Millisecond || d > time.Second {
		t.Errorf("down after %s, %s of them silent", d, silent)
	}
	if n := within(t, time.Second, "the other side noticed too", peer.closed); n != 2 {
		t.Errorf("PeerClosed(%d)", n)
	}
	if !strings.Contains(log.String(), "i/o timeout") || !strings.Contains(serverLog.String(), "closed the control lane of a silent node") || serverLog.lines() != 1 {
		t.Errorf("logs:\n%s%s", log.String(), serverLog.String())
	}
	hole.swallow.Store(false)
	if e := within(t, 3*time.Second, "up again", up.c); e != "up 1" {
		t.Fatal(e)
	}
}

// Lost without a lane of ours being open is reported once.
func TestPeersLost(t *testing.T) {
	defer leaktest.AfterTest(t)()
	up := newEdges()
	p := startPeers(t, PeerOptions{Self: hello(2), Resolve: func(id.Node) []string { return nil }, Up: up.up, Down: up.down})
	p.Lost(1)
	if e := within(t, time.Second, "down", up.c); e != "down 1" {
		t.Fatal(e)
	}
	p.Lost(1)
	p.Reset(1)
	_ = p.Close()
	if len(up.c) != 0 {
		t.Errorf("reported again: %s", <-up.c)
	}
}

func TestHelloRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*PeerHello)
		want   string
	}{
		{"cluster", func(h *PeerHello) { h.ClusterID = "cluster-b" }, `node 2 belongs to cluster "cluster-b", node 1 to cluster "cluster-a"`},
		{"newer release", func(h *PeerHello) { h.Versions, h.Release = Versions{98, 99}, "9.9" },
			fmt.Sprintf("node 2 (release 9.9) speaks protocol 98-99, node 1 speaks %v: upgrade node 1", Spoken)},
		{"older release", func(h *PeerHello) { h.Versions, h.Release = Versions{1, 2}, "0.0.1" },
			fmt.Sprintf("node 2 (release 0.0.1) speaks protocol 1-2, node 1 speaks %v: upgrade node 2", Spoken)},
		{"older boot", func(h *PeerHello) { h.Boot = 6 }, "node 2 says boot epoch 6, but boot epoch 7 of it is registered"},
		{"impossible boot", func(h *PeerHello) { h.Boot = math.MaxUint64 }, "node 2 says boot epoch 18446744073709551615, while boot epoch 7 of it is registered"},
		{"self", func(h *PeerHello) { h.Node = 1 }, "node 1 answers at the address of node 9"},
	} {
		t.Run(c.name, func(t *testing.T) {
			defer leaktest.AfterTest(t)()
			peer := newTestPeer(hello(1), nil)
			peer.register(2, 7)
			s := startServer(t, ServerOptions{Services: Services{Peer: peer}})
			defer closeServer(t, s)
			self := hello(2)
			c.change(&self)
			var log logBuffer
			p := startPeers(t, PeerOptions{Self: self, Resolve: resolveTo(s.Addr()), Logger: log.logger()})
			defer p.Close()
			to := id.Node(1)
			if c.name == "self" {
				to = 9
			}
			p.Reset(to)
			eventually(t, 3*time.Second, "several tries", func() bool { return s.Metrics().Accepted > 6 })
			if !strings.Contains(log.String(), strings.ReplaceAll(c.want, `"`, `\"`)) || log.lines() != 1 {
				t.Errorf("log:\n%swant one line with %q", log.String(), c.want)
			}
		})
	}
	t.Run("other node", func(t *testing.T) {
		defer leaktest.AfterTest(t)()
		s := startServer(t, ServerOptions{Services: Services{Peer: newTestPeer(hello(1), nil)}})
		defer closeServer(t, s)
		var log logBuffer
		p := startPeers(t, PeerOptions{Self: hello(2), Resolve: resolveTo(s.Addr()), Logger: log.logger()})
		defer p.Close()
		p.Reset(3)
		eventually(t, 2*time.Second, "a line", func() bool { return strings.Contains(log.String(), "node 1 answers at the address of node 3") })
	})
}

func TestPeersRemove(t *testing.T) {
	defer leaktest.AfterTest(t)()
	s := startServer(t, ServerOptions{Services: Services{Peer: newTestPeer(hello(1), nil)}})
	defer closeServer(t, s)
	up := newEdges()
	p := startPeers(t, PeerOptions{Self: hello(2), Resolve: resolveTo(s.Addr()), Up: up.up, Down: up.down})
	defer p.Close()
	p.Reset(1)
	within(t, 2*time.Second, "up", up.c)
	p.Remove(1)
	p.Remove(1)
	eventually(t, time.Second, "the lanes are gone", func() bool { return s.Metrics().ControlLanes == 0 })
	if len(up.c) != 0 {
		t.Errorf("%s after a removal", <-up.c)
	}
	for _, m := range []*raftpb.Message{
		{Type: raftpb.MsgStorageAppend.Enum()},
		{Type: raftpb.MsgHeartbeat.Enum(), Responses: []*raftpb.Message{{}}},
		appendOf(1, make([]byte, maxTrain)),
	} {
		p.Send(1, 1, m, nil)
	}
	if m := p.Metrics(); m.Unencodable != 3 || m.Messages != 0 {
		t.Errorf("%+v", m)
	}
	p.Send(2, 1, heartbeat(1), nil) // to itself: nowhere
	if fmt.Sprint(p.Metrics().Messages) != "0" {
		t.Errorf("%+v", p.Metrics())
	}
}

// TestHealthIsTold: a node says how it is when a lane opens, at once when that changes, and again with each ping.
func TestHealthIsTold(t *testing.T) {
	defer leaktest.AfterTest(t)()
	peer := newTestPeer(hello(1), nil)
	s := startServer(t, ServerOptions{Services: Services{Peer: peer}})
	defer closeServer(t, s)
	up := newEdges()
	p := startPeers(t, PeerOptions{Self: hello(2), Resolve: resolveTo(s.Addr()), Up: up.up, Down: up.down, Ping: 5 * time.Second})
	defer p.Close()
	says := func(want Health) {
		t.Helper()
		eventually(t, 3*time.Second, fmt.Sprintf("health %d is told, before the next ping", want), func() bool {
			got, ok := peer.healthOf(2)
			return ok && got == want
		})
	}
	p.SetHealth(2)
	p.Reset(1)
	within(t, 2*time.Second, "up", up.c)
	says(2) // in the hello
	p.SetHealth(1)
	says(1)
	p.SetHealth(0)
	says(0)
	if bad, err := decodePing(nil); err == nil {
		t.Errorf("an empty ping says %d", bad)
	}
}

// A snapshot that does not arrive, or may not, is reported: Raft waits for the answer.
func TestLostSnapshotsAreReported(t *testing.T) {
	defer leaktest.AfterTest(t)()
	snap := func() *raftpb.Message {
		return &raftpb.Message{
			Type: raftpb.MsgSnap.Enum(), To: new(uint64(101)), From: new(uint64(102)), Term: new(uint64(3)),
			Snapshot: &raftpb.Snapshot{Data: make([]byte, 1<<20), Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(5)), Term: new(uint64(2))}},
		}
	}
	arrived := make(chan stepped, 10)
	peer := newTestPeer(hello(1), func(s stepped) { arrived <- s })
	s := startServer(t, ServerOptions{Services: Services{Peer: peer}})
	defer closeServer(t, s)
	up, lost, dropped := newEdges(), make(chan id.Node, 10), make(chan id.Node, 10)
	options := PeerOptions{
		Self: hello(2), Resolve: resolveTo(s.Addr()), Up: up.up, SnapshotsLost: func(n id.Node) { lost <- n },
		Dropped: func(to id.Node, _ id.Group, _ *raftpb.Message) { dropped <- to },
	}
	p := startPeers(t, options)
	defer p.Close()
	p.Reset(1)
	within(t, 2*time.Second, "up", up.c)
	p.Send(1, 4, snap(), nil)
	p.Flush()
	if got := within(t, 2*time.Second, "a snapshot", arrived); !proto.Equal(got.m, snap()) {
		t.Error("another snapshot arrived than was sent")
	}
	closeServer(t, s)
	if n := within(t, 5*time.Second, "loss", lost); n != 1 {
		t.Errorf("SnapshotsLost(%d)", n)
	}
	for len(dropped) == 0 { // queued while the lane is dialed, or dropped while it is not: neither is silent
		p.Send(1, 4, snap(), nil)
		select {
		case <-lost:
			return
		case <-time.After(time.Millisecond):
		}
	}
}

// A node of an older release drops snapshots: it is not sent any.
func TestNoSnapshotForAnOlderRelease(t *testing.T) {
	q := newTrains(1<<20, snapshotProtocol-1)
	m := &raftpb.Message{Type: raftpb.MsgSnap.Enum(), Snapshot: &raftpb.Snapshot{}}
	if q.put(100, 1, m, nil) {
		t.Error("queued a snapshot for an older release")
	}
	q.agreed(snapshotProtocol)
	if !q.put(100, 1, m, nil) {
		t.Error("queued no snapshot")
	}
}
