package main

import (
	"context"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// TestPowerLossAtRandom is TestKillAtRandom with the power cut instead: the nodes, in this process but on real sockets, stand on
// simulated disks that drop, tear and garble whatever was not synced at that instant, on one, two or all three nodes at once, and
// sometimes a kill comes first; and one is kept away until the log begins behind what it has. QUORUMLOG_SEED repeats the disks'
// accidents, QUORUMLOG_CHAOS makes it longer.
func TestPowerLossAtRandom(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	t.Parallel()
	seed := chaosSeed(t)
	random := rand.New(rand.NewPCG(seed, 2))
	length := chaosTime(t)
	ctx, cancel := context.WithTimeout(context.Background(), length+2*time.Minute)
	defer cancel()
	cluster := nodetest.StartSimulated(t, 3, seed)
	d := &chaosRun{t: t, client: newClient(t, cluster.Servers()...)}
	d.keepLittle(length)
	d.readAlongThrough(ctx, seed, func() { d.cutPower(ctx, cluster, random, length) })
	d.wereBehind(cluster.Log())
}

// cutPower crashes and restarts nodes until the time is over, and keeps one away for a fifth of it.
func (d *chaosRun) cutPower(ctx context.Context, cluster *nodetest.Cluster, random *rand.Rand, length time.Duration) {
	d.rounds(ctx, length, 100, func(round int) {
		if round == 0 {
			away := random.IntN(len(cluster.Nodes))
			cluster.CrashNode(away, nodetest.PowerLoss)
			ends := d.ends(ctx)
			d.pause(ctx, length/5)
			d.awaitGone(ends, func() []string { return d.simulatedFiles(cluster, away) })
			cluster.StartNode(away)
			return
		}
		crash(cluster, random)
	})
}

// crash crashes some nodes, or all, at once, and starts them again.
func crash(cluster *nodetest.Cluster, random *rand.Rand) {
	victims := random.Perm(len(cluster.Nodes))[:1+random.IntN(len(cluster.Nodes))]
	kind := nodetest.PowerLoss
	if random.IntN(3) == 0 {
		kind = nodetest.Kill
	}
	for _, v := range victims {
		cluster.CrashNode(v, kind)
	}
	if kind == nodetest.Kill && random.IntN(2) == 0 {
		// Started again, and then the power fails before much was synced anew: what a recovery read from the page
		// cache must not have been believed without a sync.
		for _, v := range victims {
			cluster.StartNode(v)
		}
		for _, v := range victims {
			cluster.CrashNode(v, nodetest.PowerLoss)
		}
	}
	for _, v := range victims {
		cluster.StartNode(v)
	}
}

// simulatedFiles lists the segments' files of all nodes but one.
func (d *chaosRun) simulatedFiles(cluster *nodetest.Cluster, but int) (files []string) {
	d.t.Helper()
	for i, n := range cluster.Nodes {
		if i == but {
			continue
		}
		list := func(dir string) []string {
			names, err := cluster.Disk(i).List(dir)
			if err != nil {
				d.t.Fatal(err)
			}
			return names
		}
		logs := filepath.Join(n.Options.DataDir, "logs")
		for _, replica := range list(logs) {
			if !strings.HasPrefix(replica, chaosTopic+"-") {
				continue
			}
			for _, name := range list(filepath.Join(logs, replica)) {
				if strings.HasSuffix(name, segment.LogSuffix) {
					files = append(files, filepath.Join(logs, replica, name))
				}
			}
		}
	}
	return files
}
