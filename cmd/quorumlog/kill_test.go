//go:build unix

package main

import (
	"context"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/bench"
)

// TestKillAtRandom produces to a topic that keeps little, while nodes are killed with SIGKILL and restarted at random, one at a time and
// sometimes all three, are frozen, and are kept away until the log begins behind what they have. Who reads along looks for every
// acknowledged record.
func TestKillAtRandom(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	seed := chaosSeed(t)
	random := rand.New(rand.NewPCG(seed, 1))
	chaos := chaosTime(t)
	ctx, cancel := context.WithTimeout(context.Background(), chaos+3*time.Minute)
	defer cancel()
	cluster, err := bench.StartCluster(ctx, bench.ClusterOptions{Binary: buildBinary(t), Dir: t.TempDir(), Nodes: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	d := &chaosRun{t: t, client: newClient(t, cluster.Servers()...), cluster: cluster}
	usage := watchUsage(ctx, cluster, d.keepLittle(chaos))
	d.readAlongThrough(ctx, seed, func() { d.kill(ctx, random, chaos) })
	usage.finish(t)
	d.wereBehind(logsOf(t, cluster))
}

// kill kills, freezes and restarts nodes until the time is over, and keeps one away for a fifth of it.
func (d *chaosRun) kill(ctx context.Context, random *rand.Rand, length time.Duration) {
	d.rounds(ctx, length, 200, func(round int) {
		nodes := d.cluster.Nodes()
		one := random.IntN(len(nodes))
		switch n := random.IntN(8); {
		case round == 0:
			d.keepAway(ctx, nodes[one], nodes[(one+1)%len(nodes)], length/5)
		case n < 5:
			d.restart(ctx, random.IntN(2) == 0, nodes[one])
		case n < 7:
			d.restart(ctx, false, nodes...)
		default:
			d.freeze(ctx, nodes[one], time.Duration(random.Int64N(int64(min(length/4, 5*time.Second)))))
		}
	})
}

// restart kills nodes, waits for acknowledgements without them if it is told to, and starts them again.
func (d *chaosRun) restart(ctx context.Context, wait bool, victims ...*bench.Process) {
	for _, v := range victims {
		if err := v.Kill(); err != nil {
			d.t.Error(err)
		}
	}
	if wait {
		d.awaitAcks(ctx, 50)
	}
	for _, v := range victims {
		if err := v.Start(ctx); err != nil {
			d.t.Error(err)
		}
	}
}

// keepAway keeps a node away for a while, and until the log begins behind what it has. In the middle another one is killed, too: for a
// moment nobody can write, and another leader goes on.
func (d *chaosRun) keepAway(ctx context.Context, victim, other *bench.Process, length time.Duration) {
	if err := victim.Kill(); err != nil {
		d.t.Error(err)
	}
	ends := d.ends(ctx)
	d.pause(ctx, length/2)
	d.restart(ctx, false, other)
	d.awaitAcks(ctx, 200)
	d.pause(ctx, length/2)
	d.awaitGone(ends, func() (files []string) {
		for _, n := range d.cluster.Nodes() {
			if n != victim {
				files = append(files, logFiles(n)...)
			}
		}
		return files
	})
	if err := victim.Start(ctx); err != nil {
		d.t.Error(err)
	}
}

// freeze stops a node and lets it go on. To the others it looks dead for as long, and then it says what it had in mind.
func (d *chaosRun) freeze(ctx context.Context, victim *bench.Process, length time.Duration) {
	if err := victim.Signal(syscall.SIGSTOP); err != nil {
		d.t.Error(err)
	}
	d.pause(ctx, length)
	if err := victim.Signal(syscall.SIGCONT); err != nil {
		d.t.Error(err)
	}
}
