package raftgroup_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal/id"
)

// trimmedTo moves the start of a node's log so far that all below an offset is gone.
func trimmedTo(t *testing.T, c *raftgrouptest.Cluster, node id.Node, below id.Offset) {
	t.Helper()
	g := c.Group(node, 1)
	require.True(t, raftgrouptest.Until(time.Minute, func() bool {
		c.Nodes[node].Machines[1].Trim(below)
		g.Roll()
		c.Nodes[node].Host.Cut(1, g.Replica())
		return g.Log().Start().Offset+1 >= below
	}), "the log of node %d begins at %+v", node, g.Log().Start())
}

// behind makes node 3 one that needs a snapshot, cut off from the others, with lonely batches of its own that nobody else has. The others
// have 20 batches more than what they begin with.
func behind(t *testing.T, c *raftgrouptest.Cluster, lonely int) (leader *raftgroup.Group) {
	t.Helper()
	leader = c.AwaitLeader(1, time.Second)
	if lonely > 0 && NodeLeading(c, 1) != 3 {
		require.NoError(t, leader.TransferLeader(context.Background(), raftgrouptest.ReplicaOf(1, 3)))
		leader = c.Group(3, 1)
	}
	propose(t, c, leader, 10, 100)
	require.True(t, raftgrouptest.Until(time.Minute, func() bool { return c.Group(3, 1).Commit() == leader.Log().LastIndex() }))
	c.Net.Isolate(3, 1, 2)
	for range lonely {
		c.Propose(leader, raftgrouptest.Batch([]byte("nobody else has it")), raftgroup.AcksAll)
	}
	require.True(t, raftgrouptest.Until(time.Minute, func() bool {
		leader = c.Leader(1)
		return leader != nil && leader.Replica() != raftgrouptest.ReplicaOf(1, 3)
	}))
	moveOn(t, c, leader, 40, 20)
	return leader
}

// moveOn has the nodes 1 and 2 write batches and let go of all but the last few.
func moveOn(t *testing.T, c *raftgrouptest.Cluster, leader *raftgroup.Group, batches, keep int) {
	t.Helper()
	propose(t, c, leader, batches, 100)
	for node := id.Node(1); node <= 2; node++ {
		require.True(t, raftgrouptest.Until(time.Minute, func() bool { return c.Group(node, 1).Applied() >= leader.Log().LastIndex() }))
		trimmedTo(t, c, node, leader.HighWatermark()-id.Offset(keep))
	}
	require.Less(t, c.Group(3, 1).Commit(), leader.Log().FirstIndex()-1)
}

// followsAgain heals the network and checks that node 3 has what the others have, by way of so many snapshots.
func followsAgain(t *testing.T, c *raftgrouptest.Cluster, snapshots int) {
	t.Helper()
	c.Net.Heal()
	leader := c.AwaitLeader(1, time.Minute)
	propose(t, c, leader, 5, 10)
	caughtUp(t, c)
	require.Equal(t, snapshots, c.Witness.Restored(1))
	require.Greater(t, c.Group(3, 1).Log().FirstIndex(), id.Index(20))
	sameLogs(t, c, 1)
	require.Equal(t, leader.HighWatermark(), c.Group(3, 1).HighWatermark())
	for node := id.Node(1); node <= 2; node++ { // and it has all that a leader needs
		require.NoError(t, c.Leader(1).TransferLeader(context.Background(), raftgrouptest.ReplicaOf(1, 3)))
		propose(t, c, c.Group(3, 1), 3, 10)
		require.NoError(t, c.Leader(1).TransferLeader(context.Background(), raftgrouptest.ReplicaOf(1, node)))
	}
	caughtUp(t, c)
}

func isSnapshot(m *raftpb.Message) bool { return m.GetType() == raftpb.MsgSnap }

func TestWhoIsBehindTheStartGetsASnapshot(t *testing.T) {
	for name, lonely := range map[string]int{"nothing of its own": 0, "entries nobody else has": 3, "entries beyond the start": 80} {
		t.Run(name, func(t *testing.T) {
			cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
				behind(t, c, lonely)
				followsAgain(t, c, 1)
			})
		})
	}
}

