package node_test

import (
	"crypto/tls"
	"encoding/base64"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/auth"
	"github.com/quorumlog/quorumlog/rpc/auth/authtest"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// dialerWith is a client's, or a stranger's, with a certificate of his.
func dialerWith(t *testing.T, f auth.Files) *rpc.Dialer {
	c := authtest.Load(t, f)
	d := &rpc.Dialer{TLS: func(address string, _ id.Node) *tls.Config { return c.Client(address) }, Timeout: 5 * time.Second}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func createTopic(t *testing.T, c *nodetest.Cluster, name string) {
	t.Helper()
	if _, err := c.Admin(0).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: name, Partitions: 3, ReplicationFactor: 3}); err != nil {
		t.Fatal(err)
	}
}

// A cluster with TLS forms, serves and restarts; its certificates are exchanged, authority included, while it does, and who has the old ones
// alone is out.
func TestClusterWithTLS(t *testing.T) {
	c := nodetest.Start(t, 3, nodetest.WithTLS())
	createTopic(t, c, "before")
	old := dialerWith(t, c.CA.Client("old"))
	if _, err := old.Admin(c.Nodes[0].RPCAddress()).Metadata(c.Context(), &pb.MetadataRequest{}); err != nil {
		t.Fatal(err)
	}
	lasting, err := old.DialProduce(c.Context(), c.Nodes[0].RPCAddress())
	if err != nil {
		t.Fatal(err)
	}
	defer lasting.Close()

	// A client whose files change as the nodes' do loses nothing meanwhile.
	mine := c.CA.Client("producer")
	cl, err := client.New(client.Options{Servers: c.Servers(), TLSFiles: client.TLSFiles(mine)})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	producer, err := cl.NewProducer(client.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	stop, produced := make(chan struct{}), make(chan error, 1)
	var acked atomic.Int64
	go func() {
		var failed atomic.Pointer[error]
		for {
			select {
			case <-stop:
				err := producer.Close(c.Context())
				if f := failed.Load(); f != nil {
					err = *f
				}
				produced <- err
				return
			case <-time.After(time.Millisecond):
			}
			err := producer.Produce(c.Context(), client.Record{Topic: "before", Value: []byte("x")}, func(a client.Ack) {
				if a.Err != nil {
					failed.CompareAndSwap(nil, &a.Err)
				}
				acked.Add(1)
			})
			if err != nil {
				failed.CompareAndSwap(nil, &err)
			}
		}
	}()
	more := func() {
		t.Helper()
		before := acked.Load()
		nodetest.Eventually(t, "more records to be acknowledged", func() bool { return acked.Load() > before+10 })
	}
	more()

	// As an operator would: first all believe both authorities, then they show certificates of the new one, then the old one is forgotten.
	next := authtest.New(t, c.Nodes[0].Options.ClusterName)
	reload := func() {
		t.Helper()
		for _, n := range c.Nodes {
			if err := n.Reload(); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, n := range c.Nodes {
		authtest.Join(t, n.Options.Security.TLS.CA, c.CA.File(), next.File())
	}
	authtest.Join(t, mine.CA, c.CA.File(), next.File())
	reload()
	more()
	fresh := next.Client("producer")
	fresh.CA = mine.CA
	c.CA.Replace(mine, fresh)
	for _, n := range c.Nodes {
		fresh := next.Node(n.Options.NodeID)
		fresh.CA = n.Options.Security.TLS.CA
		c.CA.Replace(n.Options.Security.TLS, fresh)
	}
	reload()
	more()
	createTopic(t, c, "between") // the test's own client believes the old authority; its connection is from before
	for _, n := range c.Nodes {
		authtest.Join(t, n.Options.Security.TLS.CA, next.File())
	}
	reload()
	select {
	case <-lasting.Done():
	case <-time.After(time.Minute):
		t.Error("the connection of a client that is not believed any more lives on")
	}
	more()
	close(stop)
	if err := <-produced; err != nil {
		t.Errorf("producing while certificates are exchanged: %v", err)
	}
	young := dialerWith(t, next.Client("young"))
	for i := range c.Nodes {
		c.StopNode(i)
		c.StartNode(i)
		c.AwaitReady(i)
	}
	nodetest.Eventually(t, "all nodes to answer all others", func() bool {
		status, err := young.Admin(c.Nodes[0].RPCAddress()).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
		if err != nil {
			return false
		}
		ready := 0
		for _, n := range status.GetNodes() {
			if n.GetState() == "ready" {
				ready++
			}
		}
		return ready == 3
	})
	if _, err := old.Admin(c.Nodes[0].RPCAddress()).Metadata(c.Context(), &pb.MetadataRequest{}); err == nil {
		t.Error("the client of the old authority is let in")
	}
}

// What a client says, with its certificate or without one, it cannot say in the name of a node.
func TestClientsAreNoNodes(t *testing.T) {
	c := nodetest.Start(t, 3, nodetest.WithTLS())
	register := &pb.RegisterNodeRequest{ClusterName: c.Nodes[0].Options.ClusterName, NodeId: 2, BootEpoch: 99, RpcAddress: "127.0.0.1:1", StoreId: "x"}
	for name, d := range map[string]*rpc.Dialer{"a client": dialerWith(t, c.Client), "node 3": dialerWith(t, c.CA.Node(3))} {
		for i := range c.Nodes {
			_, err := d.Admin(c.Nodes[i].RPCAddress()).RegisterNode(c.Context(), register)
			if kerr.CodeOf(err) != kerr.ClusterAuthorizationFailed {
				t.Errorf("%s registers node 2 at node %d: %v", name, i+1, err)
			}
		}
	}
}

// Whose certificate is another node's, another cluster's or another authority's does not start, and is told what he needs.
func TestStartWithWrongCertificates(t *testing.T) {
	t.Parallel()
	ca, foreign := authtest.New(t, "prod"), authtest.New(t, "prod")
	mixed := foreign.Node(1)
	mixed.CA = ca.File()
	unpaired := ca.Node(1)
	unpaired.Key = ca.Node(1).Key
	for name, c := range map[string]struct {
		files auth.Files
		want  string
	}{
		"of node 2":            {ca.Node(2), `is that of node 2 of cluster "prod", this is node 1`},
		"of another cluster":   {ca.NodeOf("staging", 1, time.Hour), `is that of node 1 of cluster "staging"`},
		"of a client":          {ca.Client("alice"), "is that of User:CN=alice"},
		"of another authority": {mixed, "signed by unknown authority"},
		"expired":              {ca.NodeOf("prod", 1, -time.Minute), "has expired"},
		"with another key":     {unpaired, "private key does not match"},
		"without its key":      {auth.Files{CA: ca.File(), Certificate: ca.Node(1).Certificate}, "--tls-key"},
		"that is not there":    {auth.Files{CA: ca.File(), Certificate: "/nonexistent", Key: "/nonexistent"}, "no such file"},
	} {
		o := nodetest.Options(t.TempDir(), 1, t.Output())
		o.ClusterName, o.Security.TLS = "prod", c.files
		if _, err := node.Start(t.Context(), o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("a certificate %s: %v, want %q", name, err, c.want)
		}
	}
}

// Without TLS a node listens for others only if it is told that the network is trusted, and has no permissions: whoever says that he is a node
// that passes a call on is not asked for them.
func TestPlaintextIsAChoice(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		set  func(*node.Options)
		want string
	}{
		{func(o *node.Options) { o.RPCAddress, o.AdvertisedAddress = "0.0.0.0:1", "host:1" }, "--allow-plaintext"},
		{func(o *node.Options) { o.RPCAddress, o.AdvertisedAddress = ":1", "host:1" }, "--tls-cert"},
		{func(o *node.Options) { o.RPCAddress, o.AdvertisedAddress = "[::]:1", "host:1" }, "--rpc-address"},
		{func(o *node.Options) { o.RPCAddress = "10.0.0.1:1" }, "--allow-plaintext"},
		{func(o *node.Options) { o.GossipAddress = "10.0.0.1:1" }, "--gossip-address"},
		{func(o *node.Options) { o.GossipAddress, o.Security.AllowPlaintext = "10.0.0.1:1", true }, ""},
		{func(o *node.Options) { o.RPCAddress, o.GossipAddress = "[::1]:1", "localhost:1" }, ""},
		{func(o *node.Options) { o.RPCAddress = "[::ffff:127.0.0.1]:1" }, ""},
		{func(o *node.Options) {
			o.RPCAddress, o.Security.TLS = "10.0.0.1:1", auth.Files{CA: "a", Certificate: "b", Key: "c"}
		}, ""},
		{func(o *node.Options) {
			o.Security.AllowPlaintext, o.Authorization.Authorizer = true, node.ACLAuthorizer
		}, "--authorizer acl without TLS"},
		{func(o *node.Options) {
			o.Security.TLS, o.Authorization.Authorizer = auth.Files{CA: "a", Certificate: "b", Key: "c"}, node.ACLAuthorizer
		}, ""},
	} {
		o := nodetest.Options(t.TempDir(), 1, t.Output())
		c.set(&o)
		if err := o.Validate(); c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("rpc %s, gossip %s: %v, want %q", o.RPCAddress, o.GossipAddress, err, c.want)
		}
	}
}

// The gossip key is exchanged step by step, without a restart. A node that has another one finds nobody.
func TestGossipKeyIsExchanged(t *testing.T) {
	c := nodetest.Start(t, 2, nodetest.WithTLS())
	file := c.Nodes[0].Options.Security.GossipKeyFile // of all nodes
	key := func(fill byte) string {
		return base64.StdEncoding.EncodeToString([]byte(strings.Repeat(string(fill), 32)))
	}
	zero := base64.StdEncoding.EncodeToString(make([]byte, 32))
	for _, keys := range [][]string{{zero, key('a')}, {key('a'), zero}, {key('a')}} {
		authtest.Write(t, file, []byte(strings.Join(keys, "\n")+"\n"))
		for _, n := range c.Nodes {
			if err := n.Reload(); err != nil {
				t.Fatal(err)
			}
		}
	}
	authtest.Write(t, file, []byte("what is not a key\n"))
	if err := c.Nodes[0].Reload(); err == nil || !strings.Contains(err.Error(), "base64") {
		t.Errorf("a file without keys: %v", err)
	}
	c.StopNode(1)
	own := file + ".of-node-2"
	authtest.Write(t, own, []byte(key('b')+"\n"))
	c.Nodes[1].Options.Security.GossipKeyFile = own
	c.StartNode(1)
	nodetest.Eventually(t, "it says that its key is another", func() bool { return strings.Contains(c.Log(), "has another gossip key") })
	authtest.Write(t, own, []byte(key('a')+"\n"))
	if err := c.Nodes[1].Reload(); err != nil {
		t.Fatal(err)
	}
	nodetest.Eventually(t, "gossip to find the other again", func() bool { return strings.Count(c.Log(), "gossip: node is up") >= 3 })
}

// Clients that never close their connections keep no node out: one that comes back gets its lanes, with TLS and without.
func TestLeakedConnectionsKeepNoNodeOut(t *testing.T) {
	for name, settings := range map[string][]nodetest.Setting{"plain": nil, "TLS": {nodetest.WithTLS()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := nodetest.Start(t, 3, append(settings, nodetest.WithOpenFiles(300))...)
			createTopic(t, c, "orders")
			dialer := &rpc.Dialer{}
			if c.CA != nil {
				dialer = dialerWith(t, c.Client)
			}
			dialer.Timeout = 20 * time.Second
			leaked := 0
			for i := range c.Nodes { // streams that live, until there is no room for more, and then silence
				for range 300 {
					s, err := dialer.DialFetch(c.Context(), c.Nodes[i].RPCAddress())
					if err != nil {
						if !strings.Contains(err.Error(), "as many as it may") {
							t.Errorf("a client is refused: %v", err)
						}
						break
					}
					t.Cleanup(func() { _ = s.Close() })
					leaked++
				}
				for range 20 {
					s, err := net.Dial("tcp", c.Nodes[i].RPCAddress())
					if err == nil {
						t.Cleanup(func() { _ = s.Close() })
					}
				}
			}
			t.Logf("%d streams of clients", leaked)
			c.StopNode(2)
			c.StartNode(2)
			c.AwaitReady(2)
		})
	}
}
