package rpc

import (
	"context"
	"fmt"
	"math"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"
	"storj.io/drpc/drpcwire"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// dialRaw opens a stream by hand, says a hello, and returns what came back within a while.
func dialRaw(t *testing.T, addr, name string, hello []byte) (net.Conn, string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := c.Write(join(invoke(name), wireFrame(drpcwire.KindMessage, 1, 2, hello))); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 1024)
	n, err := c.Read(buf)
	if err != nil {
		t.Fatal("no answer to the hello:", err)
	}
	return c, string(buf[:n])
}

// The bytes of an opening never change: a release of any age reads them.
func TestOpeningIsFrozen(t *testing.T) {
	got := endOpening(append(opening{versions: Versions{3, 5}, picked: 4, release: "1.2"}.begin(nil), "rest"...))
	want := "qlog\x03\x00\x05\x00\x04\x00\x00\x00" + string(got[12:16]) + "\x031.2rest"
	if string(got) != want {
		t.Fatalf("got %q, want %q", got, want)
	}
	o, rest, err := readOpening(got)
	if err != nil || o != (opening{versions: Versions{3, 5}, picked: 4, release: "1.2"}) || string(rest) != "rest" {
		t.Errorf("%+v, %q, %v", o, rest, err)
	}
	for i := range got { // whatever was flipped on the way is noticed
		bad := append([]byte(nil), got...)
		bad[i] ^= 0x10
		if _, _, err := readOpening(bad); err == nil {
			t.Errorf("byte %d may be anything", i)
		}
	}
	for n := range len(got) {
		if _, _, err := readOpening(got[:n]); err == nil {
			t.Errorf("%d bytes are enough", n)
		}
	}
}

