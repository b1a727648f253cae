package rpc

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lni/goutils/leaktest"
	"go.etcd.io/raft/v3/raftpb"
	"storj.io/drpc/drpcwire"

	"github.com/quorumlog/quorumlog/rpc/auth"
	"github.com/quorumlog/quorumlog/rpc/auth/authtest"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// callers notes who makes administrative calls.
type callers struct {
	adminServer
	seen chan *broker.Caller
}

func (c *callers) Metadata(ctx context.Context, r *pb.MetadataRequest) (*pb.MetadataResponse, error) {
	c.seen <- CallerOf(ctx)
	return c.adminServer.Metadata(ctx, r)
}

func (c *callers) Identify(ctx context.Context, _ *pb.IdentifyRequest) (*pb.IdentifyResponse, error) {
	c.seen <- CallerOf(ctx)
	return &pb.IdentifyResponse{}, nil
}

// securedServer is node 1 of cluster "prod" with all services.
func securedServer(t *testing.T, ca *authtest.CA, clients auth.Clients, log *logBuffer) (*Server, chan *broker.Caller) {
	seen := make(chan *broker.Caller, 100)
	return startServer(t, ServerOptions{
		Node: 1, Logger: log.logger(), TLS: authtest.Load(t, ca.Node(1)).Server(clients), ClusterName: "prod",
		Services: Services{
			Admin:   &callers{seen: seen},
			Peer:    newTestPeer(hello(1), nil),
			Produce: func(p *ProduceStream) error { seen <- p.Caller(); return serve(p, func(ProduceRequest) {}) },
			Fetch:   func(f *FetchStream) error { seen <- f.Caller(); return f.Recv(func(FetchCommand) error { return nil }) },
		},
	}), seen
}

func clientDialer(c *auth.Credentials) *Dialer {
	return &Dialer{ClientID: "test", TLS: func(addr string, _ id.Node) *tls.Config { return c.Client(addr) }}
}

func nodeDialer(c *auth.Credentials) *Dialer {
	return &Dialer{TLS: func(addr string, node id.Node) *tls.Config { return c.Node(addr, "prod", node) }}
}

// openLane opens a control lane to node target as the node of a hello, with the dialer's certificate.
func openLane(t *testing.T, d *Dialer, addr string, target_ id.Node, h PeerHello) error {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	d.Timeout = 5 * time.Second
	k, err := d.open(ctx, target{addr, target_}, rpcLane, helloTo(target_, h, time.Second), time.Minute, func([]byte) error { return nil })
	if err == nil {
		k.close()
		k.join()
	}
	return err
}