// Who only lags behind what is in the leader's memory is served from the disk.
func TestWhoIsAboveTheStartGetsNone(t *testing.T) {
	config := three(1)
	config.Disk = disks(4)
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		propose(t, c, leader, 30, 100)
		trimmedTo(t, c, raftgrouptest.NodeOf(leader.Replica()), 20)
		caughtUp(t, c)
		away := raftgrouptest.NodeOf(leader.Replica())%3 + 1
		c.Net.Isolate(away, 1, 2, 3)
		propose(t, c, leader, 100, 100)
		c.Net.Heal()
		caughtUp(t, c)
		m := c.Nodes[NodeLeading(c, 1)].Host.Metrics()
		require.Positive(t, m.DiskReads)
		require.Zero(t, m.SnapshotsSent)
	})
}

// TestWhoWaitsForTheThirdWhenTheStartMoves: a batch is committed, and waits for the third replica that min.insync.replicas asks for. Meanwhile
// the log lets go of it. The third begins behind it, with a snapshot: it was written.
func TestWhoWaitsForTheThirdWhenTheStartMoves(t *testing.T) {
	config := three(1)
	config.MinInSync = 3
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		lead := raftgrouptest.NodeOf(leader.Replica())
		propose(t, c, leader, 10, 100)
		caughtUp(t, c)
		c.Net.Isolate(lead%3+1, 1, 2, 3)
		var waiting []<-chan raftgroup.Result
		for range 20 {
			waiting = append(waiting, c.Propose(leader, raftgrouptest.Batch(nil), raftgroup.AcksAll))
		}
		require.True(t, raftgrouptest.Until(time.Second, func() bool { return leader.HighWatermark() == 30 }))
		trimmedTo(t, c, lead, 25)
		require.Empty(t, waiting[0])
		c.Net.Heal()
		for _, w := range waiting {
			require.NoError(t, (<-w).Err)
		}
		require.Equal(t, 1, c.Witness.Restored(1))
	})
}

func TestALostSnapshotComesAgain(t *testing.T) {
	for name, told := range map[string]bool{"noticed": true, "unnoticed": false} {
		t.Run(name, func(t *testing.T) {
			cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
				leader := behind(t, c, 0)
				var lost atomic.Int64
				host := c.Nodes[raftgrouptest.NodeOf(leader.Replica())].Host
				c.Net.SetFilter(func(_, to id.Node, g id.Group, m *raftpb.Message) bool {
					if !isSnapshot(m) || lost.Load() == 3 {
						return true
					}
					switch n := lost.Add(1); {
					case told && n == 1:
						host.SnapshotLost(g, id.Replica(m.GetTo()))
					case told:
						host.SnapshotsLost(to)
					}
					return false
				})
				began := time.Now()
				followsAgain(t, c, 1)
				require.EqualValues(t, 3, lost.Load())
				require.Equal(t, told, time.Since(began) < 10*time.Second)
				require.EqualValues(t, 3, host.Metrics().SnapshotsLost)
			})
		})
	}
}

// heldSnapshot has the first snapshot disappear, into the channel.
func heldSnapshot(c *raftgrouptest.Cluster) <-chan *raftpb.Message {
	held := make(chan *raftpb.Message, 1)
	var once sync.Once
	c.Net.SetFilter(func(_, _ id.Node, _ id.Group, m *raftpb.Message) bool {
		keep := true
		if isSnapshot(m) {
			once.Do(func() { held <- raftgrouptest.CopyMessage(m); keep = false })
		}
		return keep
	})
	return held
}

// A snapshot that comes twice, and once more when all is over and another leads, changes nothing.
func TestALateSnapshotChangesNothing(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := behind(t, c, 2)
		from := raftgrouptest.NodeOf(leader.Replica())
		held := heldSnapshot(c)
		c.Net.Heal()
		late := <-held
		c.Net.Inject(from, 3, 1, late)
		c.Net.Inject(from, 3, 1, late)
		followsAgain(t, c, 1)
		start := c.Group(3, 1).Log().Start()
		c.Net.Inject(from, 3, 1, late)
		propose(t, c, c.Leader(1), 1, 10)
		caughtUp(t, c)
		require.Equal(t, start, c.Group(3, 1).Log().Start())
		require.Equal(t, 1, c.Witness.Restored(1))
	})
}

