package node_test

import (
	"context"
	"io"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/node"
	"github.com/quorumlog/quorumlog/node/internal/simulated"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

// TestStartOnFullDisk: somebody else fills the disk while a node is down, and it starts, as often as one likes: its lock and its identity,
// which counts starts, are written with the ballast's space, and so is what the store needs.
func TestStartOnFullDisk(t *testing.T) {
	sim := disksim.New(disksim.Options{})
	o := nodetest.Options(t.TempDir(), 1, io.Discard)
	o.DataDir, o.Founding = "/data", node.Bootstrap
	start := func() *node.Node {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		n, err := node.Start(simulated.WithDisk(ctx, simulated.Disk{Files: sim, Pebble: sim.Pebble()}), o)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	stop := func(n *node.Node) {
		t.Helper()
		if err := n.Stop(context.Background()); err != nil {
			t.Fatal(err)
		}
		sim = sim.Crash(disksim.Kill)
	}
	n := start()
	nodetest.Eventually(t, "ready", func() bool { return n.State() == node.Ready })
	nodetest.Eventually(t, "a ballast", func() bool {
		info, err := sim.Stat("/data/ballast")
		return err == nil && info.Size > 1<<20
	})
	stop(n)
	for range 3 {
		sim.SetCapacity(sim.Used())
		n = start()
		stop(n)
	}
}
