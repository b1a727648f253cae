// Package nodetest runs a cluster of nodes in one process, on loopback and real files, for tests of whole nodes.
package nodetest

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/node/internal/simulated"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/rpc/rpctest"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// patience bounds everything that a test waits for. It is long because the machine may be busy with other tests.
const patience = 60 * time.Second

// Cluster is a running cluster. Its methods fail the test instead of returning errors, but for TryNode.
type Cluster struct {
	t      testing.TB
	dir    string
	Nodes  []*Node // in the order of their ids, which begin with 1
	dialer *rpc.Dialer
	log    *rpctest.Log
	adjust []func(*node.Options)

	network *network // nil: the operating system's alone
}

// Setting is something about a cluster that is not as usual.
type Setting func(*Cluster)

// WithNetwork puts a network between the nodes that can be cut: see Cut, Block, Isolate and Heal.
func WithNetwork() Setting { return func(c *Cluster) { c.network = newNetwork() } }

// WithOptions changes the options of all nodes before they start.
func WithOptions(change func(*node.Options)) Setting {
	return func(c *Cluster) { c.adjust = append(c.adjust, change) }
}

// Crash says what a node that is cut off loses.
type Crash = disksim.Kind

// The kinds of crash of a simulated disk.
const (
	Kill      = disksim.Kill      // the process: what was written stays, synced or not
	PowerLoss = disksim.PowerLoss // the machine: what was not synced is lost, torn or garbage
)

// Node is one node of a cluster, running or not.
type Node struct {
	*node.Node // nil while it is stopped
	Options    node.Options
	disk       *disksim.Disk // nil: the real one
}

// Options returns the options of node n in a test: fast gossip, short elections, a busy balancer, ports of its own below dir.
func Options(dir string, n int, log io.Writer) node.Options {
	return node.Options{
		NodeID: id.Node(n), DataDir: filepath.Join(dir, "node-"+strconv.Itoa(n)), ClusterName: "test-" + filepath.Base(dir),
		RPCAddress: rpctest.FreeAddress(), GossipAddress: rpctest.FreeAddress(), MetricsAddress: "127.0.0.1:0",
		Storage: node.StorageOptions{CacheBytes: 32 << 20, JournalFileBytes: 8 << 20},
		Timing:  node.TimingOptions{TickInterval: 50 * time.Millisecond, HeartbeatTicks: 2, ElectionTicks: 20, Gossip: node.GossipTest, BalanceInterval: 500 * time.Millisecond},
		Logger:  slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo})),
	}
}

// Start starts a cluster of n nodes and returns when all of them are ready. It is stopped when the test ends; the nodes' logs are
// printed if it failed.
func Start(t testing.TB, n int, settings ...Setting) *Cluster {
	t.Helper()
	return start(t, n, func(int) *disksim.Disk { return nil }, settings)
}

// StartSimulated is Start with each node on a simulated disk, so that its power can be cut. The seed makes the disks' accidents
// repeatable; what the nodes make of time and scheduling is not.
func StartSimulated(t testing.TB, n int, seed uint64, settings ...Setting) *Cluster {
	t.Helper()
	return start(t, n, func(i int) *disksim.Disk { return disksim.New(disksim.Options{Seed: seed + uint64(i)}) }, settings)
}

func start(t testing.TB, n int, newDisk func(int) *disksim.Disk, settings []Setting) *Cluster {
	t.Helper()
	c := &Cluster{t: t, dir: t.TempDir(), dialer: &rpc.Dialer{}, log: &rpctest.Log{}}
	for _, set := range settings {
		set(c)
	}
	t.Cleanup(c.close)
	for i := range n {
		o := Options(c.dir, i+1, c.log)
		for _, change := range c.adjust {
			change(&o)
		}
		if i > 0 {
			o.Join = []string{c.Nodes[0].GossipAddress()}
		}
		d := newDisk(i)
		if d != nil {
			o.DataDir = "/node-" + strconv.Itoa(i+1) // on its own disk
		}
		if c.network != nil {
			c.network.add(i, o.RPCAddress, o.GossipAddress)
		}
		c.Nodes = append(c.Nodes, &Node{Options: o, disk: d})
		if i == 0 {
			c.Format(i)
		}
		c.StartNode(i)
	}
	for i := range n {
		c.AwaitReady(i)
	}
	return c
}