// The log's start passes the snapshot's while that is under way: what the follower acknowledges does not help it, and it gets another one, at
// once and not when nothing was heard for long.
func TestTheStartMovesWhileASnapshotIsUnderWay(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := behind(t, c, 0)
		held := heldSnapshot(c)
		c.Net.Heal()
		first := <-held
		moveOn(t, c, leader, 40, 5)
		began := time.Now()
		c.Net.Inject(raftgrouptest.NodeOf(leader.Replica()), 3, 1, first)
		followsAgain(t, c, 2)
		require.Less(t, time.Since(began), 5*time.Second)
	})
}

// A second snapshot comes while the log of the first is not stored yet, and power is lost in the middle or not.
func TestASecondSnapshotDuringTheFirst(t *testing.T) {
	for name, crash := range map[string]bool{"goes on": false, "loses power": true} {
		t.Run(name, func(t *testing.T) {
			var slow atomic.Int64
			config := three(1)
			config.Disk = func(n id.Node) raftgrouptest.Disk {
				d := raftgrouptest.NewMemDisk(uint64(n))
				d.Poison = true
				if n == 3 {
					d.Delay = func() time.Duration { return time.Duration(slow.Load()) }
				}
				return d
			}
			cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
				leader := behind(t, c, 0)
				slow.Store(int64(time.Second))
				held := heldSnapshot(c)
				c.Net.Heal()
				from, first := raftgrouptest.NodeOf(leader.Replica()), <-held
				c.Net.Inject(from, 3, 1, first)
				require.True(t, raftgrouptest.Until(time.Minute, func() bool { return c.Witness.Restored(1) == 1 }))
				moveOn(t, c, leader, 40, 5)
				c.Nodes[from].Host.SnapshotsLost(3)
				require.True(t, raftgrouptest.Until(time.Minute, func() bool { return c.Witness.Restored(1) == 2 }))
				if crash {
					c.Crash(3)
					slow.Store(0)
					require.NoError(t, c.Start(3))
					propose(t, c, c.AwaitLeader(1, time.Minute), 1, 10)
					caughtUp(t, c)
					return
				}
				followsAgain(t, c, 2)
			})
		})
	}
}

// Power is lost between the reset and the entry that the state is of: the replica begins with a state that is ahead of its log.
func TestCrashWithAStateAheadOfTheLog(t *testing.T) {
	for name, some := range map[string]bool{"no entries": false, "some entries": true} {
		t.Run(name, func(t *testing.T) {
			cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
				leader := behind(t, c, 2)
				var passed atomic.Int64
				c.Net.SetFilter(func(_, to id.Node, _ id.Group, m *raftpb.Message) bool {
					if to != 3 || m.GetType() != raftpb.MsgApp {
						return true
					}
					return some && m.GetCommit() == m.GetIndex()+uint64(len(m.GetEntries())) && passed.Add(1) == 1
				})
				start := leader.Log().Start()
				c.Net.Heal()
				require.True(t, raftgrouptest.Until(time.Minute, func() bool { return c.Group(3, 1).Log().Start() == start }))
				for range 3 {
					pause(2 * time.Second)
					r := c.Group(3, 1)
					require.Equal(t, start, r.Log().Start())
					require.LessOrEqual(t, r.Applied(), r.Log().LastIndex())
					c.Nodes[3].Host.Cut(1, r.Replica()) // declined: what the log has is as good
					c.Crash(3)
					require.NoError(t, c.Start(3))
					require.Greater(t, c.Group(3, 1).Log().State().Applied, start.Index)
				}
				c.Net.SetFilter(nil)
				followsAgain(t, c, 1)
			})
		})
	}
}

