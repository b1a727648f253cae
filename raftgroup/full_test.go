package raftgroup_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/command"
	"github.com/quorumlog/quorumlog/raftgroup/door"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// ordered proposes a command, as those are that free space.
func ordered(leader *raftgroup.Group) <-chan raftgroup.Result {
	done := make(chan raftgroup.Result, 1)
	leader.Propose(&raftgroup.Proposal{
		Command: command.Command{Kind: 9, Version: 1, Body: []byte("x")}.Append(nil), Acks: raftgroup.AcksLeader, Wait: raftgroup.WaitApplied,
		Done: func(p *raftgroup.Proposal) { done <- p.Result },
	})
	return done
}

// ends polls until a proposal has.
func ends(t *testing.T, c *raftgrouptest.Cluster, limit time.Duration, what string, done <-chan raftgroup.Result) (r raftgroup.Result) {
	t.Helper()
	told(t, c, limit, what, func() bool {
		select {
		case r = <-done:
			return true
		default:
			return false
		}
	})
	return r
}

// passes has time pass.
func passes(t *testing.T, c *raftgrouptest.Cluster, d time.Duration) {
	t.Helper()
	begin := time.Now()
	told(t, c, 2*d+time.Second, "time passes", func() bool { return time.Since(begin) > d })
}

// fill has disks become full, and their nodes notice: but for the leader's own, nobody has told him yet.
func fill(t *testing.T, c *raftgrouptest.Cluster, w *ward, nodes ...id.Node) {
	t.Helper()
	for _, n := range nodes {
		w.full[n].Store(true)
	}
	within(t, time.Second, "they are full", func() bool {
		for _, n := range nodes {
			if c.Nodes[n].Host.Condition() != raftgroup.Full {
				return false
			}
		}
		return true
	})
}

// others are the nodes but one.
func others(n id.Node) []id.Node { return []id.Node{n%3 + 1, (n+1)%3 + 1} }

// TestCommandsPassFullDisks: a leader has a batch of its own term that a majority without space did not take, and behind it comes a command:
// what frees space is one. It commits, and the batch with it. Batches are refused from when the leader knows until there is space.
func TestCommandsPassFullDisks(t *testing.T) {
	type state struct {
		c      *raftgrouptest.Cluster
		w      *ward
		leader *raftgroup.Group
		lead   id.Node
	}
	for name, trouble := range map[string]func(t *testing.T, s *state){
		"followers": func(*testing.T, *state) {},
		"all":       func(t *testing.T, s *state) { fill(t, s.c, s.w, s.lead) },
		"one, and one is down": func(t *testing.T, s *state) {
			s.w.full[others(s.lead)[1]].Store(false)
			s.c.Crash(others(s.lead)[1])
		},
		"all, and another leads": func(t *testing.T, s *state) {
			fill(t, s.c, s.w, s.lead)
			s.c.Net.Isolate(s.lead, 1, 2, 3) // the others have no batch
			told(t, s.c, 30*time.Second, "another leads", func() bool { l := s.c.Leader(1); return l != nil && l != s.leader })
			s.c.Net.Heal()
		},
		"all, and it leads again": func(t *testing.T, s *state) {
			fill(t, s.c, s.w, s.lead)
			s.c.Crash(s.lead)
			require.NoError(t, s.c.Start(s.lead))
			s.c.Group(s.lead, 1).Campaign()
		},
	} {
		t.Run(name, func(t *testing.T) {
			sick(t, 1, raftgroup.Options{}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
				s := &state{c: c, w: w, leader: c.Leader(1)}
				s.lead = raftgrouptest.NodeOf(s.leader.Replica())
				fill(t, c, w, others(s.lead)...)
				had := s.leader.Log().LastIndex()
				for range 3 {
					c.Propose(s.leader, raftgrouptest.Batch(make([]byte, 1000)), raftgroup.AcksAll)
				}
				within(t, time.Second, "it has the batches", func() bool { return s.leader.Log().LastIndex() == had+3 })
				trouble(t, s)
				passes(t, c, 3*time.Second)
				leader := c.AwaitLeader(1, 10*time.Second)
				require.NotNil(t, leader)
				refused := c.Propose(leader, raftgrouptest.Batch(nil), raftgroup.AcksAll)
				require.ErrorIs(t, ends(t, c, time.Second, "a batch is refused", refused).Err, raftgroup.ErrNoSpace)
				for range 2 {
					require.NoError(t, ends(t, c, 10*time.Second, "the command commits", ordered(leader)).Err)
				}
				require.Equal(t, leader.Log().LastIndex(), leader.Commit())

				w.heal()
				if n := others(s.lead)[1]; c.Nodes[n].Host == nil {
					require.NoError(t, c.Start(n))
				}
				p, begin := producer{c: c, group: 1}, time.Now()
				told(t, c, 10*time.Second, "records are taken", func() bool { p.poll(); return p.last.After(begin) })
				told(t, c, 10*time.Second, "all catch up", func() bool { return c.Caught(1) })
			})
		})
	}
}

