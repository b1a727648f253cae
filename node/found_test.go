package node_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/quorumlog/quorumlog/rpc/kerr"

	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/node/internal/simulated"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/rpc/rpctest"
)

// host is a node whose start may take as long as it likes.
type host struct {
	t       *testing.T
	options node.Options
	log     rpctest.Log

	cancel context.CancelFunc
	done   chan struct{} // closed when the start has returned
	node   *node.Node
	err    error
}

// hosts are n nodes that name each other in --join, none of which runs.
func hosts(t *testing.T, n int) []*host {
	t.Helper()
	dir := t.TempDir()
	all := make([]*host, n)
	for i := range all {
		h := &host{t: t}
		h.options = nodetest.Options(dir, i+1, &h.log)
		all[i] = h
		t.Cleanup(func() {
			h.stop()
			if t.Failed() {
				t.Logf("node %d:\n%s", h.options.NodeID, &h.log)
			}
		})
	}
	for i, h := range all {
		for j, other := range all {
			if i != j {
				h.options.Join = append(h.options.Join, other.options.GossipAddress)
			}
		}
	}
	return all
}

func (h *host) start() { h.startIn(context.Background()) }

func (h *host) startIn(ctx context.Context) {
	ctx, h.cancel = context.WithCancel(ctx)
	h.done, h.node, h.err = make(chan struct{}), nil, nil
	go func() {
		defer close(h.done)
		h.node, h.err = node.Start(ctx, h.options)
	}()
}

func (h *host) stop() {
	if h.done == nil {
		return
	}
	h.cancel()
	<-h.done
	if h.node != nil {
		if err := h.node.Stop(context.Background()); err != nil {
			h.t.Errorf("node %d does not stop: %v", h.options.NodeID, err)
		}
	}
	h.done, h.node = nil, nil
}

// wipe takes the disk away.
func (h *host) wipe() {
	h.t.Helper()
	if err := os.RemoveAll(h.options.DataDir); err != nil {
		h.t.Fatal(err)
	}
}

func (h *host) returned() bool {
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}

// clusterID waits until the node is ready and returns its cluster.
func (h *host) clusterID() string {
	h.t.Helper()
	nodetest.Eventually(h.t, "the start to return", h.returned)
	if h.err != nil {
		h.t.Fatalf("node %d does not start: %v", h.options.NodeID, h.err)
	}
	nodetest.Eventually(h.t, "the node to be ready", func() bool { return h.node.State() == node.Ready })
	return h.status().GetClusterId()
}

func (h *host) status() *pb.ClusterStatusResponse {
	h.t.Helper()
	status, err := h.admin().ClusterStatus(h.t.Context(), &pb.ClusterStatusRequest{})
	if err != nil {
		h.t.Fatal(err)
	}
	return status
}

func (h *host) admin() pb.DRPCAdminClient {
	d := &rpc.Dialer{}
	h.t.Cleanup(func() { _ = d.Close() })
	return d.Admin(h.node.RPCAddress())
}

// waits waits until the node has logged a line that has all of want, and none of not.
func (h *host) waits(want []string, not ...string) {
	h.t.Helper()
	nodetest.Eventually(h.t, "a line with "+strings.Join(want, " and "), func() bool {
	lines:
		for line := range strings.Lines(h.log.String()) {
			for _, w := range want {
				if !strings.Contains(line, w) {
					continue lines
				}
			}
			for _, n := range not {
				if strings.Contains(line, n) {
					continue lines
				}
			}
			return true
		}
		return false
	})
	if h.returned() {
		h.t.Fatalf("node %d does not wait: %v", h.options.NodeID, h.err)
	}
}

// TestFounderWaitsForAll has a founder hear of one of the two others. It waits for the other one, and then founds.
func TestFounderWaitsForAll(t *testing.T) {
	h := hosts(t, 3)
	h[0].options.Founding = node.Bootstrap
	h[0].start()
	h[0].waits([]string{"waiting for all nodes of --join", h[1].options.GossipAddress, h[2].options.GossipAddress})
	h[1].start()
	h[0].waits([]string{"waiting for all nodes of --join", h[2].options.GossipAddress}, h[1].options.GossipAddress)
	h[1].waits([]string{"waiting for a member of cluster"})
	h[2].start()
	first := h[0].clusterID()
	for _, other := range h[1:] {
		if id := other.clusterID(); id != first {
			t.Errorf("node %d is in cluster %s, node 1 in %s", other.options.NodeID, id, first)
		}
	}
}

