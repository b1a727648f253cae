package raftgroup_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal/id"
)

// both runs a script with a rule on, when nothing may go wrong, and off, when the witness must see it go wrong: otherwise the
// script does not show what the rule is for.
func both(t *testing.T, off func() (restore func()), config raftgrouptest.Config, script func(t *testing.T, c *raftgrouptest.Cluster, on bool)) {
	t.Run("on", func(t *testing.T) {
		cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) { script(t, c, true) })
	})
	t.Run("off", func(t *testing.T) {
		defer off()()
		synctest.Test(t, func(t *testing.T) {
			cl, err := raftgrouptest.NewCluster(config)
			require.NoError(t, err)
			defer cl.Close()
			script(t, cl, false)
			cl.Close()
			cl.Witness.AllAckedApplied()
			require.NotEmpty(t, cl.Witness.Problems, "the rule is not needed for this script")
		})
	})
}

// A leader is cut off with a proposal that nobody else has. The others elect a new leader and commit another entry at its
// index. The first thing that the old leader hears is one message with that entry and a commit index that covers it.
func TestCutBeforeAnswers(t *testing.T) {
	config := raftgrouptest.Config{Nodes: 3, Groups: 1, Campaign: raftgroup.CampaignPreferred}
	off := func() func() { return raftgroup.SwitchOff(true, false) }
	both(t, off, config, func(t *testing.T, c *raftgrouptest.Cluster, on bool) {
		leader := c.AwaitLeader(1, time.Second)
		require.NotNil(t, leader)
		caughtUp(t, c)
		old := raftgrouptest.NodeOf(leader.Replica())
		index := leader.Log().LastIndex() + 1

		captured := make(chan *raftpb.Message, 1)
		c.Net.SetFilter(func(from, to id.Node, g id.Group, m *raftpb.Message) bool {
			if from != old && to != old {
				return true
			}
			if e := m.GetEntries(); to == old && len(e) > 0 && id.Index(e[0].GetIndex()) == index {
				select {
				case captured <- raftgrouptest.CopyMessage(m):
				default:
				}
			}
			return false
		})
		result := c.Propose(leader, raftgrouptest.Batch([]byte("nobody else has this")), raftgroup.AcksAll)
		var successor *raftgroup.Group
		for node, n := range c.Nodes {
			if node != old {
				n.Host.NodeDown(old)
			}
		}
		require.True(t, raftgrouptest.Until(2*time.Second, func() bool {
			successor = c.Leader(1)
			return successor != nil && successor != leader && successor.Commit() >= index
		}))
		require.True(t, leader.IsLeader(), "the old leader has not noticed yet")
		m := <-captured
		m.Commit = new(uint64(index))
		c.Net.Inject(raftgrouptest.NodeOf(successor.Replica()), old, 1, m)
		got := <-result
		if got.Err != nil {
			require.ErrorIs(t, got.Err, raftgroup.ErrNotLeader)
		}
		c.Net.SetFilter(nil)
		if on {
			caughtUp(t, c)
		}
	})
}

// A follower gets the same message twice while it writes the entry. The second yields an append without entries, with the
// acknowledgement of the first one's entry attached.
func TestResponsesWaitForEarlierAppends(t *testing.T) {
	var slow atomic.Int64
	config := raftgrouptest.Config{Nodes: 3, Groups: 1, Campaign: raftgroup.CampaignPreferred,
		Options: raftgroup.Options{Workers: 1},
		Disk: func(n id.Node) raftgrouptest.Disk {
			d := raftgrouptest.NewMemDisk(uint64(n))
			d.LoseAll = true
			d.Delay = func() time.Duration {
				if n == 2 {
					return time.Duration(slow.Load())
				}
				return 0
			}
			return d
		}}
	off := func() func() { return raftgroup.SwitchOff(false, true) }
	both(t, off, config, func(t *testing.T, c *raftgrouptest.Cluster, on bool) {
		leader := c.AwaitLeader(1, time.Second)
		require.Equal(t, raftgrouptest.ReplicaOf(1, 1), leader.Replica())
		caughtUp(t, c)
		c.Net.Isolate(3, 1, 2)
		slow.Store(int64(100 * time.Millisecond))
		index := uint64(leader.Log().LastIndex()) + 1
		captured := make(chan *raftpb.Message, 1)
		c.Net.SetFilter(func(from, to id.Node, g id.Group, m *raftpb.Message) bool {
			if e := m.GetEntries(); from == 1 && to == 2 && len(e) > 0 && e[0].GetIndex() == index {
				select {
				case captured <- raftgrouptest.CopyMessage(m):
				default:
				}
			}
			return true
		})
		result := c.Propose(leader, raftgrouptest.Batch([]byte("acknowledged")), raftgroup.AcksAll)
		m := <-captured
		pause(10 * time.Millisecond)
		c.Net.Inject(1, 2, 1, m) // while the entry is being written
		require.NoError(t, (<-result).Err)

		// Power fails on the follower, and the leader never comes back.
		c.Net.SetFilter(nil)
		c.Crash(2)
		c.Crash(1)
		slow.Store(0)
		require.NoError(t, c.Start(2))
		c.Net.Heal()
		leader = c.AwaitLeader(1, 20*time.Second)
		require.NotNil(t, leader)
		require.NoError(t, (<-c.Propose(leader, raftgrouptest.Batch([]byte("another")), raftgroup.AcksAll)).Err)
		caughtUp(t, c)
	})
}