// TestSnapshotsOnAFullDisk: a replica without space takes a snapshot, for its log is freed by it, but views only up to a bound until there is
// space. Then it gets the next one without being asked for.
func TestSnapshotsOnAFullDisk(t *testing.T) {
	w := &ward{}
	config := three(1)
	config.Disk = w.disk
	config.Machine = func(_ id.Node, m *raftgrouptest.Machine) { m.Padding = door.Allowed/2 + 1 }
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := behind(t, c, 0)
		w.full[3].Store(true)
		c.Net.Heal()
		told(t, c, time.Minute, "the first is taken", func() bool { return c.Witness.Restored(1) == 1 })
		moveOn(t, c, leader, 40, 5)
		passes(t, c, time.Minute)
		require.Equal(t, 1, c.Witness.Restored(1))
		require.Positive(t, c.Nodes[3].Host.Metrics().DroppedNoSpace)
		w.heal()
		told(t, c, 2*time.Minute, "the next is taken", func() bool { return c.Witness.Restored(1) == 2 })
		followsAgain(t, c, 2)
	})
}

// TestCommandsTakeTheirAllowance: more batches stand before a command than a full disk takes. It takes what it is allowed, others that have
// nothing before them commit, and this one does when there is space.
func TestCommandsTakeTheirAllowance(t *testing.T) {
	const size, batches = 1_000_000, 20
	sick(t, 2, raftgroup.Options{MaxGroupBytes: 64 << 20}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
		leader := c.Leader(1)
		lead := raftgrouptest.NodeOf(leader.Replica())
		fill(t, c, w, others(lead)...)
		had := c.Group(others(lead)[0], 1).Log().LastIndex()
		for range batches {
			c.Propose(leader, raftgrouptest.Batch(make([]byte, size)), raftgroup.AcksAll)
		}
		within(t, time.Second, "it has the batches", func() bool { return leader.Log().LastIndex() == had+batches })
		passes(t, c, time.Second)
		for _, n := range others(lead) {
			require.Equal(t, had, c.Group(n, 1).Log().LastIndex(), "without a command they are asked for nothing")
		}
		late := ordered(leader)
		passes(t, c, time.Minute)
		for _, n := range others(lead) {
			took := int(c.Group(n, 1).Log().LastIndex()-had) * size
			require.LessOrEqual(t, took, door.Allowed)
			require.Greater(t, took, door.Allowed-2*size)
		}
		require.Empty(t, late)
		require.NoError(t, ends(t, c, 10*time.Second, "another command commits", ordered(c.Leader(2))).Err)
		w.heal()
		require.NoError(t, ends(t, c, 20*time.Second, "the command commits", late).Err)
		told(t, c, 10*time.Second, "all catch up", func() bool { return c.Caught(1) })
	})
}