// The configuration changes between the start and the state of the snapshot, and is joint as of the state.
func TestConfigurationAheadOfTheLog(t *testing.T) {
	for name, joint := range map[string]bool{"simple": false, "joint": true} {
		t.Run(name, func(t *testing.T) {
			cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
				leader := behind(t, c, 2)
				change := func(g *raftgroup.Group, kind raftpb.ConfChangeType) {
					cc := raftgroup.ConfChange(raftgroup.Change{Type: kind, Replica: raftgrouptest.ReplicaOf(1, 3), Node: 3})
					ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
					defer cancel()
					if joint {
						cc.Transition = raftpb.ConfChangeTransitionJointExplicit.Enum()
					}
					err := g.ChangeMembers(ctx, cc)
					if joint {
						require.ErrorIs(t, err, context.DeadlineExceeded) // nobody leaves it
						return
					}
					require.NoError(t, err)
				}
				change(leader, raftpb.ConfChangeAddLearnerNode)
				if !joint {
					change(leader, raftpb.ConfChangeAddNode)
					change(leader, raftpb.ConfChangeAddLearnerNode)
				}
				c.Net.Heal()
				propose(t, c, leader, 5, 10)
				caughtUp(t, c)
				require.Equal(t, 1, c.Witness.Restored(1))
				same := func() {
					want, err := leader.Status(context.Background())
					require.NoError(t, err)
					got, err := c.Group(3, 1).Status(context.Background())
					require.NoError(t, err)
					require.Equal(t, want.Joint, got.Joint)
					require.Equal(t, joint, got.Joint)
					members := func(s raftgroup.Status) (m []raftgroup.MemberStatus) {
						for _, x := range s.Members {
							m = append(m, raftgroup.MemberStatus{Replica: x.Replica, Node: x.Node, Learner: x.Learner})
						}
						return m
					}
					require.ElementsMatch(t, members(want), members(got))
				}
				same()
				require.NoError(t, c.Stop(3))
				require.NoError(t, c.Start(3))
				propose(t, c, leader, 5, 10)
				caughtUp(t, c)
				same()
			})
		})
	}
}

// What a release cannot read costs it nothing: it stays behind with the log that it has, and votes.
func TestAViewThatCannotBeRead(t *testing.T) {
	var reads atomic.Bool
	config := three(1)
	config.Machine = func(_ id.Node, m *raftgrouptest.Machine) {
		m.Reads = func([]byte) error {
			if !reads.Load() {
				return errors.New("a section of a later release")
			}
			return nil
		}
	}
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := behind(t, c, 0)
		start, last := c.Group(3, 1).Log().Start(), c.Group(3, 1).Log().LastIndex()
		c.Net.Heal()
		require.True(t, raftgrouptest.Until(5*time.Minute, func() bool { return c.Nodes[3].Host.Metrics().DroppedSnapshots >= 3 }))
		require.Equal(t, start, c.Group(3, 1).Log().Start())
		require.Equal(t, last, c.Group(3, 1).Log().LastIndex())
		require.Equal(t, raftgroup.Working, standingOf(c.Group(3, 1)))
		other := 3 - raftgrouptest.NodeOf(leader.Replica())
		c.Net.Isolate(other, 1, 2, 3)
		c.Net.Heal()
		require.True(t, leader.IsLeader())
		reads.Store(true)
		followsAgain(t, c, 1)
	})
}

// A machine that could not follow the log gets a state that is further.
func TestAHaltedReplicaTakesASnapshot(t *testing.T) {
	releases := &old{}
	config := three(1)
	config.Machine = releases.machine
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		if NodeLeading(c, 1) == 3 {
			require.NoError(t, leader.TransferLeader(context.Background(), raftgrouptest.ReplicaOf(1, 1)))
			leader = c.Group(1, 1)
		}
		releases.set(true, 3)
		require.NoError(t, (<-c.Propose(leader, unknown, raftgroup.AcksAll)).Err)
		require.True(t, raftgrouptest.Until(time.Minute, func() bool { return standingOf(c.Group(3, 1)) == raftgroup.Halted }))
		behind(t, c, 0)
		followsAgain(t, c, 1)
		require.Equal(t, raftgroup.Working, standingOf(c.Group(3, 1)))
		require.Zero(t, c.Nodes[3].Host.Metrics().Halted)
	})
}

