package raftgroup_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal/id"
)

// trimmed moves the start of a node's log as far as it goes.
func trimmed(t *testing.T, c *raftgrouptest.Cluster, node id.Node) {
	t.Helper()
	g := c.Group(node, 1)
	last := g.Log().LastIndex()
	require.True(t, raftgrouptest.Until(time.Minute, func() bool {
		g.Trim(g.HighWatermark())
		g.Roll()
		c.Nodes[node].Host.Cut(1, g.Replica())
		return g.Log().FirstIndex() >= last
	}), "the log of node %d begins at %d, and ends at %d", node, g.Log().FirstIndex(), last)
}

// behind makes node 3 one that needs a snapshot, cut off from the others, with lonely batches of its own that nobody else has.
func behind(t *testing.T, c *raftgrouptest.Cluster, lonely int) (leader *raftgroup.Group) {
	t.Helper()
	leader = c.AwaitLeader(1, time.Second)
	if lonely > 0 {
		require.NoError(t, leader.TransferLeader(context.Background(), raftgrouptest.ReplicaOf(1, 3)))
		leader = c.Group(3, 1)
	}
	propose(t, c, leader, 10, 100)
	caughtUp(t, c)
	c.Net.Isolate(3, 1, 2)
	for range lonely {
		c.Propose(leader, raftgrouptest.Batch([]byte("nobody else has it")), raftgroup.AcksAll)
	}
	require.True(t, raftgrouptest.Until(time.Minute, func() bool {
		leader = c.Leader(1)
		return leader != nil && leader.Replica() != raftgrouptest.ReplicaOf(1, 3)
	}))
	propose(t, c, leader, 40, 100)
	for node := id.Node(1); node <= 2; node++ {
		require.True(t, raftgrouptest.Until(time.Minute, func() bool { return c.Group(node, 1).Applied() >= leader.Log().LastIndex() }))
		trimmed(t, c, node)
	}
	require.Less(t, c.Group(3, 1).Commit(), leader.Log().FirstIndex()-1)
	return leader
}

// followsAgain heals the network and checks that node 3 has what the others have, by way of a snapshot.
func followsAgain(t *testing.T, c *raftgrouptest.Cluster, leader *raftgroup.Group) {
	t.Helper()
	c.Net.Heal()
	propose(t, c, c.AwaitLeader(1, time.Minute), 5, 10)
	caughtUp(t, c)
	require.Positive(t, c.Witness.Restored(1))
	require.Greater(t, c.Group(3, 1).Log().FirstIndex(), id.Index(20))
	sameLogs(t, c, 1)
	require.Equal(t, leader.HighWatermark(), c.Group(3, 1).HighWatermark())
}

func TestWhoIsBehindTheStartGetsASnapshot(t *testing.T) {
	for name, lonely := range map[string]int{"nothing of its own": 0, "entries nobody else has": 3, "entries beyond the start": 80} {
		t.Run(name, func(t *testing.T) {
			cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
				leader := behind(t, c, lonely)
				followsAgain(t, c, leader)
				require.Equal(t, 1, c.Witness.Restored(1))
			})
		})
	}
}

func TestALostSnapshotComesAgain(t *testing.T) {
	for name, told := range map[string]bool{"noticed": true, "unnoticed": false} {
		t.Run(name, func(t *testing.T) {
			cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
				leader := behind(t, c, 0)
				lost := 0
				host := c.Nodes[raftgrouptest.NodeOf(leader.Replica())].Host
				c.Net.SetFilter(func(_, _ id.Node, g id.Group, m *raftpb.Message) bool {
					if m.GetType() != raftpb.MsgSnap || lost == 3 {
						return true
					}
					lost++
					if told {
						host.SnapshotLost(g, id.Replica(m.GetTo()))
					}
					return false
				})
				began := time.Now()
				followsAgain(t, c, leader)
				require.Equal(t, 3, lost)
				if told {
					require.Less(t, time.Since(began), 6*time.Second)
				}
			})
		})
	}
}
