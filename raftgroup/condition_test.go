package raftgroup_test

import (
	"context"
	"fmt"
	"path"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// disk is one that can be closed once the ward is healed.
func (w *ward) disk(n id.Node) raftgrouptest.Disk {
	d := raftgrouptest.NewMemDisk(uint64(n))
	d.Poison = true
	d.Delay = func() time.Duration {
		for w.hung[n].Load() {
			pause(20 * time.Millisecond)
		}
		return time.Duration(w.slow[n].Load())
	}
	d.Pressure = func() wal.Pressure { return w.pressure(n) }
	d.Condemned = func(id.Group) wal.Condemnation {
		if w.rotten[n].Load() {
			return wal.CondemnedReads
		}
		return 0
	}
	return d
}

// sick runs test on three nodes on disks of a ward. Group 9 is vital.
func sick(t *testing.T, groups int, o raftgroup.Options, test func(t *testing.T, c *raftgrouptest.Cluster, w *ward)) {
	t.Helper()
	w := &ward{}
	config := raftgrouptest.Config{Nodes: 3, Groups: groups, Options: o, Disk: w.disk, Campaign: raftgroup.CampaignPreferred, Vital: 9}
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		defer w.heal()
		for g := id.Group(1); int(g) <= groups; g++ {
			require.NotNil(t, c.AwaitLeader(g, time.Second))
		}
		caughtUp(t, c)
		test(t, c, w)
	})
}

// within polls a condition.
func within(t *testing.T, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	require.True(t, raftgrouptest.Until(limit, condition), "not within %v: %s", limit, what)
}

// told is within on a cluster whose nodes hear of each other.
func told(t *testing.T, c *raftgrouptest.Cluster, limit time.Duration, what string, condition func() bool) {
	t.Helper()
	within(t, limit, what, func() bool {
		c.TellConditions()
		return condition()
	})
}

// ledBy counts the groups that a node leads.
func ledBy(c *raftgrouptest.Cluster, n id.Node) (led int) {
	for g := id.Group(1); int(g) <= c.Config.Groups; g++ {
		if r := c.Group(n, g); r != nil && r.IsLeader() {
			led++
		}
	}
	return led
}

// producer proposes to a group, a batch after the other, and notes the longest time without an acknowledgement.
type producer struct {
	c       *raftgrouptest.Cluster
	group   id.Group
	pending <-chan raftgroup.Result
	last    time.Time
	gap     time.Duration
	refused error // the last one
}

func (p *producer) poll() {
	if p.last.IsZero() {
		p.last = time.Now()
	}
	if p.pending == nil {
		if leader := p.c.Leader(p.group); leader != nil {
			p.pending = p.c.Propose(leader, raftgrouptest.Batch(make([]byte, 1<<10)), raftgroup.AcksAll)
		}
	}
	select {
	case r := <-p.pending:
		p.pending = nil
		if r.Err == nil {
			p.last = time.Now()
		} else {
			p.refused = r.Err
		}
	default:
	}
	p.gap = max(p.gap, time.Since(p.last))
}