// A later release says more in its hellos: this one passes over that.
func TestLongerHellos(t *testing.T) {
	later := func(message []byte) []byte { return endOpening(append(message, "what a later release has to say"...)) }
	h := hello(2)
	h.Release, h.Target, h.Session = "9.9", 1, 5
	if got, err := decodeHello(later(appendHello(nil, h))); err != nil || got != h {
		t.Errorf("%+v, %v", got, err)
	}
	if _, name, err := decodeClientHello(later(appendClientHello(nil, Spoken, "me"))); err != nil || name != "me" {
		t.Errorf("%q, %v", name, err)
	}
	l := Limits{Node: 3, MaxBatchBytes: 4, InFlightBytes: 5}
	if _, got, err := decodeLimits(later(appendLimits(nil, opening{versions: Spoken}, l))); err != nil || got != l {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestVersionsAgree(t *testing.T) {
	for _, c := range []struct {
		a, b Versions
		want uint16 // 0: none
	}{
		{Versions{3, 3}, Versions{3, 3}, 3},
		{Versions{3, 5}, Versions{4, 9}, 5},
		{Versions{3, 5}, Versions{1, 3}, 3},
		{Versions{3, 5}, Versions{6, 9}, 0},
		{Versions{3, 5}, Versions{1, 2}, 0},
		{Versions{math.MaxUint16, math.MaxUint16}, Versions{0, math.MaxUint16}, math.MaxUint16},
	} {
		for _, pair := range [][2]Versions{{c.a, c.b}, {c.b, c.a}} {
			got, ok := pair[0].agree(pair[1])
			if ok != (c.want != 0) || ok && got != c.want {
				t.Errorf("%v and %v agree on %d, %t", pair[0], pair[1], got, ok)
			}
		}
	}
}

// Lanes between two releases speak the newest version that both know, each its own, and carry messages in it. When a node comes back with
// another release, its lanes speak another version.
func TestLanesOfTwoReleases(t *testing.T) {
	defer leaktest.AfterTest(t)()
	self := hello(1)
	self.Versions = Versions{2, 4}
	got := make(chan stepped, 100)
	s := startServer(t, ServerOptions{Services: Services{Peer: newTestPeer(self, func(m stepped) { got <- m })}})
	defer closeServer(t, s)
	for i, c := range []struct {
		newest uint16
		want   trainVersion
	}{{5, 4}, {3, 3}, {4, 4}} {
		dialer := hello(2)
		dialer.Boot += uint64(i)
		dialer.Versions = Versions{3, c.newest}
		up := newEdges()
		p := startPeers(t, PeerOptions{Self: dialer, Resolve: resolveTo(s.Addr()), Up: up.up})
		p.Reset(1)
		within(t, 5*time.Second, "up", up.c)
		if v := (*p.byNode.Load())[1].ctl.agreed(); v != c.want {
			t.Errorf("%v and %v: trains of version %d", dialer.Versions, self.Versions, v)
		}
		p.Send(1, 7, heartbeat(1), nil)
		p.Flush()
		if m := within(t, 5*time.Second, "the message", got); m.g != 7 || m.from != 2 {
			t.Errorf("%+v", m)
		}
		_ = p.Close()
		eventually(t, 5*time.Second, "the lanes are gone", func() bool { m := s.Metrics(); return m.ControlLanes+m.BulkInbound == 0 })
	}
}

// A queue that was filled for one version is emptied when the lane agrees on another.
func TestTrainsOfAnotherVersion(t *testing.T) {
	q := newTrains(1<<20, testVersion)
	q.agreed(3)
	loan := &testLoan{}
	for range 2 {
		if m := appendOf(1, make([]byte, minBody)); !q.put(4<<10, 1, m, loan) {
			t.Fatal("no room")
		}
	}
	q.agreed(3)
	if q.mu.last == nil || loan.refs != 2 {
		t.Errorf("the same version: %d loans", loan.refs)
	}
	q.agreed(4)
	if q.take() != nil || q.mu.bytes != 0 || loan.refs != 0 {
		t.Errorf("%d bytes, %d loans", q.mu.bytes, loan.refs)
	}
}

// A client and a node of releases that have nothing in common tell each other so, at once, with who has to be upgraded; and so do the
// administrative calls, which come first.
func TestClientOfAnotherRelease(t *testing.T) {
	defer leaktest.AfterTest(t)()
	var log logBuffer
	s := everything(t, &log)
	defer closeServer(t, s)
	addr := s.Addr().String()
	for _, c := range []struct {
		versions Versions
		want     string // "": they get on
	}{
		{Versions{1, 2}, "upgrade the client"},
		{Versions{98, 99}, "upgrade node 1"},
		{Versions{1, Protocol}, ""},
		{Versions{Protocol, 99}, ""},
	} {
		d := &Dialer{versions: c.versions}
		check := func(what string, err error) {
			t.Helper()
			want := strings.Replace(c.want, "the client", map[bool]string{true: "the caller", false: "the client"}[what == "admin"], 1)
			switch {
			case c.want == "" && err != nil:
				t.Errorf("%s with %v: %v", what, c.versions, err)
			case c.want != "" && (kerr.CodeOf(err) != kerr.UnsupportedVersion || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), c.versions.String())):
				t.Errorf("%s with %v: %v, want %q", what, c.versions, err, want)
			}
		}
		begin := time.Now()
		p, err := d.DialProduce(t.Context(), addr)
		check("produce", err)
		if err == nil {
			_ = p.Close()
		}
		f, err := d.DialFetch(t.Context(), addr)
		check("fetch", err)
		if err == nil {
			_ = f.Close()
		}
		_, err = d.Admin(addr).Metadata(t.Context(), &pb.MetadataRequest{})
		check("admin", err)
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%v took %v", c.versions, took)
		}
		_ = d.Close()
	}
}

