package membership

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/wal/id"
)

// recorder is a slog.Handler that calls a function with each record of level Info and above.
type recorder struct{ record func(slog.Record) }

func (recorder) Enabled(_ context.Context, l slog.Level) bool         { return l >= slog.LevelInfo }
func (r recorder) Handle(_ context.Context, record slog.Record) error { r.record(record); return nil }
func (r recorder) WithAttrs([]slog.Attr) slog.Handler                 { return r }
func (r recorder) WithGroup(string) slog.Handler                      { return r }

// peer is a Membership under test, with what it said.
type peer struct {
	*Membership
	mu     sync.Mutex
	events []Event
	lines  []string
}

func (p *peer) logged(part string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, l := range p.lines {
		if strings.Contains(l, part) {
			n++
		}
	}
	return n
}

// saw counts events of a kind about a node.
func (p *peer) saw(kind Kind, node id.Node) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, e := range p.events {
		if e.Kind == kind && e.Node == node {
			n++
		}
	}
	return n
}

func (p *peer) duplicate() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range p.events {
		if e.Err != nil {
			return e.Err
		}
	}
	return nil
}

func self(node id.Node, boot uint64) Self {
	return Self{Node: node, Boot: boot, StoreID: fmt.Sprintf("store-%d", node), ClusterID: "c-1", RPCAddress: fmt.Sprintf("127.0.0.1:%d", 9000+node)}
}

func launch(t *testing.T, s Self, change func(*Options)) *peer {
	t.Helper()
	p := &peer{}
	o := Options{
		Cluster: "test", Self: s, BindAddress: "127.0.0.1:0", Profile: Test,
		OnChange: func(e Event) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.events = append(p.events, e)
		},
		Logger: slog.New(recorder{func(r slog.Record) {
			line := r.Message
			r.Attrs(func(a slog.Attr) bool { line += " " + a.String(); return true })
			p.mu.Lock()
			defer p.mu.Unlock()
			p.lines = append(p.lines, line)
		}}),
	}
	if change != nil {
		change(&o)
	}
	m, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	p.Membership = m
	t.Cleanup(func() { m.Close() })
	return p
}

func seeds(of ...*peer) func(*Options) {
	return func(o *Options) {
		for _, p := range of {
			o.Seeds = append(o.Seeds, p.Address())
		}
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.NewTimer(15 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within 15 s: %s", what)
		}
	}
}

func (p *peer) sees(nodes ...id.Node) func() bool {
	return func() bool {
		var got []id.Node
		for _, m := range p.Members() {
			got = append(got, m.Node)
		}
		return slices.Equal(got, nodes)
	}
}

// checkLeaks comes before the first launch: cleanups run last to first, so it looks after everything was closed.
func checkLeaks(t *testing.T) {
	check := leaktest.AfterTest(t)
	t.Cleanup(check)
}

func TestLifeOfACluster(t *testing.T) {
	checkLeaks(t)
	one := launch(t, self(1, 1), nil)
	two := launch(t, self(2, 1), seeds(one))
	three := launch(t, self(3, 1), seeds(one))
	eventually(t, "all see all", func() bool { return one.sees(2, 3)() && two.sees(1, 3)() && three.sees(1, 2)() })
	if m, ok := two.Member(3); !ok || m.Self != self(3, 1) || m.GossipAddress != three.Address() {
		t.Errorf("node 3 as node 2 sees it: %+v", m)
	}
	if _, ok := two.Member(2); ok {
		t.Error("a node is not among its own members")
	}

	if err := three.SetClusterID("c-2"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the new cluster id is seen", func() bool {
		m, _ := one.Member(3)
		n, _ := two.Member(3)
		return m.ClusterID == "c-2" && n.ClusterID == "c-2"
	})
	if one.saw(Updated, 3) != 1 {
		t.Errorf("%d updates", one.saw(Updated, 3))
	}

	if err := three.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "node 3 left", func() bool { return one.sees(2)() && two.sees(1)() })

	two.Abort()
	eventually(t, "node 2 crashed", one.sees())

	again := launch(t, self(2, 2), seeds(one)) // on another port
	eventually(t, "node 2 is back", func() bool { return one.sees(2)() && again.sees(1)() })
	if one.saw(Up, 2) != 2 || one.saw(Down, 2) != 1 || one.duplicate() != nil {
		t.Errorf("events at node 1: %+v", one.events)
	}
}