// Who shows a certificate is who it names, for all that he does; whoever shows none is nobody, where that is allowed.
func TestCallerIsTheCertificates(t *testing.T) {
	defer leaktest.AfterTest(t)()
	var log logBuffer
	ca := authtest.New(t, "prod")
	s, seen := securedServer(t, ca, auth.CertificateRequested, &log)
	defer closeServer(t, s)
	addr := s.Addr().String()
	for _, c := range []struct {
		files auth.Files
		want  broker.Caller
	}{
		{ca.Client("alice"), broker.Caller{Principal: broker.Principal{Type: "User", Name: "CN=alice"}, ClientID: "test", Node: id.NoNode}},
		{auth.Files{CA: ca.File()}, broker.Caller{Principal: broker.Anonymous, ClientID: "test", Node: id.NoNode}},
		{ca.Node(3), broker.Caller{Principal: broker.Principal{Type: "User", Name: "CN=node-3,O=prod"}, ClientID: "test", Peer: true, Node: 3}},
		{ca.NodeOf("other", 3, time.Hour), broker.Caller{Principal: broker.Principal{Type: "User", Name: "CN=node-3,O=other"}, ClientID: "test", Node: id.NoNode}},
	} {
		d := clientDialer(authtest.Load(t, c.files))
		check := func(what string) {
			t.Helper()
			got := within(t, 5*time.Second, what, seen)
			host := got.Host
			if c.want.Host = host; !host.IsLoopback() || *got != c.want {
				t.Errorf("%s is made by %+v, want %+v", what, got, c.want)
			}
		}
		if _, err := d.Admin(addr).Metadata(t.Context(), &pb.MetadataRequest{}); err != nil {
			t.Fatal(err)
		}
		check("an administrative call")
		p, err := d.DialProduce(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		check("a produce stream")
		f, err := d.DialFetch(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		check("a fetch stream")
		_, _, _ = p.Close(), f.Close(), d.Close()
	}
}

// A handshake that cannot succeed ends at once on both sides, and both say why.
func TestCertificatesThatAreRefused(t *testing.T) {
	defer leaktest.AfterTest(t)()
	ca, foreign := authtest.New(t, "prod"), authtest.New(t, "prod")
	foreignClient := foreign.Client("mallory")
	foreignClient.CA = ca.File()
	expired := expiredFiles(t, ca)
	for _, c := range []struct {
		name           string
		dialer         *Dialer
		client, server string
	}{
		{"no certificate", clientDialer(authtest.Load(t, auth.Files{CA: ca.File()})), "certificate required", "shows no certificate: clients need one"},
		{"another authority's", clientDialer(authtest.Load(t, foreignClient)), "unknown certificate authority", "signed by unknown authority"},
		{"expired", &Dialer{TLS: func(addr string, _ id.Node) *tls.Config { return expired(addr) }}, "expired certificate", "has expired"},
		{"a server of another authority", clientDialer(authtest.Load(t, foreign.Client("bob"))), "unknown authority", "does not believe this node's certificate"},
		{"no TLS", &Dialer{}, "this port speaks TLS", "does not look like a TLS handshake"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log logBuffer
			s, _ := securedServer(t, ca, auth.CertificateRequired, &log)
			defer closeServer(t, s)
			addr := s.Addr().String()
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			c.dialer.Timeout = 5 * time.Second
			defer c.dialer.Close()
			_, err := c.dialer.Admin(addr).Metadata(ctx, &pb.MetadataRequest{})
			if err == nil || !strings.Contains(err.Error(), c.client) {
				t.Errorf("a call: %v, want %q", err, c.client)
			}
			if _, err = c.dialer.DialProduce(ctx, addr); err == nil || !strings.Contains(err.Error(), c.client) {
				t.Errorf("a stream: %v, want %q", err, c.client)
			}
			eventually(t, 5*time.Second, "the server says why: "+c.server, func() bool { return strings.Contains(log.String(), c.server) })
			eventually(t, lingerTimeout+5*time.Second, "the connections are gone", func() bool { return s.Metrics().Connections == 0 })
		})
	}
}

// expiredFiles returns the configuration of a client whose certificate was valid until a moment ago: no file with such a one is taken.
func expiredFiles(t *testing.T, ca *authtest.CA) func(addr string) *tls.Config {
	f := ca.NodeOf("prod", 7, -time.Minute)
	pair, err := tls.LoadX509KeyPair(f.Certificate, f.Key)
	if err != nil {
		t.Fatal(err)
	}
	good := authtest.Load(t, auth.Files{CA: ca.File()})
	return func(addr string) *tls.Config {
		config := good.Client(addr)
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
		return config
	}
}

// A client with TLS says of a port without it what is wrong, and so does the port.
func TestTLSToAPlainPort(t *testing.T) {
	defer leaktest.AfterTest(t)()
	var log logBuffer
	s := everything(t, &log)
	defer closeServer(t, s)
	d := clientDialer(authtest.Load(t, auth.Files{CA: authtest.New(t, "prod").File()}))
	defer d.Close()
	d.Timeout = 5 * time.Second
	if _, err := d.Admin(s.Addr().String()).Metadata(t.Context(), &pb.MetadataRequest{}); err == nil || !strings.Contains(err.Error(), "without TLS") {
		t.Errorf("a call: %v", err)
	}
	eventually(t, 5*time.Second, "the log says it", func() bool { return strings.Contains(log.String(), "it is TLS, which this port does not speak") })
}

// Lanes are for nodes, each with its own certificate; the dialer sees to it that the node it means is there.
func TestLanesNeedTheNodesCertificate(t *testing.T) {
	defer leaktest.AfterTest(t)()
	var log logBuffer
	ca := authtest.New(t, "prod")
	s, _ := securedServer(t, ca, auth.CertificateRequested, &log)
	defer closeServer(t, s)
	addr := s.Addr().String()
	load := func(f auth.Files) *auth.Credentials { return authtest.Load(t, f) }
	for _, c := range []struct {
		name   string
		dialer *Dialer
		target id.Node
		node   id.Node
		want   string // "": it opens
	}{
		{"node 2 as node 2", nodeDialer(load(ca.Node(2))), 1, 2, ""},
		{"node 2 as node 3", nodeDialer(load(ca.Node(2))), 1, 3, `says that it is node 3 shows the certificate of node 2`},
		{"a client", nodeDialer(load(ca.Client("alice"))), 1, 2, "shows the certificate of User:CN=alice"},
		{"nobody", nodeDialer(load(auth.Files{CA: ca.File()})), 1, 2, "shows no certificate"},
		{"node 2 of another cluster", nodeDialer(load(ca.NodeOf("staging", 2, time.Hour))), 1, 2, `certificate of node 2 of cluster "staging"`},
		{"to node 4, where node 1 is", nodeDialer(load(ca.Node(2))), 4, 2, `the certificate there is that of node 1 of cluster "prod", and not that of node 4`},
	} {
		err := openLane(t, c.dialer, addr, c.target, hello(c.node))
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if m := s.Metrics(); m.LanesRefused != 4 {
		t.Errorf("%d lanes were refused, want 4", m.LanesRefused)
	}
}

// A client's certificate, even with the right host, is not that of a server.
func TestClientCertificateIsNoServers(t *testing.T) {
	ca := authtest.New(t, "prod")
	posing := authtest.Load(t, ca.Client("127.0.0.1"))
	s := startServer(t, ServerOptions{Node: 1, TLS: posing.Server(auth.CertificateRequested), ClusterName: "prod", Services: Services{Peer: newTestPeer(hello(1), nil)}})
	for name, d := range map[string]*Dialer{"client": clientDialer(authtest.Load(t, ca.Client("alice"))), "node": nodeDialer(authtest.Load(t, ca.Node(2)))} {
		if err := openLane(t, d, s.Addr().String(), 1, hello(2)); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Calls among nodes are refused to clients; what a node passes on is the call of whom it says, and a client cannot say so.
func TestCallsAmongNodes(t *testing.T) {
	var log logBuffer
	ca := authtest.New(t, "prod")
	s, seen := securedServer(t, ca, auth.CertificateRequired, &log)
	addr := s.Addr().String()
	client, node := clientDialer(authtest.Load(t, ca.Client("alice"))), nodeDialer(authtest.Load(t, ca.Node(2)))
	defer client.Close()
	defer node.Close()
	if _, err := client.Admin(addr).Identify(t.Context(), &pb.IdentifyRequest{}); kerr.CodeOf(err) != kerr.ClusterAuthorizationFailed {
		t.Errorf("a client makes a call of nodes: %v", err)
	}
	bob := &broker.Caller{Principal: broker.Principal{Type: "User", Name: "CN=bob"}, Node: id.NoNode}
	if _, err := client.Admin(addr).Metadata(PassOn(t.Context(), bob), &pb.MetadataRequest{}); kerr.CodeOf(err) != kerr.ClusterAuthorizationFailed {
		t.Errorf("a client passes a call on: %v", err)
	}
	if _, err := node.AdminOf(addr, 1).Identify(t.Context(), &pb.IdentifyRequest{}); err != nil {
		t.Error(err)
	} else if got := <-seen; !got.MayBe(2) || got.MayBe(3) {
		t.Errorf("node 2 is %+v", got)
	}
	if _, err := node.Admin(addr).Metadata(PassOn(t.Context(), bob), &pb.MetadataRequest{}); err != nil {
		t.Error(err)
	} else if got := <-seen; *got != *bob {
		t.Errorf("a call that is passed on for bob is made by %+v", got)
	}
	// Not marked as passed on, a call that a handler makes with the context of another is the node's own.
	if _, err := node.Admin(addr).Metadata(withMetadata(t.Context(), callerKey, `{"Peer":true}`), &pb.MetadataRequest{}); err != nil {
		t.Error(err)
	} else if got := <-seen; got.Node != 2 {
		t.Errorf("the node's own call is made by %+v", got)
	}
	if _, err := node.AdminOf(addr, 3).Metadata(t.Context(), &pb.MetadataRequest{}); err == nil || !strings.Contains(err.Error(), "not that of node 3") {
		t.Errorf("node 3 is called, and node 1 answers: %v", err)
	}
}

// A certificate that is exchanged is used by the next connection; those that are there live on.
func TestCertificatesAreExchanged(t *testing.T) {
	var log logBuffer
	ca, next := authtest.New(t, "prod"), authtest.New(t, "prod")
	files := ca.Node(1)
	credentials := authtest.Load(t, files)
	s := startServer(t, ServerOptions{
		Node: 1, Logger: log.logger(), TLS: credentials.Server(auth.CertificateRequired), ClusterName: "prod", Services: Services{
			Admin: &adminServer{}, Produce: func(p *ProduceStream) error {
				return serve(p, func(r ProduceRequest) { p.Send(ProduceResponse{Correlation: r.Correlation}) })
			},
		},
	})
	addr := s.Addr().String()
	before, after := clientDialer(authtest.Load(t, ca.Client("alice"))), clientDialer(authtest.Load(t, next.Client("alice")))
	defer before.Close()
	defer after.Close()
	answered := make(chan uint64, 1)
	stream, err := before.DialProduce(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	go func() { _ = stream.Recv(func(r ProduceResponse) { answered <- r.Correlation }) }()
	use := func(n uint64) {
		t.Helper()
		if err := errors.Join(stream.Send(ProduceRequest{Correlation: n, Batch: []byte("x")}), stream.Flush()); err != nil {
			t.Fatal(err)
		}
		if got := within(t, 5*time.Second, "an answer", answered); got != n {
			t.Errorf("answer to %d, want %d", got, n)
		}
	}
	use(1)
	if _, err := after.DialProduce(t.Context(), addr); err == nil {
		t.Error("the next authority is believed before it is there")
	}
	ca.Replace(files, next.Node(1))
	if changed, err := credentials.Reload(); !changed || err != nil {
		t.Fatal(changed, err)
	}
	use(2)
	c, err := after.DialProduce(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
	if _, err := before.DialProduce(t.Context(), addr); err == nil {
		t.Error("the authority of before is still believed")
	}
}

// All sizes arrive as they were written, whether one side writes much at once, little, or more than the socket takes.
func TestSecuredWrites(t *testing.T) {
	ca := authtest.New(t, "prod")
	l, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan *secured, 1)
	go func() {
		raw, err := l.Accept()
		if err == nil {
			s := secureServer(raw, authtest.Load(t, ca.Node(1)).Server(auth.CertificateRequired))
			_, _ = s.Read(nil) // shakes hands
			accepted <- s
		}
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	few := 16 << 10
	_ = raw.(*net.TCPConn).SetWriteBuffer(few)
	client, err := secureClient(t.Context(), raw, authtest.Load(t, ca.Node(2)).Node(l.Addr().String(), "prod", 1))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server := within(t, 5*time.Second, "a handshake", accepted)
	defer server.Close()
	var want bytes.Buffer
	var messages [][][]byte
	for _, sizes := range [][]int{{1}, {maxRecord}, {maxRecord - 1, 1, 1}, {24, 70_000, 24, 300_000}, {0, 5, 0}, {3 * maxRecord}, {100, maxRecord, 100}} {
		var pieces [][]byte
		for _, n := range sizes {
			p := make([]byte, n)
			_, _ = rand.Read(p)
			pieces = append(pieces, p)
			want.Write(p)
		}
		messages = append(messages, pieces)
	}
	small := make([]byte, 8<<10)
	_, _ = rand.Read(small)
	const tries = 200
	for range tries {
		want.Write(small)
	}
	total := want.Len()
	got := make(chan []byte, 1)
	start := make(chan struct{})
	go func() {
		<-start
		b := make([]byte, total)
		n, _ := io.ReadFull(server, b)
		got <- b[:n]
	}()
	failed := make(chan error, 1)
	go func() {
		for _, pieces := range messages {
			if err := client.writev(pieces); err != nil {
				failed <- err
				return
			}
		}
		kept := 0
		for range tries { // nobody reads faster than this writes: sooner or later the socket does not take all
			if err := client.tryWrite(small); err != nil {
				failed <- err
				return
			}
			if !client.below.whole() {
				kept++
				if err := client.writev(nil); err != nil { // as the framer completes
					failed <- err
					return
				}
			}
		}
		t.Logf("%d of %d small writes were not taken at once", kept, tries)
		failed <- nil
	}()
	close(start)
	if err := within(t, 20*time.Second, "the writes", failed); err != nil {
		t.Fatal(err)
	}
	if b := within(t, 20*time.Second, "the bytes", got); !bytes.Equal(b, want.Bytes()) {
		t.Errorf("%d bytes arrive, others than the %d that were written", len(b), total)
	}
}

// Lanes carry what they do, with TLS.
func TestLanesWithTLS(t *testing.T) {
	defer leaktest.AfterTest(t)()
	ca := authtest.New(t, "prod")
	got := make(chan stepped, 1000)
	s := startServer(t, ServerOptions{Node: 1, TLS: authtest.Load(t, ca.Node(1)).Server(auth.CertificateRequired), ClusterName: "prod",
		Services: Services{Peer: newTestPeer(hello(1), func(m stepped) { got <- m })}})
	defer closeServer(t, s)
	e := newEdges()
	p := startPeers(t, PeerOptions{Self: hello(2), Resolve: resolveTo(s.Addr()), Up: e.up, Down: e.down, Dialer: nodeDialer(authtest.Load(t, ca.Node(2)))})
	defer p.Close()
	p.Reset(1)
	if edge := within(t, 5*time.Second, "the lane", e.c); edge != "up 1" {
		t.Fatal(edge)
	}
	for i := range 200 { // small and large, heartbeats and appends
		m := &raftpb.Message{Type: new(raftpb.MsgHeartbeat), From: new(uint64(1)), To: new(uint64(2)), Term: new(uint64(i + 1))}
		p.Send(1, 5, m, nil)
		p.Flush()
		if m := within(t, 5*time.Second, "a message", got); m.m.GetTerm() != uint64(i+1) {
			t.Fatalf("message %d arrives as %v", i, m.m)
		}
	}
}

// Whoever has shaken hands before his authority was taken out, and calls only then, is not let in.
func TestUnbelievedBeforeTheFirstCall(t *testing.T) {
	defer leaktest.AfterTest(t)()
	var log logBuffer
	ca := authtest.New(t, "prod")
	s, seen := securedServer(t, ca, auth.CertificateRequired, &log)
	defer closeServer(t, s)
	addr := s.Addr().String()
	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := secureClient(t.Context(), raw, authtest.Load(t, ca.Client("alice")).Client(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	call := join(invoke("/quorumlog.Admin/Metadata"), wireFrame(drpcwire.KindMessage, 1, 2, nil), wireFrame(drpcwire.KindCloseSend, 1, 3, nil))
	if _, err := c.Write(call[:1]); err != nil {
		t.Fatal(err)
	}
	eventually(t, 5*time.Second, "the handshake is over", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		received := uint64(0)
		for c := range s.mu.conns {
			received += c.received.Load()
		}
		return received > 0
	})
	if n := s.CloseUnbelieved(func([]*x509.Certificate) error { return errors.New("no") }); n != 0 {
		t.Errorf("%d connections are closed", n)
	}
	_, _ = c.Write(call[1:])
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := c.Read(make([]byte, 100)); n > 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes of an answer, %v", n, err)
	}
	if len(seen) > 0 {
		t.Error("the call is made")
	}
}

// Closing a server does not wait for clients that do not read, one after the other.
func TestCloseDoesNotWaitForClients(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca := authtest.New(t, "prod")
		l := newPiped()
		s, err := NewServer(ServerOptions{
			Listener: l, TLS: authtest.Load(t, ca.Node(1)).Server(auth.CertificateRequired), ClusterName: "prod", Services: Services{Admin: &adminServer{}},
		})
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			near, far := net.Pipe()
			l.conns <- far
			defer near.Close()
			if err := tls.Client(near, authtest.Load(t, ca.Client("alice")).Client("127.0.0.1:1")).HandshakeContext(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		begun := time.Now()
		if err := s.Close(t.Context()); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took > 2*lingerTimeout {
			t.Errorf("it took %v", took)
		}
	})
}
