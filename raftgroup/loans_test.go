package raftgroup_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal/id"
)

// An entry is committed by three followers and its producer has his buffer back, while the leader itself is still writing it: to Raft
// it is unstable, and a follower that comes now is sent what Raft has in memory. That must be the log's copy of the batch, not the
// producer's buffer.
func TestRaftRefersToTheLog(t *testing.T) {
	for _, rule := range []string{"on", "off"} {
		t.Run(rule, func(t *testing.T) {
			if rule == "off" {
				defer raftgroup.SwitchOffLogData()()
			}
			var slow atomic.Int64
			config := raftgrouptest.Config{Nodes: 5, Groups: 1, Campaign: raftgroup.CampaignPreferred,
				Disk: func(n id.Node) raftgrouptest.Disk {
					d := raftgrouptest.NewMemDisk(uint64(n))
					d.Delay = func() time.Duration {
						if n == 1 {
							return time.Duration(slow.Load())
						}
						return 0
					}
					return d
				}}
			cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
				leader := c.AwaitLeader(1, time.Second)
				require.Equal(t, raftgrouptest.ReplicaOf(1, 1), leader.Replica())
				caughtUp(t, c)
				c.Net.Isolate(5, 1, 2, 3, 4)
				slow.Store(int64(10 * time.Second))
				require.NoError(t, (<-c.Propose(leader, raftgrouptest.Batch([]byte("the batch")), raftgroup.AcksAll)).Err)
				c.Net.Heal()
				latecomer := c.Nodes[5].Host
				got := raftgrouptest.Until(5*time.Second, func() bool {
					return latecomer.Group(1).Log().LastIndex() == leader.Log().LastIndex() || latecomer.Metrics().DroppedInvalid > 0
				})
				require.True(t, got, "nothing comes while the leader writes")
				require.Equal(t, rule == "off", latecomer.Metrics().DroppedInvalid > 0, "garbage was sent")
				slow.Store(0)
				caughtUp(t, c)
			})
		})
	}
}