// A large view comes in parts, of which some are lost.
func TestALargeSnapshotComesInParts(t *testing.T) {
	config := three(1)
	config.Machine = func(_ id.Node, m *raftgrouptest.Machine) { m.Padding = 5 << 20 }
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := behind(t, c, 0)
		var parts, burst, largest atomic.Int64
		var last time.Time
		c.Net.SetFilter(func(_, _ id.Node, _ id.Group, m *raftpb.Message) bool {
			if !isSnapshot(m) {
				return true
			}
			if now := time.Now(); now != last { // a turn takes no time here
				last = now
				burst.Store(0)
			}
			largest.Store(max(largest.Load(), burst.Add(1)))
			return parts.Add(1) != 3
		})
		followsAgain(t, c, 1)
		require.EqualValues(t, 12, parts.Load(), "six parts, twice")
		require.EqualValues(t, 4, largest.Load(), "more at once than a lane may take")
		require.EqualValues(t, 2, c.Nodes[raftgrouptest.NodeOf(leader.Replica())].Host.Metrics().SnapshotsSent)
	})
}

// A member that is added when the log's start has moved begins with a snapshot.
func TestANewMemberGetsASnapshot(t *testing.T) {
	config := three(1)
	config.Nodes, config.Voters = 4, 3
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		propose(t, c, leader, 40, 100)
		caughtUp(t, c)
		for node := id.Node(1); node <= 3; node++ {
			trimmedTo(t, c, node, 30)
		}
		var voters []id.Replica
		for _, m := range c.Members(1) {
			voters = append(voters, m.Replica)
		}
		l, err := c.Create(4, 1, voters, []id.Replica{raftgrouptest.ReplicaOf(1, 4)})
		require.NoError(t, err)
		_, err = c.OpenGroup(4, l, append(c.Members(1), raftgroup.Member{Replica: raftgrouptest.ReplicaOf(1, 4), Node: 4}))
		require.NoError(t, err)
		require.NoError(t, leader.ChangeMembers(context.Background(), raftgroup.ConfChange(
			raftgroup.Change{Type: raftpb.ConfChangeAddLearnerNode, Replica: raftgrouptest.ReplicaOf(1, 4), Node: 4})))
		propose(t, c, leader, 5, 10)
		caughtUp(t, c)
		require.Equal(t, 1, c.Witness.Restored(1))
		sameLogs(t, c, 1)
	})
}

// Whatever a stranger sends for a snapshot, no replica stops, and none gives up its log for it.
func TestForgedSnapshots(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := behind(t, c, 2)
		from := raftgrouptest.NodeOf(leader.Replica())
		held := heldSnapshot(c)
		c.Net.Heal()
		real := <-held
		c.Net.Isolate(3, 1, 2)
		start := c.Group(3, 1).Log().Start()
		for range 300 {
			m := raftgrouptest.CopyMessage(real)
			at := m.Snapshot.Metadata
			switch data := m.Snapshot.Data; rng.IntN(8) {
			case 0:
				data[rng.IntN(len(data))] ^= byte(1 + rng.IntN(255))
			case 1:
				m.Snapshot.Data = data[:rng.IntN(len(data))]
			case 2:
				m.Snapshot.Data = append(data, 0)
			case 3:
				at.Index, m.Snapshot.Data = new(rng.Uint64()>>rng.IntN(64)), nil
			case 4:
				m.Snapshot.Metadata = nil
			case 5:
				m.Term = new(uint64(rng.IntN(3)))
			case 6:
				m.From = new(uint64(raftgrouptest.ReplicaOf(1, 99)))
			case 7:
				m.Snapshot = nil
			}
			c.Net.Inject(from, 3, 1, m)
		}
		pause(time.Second)
		require.Equal(t, start, c.Group(3, 1).Log().Start())
		require.Zero(t, c.Witness.Restored(1))
		followsAgain(t, c, 1)
	})
}