// TestHungLeaderHandsOver: the disk of a leader neither works nor fails. Its heartbeats go on, so nobody takes over by himself. All its
// groups, the vital one too, are led by others before producers have waited for two seconds; it takes part again when its disk does.
func TestHungLeaderHandsOver(t *testing.T) {
	sick(t, 9, raftgroup.Options{MaxGroupBytes: 16 << 10}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
		const bad = id.Node(3) // the vital group prefers it
		require.Positive(t, ledBy(c, bad))
		require.Equal(t, bad, raftgrouptest.NodeOf(c.Leader(9).Replica()))
		old := c.Group(bad, 9)
		producers := make([]producer, 9)
		for i := range producers {
			producers[i] = producer{c: c, group: id.Group(i + 1)}
		}
		run := func(limit time.Duration, what string, condition func() bool) {
			told(t, c, limit, what, func() bool {
				for i := range producers {
					producers[i].poll()
				}
				return condition()
			})
		}
		w.hung[bad].Store(true)
		run(2*time.Second, "the hung node hands over all it leads", func() bool { return ledBy(c, bad) == 0 })
		begin := time.Now()
		run(10*time.Second, "time passes", func() bool { return time.Since(begin) > 7*time.Second })
		require.Zero(t, ledBy(c, bad), "it took a leadership back")
		r := <-c.Propose(old, raftgrouptest.Batch(nil), raftgroup.AcksAll)
		var not *raftgroup.NotLeaderError
		require.ErrorAs(t, r.Err, &not)
		require.Equal(t, raftgrouptest.NodeOf(c.Leader(9).Replica()), not.Leader, "it does not say who leads")
		w.heal()
		run(10*time.Second, "the node counts as good again", func() bool { return c.Nodes[bad].Host.Condition() == raftgroup.Good })
		for i := range producers {
			require.Less(t, producers[i].gap, 2*time.Second, "group %d took nothing (last error: %v)", i+1, producers[i].refused)
			require.NotNil(t, c.Leader(id.Group(i+1)))
		}
		told(t, c, 10*time.Second, "it catches up", func() bool { return c.Caught(1) && c.Caught(9) })
		require.NoError(t, c.Leader(1).TransferLeader(context.Background(), raftgrouptest.ReplicaOf(1, bad)))
	})
}

// TestHungFollowerDoesNotDisturb: a follower whose disk hangs hears nothing of its leaders either. It must not campaign: with the others'
// votes it could win, and nobody could write.
func TestHungFollowerDoesNotDisturb(t *testing.T) {
	sick(t, 3, raftgroup.Options{}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
		leader := c.Leader(1)
		lead := raftgrouptest.NodeOf(leader.Replica())
		bad := lead%3 + 1
		_, _, term := leader.Leader()
		w.hung[bad].Store(true)
		propose(t, c, leader, 20, 1000)
		told(t, c, 3*time.Second, "it is stalled", func() bool { return c.Nodes[bad].Host.Condition() == raftgroup.Stalled })
		elections := c.Nodes[bad].Host.Metrics().Elections
		c.Net.Cut(lead, bad)
		c.Nodes[bad].Host.NodeDown(lead)
		begin := time.Now()
		told(t, c, 20*time.Second, "the leader goes on", func() bool {
			propose(t, c, leader, 1, 1000)
			return time.Since(begin) > 15*time.Second
		})
		_, _, now := leader.Leader()
		require.Equal(t, term, now)
		require.Equal(t, elections, c.Nodes[bad].Host.Metrics().Elections)
		status, err := c.Group(bad, 1).Status(context.Background())
		require.NoError(t, err)
		require.Equal(t, raftgroup.Follower, status.Role, "its clock runs")
		c.Net.Heal()
		w.heal()
		told(t, c, time.Minute, "it catches up", func() bool { return c.Caught(1) })
	})
}

// TestBothOfTwoHang: where a majority can store no vote a leader keeps leading, for those who read, and goes on when the disks do.
func TestBothOfTwoHang(t *testing.T) {
	for name, third := range map[string]func(*raftgrouptest.Cluster, id.Node){
		"the third is down": func(c *raftgrouptest.Cluster, n id.Node) { c.Crash(n) },
		"the third is well": func(*raftgrouptest.Cluster, id.Node) {},
	} {
		t.Run(name, func(t *testing.T) {
			sick(t, 1, raftgroup.Options{}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
				leader := c.Leader(1)
				lead := raftgrouptest.NodeOf(leader.Replica())
				follower, other := lead%3+1, (lead+1)%3+1
				third(c, other)
				w.hung[follower].Store(true)
				c.Propose(leader, raftgrouptest.Batch(nil), raftgroup.AcksNone)
				told(t, c, 3*time.Second, "it is stalled", func() bool { return c.Nodes[follower].Host.Condition() == raftgroup.Stalled })
				w.hung[lead].Store(true)
				p := producer{c: c, group: 1}
				begin := time.Now()
				told(t, c, 20*time.Second, "the leader leads", func() bool {
					p.poll()
					ctx, cancel := context.WithTimeout(context.Background(), time.Second)
					defer cancel()
					_, err := leader.ReadIndex(ctx)
					require.NoError(t, err)
					return time.Since(begin) > 15*time.Second
				})
				require.True(t, leader.IsLeader())
				w.heal()
				told(t, c, 20*time.Second, "records are taken again", func() bool {
					p.poll()
					return p.last.After(begin.Add(15 * time.Second))
				})
				if c.Nodes[other].Host == nil {
					require.NoError(t, c.Start(other))
				}
				told(t, c, time.Minute, "all catch up", func() bool { return c.Caught(1) })
			})
		})
	}
}