// A restart is seen at once, also when nobody has noticed yet that the node was away.
func TestQuickRestart(t *testing.T) {
	checkLeaks(t)
	one := launch(t, self(1, 1), nil)
	two := launch(t, self(2, 1), seeds(one))
	eventually(t, "joined", func() bool { return one.sees(2)() && two.sees(1)() })
	address := two.Address()
	two.Abort()
	again := launch(t, self(2, 2), func(o *Options) { seeds(one)(o); o.BindAddress = address })
	eventually(t, "the new start is seen", func() bool { m, _ := one.Member(2); return m.Boot == 2 && again.sees(1)() })
	eventually(t, "as a death and a birth", func() bool { return one.saw(Down, 2) == 1 && one.saw(Up, 2) == 2 })
	if again.duplicate() != nil || one.duplicate() != nil {
		t.Errorf("duplicates: %v, %v", one.duplicate(), again.duplicate())
	}
}

// Two halves that have forgotten each other find together through the addresses that the metadata knows.
func TestRejoinThroughKnown(t *testing.T) {
	checkLeaks(t)
	var mu sync.Mutex
	var known []string
	one := launch(t, self(1, 1), func(o *Options) {
		o.Known = func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(known)
		}
	})
	two := launch(t, self(2, 1), nil)
	mu.Lock()
	known = []string{"127.0.0.1:1", "not an address", two.Address(), one.Address()}
	mu.Unlock()
	eventually(t, "both see each other", func() bool { return one.sees(2)() && two.sees(1)() })
}

func TestSeedByName(t *testing.T) {
	checkLeaks(t)
	one := launch(t, self(1, 1), nil)
	_, port, _ := net.SplitHostPort(one.Address())
	two := launch(t, self(2, 1), func(o *Options) { o.Seeds = []string{"localhost:" + port} })
	eventually(t, "joined", func() bool { return one.sees(2)() && two.sees(1)() })
}

