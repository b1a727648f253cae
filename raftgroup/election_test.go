package raftgroup_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal/id"
)

// outage watches groups: since when, and for how long at most, each has taken nothing. Who produces asks the leader of the highest term,
// and another as soon as there is one.
type outage struct {
	c      *raftgrouptest.Cluster
	groups []watched
}

type watched struct {
	leader  *raftgroup.Group
	pending <-chan raftgroup.Result
	asked   time.Time
	acked   time.Time
	longest time.Duration
}

func watch(c *raftgrouptest.Cluster) *outage {
	o := &outage{c: c, groups: make([]watched, c.Config.Groups)}
	o.reset()
	return o
}

func (o *outage) reset() {
	for i := range o.groups {
		o.groups[i].acked, o.groups[i].longest = time.Now(), 0
	}
}

func (o *outage) poll() {
	for i := range o.groups {
		w := &o.groups[i]
		idle := w.pending == nil && time.Since(w.asked) > 20*time.Millisecond
		if leader := o.c.Leader(id.Group(i + 1)); leader != nil && (idle || leader != w.leader) {
			w.asked, w.leader, w.pending = time.Now(), leader, o.c.Propose(leader, raftgrouptest.Batch(nil), raftgroup.AcksAll)
		}
		select {
		case r := <-w.pending:
			if w.pending = nil; r.Err == nil {
				w.acked = time.Now()
			}
		default:
		}
		w.longest = max(w.longest, time.Since(w.acked))
	}
}

// run polls for a while.
func (o *outage) run(d time.Duration) {
	begin := time.Now()
	raftgrouptest.Until(d+time.Second, func() bool { o.poll(); return time.Since(begin) >= d })
}

// resumed polls until every group has taken something that was proposed from now on, and returns how long that took.
func (o *outage) resumed(t *testing.T, limit time.Duration) time.Duration {
	t.Helper()
	begin := time.Now()
	for i := range o.groups {
		o.groups[i].pending, o.groups[i].asked = nil, time.Time{}
	}
	within(t, limit, "all groups take records", func() bool {
		o.poll()
		return !slices.ContainsFunc(o.groups, func(w watched) bool { return !w.acked.After(begin) })
	})
	return time.Since(begin)
}

func (o *outage) longest() (d time.Duration) {
	for _, w := range o.groups {
		d = max(d, w.longest)
	}
	return d
}

// up starts a node, and a moment later lanes work both ways.
func up(t *testing.T, c *raftgrouptest.Cluster, n id.Node) {
	t.Helper()
	require.NoError(t, c.Start(n))
	pause(10 * time.Millisecond)
	for o, other := range c.Nodes {
		if o != n && other.Host != nil {
			other.Host.NodeUp(n)
			c.Nodes[n].Host.NodeUp(o)
		}
	}
}

// kill crashes a node, whose lanes break one after the other.
func kill(c *raftgrouptest.Cluster, rng *rand.Rand, n id.Node, apart time.Duration) {
	c.Crash(n)
	for o := id.Node(1); int(o) <= c.Config.Nodes; o++ {
		if c.Nodes[o].Host != nil {
			pause(time.Duration(rng.Int64N(int64(apart) + 1)))
			c.Nodes[o].Host.NodeDown(n)
		}
	}
}

// inject has a message of group 1 arrive that says nothing but its kind and its term.
func inject(c *raftgrouptest.Cluster, kind raftpb.MessageType, from, to id.Node, term id.Term) {
	c.Net.Inject(from, to, 1, &raftpb.Message{
		Type: kind.Enum(), From: new(uint64(raftgrouptest.ReplicaOf(1, from))), To: new(uint64(raftgrouptest.ReplicaOf(1, to))),
		Term: new(uint64(term)),
	})
}

func allLed(t *testing.T, c *raftgrouptest.Cluster) {
	t.Helper()
	for g := id.Group(1); int(g) <= c.Config.Groups; g++ {
		require.NotNil(t, c.AwaitLeader(g, 5*time.Second))
	}
}

func seeded(t *testing.T) *rand.Rand {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 1))
}