// TestSlowDisksElect: all disks take two seconds for each round. Nobody is better than another, and when the leader goes somebody must
// follow him, although all of them count as stalled.
func TestSlowDisksElect(t *testing.T) {
	sick(t, 2, raftgroup.Options{}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
		for n := range w.slow {
			w.slow[n].Store(int64(2 * time.Second))
		}
		producers := [2]producer{{c: c, group: 1}, {c: c, group: 2}}
		var acked [2]int
		run := func(limit time.Duration, what string, condition func() bool) {
			told(t, c, limit, what, func() bool {
				for i := range producers {
					last := producers[i].last
					if producers[i].poll(); producers[i].last.After(last) {
						acked[i]++
					}
				}
				return condition()
			})
		}
		begin := time.Now()
		run(time.Minute, "time passes", func() bool { return time.Since(begin) > 50*time.Second })
		require.Greater(t, min(acked[0], acked[1]), 5, "slow disks are used as far as they can")
		gone := raftgrouptest.NodeOf(c.Leader(1).Replica())
		require.NotEqual(t, gone, raftgrouptest.NodeOf(c.Leader(2).Replica()), "the other group keeps the disks busy")
		producers[0].pending = nil
		c.Crash(gone)
		begin = time.Now()
		run(5*time.Minute, "somebody else leads and takes records", func() bool { return producers[0].last.After(begin) })
		t.Logf("after %v", time.Since(begin))
	})
}

// TestSlowDiskVotes: a replica whose disk is slow does not campaign for long, but has a vote for who does: the clock by which it believes
// in a leader that it does not hear from is not a slow one.
func TestSlowDiskVotes(t *testing.T) {
	sick(t, 4, raftgroup.Options{}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
		gone := raftgrouptest.NodeOf(c.Leader(1).Replica())
		slow := gone%3 + 1
		w.slow[slow].Store(int64(2 * time.Second))
		var producers []producer // the others keep the disk busy
		for g := id.Group(1); g <= 4; g++ {
			producers = append(producers, producer{c: c, group: g})
		}
		run := func(limit time.Duration, what string, condition func() bool) {
			told(t, c, limit, what, func() bool {
				for i := range producers {
					producers[i].poll()
				}
				return condition()
			})
		}
		run(10*time.Second, "it is stalled", func() bool { return c.Nodes[slow].Host.Condition() == raftgroup.Stalled })
		gone = raftgrouptest.NodeOf(c.Leader(1).Replica())
		require.NotEqual(t, slow, gone)
		require.NoError(t, c.Nodes[gone].Host.CloseGroup(context.Background(), c.Group(gone, 1))) // the node is there, nobody reports it
		producers = producers[1:]
		begin := time.Now()
		run(time.Minute, "another leader", func() bool { return c.Leader(1) != nil })
		t.Logf("after %v", time.Since(begin))
		require.Less(t, time.Since(begin), 20*time.Second) // with a slow clock it is 35 s and more
	})
}