func (c *Cluster) close() {
	for i := range c.Nodes {
		c.StopNode(i)
	}
	_ = c.dialer.Close()
	if c.network != nil {
		c.network.close()
	}
	if c.t.Failed() {
		c.t.Logf("the nodes' logs:\n%s", c.log)
	}
}

// StartNode starts node i (from 0), which does not run. Its addresses stay, but for that of its metrics.
func (c *Cluster) StartNode(i int) {
	c.t.Helper()
	if err := c.TryNode(i); err != nil {
		c.t.Fatalf("node %d does not start: %v", i+1, err)
	}
}

// TryNode is StartNode for a start that may be refused: it returns why.
func (c *Cluster) TryNode(i int) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	n := c.Nodes[i]
	ctx = n.onDisk(ctx)
	if c.network != nil {
		ctx = simulated.WithNetwork(ctx, at{c.network, i})
	}
	started, err := node.Start(ctx, n.Options)
	if err != nil {
		return err
	}
	n.Node = started
	return nil
}

// Format makes node i, whose directory is empty, the founder of the cluster.
func (c *Cluster) Format(i int) {
	c.t.Helper()
	if _, err := node.Format(c.Nodes[i].onDisk(context.Background()), c.Nodes[i].Options); err != nil {
		c.t.Fatal(err)
	}
}

// onDisk puts the node on its simulated disk, if it has one.
func (n *Node) onDisk(ctx context.Context) context.Context {
	if n.disk == nil {
		return ctx
	}
	return simulated.WithDisk(ctx, simulated.Disk{Files: n.disk, Pebble: n.disk.Pebble()})
}

// StopNode stops node i as SIGTERM does. It is no error if it does not run.
func (c *Cluster) StopNode(i int) {
	c.t.Helper()
	n := c.Nodes[i]
	if n.Node == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := n.Stop(ctx); err != nil {
		c.t.Errorf("node %d does not stop: %v", i+1, err)
	}
	n.Node = nil
}

// CrashNode stops node i as a crash does: from one instant to the next its disk takes nothing any more, and it is gone without
// a goodbye. The next start finds what the crash left. Of a node that does not run, the machine alone crashes.
func (c *Cluster) CrashNode(i int, kind Crash) {
	c.t.Helper()
	n := c.Nodes[i]
	n.disk.Halt()
	now, cancel := context.WithCancel(context.Background())
	cancel()
	if n.Node != nil {
		_ = n.Stop(now) // what it still wants to write fails; that is the point
	}
	n.Node, n.disk = nil, n.disk.Crash(kind)
}

// Disk returns the simulated disk of node i, as it is until the next crash.
func (c *Cluster) Disk(i int) *disksim.Disk { return c.Nodes[i].disk }

// FillDisk leaves no space on the simulated disk of node i.
func (c *Cluster) FillDisk(i int) { c.Nodes[i].disk.SetCapacity(c.Nodes[i].disk.Used()) }

// AwaitReady waits until node i holds what it should hold.
func (c *Cluster) AwaitReady(i int) {
	c.t.Helper()
	Eventually(c.t, "node "+strconv.Itoa(i+1)+" to be ready", func() bool { return c.Nodes[i].State() == node.Ready })
}

// Servers returns the rpc addresses of the nodes that run.
func (c *Cluster) Servers() []string {
	var servers []string
	for _, n := range c.Nodes {
		if n.Node != nil {
			servers = append(servers, n.RPCAddress())
		}
	}
	return servers
}

// Admin returns the administrative client of node i.
func (c *Cluster) Admin(i int) pb.DRPCAdminClient { return c.dialer.Admin(c.Nodes[i].RPCAddress()) }

// Log returns what the nodes have logged.
func (c *Cluster) Log() string { return c.log.String() }

// Context returns a context that ends with the test's patience.
func (c *Cluster) Context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	c.t.Cleanup(cancel)
	return ctx
}

// Eventually polls until the condition holds, and fails the test if it never does.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline.C:
			t.Fatalf("waited %v in vain for %s", patience, what)
		case <-tick.C:
		}
	}
}