// TestWipedFounderStartsFirst has the founder lose its disk while all nodes are down. Its unit file still says --bootstrap. Whether it starts
// first, or the others are up and it does not reach them, it must not found again: it waits until they answer, and learns that it is refused.
func TestWipedFounderStartsFirst(t *testing.T) {
	t.Parallel()
	h := hosts(t, 3)
	h[0].options.Founding = node.Bootstrap
	for _, x := range h {
		x.start()
	}
	first := h[0].clusterID()
	for _, x := range h {
		x.clusterID()
	}
	// Two must be able to go on without the founder, so both must know that they vote, and no change of the group is under way.
	h[0].says("promoted=\"[{")
	if _, err := h[0].admin().CreateTopic(t.Context(), &pb.CreateTopicRequest{Name: "t", Partitions: 1, ReplicationFactor: 3}); err != nil {
		t.Fatal(err)
	}
	for _, x := range h {
		nodetest.Eventually(t, "all to know what the founder led", func() bool { return x.status().GetTopics() == 1 })
	}
	for _, x := range h {
		x.stop()
	}
	h[0].wipe()
	h[0].start()
	h[0].waits([]string{"waiting for all nodes of --join", h[1].options.GossipAddress, h[2].options.GossipAddress})
	h[1].start()
	h[2].start()
	nodetest.Eventually(t, "the founder to be refused", h[0].returned)
	if h[0].err == nil || !strings.Contains(h[0].err.Error(), "unused node id") {
		t.Errorf("the wiped founder: %v", h[0].err)
	}
	for _, x := range h[1:] {
		if id := x.clusterID(); id != first {
			t.Errorf("node %d is in cluster %s, it was in %s", x.options.NodeID, id, first)
		}
	}
	// With another id it joins what is there.
	h[0].options.NodeID = 4
	h[0].wipe()
	h[0].start()
	if id := h[0].clusterID(); id != first {
		t.Errorf("it is in cluster %s, the others in %s", id, first)
	}
}

// TestManyFounders starts three nodes with one and the same command line, at once: one of them founds.
func TestManyFounders(t *testing.T) {
	h := hosts(t, 3)
	for _, x := range h {
		x.options.Founding = node.Bootstrap
		x.options.Join = []string{h[0].options.GossipAddress, h[1].options.GossipAddress, h[2].options.GossipAddress}
	}
	h[2].start()
	h[1].start()
	h[1].waits([]string{"waiting for all nodes of --join", h[0].options.GossipAddress}, h[2].options.GossipAddress)
	h[0].start()
	first := h[0].clusterID()
	for _, x := range h[1:] {
		if id := x.clusterID(); id != first {
			t.Errorf("node %d is in cluster %s, node 1 in %s", x.options.NodeID, id, first)
		}
		if strings.Contains(x.log.String(), "founding a cluster") {
			t.Errorf("node %d founds, too", x.options.NodeID)
		}
	}
}

// TestFormat founds with one node: once.
func TestFormat(t *testing.T) {
	h := hosts(t, 1)[0]
	h.options.Founding = node.Bootstrap // what it says is asked of nobody, so it founds nothing
	h.start()
	nodetest.Eventually(t, "the start to return", h.returned)
	if h.err == nil || !strings.Contains(h.err.Error(), "quorumlog format") {
		t.Fatalf("without others: %v", h.err)
	}
	made, err := node.Format(t.Context(), h.options)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := node.Format(t.Context(), h.options); !errors.Is(err, node.ErrFormatted) {
		t.Errorf("the second time: %v", err)
	}
	for range 2 {
		h.start()
		if id := h.clusterID(); id != made {
			t.Errorf("it is in cluster %s, formatted for %s", id, made)
		}
		h.stop()
	}
	if _, err := node.Format(t.Context(), h.options); !errors.Is(err, node.ErrFormatted) {
		t.Errorf("after a start: %v", err)
	}
}

// TestBusyPortsBurnNoID has nodes fail to get a port. The cluster must not have heard of them: the id is free.
func TestBusyPortsBurnNoID(t *testing.T) {
	c := nodetest.Start(t, 1)
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	dir := t.TempDir()
	for _, set := range []func(*node.Options){
		func(o *node.Options) { o.RPCAddress = busy.Addr().String() },
		func(o *node.Options) { o.GossipAddress = busy.Addr().String() },
		func(o *node.Options) { o.MetricsAddress = busy.Addr().String() },
	} {
		o := nodetest.Options(dir, 2, io.Discard)
		o.DataDir = t.TempDir()
		o.ClusterName, o.Join = c.Nodes[0].Options.ClusterName, []string{c.Nodes[0].GossipAddress()}
		set(&o)
		if _, err := node.Start(c.Context(), o); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Fatalf("got %v", err)
		}
		status, err := c.Admin(0).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
		if err != nil || len(status.GetNodes()) != 1 {
			t.Fatalf("%d nodes, %v", len(status.GetNodes()), err)
		}
	}
}