// TestFullLeaderHandsOver: a node without space gives up what it leads, but for vital groups, and is given nothing by anybody, until it has
// space again.
func TestFullLeaderHandsOver(t *testing.T) {
	sick(t, 9, raftgroup.Options{}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
		const bad = id.Node(3) // the vital group prefers it
		ctx := context.Background()
		require.Greater(t, ledBy(c, bad), 1)
		require.True(t, c.Group(bad, 9).IsLeader())
		w.full[bad].Store(true)
		told(t, c, time.Second, "it hands over", func() bool { return ledBy(c, bad) == 1 })
		propose(t, c, c.Group(bad, 9), 5, 100)
		propose(t, c, c.Leader(1), 5, 100)

		require.ErrorIs(t, c.Leader(1).TransferLeader(ctx, raftgrouptest.ReplicaOf(1, bad)), raftgroup.ErrTransferFailed)
		gone := raftgrouptest.NodeOf(c.Leader(1).Replica())
		c.Crash(gone)
		for n := id.Node(1); n <= 3; n++ {
			if n != gone {
				c.Nodes[n].Host.NodeDown(gone)
			}
		}
		begin := time.Now()
		told(t, c, 5*time.Second, "somebody leads", func() bool { return c.Leader(1) != nil })
		require.NotEqual(t, bad, raftgrouptest.NodeOf(c.Leader(1).Replica()), "the full one is first")
		told(t, c, 5*time.Second, "time passes", func() bool { return time.Since(begin) > 3*time.Second })
		require.NotEqual(t, bad, raftgrouptest.NodeOf(c.Leader(1).Replica()), "the full one took it")

		// It starts again, full: its preferred groups have a leader, and keep him.
		require.NoError(t, c.Start(gone))
		restarted(t, c, bad)
		begin = time.Now()
		told(t, c, 10*time.Second, "time passes", func() bool { return time.Since(begin) > 5*time.Second })
		for g := id.Group(1); g < 9; g++ {
			require.NotNil(t, c.Leader(g))
			require.NotEqual(t, bad, raftgrouptest.NodeOf(c.Leader(g).Replica()), "group %d", g)
		}

		w.heal()
		told(t, c, time.Second, "it is good", func() bool { return c.Nodes[bad].Host.Condition() == raftgroup.Good })
		told(t, c, 5*time.Second, "it catches up without being asked", func() bool { return c.Caught(1) })
		require.NoError(t, c.Leader(1).TransferLeader(ctx, raftgrouptest.ReplicaOf(1, bad)))
	})
}

// TestCondemnedDeclines: a replica whose log is condemned is not given its group by anybody, and producers do not wait for the attempt. A
// leader that has to hand over finds the other one. With nobody else left it is elected all the same.
func TestCondemnedDeclines(t *testing.T) {
	sick(t, 1, raftgroup.Options{}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
		ctx := context.Background()
		leader := c.Leader(1)
		lead := raftgrouptest.NodeOf(leader.Replica())
		bad, other := lead%3+1, (lead+1)%3+1
		w.rotten[bad].Store(true)
		c.Net.Cut(lead, other) // until it is behind, so that the condemned one looks better
		propose(t, c, leader, 5, 100)
		c.Net.Heal()
		require.NoError(t, leader.TransferLeader(ctx, id.NoReplica))
		leader = c.Group(other, 1)
		require.True(t, leader.IsLeader())
		begin := time.Now()
		for range 3 {
			require.ErrorIs(t, leader.TransferLeader(ctx, raftgrouptest.ReplicaOf(1, bad)), raftgroup.ErrTransferFailed)
		}
		require.Less(t, time.Since(begin), time.Second, "proposals waited meanwhile")
		propose(t, c, leader, 5, 100)

		for _, n := range []id.Node{lead, other} {
			c.Crash(n)
			c.Nodes[bad].Host.NodeDown(n)
		}
		require.NoError(t, c.Start(lead))
		w.rotten[lead].Store(true)
		require.NotNil(t, c.AwaitLeader(1, time.Minute), "two condemned ones elect nobody")
		within(t, 5*time.Second, "both are in sync", func() bool {
			if leader = c.Leader(1); leader == nil {
				return false
			}
			s, err := leader.Status(ctx)
			return err == nil && s.Answering() == 2
		})
		require.ErrorIs(t, leader.TransferLeader(ctx, id.NoReplica), raftgroup.ErrTransferFailed, "they pass it to and fro")
		propose(t, c, leader, 5, 100)
	})
}