// TestFullFollowerLetsGoWithItsLeader: a follower without space misses batches, and behind them the command with which all others let go of
// what fills its disk. It lets go of it all the same, and has space for the batches then: they are more than it takes without.
func TestFullFollowerLetsGoWithItsLeader(t *testing.T) {
	const size, batches = 1_000_000, 20
	require.Greater(t, size*batches, door.Allowed)
	for name, trouble := range map[string]func(c *raftgrouptest.Cluster, w *ward, bad id.Node){
		"it runs on": func(*raftgrouptest.Cluster, *ward, id.Node) {},
		"it starts again": func(c *raftgrouptest.Cluster, _ *ward, bad id.Node) {
			c.Crash(bad)
			require.NoError(t, c.Start(bad))
		},
		"another leads": func(c *raftgrouptest.Cluster, _ *ward, bad id.Node) {
			leader := c.Leader(1)
			third := 6 - bad - raftgrouptest.NodeOf(leader.Replica())
			require.NoError(t, leader.TransferLeader(context.Background(), raftgrouptest.ReplicaOf(1, third)))
		},
	} {
		t.Run(name, func(t *testing.T) {
			sick(t, 1, raftgroup.Options{MaxGroupBytes: 64 << 20}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
				leader := c.Leader(1)
				good := []id.Node{raftgrouptest.NodeOf(leader.Replica()), others(raftgrouptest.NodeOf(leader.Replica()))[1]}
				bad := others(good[0])[0]
				propose(t, c, leader, 30, 100)
				caughtUp(t, c)
				fill(t, c, w, bad)
				passes(t, c, time.Second)
				had := c.Group(bad, 1).Log().LastIndex()
				propose(t, c, leader, batches, size)
				for _, n := range good {
					told(t, c, time.Minute, "they have the batches", func() bool { return c.Group(n, 1).Applied() >= leader.Log().LastIndex() })
					trimmedTo(t, c, n, 20)
				}
				require.NoError(t, ends(t, c, time.Second, "the command commits", ordered(leader)).Err)
				trouble(c, w, bad)

				told(t, c, time.Minute, "it lets go as well", func() bool {
					g := c.Group(bad, 1)
					c.Nodes[bad].Host.Cut(1, g.Replica()) // as the store asks for them
					return g.Log().Start() == c.Leader(1).Log().Start()
				})
				took := int(c.Group(bad, 1).Log().LastIndex()-had) * size
				require.Less(t, took, door.Allowed, "it took batches without space")
				w.heal()
				told(t, c, time.Minute, "it catches up", func() bool { return c.Caught(1) })
				require.Zero(t, c.Witness.Restored(1))
				sameLogs(t, c, 1)
			})
		})
	}
}

// TestFullFollowerHasSpaceAgain: the same on real stores. Segments go, their space is enough, and the follower is as good as the others.
func TestFullFollowerHasSpaceAgain(t *testing.T) {
	const size = 16 << 10
	config := three(1)
	config.Disk = func(n id.Node) raftgrouptest.Disk {
		d := raftgrouptest.NewWalDisk(uint64(n))
		d.Options = wal.Options{
			JournalFileBytes: 256 << 10, CheckpointBytes: 512 << 10, CheckpointInterval: 5 * time.Second,
			DirectAppendBytes: 4 << 10, SegmentBytes: 128 << 10, CacheBytes: 1 << 20, ReserveBytes: 1,
		}
		return d
	}
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		lead := raftgrouptest.NodeOf(leader.Replica())
		bad := others(lead)[0]
		is := func(want raftgroup.Condition) func() bool {
			return func() bool { return c.Nodes[bad].Host.Condition() == want }
		}
		propose(t, c, leader, 500, size)
		caughtUp(t, c)
		passes(t, c, 5*time.Second) // the ballast is whole
		c.Nodes[bad].Disk.(*raftgrouptest.WalDisk).Fill()
		told(t, c, 10*time.Second, "it is full", is(raftgroup.Full))
		passes(t, c, time.Second)
		had := c.Group(bad, 1).Log().LastIndex()
		propose(t, c, leader, 50, size)
		require.Equal(t, had, c.Group(bad, 1).Log().LastIndex())
		passes(t, c, 20*time.Second)
		require.True(t, is(raftgroup.Full)())
		for _, n := range []id.Node{lead, others(lead)[1]} {
			require.True(t, c.Nodes[n].Host.Condition() == raftgroup.Good)
			c.Nodes[n].Machines[1].Trim(450)
			told(t, c, time.Minute, "it lets go", func() bool {
				c.Nodes[n].Host.Cut(1, c.Group(n, 1).Replica())
				return c.Group(n, 1).Log().Start().Offset > 440
			})
		}
		told(t, c, time.Minute, "it has space", is(raftgroup.Good))
		told(t, c, time.Minute, "it catches up", func() bool { return c.Caught(1) })
		require.Zero(t, c.Witness.Restored(1))
		sameLogs(t, c, 1)
	})
}