// forwarder is a port behind which a node is, or is not: a firewall.
type forwarder struct {
	t       *testing.T
	address string
	to      string

	listener net.Listener
	mu       sync.Mutex
	conns    []net.Conn
	work     sync.WaitGroup
}

func newForwarder(t *testing.T, to string) *forwarder {
	f := &forwarder{t: t, address: rpctest.FreeAddress(), to: to}
	t.Cleanup(f.shut)
	return f
}

func (f *forwarder) open() {
	f.t.Helper()
	var err error
	if f.listener, err = net.Listen("tcp", f.address); err != nil {
		f.t.Fatal(err)
	}
	listener := f.listener // shut may be first
	f.work.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", f.to)
			if err != nil {
				_ = in.Close()
				continue
			}
			f.mu.Lock()
			f.conns = append(f.conns, in, out)
			f.mu.Unlock()
			for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
				f.work.Go(func() {
					_, _ = io.Copy(way[0], way[1])
					_ = way[0].Close()
				})
			}
		}
	})
}

func (f *forwarder) shut() {
	if f.listener == nil {
		return
	}
	_ = f.listener.Close()
	f.listener = nil
	f.mu.Lock()
	for _, c := range f.conns {
		_ = c.Close()
	}
	f.conns = nil
	f.mu.Unlock()
	f.work.Wait()
}

// TestUnreachedNode has a node advertise an address under which nobody reaches it. It gets no place, and no id is used up, until the port is
// opened; and when that happens to a member, the member gets no replicas, and says so.
func TestUnreachedNode(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1)
	h := hosts(t, 1)[0]
	h.options.NodeID = 2
	h.options.ClusterName, h.options.Join = c.Nodes[0].Options.ClusterName, []string{c.Nodes[0].GossipAddress()}
	port := newForwarder(t, h.options.RPCAddress)
	h.options.AdvertisedAddress = port.address
	h.start()
	h.waits([]string{"node 1 cannot reach node 2", port.address, "--advertised-address"})
	nodes := func() int {
		status, err := c.Admin(0).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return len(status.GetNodes())
	}
	if n := nodes(); n != 1 {
		t.Errorf("%d nodes are registered, one of them is not reached", n)
	}
	port.open()
	h.clusterID()
	if n := nodes(); n != 2 {
		t.Errorf("%d nodes are registered", n)
	}
	h.stop()
	port.shut()
	h.start()
	nodetest.Eventually(t, "the start to return", h.returned)
	if h.err != nil {
		t.Fatal(h.err)
	}
	nodetest.Eventually(t, "the node to know that it is not reached", func() bool {
		for _, n := range h.status().GetNodes() {
			if n.GetNode().GetId() == 2 {
				return strings.Contains(n.GetErrorMessage(), "cannot reach node 2")
			}
		}
		return false
	})
	if lines := strings.Count(h.log.String(), "the others do not reach this node"); lines != 1 {
		t.Errorf("it says so %d times", lines)
	}
	create := func() error {
		_, err := c.Admin(0).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: "t", Partitions: 1, ReplicationFactor: 2, TimeoutMs: 5000})
		return err
	}
	if err := create(); kerr.CodeOf(err) != kerr.InvalidReplicationFactor {
		t.Errorf("a replica for a node that is not reached: %v", err)
	}
	port.open()
	h.says("the others reach this node now")
	if err := create(); err != nil {
		t.Error(err)
	}
}

// says waits until the node, which runs, has logged a line.
func (h *host) says(want string) {
	h.t.Helper()
	nodetest.Eventually(h.t, "a line with "+want, func() bool { return strings.Contains(h.log.String(), want) })
}