// TestDrainingDeclines: a node that hands over before it stops gives to full nodes, if there are no others. They have to hand over as well,
// and it looks best to them. When it is back they ask it again.
func TestDrainingDeclines(t *testing.T) {
	sick(t, 1, raftgroup.Options{}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
		leader := c.Leader(1)
		lead := raftgrouptest.NodeOf(leader.Replica())
		others := []id.Node{lead%3 + 1, (lead+1)%3 + 1}
		for _, n := range others {
			w.full[n].Store(true)
		}
		told(t, c, time.Second, "they are full", func() bool {
			return c.Nodes[others[0]].Host.Condition() == raftgroup.Full && c.Nodes[others[1]].Host.Condition() == raftgroup.Full
		})
		c.TellConditions()
		c.Nodes[lead].Host.Drain()
		require.NoError(t, leader.TransferLeader(context.Background(), id.NoReplica))
		begin := time.Now()
		told(t, c, 5*time.Second, "time passes", func() bool {
			require.False(t, leader.IsLeader(), "it got it back after %v", time.Since(begin))
			return time.Since(begin) > 3*time.Second
		})
		require.NoError(t, c.Stop(lead))
		for _, n := range others {
			c.Nodes[n].Host.NodeDown(lead)
		}
		require.NoError(t, c.Start(lead))
		for _, n := range others {
			c.Nodes[n].Host.NodeUp(lead)
		}
		told(t, c, 15*time.Second, "it leads again", func() bool { return c.Group(lead, 1).IsLeader() })
	})
}

// TestAllFull: nobody has space. Everything is led, can be read, and vital groups take what they are given, before and after a restart of
// all nodes. What the leaders had taken when the disks filled up is in nobody's way.
func TestAllFull(t *testing.T) {
	sick(t, 9, raftgroup.Options{}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
		leader := c.Leader(1)
		for n := range w.full {
			w.full[n].Store(true)
		}
		begin := time.Now()
		late := c.Propose(leader, raftgrouptest.Batch(make([]byte, 1000)), raftgroup.AcksAll)
		told(t, c, 10*time.Second, "time passes", func() bool { return time.Since(begin) > 5*time.Second })
		serves := func() {
			for g := id.Group(1); g <= 9; g++ {
				require.NotNil(t, c.Leader(g), "group %d has no leader", g)
				ctx, cancel := context.WithTimeout(context.Background(), time.Second)
				_, err := c.Leader(g).ReadIndex(ctx)
				cancel()
				require.NoError(t, err, "group %d cannot be read", g)
			}
			propose(t, c, c.Leader(9), 5, 100)
		}
		serves()
		require.True(t, leader.IsLeader(), "leaderships move for nothing")
		select {
		case r := <-late:
			require.Error(t, r.Err, "a follower without space took a batch")
		default:
		}
		for n := id.Node(1); n <= 3; n++ {
			require.NoError(t, c.Stop(n))
		}
		for n := id.Node(1); n <= 3; n++ {
			require.NoError(t, c.Start(n))
		}
		told(t, c, 10*time.Second, "everything is led", func() bool {
			for g := id.Group(1); g <= 9; g++ {
				if c.Leader(g) == nil {
					return false
				}
			}
			return true
		})
		begin = time.Now()
		told(t, c, 10*time.Second, "time passes", func() bool { return time.Since(begin) > 2*time.Second })
		serves()
		w.heal()
		p := producer{c: c, group: 1}
		begin = time.Now()
		told(t, c, 10*time.Second, "records are taken", func() bool {
			p.poll()
			return p.last.After(begin)
		})
		told(t, c, 10*time.Second, "all catch up", func() bool { return c.Caught(1) })
	})
}

