package raftgroup_test

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/command"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// proposeCommand proposes a command, whose bytes are overwritten when it is done.
func proposeCommand(c *raftgrouptest.Cluster, g *raftgroup.Group, body string) <-chan raftgroup.Result {
	result := make(chan raftgroup.Result, 1)
	data := command.Command{Kind: 9, Version: 1, Body: []byte(body)}.Append(nil)
	g.Propose(&raftgroup.Proposal{Command: data, Acks: raftgroup.AcksAll, Done: func(p *raftgroup.Proposal) {
		clear(p.Command)
		if p.Result.Err == nil {
			c.Witness.Acked(g.ID(), p.Result.Index, p.Result.Term)
		}
		result <- p.Result
	}})
	return result
}

// TestCommandsRoll: a command of which the machine says so begins a segment on every replica, also where it comes with batches around it, late.
func TestCommandsRoll(t *testing.T) {
	config := three(1)
	config.Disk = func(n id.Node) raftgrouptest.Disk { return raftgrouptest.NewWalDisk(uint64(n)) }
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		caughtUp(t, c)
		away := raftgrouptest.NodeOf(leader.Replica())%3 + 1
		c.Net.Isolate(away, 1, 2, 3)
		var rolls []wal.SegmentInfo
		for range 2 {
			propose(t, c, leader, 3, 100)
			r := <-proposeCommand(c, leader, "roll")
			require.NoError(t, r.Err)
			rolls = append(rolls, wal.SegmentInfo{First: r.Index, Base: r.Offset})
		}
		propose(t, c, leader, 3, 100)
		c.Net.Heal()
		caughtUp(t, c)
		for n := id.Node(1); n <= 3; n++ {
			var begin []wal.SegmentInfo
			for _, s := range c.Group(n, 1).Log().(*wal.Log).Segments() {
				begin = append(begin, wal.SegmentInfo{First: s.First, Base: s.Base})
			}
			require.Equal(t, rolls, begin[1:], "node %d", n)
		}
	})
}

// TestCommandsTakeNoOffset: commands and batches by turns, in the same turns of the worker, across a kill of everybody and with a follower
// that missed all of it: every replica applies the same, and the batches' offsets have no gap.
func TestCommandsTakeNoOffset(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		require.NotNil(t, leader)
		caughtUp(t, c)
		node := raftgrouptest.NodeOf(leader.Replica())
		behind := node%3 + 1
		c.Crash(behind)
		next := leader.Log().NextOffset()
		round := func(leader *raftgroup.Group) {
			var results []<-chan raftgroup.Result
			for i := range 40 {
				if i%3 == 1 {
					results = append(results, proposeCommand(c, leader, fmt.Sprint(i)))
				} else {
					results = append(results, c.Propose(leader, raftgrouptest.Batch(fmt.Appendf(nil, "%d", i)), raftgroup.AcksAll))
				}
			}
			for i, result := range results {
				r := <-result
				require.NoError(t, r.Err)
				require.Equal(t, next, r.Offset, "proposal %d", i)
				if i%3 != 1 {
					next++
				}
			}
			require.Equal(t, next, leader.Log().NextOffset())
			require.Equal(t, next, leader.HighWatermark())
		}
		round(leader)
		require.NoError(t, c.Start(behind))
		caughtUp(t, c)
		round(c.AwaitLeader(1, time.Second))
		for n := id.Node(1); n <= 3; n++ {
			c.Crash(n)
		}
		for n := id.Node(1); n <= 3; n++ {
			require.NoError(t, c.Start(n))
		}
		leader = c.AwaitLeader(1, 20*time.Second)
		require.NotNil(t, leader)
		round(leader)
		caughtUp(t, c)
		for n := id.Node(1); n <= 3; n++ {
			l := c.Group(n, 1).Log()
			entries, err := l.ReadEntries(l.FirstIndex(), l.LastIndex()+1, 1<<20)
			require.NoError(t, err)
			commands := slices.DeleteFunc(entries, func(e wal.Entry) bool { return e.Kind != wal.KindCommand })
			require.Len(t, commands, 3*13, "on node %d", n)
			for _, e := range commands {
				_, err := command.Parse(e.Data)
				require.NoError(t, err)
			}
		}
	})
}

// TestRaftKeepsItsOwnCommand: followers have a command, so that its proposer has the bytes back, while the leader still writes it. A
// follower that was cut off comes then and is sent what was proposed.
func TestRaftKeepsItsOwnCommand(t *testing.T) {
	var slow atomic.Bool
	config := raftgrouptest.Config{Nodes: 5, Groups: 1, Campaign: raftgroup.CampaignPreferred, Disk: func(n id.Node) raftgrouptest.Disk {
		d := disks(0)(n).(*raftgrouptest.MemDisk)
		d.Delay = func() time.Duration {
			if n == 1 && slow.Load() {
				return time.Second
			}
			return 300 * time.Microsecond
		}
		return d
	}}
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		require.Equal(t, raftgrouptest.ReplicaOf(1, 1), leader.Replica())
		caughtUp(t, c)
		slow.Store(true)
		c.Net.SetFilter(func(from, to id.Node, _ id.Group, _ *raftpb.Message) bool { return from != 5 && to != 5 })
		result := <-proposeCommand(c, leader, "what was proposed")
		require.NoError(t, result.Err)
		c.Net.SetFilter(nil)
		require.True(t, raftgrouptest.Until(800*time.Millisecond, func() bool { return c.Group(5, 1).Log().LastIndex() >= result.Index }),
			"it is not sent what was proposed")
		slow.Store(false)
		caughtUp(t, c)
		require.Zero(t, c.Nodes[5].Host.Metrics().DroppedInvalid)
	})
}

