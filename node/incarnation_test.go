package node_test

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/rpc/rpctest"
	"github.com/quorumlog/quorumlog/wal/id"
)

// metric reads one number of a node's metrics.
func metric(t *testing.T, n *nodetest.Node, name string) int {
	t.Helper()
	_, address, ok := strings.Cut(n.Addresses(), "metrics tcp ")
	if !ok {
		t.Fatal("no metrics")
	}
	response, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "quorumlog_"+name+" "); ok {
			f, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return int(f)
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func threeVoters(t *testing.T, c *nodetest.Cluster) {
	t.Helper()
	nodetest.Eventually(t, "three voters", func() bool {
		s, err := c.Admin(0).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
		return err == nil && len(s.GetMetadata().GetVoters()) == 3
	})
}

func alive(t *testing.T, c *nodetest.Cluster, nodes ...int) {
	t.Helper()
	for _, i := range nodes {
		select {
		case err := <-c.Nodes[i].Fatal():
			t.Errorf("node %d stopped: %v", i+1, err)
		default:
		}
	}
}

// A new node takes the address of a dead one, which the others look for there again and again: the new node's good lanes stay.
func TestNewNodeAtADeadOnesAddress(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 3)
	threeVoters(t, c)
	c.StopNode(2)
	o := nodetest.Options(t.TempDir(), 4, io.Discard)
	o.Logger, o.ClusterName, o.Join = c.Nodes[0].Options.Logger, c.Nodes[0].Options.ClusterName, []string{c.Nodes[0].GossipAddress()}
	o.RPCAddress = c.Nodes[2].Options.RPCAddress
	c.Nodes = append(c.Nodes, &nodetest.Node{Options: o})
	c.StartNode(3)
	c.AwaitReady(3)
	nodetest.Eventually(t, "many attempts to reach node 3 there", func() bool { return metric(t, c.Nodes[3], "lanes_refused_total") >= 20 })
	if n := strings.Count(c.Log(), `msg="peer lost" node=1 peer=4`) + strings.Count(c.Log(), `msg="peer lost" node=2 peer=4`); n != 0 {
		t.Errorf("good lanes broke %d times", n)
	}
	if !strings.Contains(c.Log(), "node 4 answers at the address of node 3") {
		t.Error("nobody says what is wrong")
	}
	if strings.Contains(c.Log(), "used by two nodes") {
		t.Error("the new node, which looks for the dead one at its own address, takes itself for a second one")
	}
	alive(t, c, 0, 1, 3)
}