// TestFullFollowerTakesWhatANewLeaderNeeds: the only follower that a new leader can reach has no space, and lacks batches of an earlier
// term. It takes them and the leader's first entry, also where batches of the leader's own term come along, so that the group can be read;
// and the next time that its disk is full as well.
func TestFullFollowerTakesWhatANewLeaderNeeds(t *testing.T) {
	sick(t, 1, raftgroup.Options{MaxGroupBytes: 64 << 20}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
		const lead, bad, third = id.Node(1), id.Node(2), id.Node(3)
		for range 2 {
			leader := c.Leader(1)
			require.Equal(t, lead, raftgrouptest.NodeOf(leader.Replica()))
			c.Net.Isolate(lead, bad, third)
			last := leader.Log().LastIndex() + 10
			for range 10 {
				require.NoError(t, (<-c.Propose(leader, raftgrouptest.Batch(make([]byte, 1_000_000)), raftgroup.AcksLeader)).Err)
			}
			require.Equal(t, last, leader.Log().LastIndex())
			c.Crash(lead)
			c.Crash(third)
			w.full[bad].Store(true)
			within(t, time.Second, "it is full", func() bool { return c.Nodes[bad].Host.Condition() == raftgroup.Full })
			c.Nodes[bad].Host.NodeDown(lead)

			c.Net.Heal()
			c.Net.SetFilter(func(_, _ id.Node, _ id.Group, m *raftpb.Message) bool { return m.GetType() != raftpb.MsgApp })
			require.NoError(t, c.Start(lead))
			leader = c.AwaitLeader(1, 10*time.Second)
			require.Equal(t, c.Group(lead, 1), leader)
			c.Propose(leader, raftgrouptest.Batch(make([]byte, 1000)), raftgroup.AcksAll)
			within(t, time.Second, "it has a batch of its own", func() bool { return leader.Log().LastIndex() == last+2 })
			c.Net.SetFilter(nil)
			told(t, c, 10*time.Second, "it can be read", func() bool {
				ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
				defer cancel()
				_, err := leader.ReadIndex(ctx)
				return err == nil
			})
			require.Equal(t, last+1, c.Group(bad, 1).Log().LastIndex(), "of the leader's own batches it takes none")

			w.heal()
			require.NoError(t, c.Start(third))
			told(t, c, 10*time.Second, "all catch up", func() bool { return c.Caught(1) })
		}
	})
}

// TestFullFollowerTakesNoBatches: at the door of a follower without space batches are dropped, and once its leader knows they are not even
// sent. When there is space again they come without being asked for.
func TestFullFollowerTakesNoBatches(t *testing.T) {
	sick(t, 1, raftgroup.Options{}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
		leader := c.Leader(1)
		bad := raftgrouptest.NodeOf(leader.Replica())%3 + 1
		var mu sync.Mutex
		sent := 0
		c.Net.SetFilter(func(_, to id.Node, _ id.Group, m *raftpb.Message) bool {
			mu.Lock()
			defer mu.Unlock()
			if to == bad && m.GetType() == raftpb.MsgApp && len(m.GetEntries()) > 0 {
				sent++
			}
			return true
		})
		had := c.Group(bad, 1).Log().LastIndex()
		w.full[bad].Store(true)
		within(t, time.Second, "it is full", func() bool { return c.Nodes[bad].Host.Condition() == raftgroup.Full })
		propose(t, c, leader, 50, 1000)
		within(t, time.Second, "it drops", func() bool { return c.Nodes[bad].Host.Metrics().DroppedNoSpace > 0 })
		c.TellConditions()
		synctest.Wait()
		mu.Lock()
		sent = 0
		mu.Unlock()
		begin := time.Now()
		told(t, c, 20*time.Second, "time passes", func() bool {
			propose(t, c, leader, 1, 1000)
			return time.Since(begin) > 10*time.Second
		})
		mu.Lock()
		require.Zero(t, sent, "messages with batches were sent to a disk without space")
		mu.Unlock()
		require.Equal(t, had, c.Group(bad, 1).Log().LastIndex())
		w.heal()
		told(t, c, 5*time.Second, "it catches up", func() bool { return c.Caught(1) })
	})
}

// TestHungFollowerIsNotFlooded: what a follower whose disk hangs is sent is bounded, however many groups have something for it.
func TestHungFollowerIsNotFlooded(t *testing.T) {
	const groups = 6
	sick(t, groups, raftgroup.Options{Workers: 1}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
		const bad = id.Node(2)
		var bytes atomic.Int64
		c.Net.SetFilter(func(_, to id.Node, _ id.Group, m *raftpb.Message) bool {
			for _, e := range m.GetEntries() {
				if to == bad && m.GetType() == raftpb.MsgApp {
					bytes.Add(int64(len(e.GetData())))
				}
			}
			return true
		})
		w.hung[bad].Store(true)
		told(t, c, 4*time.Second, "it is stalled", func() bool {
			for g := id.Group(1); g <= groups; g++ {
				c.Propose(c.Leader(g), raftgrouptest.Batch(make([]byte, 1000)), raftgroup.AcksAll)
			}
			return c.Nodes[bad].Host.Condition() == raftgroup.Stalled && ledBy(c, bad) == 0
		})
		before := bytes.Load()
		for g := id.Group(1); g <= groups; g++ {
			propose(t, c, c.Leader(g), 16, 1<<20)
		}
		require.Less(t, bytes.Load()-before, int64(32<<20), "of 96 MiB")
		w.heal()
		told(t, c, time.Minute, "it catches up", func() bool {
			for g := id.Group(1); g <= groups; g++ {
				if !c.Caught(g) {
					return false
				}
			}
			return true
		})
	})
}