// TestBestLogLeadsAfterRestart: all nodes were killed, and the preferred replica of some groups is behind. Whoever has the better log
// leads, as soon as a majority is there.
func TestBestLogLeadsAfterRestart(t *testing.T) {
	for name, order := range map[string][]id.Node{
		"all three, the one behind first": {1, 2, 3}, "all three, it last": {3, 2, 1},
		"two, the one behind first": {1, 2}, "two, it last": {3, 1},
	} {
		t.Run(name, func(t *testing.T) {
			rng := seeded(t)
			cluster(t, three(12), func(t *testing.T, c *raftgrouptest.Cluster) {
				allLed(t, c)
				caughtUp(t, c)
				kill(c, rng, 1, 10*time.Millisecond)
				watch(c).resumed(t, 5*time.Second)
				for g := id.Group(1); g <= 12; g++ {
					propose(t, c, c.AwaitLeader(g, time.Second), 3, 10) // node 1 is behind in all groups
				}
				caughtUp(t, c)
				c.Crash(2)
				c.Crash(3)
				for i, n := range order {
					if i > 0 {
						pause(2 * time.Second) // the first one has asked in vain, again and again
					}
					up(t, c, n)
					if i == 1 {
						d := watch(c).resumed(t, 20*time.Second)
						t.Logf("records are taken %v after the second is back", d)
						require.Less(t, d, 1500*time.Millisecond)
					}
				}
				for n := id.Node(1); n <= 3; n++ {
					if c.Nodes[n].Host == nil {
						up(t, c, n)
					}
				}
				caughtUp(t, c)
			})
		})
	}
}

// TestNobodyIsPreferredAfterRestart: the preferred replicas' node stays away.
func TestNobodyIsPreferredAfterRestart(t *testing.T) {
	cluster(t, three(12), func(t *testing.T, c *raftgrouptest.Cluster) {
		allLed(t, c)
		propose(t, c, c.Leader(1), 1, 10)
		caughtUp(t, c)
		for n := id.Node(1); n <= 3; n++ {
			c.Crash(n)
		}
		up(t, c, 2)
		up(t, c, 3)
		d := watch(c).resumed(t, 20*time.Second)
		t.Logf("records are taken %v after the second is back", d)
		require.Less(t, d, 2*time.Second)
		up(t, c, 1)
		caughtUp(t, c)
	})
}

// TestSurvivorsDoNotDeposeEachOther: where messages and disks are slow an election takes longer than its steps are apart. It must not begin
// again before it can end.
func TestSurvivorsDoNotDeposeEachOther(t *testing.T) {
	rng := seeded(t)
	config := three(4)
	config.Seed = rng.Uint64()
	slow := &ward{}
	config.Disk = slow.disk
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		allLed(t, c)
		caughtUp(t, c)
		for n := range slow.slow {
			slow.slow[n].Store(int64(150 * time.Millisecond))
		}
		c.Net.SetFaults(raftgrouptest.Faults{Delay: 200 * time.Millisecond})
		o := watch(c)
		var gaps []time.Duration
		for range 30 {
			n := id.Node(rng.IntN(3) + 1)
			before := terms(c)
			kill(c, rng, n, 100*time.Millisecond)
			gaps = append(gaps, o.resumed(t, 30*time.Second))
			for g, term := range terms(c) {
				require.LessOrEqual(t, term-before[g], id.Term(3), "group %d: one deposes the other", g)
			}
			up(t, c, n)
			o.run(3 * time.Second)
		}
		slices.Sort(gaps)
		t.Logf("records are taken after %v at the median, %v at most", gaps[len(gaps)/2], gaps[len(gaps)-1])
		require.Less(t, gaps[len(gaps)/2], 2500*time.Millisecond)
		require.Less(t, gaps[len(gaps)-1], 4*time.Second)
		c.Net.SetFaults(raftgrouptest.Faults{})
		slow.heal()
		caughtUp(t, c)
	})
}

// terms returns the highest term of each group.
func terms(c *raftgrouptest.Cluster) map[id.Group]id.Term {
	m := make(map[id.Group]id.Term)
	for n := range c.Nodes {
		for g := id.Group(1); int(g) <= c.Config.Groups; g++ {
			if r := c.Group(n, g); r != nil {
				_, _, term := r.Leader()
				m[g] = max(m[g], term)
			}
		}
	}
	return m
}

