package raftgroup_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal/id"
)

// cluster runs test in virtual time on a cluster, and fails it when the witness saw a contradiction.
func cluster(t *testing.T, c raftgrouptest.Config, test func(t *testing.T, c *raftgrouptest.Cluster)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		cl, err := raftgrouptest.NewCluster(c)
		require.NoError(t, err)
		defer cl.Close()
		test(t, cl)
		raftgrouptest.Until(time.Second, cl.Witness.CaughtUp)
		cl.Close()
		cl.Witness.AllAckedApplied()
		require.Empty(t, cl.Witness.Problems)
	})
}

func disks(resident int) func(id.Node) raftgrouptest.Disk {
	return func(n id.Node) raftgrouptest.Disk {
		d := raftgrouptest.NewMemDisk(uint64(n))
		d.Poison = true
		d.Resident = resident
		d.Delay = func() time.Duration { return 300 * time.Microsecond }
		return d
	}
}

func caughtUp(t *testing.T, c *raftgrouptest.Cluster) {
	t.Helper()
	for g := id.Group(1); int(g) <= c.Config.Groups; g++ {
		require.True(t, raftgrouptest.Until(time.Minute, func() bool { return c.Caught(g) }), "group %d does not converge", g)
	}
}

func TestProposalsAreCommittedEverywhere(t *testing.T) {
	cluster(t, raftgrouptest.Config{Nodes: 3, Groups: 4, Disk: disks(0), Campaign: raftgroup.CampaignPreferred},
		func(t *testing.T, c *raftgrouptest.Cluster) {
			for g := id.Group(1); g <= 4; g++ {
				leader := c.AwaitLeader(g, 2*time.Second)
				require.NotNil(t, leader, "no leader in time")
				require.Equal(t, c.Members(g)[0].Replica, leader.Replica(), "the preferred replica leads")
				var results []<-chan raftgroup.Result
				for i := range 200 {
					acks := []raftgroup.Acks{raftgroup.AcksAll, raftgroup.AcksLeader, raftgroup.AcksNone}[i%3]
					results = append(results, c.Propose(leader, raftgrouptest.Batch(fmt.Appendf(nil, "record %d", i)), acks))
				}
				for i, r := range results {
					result := <-r
					require.NoError(t, result.Err)
					require.Equal(t, id.Offset(i), result.Offset)
				}
			}
			caughtUp(t, c)
			for node := id.Node(1); node <= 3; node++ {
				for g := id.Group(1); g <= 4; g++ {
					require.Equal(t, id.Offset(200), c.Group(node, g).HighWatermark())
				}
			}
			st, err := c.Leader(1).Status(context.Background())
			require.NoError(t, err)
			require.Equal(t, 3, st.InSync())
			m := c.Nodes[NodeLeading(c, 1)].Host.Metrics()
			require.Less(t, m.ProposalSteps, m.Proposals/10, "proposals are gathered")
		})
}

// NodeLeading returns the node that leads a group.
func NodeLeading(c *raftgrouptest.Cluster, g id.Group) id.Node {
	return raftgrouptest.NodeOf(c.Leader(g).Replica())
}
