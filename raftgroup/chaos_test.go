package raftgroup_test

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// ward has disks that can be made to hang, to be slow and to be full.
type ward struct {
	hung             [6]atomic.Bool // by node
	slow             [6]atomic.Int64
	full, overloaded [6]atomic.Bool
	rotten           [6]atomic.Bool
	releases         old // of the nodes' machines
}

// pressure is a disk's.
func (w *ward) pressure(n id.Node) wal.Pressure {
	switch {
	case w.full[n].Load():
		return wal.PressureNoSpace
	case w.overloaded[n].Load():
		return wal.PressureThrottle
	}
	return wal.PressureNone
}

// fallIll has a disk become full or slow, or its cache, or the opposite.
func (w *ward) fallIll(rng *rand.Rand, n id.Node) {
	w.full[n].Store(rng.IntN(6) == 0)
	w.overloaded[n].Store(rng.IntN(3) == 0)
	w.slow[n].Store(0)
	if rng.IntN(6) == 0 {
		w.slow[n].Store(int64(2 * time.Second))
	}
}

// heal makes all disks good: none can be closed while it hangs.
func (w *ward) heal() {
	for n := range w.hung {
		w.hung[n].Store(false)
		w.full[n].Store(false)
		w.overloaded[n].Store(false)
		w.slow[n].Store(0)
	}
}

// chaos does a number of random things to a cluster, its network and its disks, proposing all the while.
func chaos(t *testing.T, c *raftgrouptest.Cluster, w *ward, seed uint64, steps int) {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 7))
	var nodes []id.Node
	for i := 1; i <= c.Config.Nodes; i++ {
		nodes = append(nodes, id.Node(i))
	}
	any := func() id.Node { return nodes[rng.IntN(len(nodes))] }
	record := 0
	propose := func() {
		for range rng.IntN(20) {
			g := id.Group(rng.IntN(c.Config.Groups) + 1)
			r := c.Group(any(), g) // whoever it is: one that does not lead must refuse
			if rng.IntN(10) < 8 {
				r = c.Leader(g)
			}
			if r != nil {
				acks := []raftgroup.Acks{raftgroup.AcksAll, raftgroup.AcksAll, raftgroup.AcksLeader, raftgroup.AcksNone}[rng.IntN(4)]
				record++
				size := rng.IntN(2000)
				if rng.IntN(8) == 0 {
					size = rng.IntN(40_000) // larger than a message, and straight into the segment
				}
				b := raftgrouptest.Batch(fmt.Appendf(make([]byte, size), "record %d", record))
				if seed%4 == 1 && rng.IntN(100) == 0 {
					b = unknown
				}
				c.Propose(r, b, acks)
			}
		}
	}
	c.Net.SetFaults(raftgrouptest.Faults{Lend: 60 * time.Millisecond})
	c.Net.SetFilter(func(from, to id.Node, g id.Group, m *raftpb.Message) bool {
		for _, e := range m.GetEntries() { // what does not check would be dropped by the receiver, and come again: nobody would notice
			if m.GetType() == raftpb.MsgApp && e.GetType() == raftpb.EntryNormal && len(e.GetData()) > 0 && batch.Check(e.GetData()) != nil {
				c.Witness.Problem("node %d sends entry %d of group %d to node %d with garbage for a batch", from, e.GetIndex(), g, to)
			}
		}
		return true
	})
	var down []id.Node
	var others sync.WaitGroup
	defer others.Wait()
	for range steps {
		switch rng.IntN(24) {
		case 0:
			c.Net.SetFaults(raftgrouptest.Faults{
				Drop: rng.Float64() * 0.3, Duplicate: rng.Float64() * 0.3,
				Delay: time.Duration(rng.IntN(40)) * time.Millisecond, Lend: time.Duration(rng.IntN(60)) * time.Millisecond,
			})
		case 1:
			c.Net.SetFaults(raftgrouptest.Faults{Lend: 60 * time.Millisecond})
		case 2:
			c.Net.Isolate(any(), nodes...)
		case 3:
			c.Net.Cut(any(), any())
		case 4, 5:
			c.Net.Heal()
		case 6:
			if n := any(); c.Nodes[n].Host != nil && len(down) < len(nodes) {
				c.Crash(n)
				down = append(down, n)
				for _, o := range nodes {
					if c.Nodes[o].Host != nil {
						c.Nodes[o].Host.NodeDown(n)
					}
				}
			}
		case 7, 8:
			if len(down) > 0 {
				n := down[0]
				down = down[1:]
				require.NoError(t, c.Start(n))
				for _, o := range nodes {
					if c.Nodes[o].Host != nil {
						c.Nodes[o].Host.NodeUp(n)
					}
				}
			}
		case 9:
			if r := c.Group(any(), id.Group(rng.IntN(c.Config.Groups)+1)); r != nil {
				r.Campaign()
			}
		case 10:
			if n := any(); seed%4 == 1 { // for what it applies next; what is halted goes on with its next start
				w.releases.set(rng.IntN(3) == 0, n)
			}
		case 11, 12, 13:
			if n := c.Nodes[any()]; n.Host != nil {
				for _, l := range n.Store.Logs() {
					if g := n.Host.Group(l.Group()); g != nil && rng.IntN(2) == 0 { // each replica by itself, most often all that is committed
						n.Machines[l.Group()].Trim(g.HighWatermark() - id.Offset(rng.IntN(2)*rng.IntN(200)))
						if rng.IntN(2) == 0 {
							g.Roll()
						}
					}
					n.Host.Cut(l.Group(), l.Replica())
				}
			}
		case 14:
			if n := c.Nodes[any()]; n.Host != nil {
				n.Host.SnapshotsLost(any()) // what is true, or not
			}
		}
		if seed%3 == 0 && rng.IntN(8) == 0 {
			w.fallIll(rng, any())
		}
		if rng.IntN(2) == 0 {
			c.TellConditions()
		}
		switch g := id.Group(rng.IntN(c.Config.Groups) + 1); rng.IntN(12) {
		case 0:
			shuffle(c, &others, g, rng.Uint64())
		case 1:
			if leader := c.Leader(g); leader != nil {
				to := raftgrouptest.ReplicaOf(g, any())
				others.Go(func() {
					ctx, cancel := context.WithTimeout(context.Background(), time.Second)
					defer cancel()
					_ = leader.TransferLeader(ctx, to)
				})
			}
		case 2:
			if r := c.Group(any(), g); r != nil {
				others.Go(func() { readIndex(c, r) })
			}
		}
		for range rng.IntN(12) {
			propose()
			pause(time.Duration(rng.IntN(3000)) * time.Microsecond)
		}
		pause(time.Duration(rng.IntN(400)) * time.Millisecond)
	}
	c.Net.Heal()
	c.Net.SetFaults(raftgrouptest.Faults{})
	for _, n := range down {
		require.NoError(t, c.Start(n))
	}
	for _, n := range nodes {
		for _, o := range nodes {
			c.Nodes[n].Host.NodeUp(o)
		}
	}
	w.heal()
	w.releases.set(false, nodes...)
	for _, n := range nodes {
		for g := id.Group(1); int(g) <= c.Config.Groups; g++ {
			if r := c.Group(n, g); r != nil && standingOf(r) == raftgroup.Halted {
				restarted(t, c, n)
			}
		}
	}
	pause(5 * time.Second) // until the last round that took long is forgotten
	c.TellConditions()
}