func TestAnotherCluster(t *testing.T) {
	checkLeaks(t)
	one := launch(t, self(1, 1), nil)
	other := launch(t, self(2, 1), func(o *Options) { seeds(one)(o); o.Cluster = "elsewhere" })
	want := fmt.Sprintf(`%s belongs to cluster "test", this node to cluster "elsewhere": correct the cluster name`, one.Address())
	eventually(t, "the newcomer says why", func() bool { return other.logged(want) > 0 })
	eventually(t, "the other side says so", func() bool { return one.logged(`what=gossip of cluster "elsewhere"`) > 0 })
	if n := len(one.Members()) + len(other.Members()); n != 0 {
		t.Errorf("%d members", n)
	}
	var wrong *WrongClusterError
	if err := other.join(one.Address()); !errors.As(err, &wrong) || wrong.Theirs != "test" || wrong.Ours != "elsewhere" {
		t.Errorf("got %v", err)
	}
	if n := other.logged("belongs to cluster"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestLooked: once a node has looked, it knows whom its seed knows, its own earlier starts included.
func TestLooked(t *testing.T) {
	checkLeaks(t)
	looked := func(p *peer) func() bool {
		return func() bool {
			select {
			case <-p.Looked():
				return true
			default:
				return false
			}
		}
	}
	one := launch(t, self(1, 1), nil)
	eventually(t, "a node without seeds has looked", looked(one))
	two := launch(t, self(2, 1), seeds(one))
	eventually(t, "joined", one.sees(2))
	later := launch(t, self(2, 2), seeds(one))
	eventually(t, "the newcomer has looked", looked(later))
	if m := later.Members(); len(m) != 1 || m[0].Node != 1 {
		t.Errorf("members are %v", m)
	}
	if f := later.Former(); len(f) != 1 || f[0].GossipAddress != two.Address() || f[0].Boot != 1 {
		t.Errorf("former starts are %v", f)
	}
	if err := two.Close(); err != nil {
		t.Error(err)
	}
	eventually(t, "the former start is gone", func() bool { return len(later.Former()) == 0 })
	stranger := launch(t, self(3, 1), func(o *Options) { seeds(one)(o); o.Cluster = "elsewhere" })
	eventually(t, "the stranger has looked", looked(stranger))
	if err := stranger.Foreign(); err == nil || later.Foreign() != nil {
		t.Errorf("refused: %v, %v", err, later.Foreign())
	}
	dead := launch(t, self(4, 1), func(o *Options) { o.Seeds = []string{"127.0.0.1:1"} })
	eventually(t, "a node whose seed is dead has looked", looked(dead))
}

func TestEncryption(t *testing.T) {
	checkLeaks(t)
	key := func(k string) func(*Options) { return func(o *Options) { o.Keys = [][]byte{[]byte(k)} } }
	one := launch(t, self(1, 1), key("0123456789abcdef"))
	two := launch(t, self(2, 1), func(o *Options) { seeds(one)(o); key("0123456789abcdef")(o) })
	eventually(t, "joined with the key", func() bool { return one.sees(2)() && two.sees(1)() })
	for node, change := range map[id.Node]func(*Options){3: key("fedcba9876543210"), 4: func(*Options) {}} {
		stranger := launch(t, self(node, 1), func(o *Options) { seeds(one)(o); change(o) })
		eventually(t, "it says that it cannot join", func() bool { return stranger.logged("has another gossip key than this node") > 0 })
		if n := len(stranger.Members()); n != 0 {
			t.Errorf("node %d has %d members", node, n)
		}
	}
	if _, err := Start(Options{Cluster: "c", Keys: [][]byte{make([]byte, 17)}, BindAddress: "127.0.0.1:0"}); err == nil || !strings.Contains(err.Error(), "17 bytes: it must have 16, 24 or 32") {
		t.Errorf("got %v", err)
	}
}

func TestDuplicateNodeID(t *testing.T) {
	for name, second := range map[string]Self{
		"another store, later boot": {Node: 2, Boot: 5, StoreID: "b", RPCAddress: "127.0.0.1:8888"},
		"another store, same boot":  {Node: 2, Boot: 1, StoreID: "b", RPCAddress: "127.0.0.1:8888"},
		"a copied directory":        {Node: 2, Boot: 1, StoreID: "store-2", RPCAddress: "127.0.0.1:8888"},
	} {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			one := launch(t, self(1, 1), nil)
			two := launch(t, self(2, 1), seeds(one))
			eventually(t, "joined", func() bool { return one.sees(2)() && two.sees(1)() })
			twin := launch(t, second, seeds(one))
			for _, p := range []*peer{one, two, twin} {
				eventually(t, fmt.Sprintf("node %d reports it", p.options.Self.Node), func() bool { return p.duplicate() != nil })
				text := p.duplicate().Error()
				if !strings.Contains(text, "node id 2 is in use twice") || !strings.Contains(text, "127.0.0.1:9002") || !strings.Contains(text, "127.0.0.1:8888") {
					t.Errorf("it says %s", text)
				}
			}
			if m, _ := one.Member(2); m.RPCAddress != "127.0.0.1:9002" {
				t.Errorf("node 2 is now at %s", m.RPCAddress)
			}
		})
	}
}

// What a member says that cannot be is dropped and counted, and stands in nobody's way.
func TestImplausibleMember(t *testing.T) {
	checkLeaks(t)
	one := launch(t, self(1, 1), func(o *Options) { o.Plausible = func(s Self) bool { return s.Boot <= 100 } })
	forged := self(2, math.MaxUint64)
	forged.RPCAddress = "127.0.0.1:6666"
	launch(t, forged, seeds(one))
	eventually(t, "the forged member is dropped", func() bool { return one.Implausible() > 0 })
	two := launch(t, self(2, 5), seeds(one))
	eventually(t, "node 2 is seen", func() bool {
		m, _ := one.Member(2)
		return m.Boot == 5 && m.RPCAddress == "127.0.0.1:9002" && two.sees(1)()
	})
	if one.saw(Up, 2) != 1 || one.duplicate() != nil {
		t.Errorf("%d times up, %v", one.saw(Up, 2), one.duplicate())
	}
}