// What is no command, or not whole, is refused where it would get in: by the leader, and by followers.
func TestBadCommands(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		caughtUp(t, c)
		for _, bad := range [][]byte{{}, {0xC0}, make([]byte, 100), command.Command{Body: make([]byte, command.MaxBytes)}.Append(nil)} {
			result := make(chan error, 1)
			leader.Propose(&raftgroup.Proposal{Command: bad, Acks: raftgroup.AcksAll, Done: func(p *raftgroup.Proposal) { result <- p.Result.Err }})
			require.ErrorIs(t, <-result, command.ErrInvalid)
		}
		data := command.Command{Kind: 9, Body: []byte("body")}.Append(nil)
		data[5] ^= 1
		node := raftgrouptest.NodeOf(leader.Replica())
		follower := node%3 + 1
		last, host := leader.Log().LastIndex(), c.Nodes[follower].Host
		before := host.Metrics().DroppedInvalid
		_, _, term := leader.Leader()
		m := &raftpb.Message{
			Type: raftpb.MsgApp.Enum(), From: new(uint64(leader.Replica())), To: new(uint64(raftgrouptest.ReplicaOf(1, follower))),
			Term: new(uint64(term)), LogTerm: new(uint64(term)), Index: new(uint64(last)),
			Entries: []*raftpb.Entry{{Index: new(uint64(last + 1)), Term: new(uint64(term)), Type: raftpb.EntryNormal.Enum(), Data: data}},
		}
		c.Net.Inject(node, follower, 1, m)
		require.True(t, raftgrouptest.Until(time.Second, func() bool { return host.Metrics().DroppedInvalid > before }))
		propose(t, c, leader, 1, 10)
		caughtUp(t, c)
	})
}

// TestDeadlines: a proposal that cannot be committed ends when its time is over and says how far it came. What was appended is committed
// all the same once that is possible.
func TestDeadlines(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		caughtUp(t, c)
		next, last := leader.Log().NextOffset(), leader.Log().LastIndex()
		try := func(acks raftgroup.Acks, wait time.Duration) <-chan raftgroup.Result {
			result := make(chan raftgroup.Result, 1)
			leader.Propose(&raftgroup.Proposal{
				Batch: raftgrouptest.Batch([]byte("late")), Acks: acks, Deadline: time.Now().Add(wait),
				Done: func(p *raftgroup.Proposal) { clear(p.Batch); result <- p.Result },
			})
			return result
		}
		require.NoError(t, (<-try(raftgroup.AcksAll, time.Second)).Err)
		next, last = next+1, last+1

		lost := func(kind raftpb.MessageType) {
			c.Net.SetFilter(func(_, _ id.Node, _ id.Group, m *raftpb.Message) bool { return m.GetType() != kind })
		}
		lost(raftpb.MsgApp)
		begun := time.Now()
		patient, hasty := try(raftgroup.AcksAll, 2*time.Second), try(raftgroup.AcksAll, 300*time.Millisecond)
		var timeout *raftgroup.TimeoutError
		require.ErrorAs(t, (<-hasty).Err, &timeout)
		require.Equal(t, raftgroup.TimeoutError{Index: last + 2, Offset: next + 1}, *timeout)
		require.Less(t, time.Since(begun), 500*time.Millisecond, "it waits for nobody who was there before")
		c.Net.SetFilter(nil)
		require.NoError(t, (<-patient).Err)
		require.True(t, raftgrouptest.Until(2*time.Second, func() bool { return leader.HighWatermark() == next+2 }), "both are committed")

		lost(raftpb.MsgTimeoutNow) // a transfer that does not end: nothing is proposed meanwhile
		transferred := make(chan error, 1)
		node := raftgrouptest.NodeOf(leader.Replica())
		go func() {
			transferred <- leader.TransferLeader(context.Background(), raftgrouptest.ReplicaOf(1, node%3+1))
		}()
		pause(time.Millisecond)
		require.ErrorAs(t, (<-try(raftgroup.AcksLeader, 200*time.Millisecond)).Err, &timeout)
		require.Equal(t, raftgroup.TimeoutError{Offset: id.NoOffset}, *timeout)
		<-transferred
		c.Net.SetFilter(nil)
		require.Equal(t, next+2, leader.Log().NextOffset(), "what was not appended in time is not appended later")
		caughtUp(t, c)
	})
}