// shuffle makes voters learners and learners voters, one or two at once, but leaves two voters.
func shuffle(c *raftgrouptest.Cluster, others *sync.WaitGroup, g id.Group, seed uint64) {
	leader := c.Leader(g)
	if leader == nil {
		return
	}
	others.Go(func() {
		rng := rand.New(rand.NewPCG(seed, 3))
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		st, err := leader.Status(ctx)
		if err != nil {
			return
		}
		voters := 0
		for _, m := range st.Members {
			if !m.Learner {
				voters++
			}
		}
		var changes []raftgroup.Change
		for _, i := range rng.Perm(len(st.Members))[:1+rng.IntN(2)] {
			ch := raftgroup.Change{Type: raftpb.ConfChangeAddNode, Replica: st.Members[i].Replica, Node: st.Members[i].Node}
			if !st.Members[i].Learner {
				if voters--; voters < 2 {
					return
				}
				ch.Type = raftpb.ConfChangeAddLearnerNode
			}
			changes = append(changes, ch)
		}
		_ = leader.ChangeMembers(ctx, raftgroup.ConfChange(changes...))
	})
}

// readIndex checks that what was acknowledged before is not above the index that a read gets.
func readIndex(c *raftgrouptest.Cluster, r *raftgroup.Group) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	before := c.Witness.LastAcked(r.ID())
	if i, err := r.ReadIndex(ctx); err == nil && i < before {
		c.Witness.Problem("replica %d: ReadIndex %d is behind entry %d, acknowledged before", r.Replica(), i, before)
	}
}

// pause lets virtual time pass.
func pause(d time.Duration) {
	timer := time.NewTimer(d)
	<-timer.C
}

var chaosRuns = flag.Int("chaos.runs", 30, "seeds of TestChaos")