// Whoever is not of the cluster gets a closed connection and at most a line in the log, whatever he sends and however often.
func TestGarbage(t *testing.T) {
	checkLeaks(t)
	one := launch(t, self(1, 1), nil)
	two := launch(t, self(2, 1), seeds(one))
	eventually(t, "joined", func() bool { return one.sees(2)() && two.sees(1)() })

	big := make([]byte, 60_000)
	garbage := [][]byte{
		[]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), {0x40, 0, 0, 0}, {0x7f, 0xff, 0xff, 0xff}, {msgLabel, 255}, {msgLabel, 0}, big,
		append(appendLabel(nil, "test"), 9, 1, 2, 3), append(appendLabel(nil, "other"), msgPing),
		append(append(appendLabel(nil, "test"), msgPushPull, 0x83, 0xa5), "Nodes\xce\x00\x0f\xff\xff"...),
		append(appendLabel(nil, "test"), msgPing, 0xde, 0xff, 0xff), append(appendLabel(nil, "test"), msgAlive, 0xdf, 0xff, 0xff, 0xff, 0xff),
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)

	udp, err := net.Dial("udp", one.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	for i := range 20_000 {
		udp.Write(garbage[i%len(garbage)])
	}
	var conns []net.Conn
	for i := range 300 {
		conn, err := net.Dial("tcp", one.Address())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if i%3 > 0 { // every third one stays silent
			conn.Write(garbage[i%len(garbage)])
		}
		conns = append(conns, conn)
	}
	// A node gets in while all those connections are open.
	three := launch(t, self(3, 1), seeds(one))
	eventually(t, "a third node joined", func() bool { return one.sees(2, 3)() && three.sees(1, 2)() })

	begin := time.Now()
	for _, conn := range conns {
		conn.SetReadDeadline(begin.Add(10 * time.Second))
		for {
			if _, err := conn.Read(make([]byte, 100)); err != nil {
				if errors.As(err, new(net.Error)) && err.(net.Error).Timeout() {
					t.Fatal("a connection is still open after 10 s")
				}
				break
			}
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 8<<20 {
		t.Errorf("heap grew by %d bytes", grown)
	}
	total := after.TotalAlloc - before.TotalAlloc
	if total > 100<<20 {
		t.Errorf("%d bytes were allocated for garbage", total)
	}
	one.mu.Lock()
	lines := slices.Clone(one.lines)
	one.mu.Unlock()
	t.Logf("%d bytes allocated, %d lines:\n%s", total, len(lines), strings.Join(lines, "\n"))
	if len(lines) > 25 {
		t.Errorf("%d lines of log: %s", len(lines), strings.Join(lines, "\n"))
	}
	if !two.sees(1, 3)() || one.saw(Down, 2) > 0 || one.saw(Down, 3) > 0 {
		t.Errorf("service did not go on: %+v", one.events)
	}
}

func TestPortInUse(t *testing.T) {
	checkLeaks(t)
	one := launch(t, self(1, 1), nil)
	_, err := Start(Options{Cluster: "test", Self: self(2, 1), BindAddress: one.Address()})
	if err == nil || !strings.Contains(err.Error(), one.Address()+" is in use") {
		t.Errorf("got %v", err)
	}
}

func TestAddresses(t *testing.T) {
	checkLeaks(t)
	for _, tc := range []struct{ bind, advertise, want string }{
		{"0.0.0.0:0", "", "set an advertised address"},
		{"localhost:0", "", "is not an IP address and a port"},
		{"127.0.0.1", "", "is not an IP address and a port"},
		{"192.0.2.1:0", "", "cannot listen on gossip address 192.0.2.1:0"},
		{"127.0.0.1:0", "no such host:1", "cannot resolve the advertised address"},
	} {
		_, err := Start(Options{Cluster: "c", Self: self(1, 1), BindAddress: tc.bind, AdvertiseAddress: tc.advertise})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s advertised as %q: got %v", tc.bind, tc.advertise, err)
		}
	}
	one := launch(t, self(1, 1), func(o *Options) { o.BindAddress, o.AdvertiseAddress = "0.0.0.0:0", "127.0.0.1" })
	two := launch(t, self(2, 1), func(o *Options) { seeds(one)(o); o.BindAddress, o.AdvertiseAddress = "[::]:0", "localhost" })
	eventually(t, "joined", func() bool { return one.sees(2)() && two.sees(1)() })
}

func TestOptions(t *testing.T) {
	for want, o := range map[string]Options{
		"has no name":        {},
		"300 bytes":          {Cluster: strings.Repeat("c", 300)},
		"is not a node id":   {Cluster: "c", Self: Self{Node: -1}},
		"can be gossiped":    {Cluster: "c", Self: Self{Rack: strings.Repeat("r", 300)}},
		"at most 383 can be": {Cluster: "c", Self: Self{Rack: strings.Repeat("r", 200), RPCAddress: strings.Repeat("h", 200)}},
	} {
		if _, err := Start(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestCloseTwice(t *testing.T) {
	checkLeaks(t)
	one := launch(t, self(1, 1), func(o *Options) { o.Seeds = []string{"192.0.2.1:7946"} }) // an address that never answers
	if err := errors.Join(one.Close(), one.Close(), one.Abort()); err != nil {
		t.Error(err)
	}
}