// TestRestartsEveryFewSeconds: some nodes or all are killed and come back, all the while, before they have caught up. Whenever a majority
// is there all groups take records soon.
func TestRestartsEveryFewSeconds(t *testing.T) {
	rng := seeded(t)
	config := three(6)
	config.Seed = rng.Uint64()
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		allLed(t, c)
		o := watch(c)
		var without time.Duration
		some := func(atLeast int) { o.run(time.Duration(atLeast+rng.IntN(1500)) * time.Millisecond) }
		for range 15 {
			nodes := rng.Perm(3)[:1+rng.IntN(3)]
			for i, n := range nodes {
				kill(c, rng, id.Node(n+1), 20*time.Millisecond)
				o.run(time.Duration(rng.IntN(300)) * time.Millisecond)
				if i == 0 {
					without = max(without, o.longest())
				}
			}
			some(200)
			for i, n := range nodes {
				up(t, c, id.Node(n+1))
				if i == len(nodes)-2 {
					o.reset() // a majority is there from now on
				}
				if i < len(nodes)-1 || rng.IntN(2) == 0 {
					some(0)
				}
			}
			without = max(without, o.longest())
		}
		t.Logf("the longest a group took nothing although a majority was there: %v", without)
		require.Less(t, without, 2*time.Second)
		caughtUp(t, c)
	})
}

// TestOldWordOfADeadLeader: what the leader had sent is read after its node is known to be lost, at both others. Raft would believe in him
// for its full election timeout.
func TestOldWordOfADeadLeader(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		caughtUp(t, c)
		_, dead, term := leader.Leader()
		c.Crash(dead)
		for n := id.Node(1); n <= 3; n++ {
			if n == dead {
				continue
			}
			c.Nodes[n].Host.NodeDown(dead)
			pause(5 * time.Millisecond)
			inject(c, raftpb.MsgHeartbeat, dead, n, term)
		}
		d := watch(c).resumed(t, 20*time.Second)
		t.Logf("records are taken after %v", d)
		require.Less(t, d, time.Second)
		up(t, c, dead)
		caughtUp(t, c)
	})
}

// TestDeposedByAStaleTerm: somebody who cannot win has a higher term, and tells the leader so. He leads again at once.
func TestDeposedByAStaleTerm(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		caughtUp(t, c)
		_, node, term := leader.Leader()
		stale := node%3 + 1
		inject(c, raftpb.MsgAppResp, stale, node, term+3)
		within(t, time.Second, "it is deposed", func() bool { _, _, now := leader.Leader(); return now > term })
		d := watch(c).resumed(t, 20*time.Second)
		t.Logf("records are taken after %v", d)
		require.Less(t, d, 700*time.Millisecond) // the others believe in him until his heartbeat fails to come
	})
}

// TestTransferToTheDead: a leader hands over to somebody who is gone, or frozen, by the time he is told. Proposals wait for it no longer
// than it takes to see that.
func TestTransferToTheDead(t *testing.T) {
	for name, what := range map[string]struct {
		fate  func(c *raftgrouptest.Cluster, lead, to id.Node)
		limit time.Duration
	}{
		"killed": {func(c *raftgrouptest.Cluster, lead, to id.Node) {
			c.Crash(to)
			c.Nodes[lead].Host.NodeDown(to)
		}, 100 * time.Millisecond},
		"frozen": {func(*raftgrouptest.Cluster, id.Node, id.Node) {}, 800 * time.Millisecond},
	} {
		for _, any := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, or another %v", name, any), func(t *testing.T) {
				cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
					leader := c.AwaitLeader(1, time.Second)
					caughtUp(t, c)
					node := raftgrouptest.NodeOf(leader.Replica())
					to, third := node%3+1, (node+1)%3+1
					target := raftgrouptest.ReplicaOf(1, to)
					if any {
						target = id.NoReplica
						c.Net.Cut(node, third) // so that to looks best
						propose(t, c, leader, 5, 10)
						c.Net.Heal()
					}
					c.Net.Isolate(to, 1, 2, 3)
					failed := make(chan error, 1)
					go func() { failed <- leader.TransferLeader(context.Background(), target) }()
					pause(time.Millisecond)
					o := watch(c)
					what.fate(c, node, to)
					d := o.resumed(t, 20*time.Second)
					t.Logf("records are taken after %v", d)
					require.Less(t, d, what.limit)
					if err := <-failed; any {
						require.NoError(t, err)
						require.True(t, c.Group(third, 1).IsLeader())
					} else {
						require.ErrorIs(t, err, raftgroup.ErrTransferFailed)
						require.True(t, leader.IsLeader())
					}
					c.Net.Heal()
					if c.Nodes[to].Host == nil {
						up(t, c, to)
					}
					caughtUp(t, c)
				})
			})
		}
	}
}