func TestChaos(t *testing.T) {
	runs := *chaosRuns
	if testing.Short() {
		runs = min(runs, 6)
	}
	for seed := range uint64(runs) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 1))
			config, w := chaosConfig(seed, rng), &ward{}
			config.Disk = func(n id.Node) raftgrouptest.Disk {
				d := raftgrouptest.NewMemDisk(seed ^ uint64(n)<<8)
				d.Poison = true
				d.Resident = rng.IntN(3) * 40
				slow := rand.New(rand.NewPCG(seed, uint64(n)))
				d.Delay = func() time.Duration {
					return max(time.Duration(w.slow[n].Load()), time.Duration(slow.IntN(30)*slow.IntN(30))*100*time.Microsecond)
				}
				d.Pressure = func() wal.Pressure { return w.pressure(n) }
				return d
			}
			runChaos(t, config, w, seed, 60)
		})
	}
}

// The same on the real wal over a simulated disk, which loses power with each crash.
func TestChaosOnWal(t *testing.T) {
	runs := *chaosRuns / 6
	if testing.Short() {
		runs = min(runs, 2)
	}
	for seed := range uint64(runs) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(seed, 2))
			config := chaosConfig(seed, rng)
			config.Disk = func(n id.Node) raftgrouptest.Disk {
				d := raftgrouptest.NewWalDisk(seed ^ uint64(n)<<8)
				d.Options = wal.Options{
					JournalFileBytes: 256 << 10, CheckpointBytes: 512 << 10, CheckpointInterval: 5 * time.Second,
					DirectAppendBytes: 4 << 10, SegmentBytes: 128 << 10, CacheBytes: 64 << 10, ReserveBytes: 1,
				}
				return d
			}
			runChaos(t, config, &ward{}, seed, 80)
		})
	}
}

func chaosConfig(seed uint64, rng *rand.Rand) raftgrouptest.Config {
	return raftgrouptest.Config{
		Nodes: 3 + 2*rng.IntN(2), Groups: 1 + rng.IntN(4), Seed: seed, Campaign: raftgroup.CampaignPreferred,
		Options: raftgroup.Options{Workers: 1 + rng.IntN(3), ElectionTicks: 10, HeartbeatTicks: 2, MaxMessageBytes: 4 << 10, ReadAheadBytes: 8 << 10,
			StallClears: 2 * time.Second},
	}
}

func runChaos(t *testing.T, config raftgrouptest.Config, w *ward, seed uint64, steps int) {
	config.Machine = w.releases.machine
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		chaos(t, c, w, seed, steps)
		for g := id.Group(1); int(g) <= c.Config.Groups; g++ {
			require.NotNil(t, c.AwaitLeader(g, time.Minute), "group %d has no leader", g)
			var got raftgroup.Result
			require.True(t, raftgrouptest.Until(time.Minute, func() bool {
				leader := c.Leader(g)
				if leader == nil {
					return false
				}
				select { // without a bound virtual time would run on for ever where nothing commits
				case got = <-c.Propose(leader, raftgrouptest.Batch([]byte("the last one")), raftgroup.AcksAll):
				case <-time.After(time.Minute):
					got.Err = context.DeadlineExceeded
				}
				return got.Err == nil
			}), "group %d takes no proposals: %v", g, got.Err)
		}
		caughtUp(t, c)
		acked, restored := 0, 0
		for g := id.Group(1); int(g) <= c.Config.Groups; g++ {
			acked += c.Witness.AckedCount(g)
			restored += c.Witness.Restored(g)
			sameLogs(t, c, g)
		}
		require.Greater(t, acked, 0)
		t.Logf("%d nodes, %d groups, %d batches acknowledged, %d messages lent, %d snapshots taken",
			c.Config.Nodes, c.Config.Groups, acked, c.Net.Lent, restored)
	})
}

// sameLogs compares what all replicas have stored.
func sameLogs(t *testing.T, c *raftgrouptest.Cluster, g id.Group) {
	t.Helper()
	first := c.Group(1, g).Log()
	for node := id.Node(2); int(node) <= c.Config.Nodes; node++ {
		l := c.Group(node, g).Log()
		require.Equal(t, first.LastIndex(), l.LastIndex())
		for i := max(first.FirstIndex(), l.FirstIndex()); i <= first.LastIndex(); {
			a, err := first.ReadEntries(i, first.LastIndex()+1, 1<<20)
			require.NoError(t, err)
			b, err := l.ReadEntries(i, first.LastIndex()+1, 1<<20)
			require.NoError(t, err)
			for j := range min(len(a), len(b)) {
				require.Equal(t, a[j], b[j])
				if a[j].Kind == wal.KindBatch {
					require.NoError(t, batch.Check(a[j].Data))
				}
			}
			i += id.Index(min(len(a), len(b)))
		}
	}
}
