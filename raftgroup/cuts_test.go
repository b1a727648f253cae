package raftgroup_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestCheckpointsWaitForNobodyWhoHasNoCut: of three groups one is closed and one has stopped in the middle of a membership change, so
// that it does not know its configuration. Neither has a cut to give. No checkpoint waits for one, and the logs are cut all the same.
func TestCheckpointsWaitForNobodyWhoHasNoCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &lone{voters: []id.Node{self, 2, 3}, t: t}
		sim := disksim.New(disksim.Options{})
		store, err := wal.Open(context.Background(), wal.Options{
			Dir: "/data", FS: sim, PebbleFS: sim.Pebble(), CacheBytes: 8 << 20, JournalFileBytes: 1 << 20, ReserveBytes: 1,
			CheckpointInterval: time.Millisecond, // that is to say, at each tick of the checkpointer
		})
		require.NoError(t, err)
		defer func() { require.NoError(t, store.Close()) }()
		n.host, err = raftgroup.New(raftgroup.Options{Node: self, Store: store, Transport: n, Workers: 1})
		require.NoError(t, err)
		defer func() { require.NoError(t, n.host.Close()) }()
		for g := id.Group(1); g <= 3; g++ {
			var voters []id.Replica
			for _, m := range n.members(g) {
				voters = append(voters, m.Replica)
			}
			l, err := store.Create(context.Background(), wal.Spec{
				Group: g, Replica: raftgrouptest.ReplicaOf(g, self), Name: fmt.Sprint(g), Start: wal.Start{Index: 10, Term: 1},
				HardState: wal.HardState{Term: 1, Commit: 10}, State: wal.State{Applied: 10, ConfState: raftgroup.EncodeConfState(voters, nil)},
			})
			require.NoError(t, err)
			_, err = n.host.Open(raftgroup.Spec{Group: g, Replica: l.Replica(), Members: n.members(g), Log: l, Machine: quiet{}})
			require.NoError(t, err)
		}
		all := &raftpb.ConfChangeV2{}
		for _, m := range n.members(2) {
			all.Changes = append(all.Changes, &raftpb.ConfChangeSingle{
				Type: raftpb.ConfChangeRemoveNode.Enum(), NodeId: new(uint64(m.Replica)),
			})
		}
		data, err := proto.Marshal(all)
		require.NoError(t, err)
		m := entries(2, 2, 10, 1, data)
		m.Entries[0].Type = raftpb.EntryConfChangeV2.Enum()
		n.step(m)
		n.step(heartbeat(2, 2, 11))
		require.True(t, n.group(2).Failed(), "a group without voters goes on")

		for i := range uint64(5) {
			if i == 1 {
				require.NoError(t, n.host.CloseGroup(context.Background(), n.group(3)))
			}
			for g := id.Group(1); g <= 3; g++ {
				n.step(entries(g, 2, 10+i, 1+min(i, 1), at(id.Offset(i))))
			}
			done, begun := store.Metrics().Checkpoints, time.Now()
			require.True(t, raftgrouptest.Until(10*time.Second, func() bool { return store.Metrics().Checkpoints > done }))
			require.LessOrEqual(t, time.Since(begun), 1100*time.Millisecond, "the tick, and a moment of waiting")
			require.Zero(t, store.Metrics().UncutBytes)
		}
	})
}