// A stranger says that it is node 2, with boot epochs that can be and that cannot, and then what stops whoever believes it. It keeps nobody
// out, and stops nobody.
func TestStrangerSaysItIsNodeTwo(t *testing.T) {
	c := nodetest.Start(t, 3)
	threeVoters(t, c)
	m, err := c.Admin(0).Metadata(c.Context(), &pb.MetadataRequest{NodesOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	boot, victim := uint64(1), c.Servers()[:1]
	attack := func(boot uint64, until func(*rpc.Peers) bool) *rpc.Peers {
		t.Helper()
		evil, err := rpc.NewPeers(rpc.PeerOptions{
			Self:    rpc.PeerHello{ClusterID: m.GetClusterId(), Node: 2, Boot: boot},
			Resolve: func(id.Node) []string { return victim },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = evil.Close() })
		nodetest.Eventually(t, fmt.Sprintf("the attack with boot epoch %d", boot), func() bool {
			evil.Reset(1)
			for _, term := range []uint64{1 << 20, 1 << 30} {
				evil.Send(1, id.MetadataGroup, &raftpb.Message{
					Type: raftpb.MsgHeartbeat.Enum(), To: new(uint64(1)), From: new(uint64(2)), Term: new(term), Commit: new(uint64(1 << 40)),
				}, nil)
			}
			evil.Flush()
			return until(evil)
		})
		return evil
	}
	for _, boot := range []uint64{boot, boot + 1, 0, math.MaxUint64} { // while node 2 is there
		before := metric(t, c.Nodes[0], "lanes_refused_total")
		_ = attack(boot, func(*rpc.Peers) bool { return metric(t, c.Nodes[0], "lanes_refused_total") >= before+10 }).Close()
	}
	if strings.Contains(c.Log(), `msg="peer lost" node=1 peer=2`) {
		t.Error("node 2's good lanes broke")
	}
	alive(t, c, 0, 1, 2)

	c.StopNode(1) // nobody can tell the stranger from it now, until it comes back
	before := metric(t, c.Nodes[0], "raft_dropped_invalid_total")
	attack(boot, func(p *rpc.Peers) bool {
		return p.Metrics().Connects > 0 && metric(t, c.Nodes[0], "raft_dropped_invalid_total") > before+4
	})
	alive(t, c, 0, 2)
	c.StartNode(1)
	c.AwaitReady(1)
	nodetest.Eventually(t, "node 2 to be in the metadata's quorum again", func() bool {
		s, err := c.Admin(0).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
		return err == nil && len(s.GetNodes()) == 3 && s.GetNodes()[1].GetBootEpoch() == boot+1 && s.GetNodes()[1].GetState() == "ready"
	})
	threeVoters(t, c)
	alive(t, c, 0, 1, 2)
}

// Two processes on copies of one directory: the one that runs goes on, the other stops and says why, without help from gossip, and also when
// it counts more starts.
func TestCopiedDirectoryGivesWay(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 3)
	threeVoters(t, c)
	c.StopNode(2)
	dir := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(dir, os.DirFS(c.Nodes[2].Options.DataDir)); err != nil {
		t.Fatal(err)
	}
	c.StartNode(2)
	c.AwaitReady(2)
	o := c.Nodes[2].Options
	o.DataDir, o.RPCAddress, o.GossipAddress, o.Join = dir, rpctest.FreeAddress(), rpctest.FreeAddress(), nil
	for start := range 3 {
		copied, err := node.Start(c.Context(), o)
		if err == nil {
			select {
			case err = <-copied.Fatal():
			case <-time.After(30 * time.Second):
				t.Error("two processes are node 3")
			}
			if err := copied.Stop(c.Context()); err != nil {
				t.Error(err)
			}
		}
		t.Logf("start %d of the copy: %v", start, err)
		if err == nil || !strings.Contains(err.Error(), "copied") && !strings.Contains(err.Error(), "copy") {
			t.Errorf("start %d of the copy: %v", start, err)
		}
	}
	alive(t, c, 0, 1, 2)
	if strings.Contains(c.Log(), `msg="peer lost" node=1 peer=3`) && strings.Count(c.Log(), `msg="peer lost" node=1 peer=3`) > 1 { // once by the stop above
		t.Error("the good lanes broke")
	}
	threeVoters(t, c)
}

// All nodes come back under other addresses at once: the metadata, which nobody can change before they have found each other, knows
// none of them.
func TestAllNodesMove(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 3)
	threeVoters(t, c)
	for i := range c.Nodes {
		c.StopNode(i)
	}
	for i := range c.Nodes {
		c.Nodes[i].Options.RPCAddress = rpctest.FreeAddress()
		c.StartNode(i)
	}
	for i := range c.Nodes {
		c.AwaitReady(i)
	}
	nodetest.Eventually(t, "the metadata to have the new addresses", func() bool {
		m, err := c.Admin(2).Metadata(c.Context(), &pb.MetadataRequest{NodesOnly: true})
		if err != nil {
			return false
		}
		for i, n := range m.GetNodes() {
			if n.GetRpcAddress() != c.Nodes[i].Options.RPCAddress {
				return false
			}
		}
		return len(m.GetNodes()) == 3
	})
}

// Two nodes swap their addresses. The metadata's are the old ones until they have registered.
func TestNodesSwapAddresses(t *testing.T) {
	c := nodetest.Start(t, 3)
	threeVoters(t, c)
	c.StopNode(1)
	c.StopNode(2)
	one, two := &c.Nodes[1].Options, &c.Nodes[2].Options
	one.RPCAddress, two.RPCAddress = two.RPCAddress, one.RPCAddress
	c.StartNode(1)
	c.StartNode(2)
	c.AwaitReady(1)
	c.AwaitReady(2)
	threeVoters(t, c)
	alive(t, c, 0, 1, 2)
}