// TestFollowerOfManyWithAHungDisk: the leaders of a follower send what their windows allow, 64 messages a group. What its disk cannot take
// must not pile up in the tails beyond the cache and a message for each group.
func TestFollowerOfManyWithAHungDisk(t *testing.T) {
	const groups, window, cache = 16, 64, 8 << 20
	sim := disksim.New(disksim.Options{})
	store, err := wal.Open(t.Context(), wal.Options{Dir: "/data", FS: sim, PebbleFS: sim.Pebble(), CacheBytes: cache, JournalFileBytes: 4 << 20})
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	host, err := raftgroup.New(raftgroup.Options{Node: self, Store: store, Transport: raftgrouptest.Nowhere{}, Workers: 1, StallAfter: time.Hour})
	require.NoError(t, err)
	defer host.Close()
	n := &lone{voters: []id.Node{self, 2, 3}}
	for g := id.Group(1); g <= groups; g++ {
		var voters []id.Replica
		for _, m := range n.members(g) {
			voters = append(voters, m.Replica)
		}
		l, err := store.Create(t.Context(), wal.Spec{
			Group: g, Replica: raftgrouptest.ReplicaOf(g, self), Name: fmt.Sprintf("t-%d", g), Start: wal.Start{Index: 10, Term: 1},
			HardState: wal.HardState{Term: 1, Commit: 10}, State: wal.State{Applied: 10, ConfState: raftgroup.EncodeConfState(voters, nil)},
		})
		require.NoError(t, err)
		_, err = host.Open(raftgroup.Spec{Group: g, Replica: l.Replica(), Members: n.members(g), Log: l, Machine: quiet{}})
		require.NoError(t, err)
	}
	hang := make(chan struct{})
	sim.SetHook(func(op disksim.Op) error {
		if d := path.Dir(op.Name); !op.Pebble && op.Kind == disksim.OpWrite && (d == "/data/journal" || path.Dir(d) == "/data/logs") {
			<-hang
		}
		return nil
	})
	defer close(hang)
	for i := range uint64(window) {
		for g := id.Group(1); g <= groups; g++ {
			b := raftgrouptest.Batch(make([]byte, 100<<10))
			b.Stamp(id.Offset(i), 2)
			host.Step(2, g, entries(g, 2, 10+i, min(1+i, 2), b), nil)
		}
		require.True(t, raftgrouptest.Until(time.Minute, func() bool { return raftgroup.Unfinished(host) == "" }))
	}
	m := host.Metrics()
	require.Positive(t, m.DroppedBehind)
	got := store.Metrics().TailBytes
	require.Greater(t, got, int64(cache/2), "the test does not fill the cache")
	require.LessOrEqual(t, got, int64(2*cache))
}

// TestAppendsAreBounded: whatever waits for a follower, one turn makes appends of a few MiB of it, which a commit round has to take as they
// are. Nothing of it is lost, and it stays in order.
func TestAppendsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := follower(t)
		const messages = 40
		v, large := n.host.Visit(), batchOf(t, 1<<20)
		for i := range uint64(messages) {
			b := slices.Clone(large)
			b.Stamp(id.Offset(i), 2)
			v.Step(2, 1, entries(1, 2, 11+i, 2, b), nil)
		}
		n.store.take()
		v.End()
		synctest.Wait()
		total := 0
		for _, s := range n.store.take() {
			require.LessOrEqual(t, s.entries, 4)
			total += s.entries
		}
		require.Equal(t, messages, total)
		require.EqualValues(t, 11+messages, n.group(1).Log().LastIndex())
	})
}