// TestStrangersAddressIsNoAddress registers addresses that are none, as another release or a stranger might.
func TestStrangersAddressIsNoAddress(t *testing.T) {
	c := nodetest.Start(t, 1)
	for _, address := range []string{"", "abc", "host:0", "host:99999", "0.0.0.0:1", "[::]:1", ":1", "a b:1", "[::ffff:0.0.0.0]:1", strings.Repeat("a", 300) + ":1"} {
		_, err := c.Admin(0).RegisterNode(c.Context(), &pb.RegisterNodeRequest{
			NodeId: 2, StoreId: "s", BootEpoch: 1, RpcAddress: address, GossipAddress: "127.0.0.1:1", Protocol: uint32(rpc.Protocol),
		})
		if kerr.CodeOf(err) != kerr.InvalidRequest {
			t.Errorf("%q: %v", address, err)
		}
	}
	// The address of another node is one, and the wrong one.
	_, err := c.Admin(0).RegisterNode(c.Context(), &pb.RegisterNodeRequest{
		NodeId: 2, StoreId: "s", BootEpoch: 1, RpcAddress: c.Nodes[0].RPCAddress(), GossipAddress: "127.0.0.1:1", Protocol: uint32(rpc.Protocol),
		MinFeatureLevel: 1, MaxFeatureLevel: 1,
	})
	if kerr.CodeOf(err) != kerr.PolicyViolation || !strings.Contains(err.Error(), "finds node 1") {
		t.Errorf("the address of node 1: %v", err)
	}
}

// TestNameThatResolvesLate starts a node before its name is known. It waits, and says for what.
func TestNameThatResolvesLate(t *testing.T) {
	h := hosts(t, 1)[0]
	if _, err := node.Format(t.Context(), h.options); err != nil {
		t.Fatal(err)
	}
	late := func(address string) string {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		return "late.test:" + port
	}
	h.options.RPCAddress, h.options.GossipAddress, h.options.MetricsAddress = late(h.options.RPCAddress), late(h.options.GossipAddress), "late.test:0"
	var known atomic.Bool
	h.startIn(simulated.WithResolver(context.Background(), func(_ context.Context, host string) ([]netip.Addr, error) {
		if host != "late.test" || !known.Load() {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return []netip.Addr{netip.MustParseAddr("::1"), netip.MustParseAddr("127.0.0.1")}, nil
	}))
	h.waits([]string{"waiting for a name to resolve", "late.test", "--rpc-address"})
	known.Store(true)
	h.clusterID()
	if lines := strings.Count(h.log.String(), "waiting for a name"); lines != 1 {
		t.Errorf("it says so %d times", lines)
	}
}

// TestRemoveNode takes a node out of a cluster of three: not while it is alive, not while it holds replicas. Its vote goes with it; its old
// data is refused for good, and an empty directory and another id make it a new node.
func TestRemoveNode(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 3)
	voters := func(n int) {
		t.Helper()
		nodetest.Eventually(t, "the voters", func() bool {
			status, err := c.Admin(0).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
			return err == nil && len(status.GetMetadata().GetVoters()) == n
		})
	}
	remove := func(from int, n int32) error {
		_, err := c.Admin(from).UnregisterNode(c.Context(), &pb.UnregisterNodeRequest{NodeId: n})
		return err
	}
	voters(3)
	if err := remove(1, 3); kerr.CodeOf(err) != kerr.PolicyViolation || !strings.Contains(err.Error(), "alive") {
		t.Errorf("alive: %v", err)
	}
	if err := remove(1, 9); kerr.CodeOf(err) != kerr.BrokerIDNotRegistered {
		t.Errorf("unknown: %v", err)
	}
	if _, err := c.Admin(0).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: "t", Partitions: 2, ReplicationFactor: 3}); err != nil {
		t.Fatal(err)
	}
	c.StopNode(2)
	if err := remove(1, 3); kerr.CodeOf(err) != kerr.PolicyViolation || !strings.Contains(err.Error(), "holds 2 replicas") {
		t.Errorf("with replicas: %v", err)
	}
	if _, err := c.Admin(1).DeleteTopic(c.Context(), &pb.DeleteTopicRequest{Name: "t"}); err != nil {
		t.Fatal(err)
	}
	nodetest.Eventually(t, "the gossip to miss the node", func() bool {
		err := remove(1, 3)
		if err != nil && !strings.Contains(err.Error(), "alive") {
			t.Fatal(err)
		}
		return err == nil
	})
	voters(2)
	c.StartNode(2)
	select {
	case err := <-c.Nodes[2].Fatal():
		if !strings.Contains(err.Error(), "node 3") || !strings.Contains(err.Error(), "removed") {
			t.Errorf("with its old data: %v", err)
		}
	case <-c.Context().Done():
		t.Fatal("a removed node goes on with its old data")
	}
	c.StopNode(2)
	c.Nodes[2].Options.DataDir, c.Nodes[2].Options.NodeID = filepath.Join(t.TempDir(), "new"), 4
	c.StartNode(2)
	c.AwaitReady(2)
	voters(3)
}