// TestThawedSuccessor: the one to whom leadership was handed over was frozen, and is told to campaign when the leader has long gone on. His
// log is behind, so he deposes the leader and cannot take his place.
func TestThawedSuccessor(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		caughtUp(t, c)
		_, node, term := leader.Leader()
		to := node%3 + 1
		c.Net.Cut(node, to)
		o := watch(c)
		o.run(500 * time.Millisecond)
		inject(c, raftpb.MsgTimeoutNow, node, to, term)
		o.run(10 * time.Second)
		_, _, now := c.AwaitLeader(1, time.Second).Leader()
		require.Greater(t, now, term, "nobody was deposed")
		t.Logf("the group took nothing for %v", o.longest())
		require.Less(t, o.longest(), time.Second)
		c.Net.Heal()
		caughtUp(t, c)
	})
}

// TestCutsOfEveryKind: connections fail, one way or both. The lanes of both ends notice a while later, since a lane needs both ways. From
// then on records are taken again within two seconds, by whoever has a majority.
func TestCutsOfEveryKind(t *testing.T) {
	const a, b, d = id.Node(1), id.Node(2), id.Node(3)
	type cut = [2]id.Node
	for name, cuts := range map[string][]cut{
		"one way":           {{a, b}},
		"the other way":     {{b, a}},
		"both ways":         {{a, b}, {b, a}},
		"a hears nobody":    {{b, a}, {d, a}},
		"nobody hears a":    {{a, b}, {a, d}},
		"a is alone":        {{a, b}, {b, a}, {a, d}, {d, a}},
		"a ring that turns": {{a, b}, {b, d}},
	} {
		t.Run(name, func(t *testing.T) {
			rng := seeded(t)
			cluster(t, three(6), func(t *testing.T, c *raftgrouptest.Cluster) {
				allLed(t, c)
				caughtUp(t, c)
				o := watch(c)
				o.run(time.Second)
				for _, cut := range cuts {
					c.Net.Cut(cut[0], cut[1])
				}
				o.run(1500 * time.Millisecond)
				ends := slices.Clone(cuts)
				for _, cut := range cuts {
					if end := [2]id.Node{cut[1], cut[0]}; !slices.Contains(ends, end) {
						ends = append(ends, end)
					}
				}
				rng.Shuffle(len(ends), func(i, j int) { ends[i], ends[j] = ends[j], ends[i] })
				began := time.Now()
				for _, end := range ends {
					c.Nodes[end[0]].Host.NodeDown(end[1])
					o.run(time.Duration(rng.IntN(100)) * time.Millisecond)
				}
				o.resumed(t, 30*time.Second)
				took := time.Since(began)
				o.reset()
				o.run(10 * time.Second)
				t.Logf("records are taken %v after that, and then every %v", took, o.longest())
				require.Less(t, took, 2*time.Second)
				require.Less(t, o.longest(), time.Second, "leaders come and go")
				c.Net.Heal()
				for _, end := range ends {
					c.Nodes[end[0]].Host.NodeUp(end[1])
				}
				o.run(5 * time.Second)
				require.Less(t, o.longest(), 2*time.Second, "when the network is whole again")
				caughtUp(t, c)
			})
		})
	}
}