// TestStartsThatChangeNothing: a start that no leader of now has told, of another log than this one, or of entries that are not known to be
// committed; and the true one, as long as there is space. A replica without space lets go for the leader's word alone.
func TestStartsThatChangeNothing(t *testing.T) {
	sick(t, 1, raftgroup.Options{}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
		leader := c.Leader(1)
		lead := raftgrouptest.NodeOf(leader.Replica())
		bad, third := others(lead)[0], others(lead)[1]
		propose(t, c, leader, 30, 100)
		caughtUp(t, c)
		g := c.Group(bad, 1)
		_, _, term := leader.Leader()
		c.Nodes[bad].Host.Cut(1, g.Replica())
		pause(100 * time.Millisecond)
		c.Net.Isolate(third, 1, 2, 3)
		c.Net.SetFilter(func(_, _ id.Node, _ id.Group, m *raftpb.Message) bool { return m.GetType() != raftpb.MsgAppResp })
		c.Propose(leader, raftgrouptest.Batch(nil), raftgroup.AcksNone)
		within(t, time.Second, "it has one that is not committed", func() bool { return g.Log().LastIndex() > g.Commit() })
		start, last := g.Log().Start(), g.Log().LastIndex()
		word := func(from id.Node, in id.Term, index id.Index, of id.Term) {
			c.Net.Inject(from, bad, 1, &raftpb.Message{
				Type: raftpb.MsgSnap.Enum(), From: new(uint64(raftgrouptest.ReplicaOf(1, from))), To: new(uint64(g.Replica())), Term: new(uint64(in)),
				Snapshot: &raftpb.Snapshot{Metadata: &raftpb.SnapshotMetadata{Index: new(uint64(index)), Term: new(uint64(of))}},
			})
			pause(100 * time.Millisecond)
			c.Nodes[bad].Host.Cut(1, g.Replica())
			pause(100 * time.Millisecond)
		}
		word(lead, term, 30, term)
		require.Equal(t, start, g.Log().Start(), "with space")
		fill(t, c, w, bad)
		c.Net.Isolate(bad, 1, 2, 3)
		word(third, term, 30, term)
		word(lead, term-1, 30, term-1)
		word(lead, term+1, 30, term)
		word(lead, term, 30, term-1)
		word(lead, term, last, term) // stored, and not committed as far as this replica knows
		word(lead, term, last+1, term)
		word(lead, term, start.Index-1, term)
		require.Equal(t, start, g.Log().Start())
		word(lead, term, 30, term)
		require.Equal(t, id.Index(30), g.Log().Start().Index)
		word(lead, term, 20, term)
		require.Equal(t, id.Index(30), g.Log().Start().Index)
		c.Net.Heal()
		c.Net.SetFilter(nil)
		w.heal()
		told(t, c, time.Minute, "all is well", func() bool { return c.Caught(1) })
	})
}

// TestStartsAreToldSeldom: once for each start, and again after a while, however often batches are held back. Nothing comes back for it that
// has the leader send, or read, more than its probes.
func TestStartsAreToldSeldom(t *testing.T) {
	sick(t, 1, raftgroup.Options{}, func(t *testing.T, c *raftgrouptest.Cluster, w *ward) {
		leader := c.Leader(1)
		lead := raftgrouptest.NodeOf(leader.Replica())
		bad := others(lead)[0]
		propose(t, c, leader, 30, 100)
		caughtUp(t, c)
		fill(t, c, w, bad)
		passes(t, c, time.Second)
		propose(t, c, leader, 200, 100)
		var told, answers atomic.Int64
		c.Net.SetFilter(func(from, to id.Node, _ id.Group, m *raftpb.Message) bool {
			switch {
			case to == bad && isSnapshot(m):
				told.Add(1)
			case from == bad && m.GetType() == raftpb.MsgAppResp:
				answers.Add(1)
			}
			return true
		})
		passes(t, c, time.Minute)
		require.Zero(t, told.Load(), "of a log that has everything")
		trimmedTo(t, c, lead, 10)
		passes(t, c, 55*time.Second)
		require.EqualValues(t, 6, told.Load())
		trimmedTo(t, c, lead, 20)
		passes(t, c, 2*time.Second)
		require.EqualValues(t, 7, told.Load(), "a new one at once")
		passes(t, c, 53*time.Second)
		require.EqualValues(t, 12, told.Load())
		require.LessOrEqual(t, answers.Load(), int64(1), "but that it does not have what it would have by now")
		require.Less(t, c.Nodes[lead].Host.Metrics().HeldBack, uint64(2000))
	})
}