// A server that answers with a version that the client did not offer, or with no answer worth the name, is refused.
func TestServerOfAnotherRelease(t *testing.T) {
	limits := Limits{Node: 4, MaxBatchBytes: 1000, InFlightBytes: 1000}
	for _, c := range []struct {
		name   string
		answer []byte
		want   string
	}{
		{"empty", nil, "no hello of quorumlog"},
		{"frames of the first days", []byte{20, 0, 0, 0, 0xf1, 0, 2, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}, "no hello of quorumlog"},
		{"cut short", endOpening(opening{versions: Spoken, picked: Protocol}.begin(nil)), "cut short"},
		{"older", appendLimits(nil, opening{versions: Versions{1, 2}, picked: 2, release: "0.0.1"}, limits), "node 4 (release 0.0.1) speaks protocol 1-2"},
		{"newer", appendLimits(nil, opening{versions: Versions{98, 99}, picked: 99}, limits), "upgrade this client"},
		{"without a choice", appendLimits(nil, opening{versions: Spoken}, limits), "protocol"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			ended := make(chan struct{})
			defer func() { <-ended }()
			go func() {
				defer close(ended)
				conn, err := l.Accept()
				if err != nil {
					return
				}
				defer conn.Close()
				buf := make([]byte, 4096)
				_, _ = conn.Read(buf)
				_, _ = conn.Write(wireFrame(drpcwire.KindMessage, 1, 1, c.answer))
				for err == nil { // until the client hangs up
					_, err = conn.Read(buf)
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			d := &Dialer{Timeout: 10 * time.Second}
			p, err := d.DialProduce(ctx, l.Addr().String())
			if err == nil {
				_ = p.Close()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// What is no hello opens nothing, and says so.
func TestNoHello(t *testing.T) {
	var log logBuffer
	s := everything(t, &log)
	for _, name := range []string{rpcLane, rpcProduce, rpcFetch} {
		for _, hello := range [][]byte{nil, {1}, make([]byte, 100)} {
			if _, answer := dialRaw(t, s.Addr().String(), name, hello); !strings.Contains(answer, "no hello of quorumlog") {
				t.Errorf("%s after %d bytes: %q", name, len(hello), answer)
			}
		}
	}
}

// displaces is the whole rule: who of two processes that say to be one node has its lanes.
func TestDisplace(t *testing.T) {
	const registered = 5
	for _, c := range []struct {
		held, comes incarnation
		ok          bool
	}{
		{incarnation{5, 1}, incarnation{5, 1}, true},  // a connection that broke
		{incarnation{5, 1}, incarnation{5, 2}, false}, // a copy of the directory
		{incarnation{5, 1}, incarnation{6, 2}, false}, // a restart has to wait until the old process is gone
		{incarnation{6, 1}, incarnation{5, 2}, true},  // only the metadata says who is the node
		{incarnation{6, 1}, incarnation{6, 2}, false},
		{incarnation{6, 1}, incarnation{7, 2}, true},
		{incarnation{7, 1}, incarnation{6, 2}, false},
		{incarnation{4, 1}, incarnation{5, 2}, true}, // the restart has registered
	} {
		if err := displace(2, c.held, c.comes, registered); (err == nil) != c.ok {
			t.Errorf("%v holds, %v comes: %v", c.held, c.comes, err)
		} else if err != nil && kerr.CodeOf(err) != kerr.DuplicateBrokerRegistration {
			t.Errorf("%v holds, %v comes: code %v", c.held, c.comes, kerr.CodeOf(err))
		}
	}
}

// Whoever is refused changes nothing: the good lanes of the node that he says he is, or that he means, stay.
func TestRefusedHelloBreaksNothing(t *testing.T) {
	defer leaktest.AfterTest(t)()
	peer := newTestPeer(hello(1), nil)
	peer.register(2, 7)
	s := startServer(t, ServerOptions{Services: Services{Peer: peer}})
	defer closeServer(t, s)
	up := newEdges()
	good := startPeers(t, PeerOptions{Self: hello(2), Resolve: resolveTo(s.Addr()), Up: up.up, Down: up.down})
	good.Reset(1)
	within(t, 5*time.Second, "up", up.c)
	eventually(t, 5*time.Second, "three lanes", func() bool { m := s.Metrics(); return m.ControlLanes == 1 && m.BulkInbound == 2 })

	with := func(change func(*PeerHello)) []byte {
		h := hello(2)
		h.Session, h.Target, h.ping = 99, 1, time.Second
		change(&h)
		return appendHello(nil, h)
	}
	for _, c := range []struct {
		name  string
		hello []byte
		want  string
	}{
		{"another node was meant", with(func(h *PeerHello) { h.Target = 3 }), "node 1 answers at the address of node 3"},
		{"a copy of the directory", with(func(h *PeerHello) {}), "copy of the other's data directory"},
		{"a later start", with(func(h *PeerHello) { h.Boot++ }), "start 7 of node 2 is registered and connected"},
		{"an older start", with(func(h *PeerHello) { h.Boot-- }), "boot epoch 7 of it is registered"},
		{"an impossible start", with(func(h *PeerHello) { h.Boot = math.MaxUint64 }), "no node has started so often"},
		{"another cluster", with(func(h *PeerHello) { h.ClusterID = "x" }), "cluster"},
		{"another release", with(func(h *PeerHello) { h.Versions = Versions{98, 99} }), "upgrade node 1"},
		{"no node", with(func(h *PeerHello) { h.Node = id.NoNode }), "node ids are 0 or larger"},
		{"a bulk lane of a later start", with(func(h *PeerHello) { h.Boot, h.Lane = 8, 1 }), "registered and connected"},
	} {
		if _, answer := dialRaw(t, s.Addr().String(), rpcLane, c.hello); !strings.Contains(answer, c.want) {
			t.Errorf("%s: %q, want %q", c.name, answer, c.want)
		}
	}
	if m := good.Metrics(); m.Breaks != 0 || m.Connects != 3 {
		t.Errorf("the good lanes: %+v", m)
	}
	if m := s.Metrics(); m.LanesRefused != 9 || m.ControlLanes != 1 || m.BulkInbound != 2 {
		t.Errorf("%+v", m)
	}
	if len(peer.opened) != 1 || len(peer.closed) != 0 {
		t.Errorf("%d opened, %d closed", len(peer.opened), len(peer.closed))
	}

	// The later start registers: now it is the node, and the lanes of the other one end.
	peer.register(2, 8)
	second := hello(2)
	second.Boot = 8
	up2 := newEdges()
	later := startPeers(t, PeerOptions{Self: second, Resolve: resolveTo(s.Addr()), Up: up2.up})
	defer later.Close()
	later.Reset(1)
	within(t, 5*time.Second, "up", up2.c)
	if e := within(t, 5*time.Second, "down", up.c); e != "down 1" {
		t.Error(e)
	}
	_ = good.Close()
}

// A restart whose predecessor is still believed to be connected gets its lanes as soon as that is found to be gone; the dialer tells who
// refused it in the meantime.
func TestRestartWaitsForItsPredecessor(t *testing.T) {
	defer leaktest.AfterTest(t)()
	peer := newTestPeer(hello(1), nil)
	peer.register(2, 7)
	s := startServer(t, ServerOptions{Services: Services{Peer: peer}})
	defer closeServer(t, s)
	old, _ := dialRaw(t, s.Addr().String(), rpcLane, helloTo(1, hello(2), 200*time.Millisecond)) // is silent from then on
	again := hello(2)
	again.Boot = 8
	up := newEdges()
	refused := make(chan string, 100)
	p := startPeers(t, PeerOptions{Self: again, Resolve: resolveTo(s.Addr()), Up: up.up, Refused: func(by id.Node, err error) {
		select {
		case refused <- fmt.Sprintf("%d: %v", by, err):
		default:
		}
	}})
	defer p.Close()
	p.Reset(1)
	if why := within(t, 5*time.Second, "a refusal", refused); !strings.Contains(why, "1: start 7 of node 2 is registered and connected") {
		t.Error(why)
	}
	within(t, 10*time.Second, "up", up.c)
	_ = old.Close()
}

// A node is looked for under its second address once the first has failed, and again under the first after that has worked.
func TestSecondAddress(t *testing.T) {
	defer leaktest.AfterTest(t)()
	s := startServer(t, ServerOptions{Services: Services{Peer: newTestPeer(hello(1), nil)}})
	defer closeServer(t, s)
	other := startServer(t, ServerOptions{Services: Services{Peer: newTestPeer(hello(3), nil)}}) // a new node at the old address
	defer closeServer(t, other)
	up := newEdges()
	p := startPeers(t, PeerOptions{Self: hello(2), Up: up.up, Resolve: func(id.Node) []string {
		return []string{other.Addr().String(), s.Addr().String()}
	}})
	defer p.Close()
	p.Reset(1)
	if e := within(t, 5*time.Second, "up", up.c); e != "up 1" {
		t.Error(e)
	}
	if m := other.Metrics(); m.LanesRefused == 0 || m.ControlLanes != 0 {
		t.Errorf("%+v", m)
	}
}
