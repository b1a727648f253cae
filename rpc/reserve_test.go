package rpc

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/rpc/auth"
	"github.com/quorumlog/quorumlog/rpc/auth/authtest"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// A server that is full of clients takes other nodes all the same, with TLS and without, while strangers knock; and it tells clients why not.
func TestNodesHaveRoomOfTheirOwn(t *testing.T) {
	const clients, peers, knocking = 3, 4, 50
	for _, secure := range []string{"plain", "tls"} {
		t.Run(secure, func(t *testing.T) {
			defer leaktest.AfterTest(t)()
			var log logBuffer
			peer := newTestPeer(hello(1), nil)
			peer.register(2, 7)
			o := ServerOptions{
				Node: 1, Logger: log.logger(), MaxConnections: clients, PeerConnections: peers, ClusterName: "prod", Services: Services{
					Admin: &adminServer{}, Peer: peer, Fetch: func(f *FetchStream) error { return f.Recv(func(FetchCommand) error { return nil }) },
				},
			}
			d, node := &Dialer{}, &Dialer{}
			if secure == "tls" {
				ca := authtest.New(t, "prod")
				o.TLS = authtest.Load(t, ca.Node(1)).Server(auth.CertificateRequired)
				d, node = clientDialer(authtest.Load(t, ca.Client("alice"))), nodeDialer(authtest.Load(t, ca.Node(2)))
			}
			d.Timeout = 5 * time.Second
			node.Timeout = 5 * time.Second
			defer d.Close()
			s := startServer(t, o)
			defer closeServer(t, s)
			addr := s.Addr().String()
			var leaked []*FetchConn
			for range clients {
				c, err := d.DialFetch(t.Context(), addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				leaked = append(leaked, c)
			}
			if _, err := d.DialFetch(t.Context(), addr); kerr.CodeOf(err) != kerr.BrokerNotAvailable || !strings.Contains(err.Error(), "as many as it may") {
				t.Errorf("one client more: %v", err)
			}
			for range knocking {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
			p := startPeers(t, PeerOptions{Self: hello(2), Resolve: resolveTo(s.Addr()), Dialer: node})
			defer p.Close()
			p.Reset(1)
			// Sooner than the strangers are given up: they make room.
			eventually(t, preludeTimeout-time.Second, "all lanes are open", func() bool { m := s.Metrics(); return m.ControlLanes == 1 && m.BulkInbound == 2 })
			eventually(t, 5*time.Second, "those that made room are gone", func() bool { return s.Metrics().Connections <= clients+peers })
			// A place that becomes free is a client's again, and what was evicted or proven is not counted twice.
			_ = leaked[0].Close()
			eventually(t, 10*time.Second, "a client is let in", func() bool {
				_, err := d.Admin(addr).Metadata(t.Context(), &pb.MetadataRequest{})
				return err == nil
			})
			_ = p.Close()
			eventually(t, 10*time.Second, "the lanes are gone", func() bool { return s.Metrics().ControlLanes == 0 })
			_, _, _ = leaked[1].Close(), leaked[2].Close(), d.Close()
			eventually(t, preludeTimeout+10*time.Second, "everybody is gone", func() bool { return s.Metrics().Connections == 0 })
			s.mu.Lock()
			defer s.mu.Unlock()
			if r := s.mu.reserve; r.peers != 0 || len(r.trial) != 0 || r.gone != 0 {
				t.Errorf("with nobody there, %+v", r)
			}
		})
	}
}
