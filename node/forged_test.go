package node_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/rpc/rpctest"
)

// registrationOf is a registration of a running node as anybody can make it up: each node tells everybody who it is.
func registrationOf(t *testing.T, c *nodetest.Cluster, i int) *pb.RegisterNodeRequest {
	t.Helper()
	who, err := c.Admin(i).Identify(c.Context(), &pb.IdentifyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return &pb.RegisterNodeRequest{
		ClusterName: c.Nodes[i].Options.ClusterName, ClusterId: who.GetClusterId(), NodeId: who.GetNodeId(), StoreId: who.GetStoreId(),
		BootEpoch: who.GetBootEpoch(), RpcAddress: c.Nodes[i].RPCAddress(), GossipAddress: c.Nodes[i].GossipAddress(), Version: node.Version,
		Protocol: uint32(rpc.Protocol), MinFeatureLevel: int32(placement.OldestLevel), MaxFeatureLevel: int32(placement.SupportedLevel),
	}
}

// TestForgedRegistration has a stranger register later starts of nodes: of the controller, of one that runs, and of one that is down, under
// their own address and under another. No start is registered that is none, so no node is ended and none is locked out; and what is said
// again of a start that runs changes nothing.
func TestForgedRegistration(t *testing.T) {
	c := nodetest.Start(t, 3)
	threeVoters(t, c)
	real := make([]*pb.RegisterNodeRequest, len(c.Nodes))
	for i := range real {
		real[i] = registrationOf(t, c, i)
	}
	forge := func(node, at int, boot uint64, address string) {
		t.Helper()
		r := proto.CloneOf(real[node])
		r.BootEpoch, r.RpcAddress = r.BootEpoch+boot, address
		if _, err := c.Admin(at).RegisterNode(c.Context(), r); err == nil {
			t.Errorf("start %d of node %d at %s is registered", r.BootEpoch, node+1, address)
		}
	}
	for node := range real {
		for _, boot := range []uint64{1, 1000, 1 << 32} {
			forge(node, (node+1)%3, boot, real[node].RpcAddress)
			forge(node, (node+1)%3, boot, real[(node+1)%3].RpcAddress)
			forge(node, (node+1)%3, boot, rpctest.FreeAddress())
		}
	}
	again := proto.CloneOf(real[1])
	again.GossipAddress, again.Rack, again.MaxFeatureLevel = "127.0.0.1:1", "elsewhere", 99
	if _, err := c.Admin(0).RegisterNode(c.Context(), again); err != nil {
		t.Error(err)
	}
	status, err := c.Admin(0).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range status.GetNodes() {
		if n.GetNode().GetRack() != "" || n.GetNode().GetGossipAddress() == "127.0.0.1:1" {
			t.Errorf("a stranger has changed what is known of node %d: %v", n.GetNode().GetId(), n.GetNode())
		}
	}
	c.StopNode(2)
	for _, boot := range []uint64{1, 1000, 1 << 32} {
		forge(2, 0, boot, real[2].RpcAddress)
		forge(2, 0, boot, rpctest.FreeAddress())
	}
	c.StartNode(2)
	c.AwaitReady(2)
	threeVoters(t, c)
	alive(t, c, 0, 1, 2)
}

// TestStrangersKeepTheControllerDialling has more strangers than are dialled at once, and than calls of nodes may be under way, ask for a
// place, under an address that takes connections and says nothing. The controller says of nodes that it reaches them all the same, and takes
// the next start of one.
func TestStrangersKeepTheControllerDialling(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 3)
	threeVoters(t, c)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	member := registrationOf(t, c, 1)
	var strangers errgroup.Group
	for i := range 200 {
		strangers.Go(func() error {
			r := proto.CloneOf(member)
			r.NodeId, r.StoreId, r.RpcAddress = int32(100+i), "none", silent.Addr().String()
			_, err := c.Admin(0).RegisterNode(c.Context(), r)
			return err
		})
	}
	nodetest.Eventually(t, "the strangers to be dialled", func() bool {
		conn, err := silent.Accept()
		if err == nil {
			t.Cleanup(func() { _ = conn.Close() })
		}
		return err == nil
	})
	begin := time.Now()
	for range 3 {
		response, err := c.Admin(0).CheckReach(c.Context(), &pb.CheckReachRequest{
			NodeId: 2, StoreId: member.StoreId, ClusterId: member.ClusterId, RpcAddress: member.RpcAddress,
		})
		if err != nil || response.GetErrorMessage() != "" {
			t.Errorf("after %s: %v, %q", time.Since(begin), err, response.GetErrorMessage())
		}
	}
	c.StopNode(1)
	c.StartNode(1)
	c.AwaitReady(1)
	if err := strangers.Wait(); err == nil || !strings.Contains(err.Error(), "dial") && !strings.Contains(err.Error(), "reach") {
		t.Errorf("a stranger got a place, or another answer: %v", err)
	}
}
