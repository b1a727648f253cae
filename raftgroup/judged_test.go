package raftgroup_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestInSyncIsTold: a leader's machine hears which members are in sync when that changes, and nothing while it does not: neither heartbeats
// nor records are worth a word.
func TestInSyncIsTold(t *testing.T) {
	config := three(1)
	config.Options.ReplicaLagMax = 10 * time.Second
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		caughtUp(t, c)
		node := raftgrouptest.NodeOf(leader.Replica())
		machine := c.Nodes[node].Machines[1]
		told := func() raftgroup.InSync { // the last word, which is what a status says
			all := machine.Judged()
			require.NotEmpty(t, all)
			last := all[len(all)-1]
			_, _, term := leader.Leader()
			require.Equal(t, term, last.Term)
			return last
		}
		require.Len(t, told().Nodes, 3, "all are given the time to be heard from")
		before := len(machine.Judged())
		for range 60 {
			propose(t, c, leader, 1, 10)
			time.Sleep(time.Second) // virtual
		}
		require.Len(t, machine.Judged(), before, "nothing has changed")

		lost := node%3 + 1
		c.Net.Isolate(lost, 1, 2, 3)
		require.True(t, raftgrouptest.Until(20*time.Second, func() bool { return told().Lagging == 1 }), "its silence is told")
		require.Contains(t, told().Nodes, lost, "it keeps its place for a while")
		require.True(t, raftgrouptest.Until(20*time.Second, func() bool { return len(told().Nodes) == 2 }), "and then it is out")
		require.NotContains(t, told().Nodes, lost)
		healed := func() bool { return told().Lagging == 0 && len(told().Nodes) == 3 }
		c.Net.Heal()
		require.True(t, raftgrouptest.Until(20*time.Second, healed))

		c.Net.Isolate(lost, 1, 2, 3)
		c.Nodes[node].Host.NodeDown(lost)
		require.True(t, raftgrouptest.Until(100*time.Millisecond, func() bool { return told().Lagging == 1 && len(told().Nodes) == 2 }),
			"a node that is lost is out at once")
		c.Net.Heal()
		c.Nodes[node].Host.NodeUp(lost)
		require.True(t, raftgrouptest.Until(20*time.Second, healed))
		status, err := leader.Status(context.Background())
		require.NoError(t, err)
		require.Equal(t, 3, status.Answering())
		for n := id.Node(1); n <= 3; n++ {
			if n != node {
				require.Empty(t, c.Nodes[n].Machines[1].Judged(), "a follower judges nobody")
			}
		}
	})
}
