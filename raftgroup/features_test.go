package raftgroup_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

func three(groups int) raftgrouptest.Config {
	return raftgrouptest.Config{Nodes: 3, Groups: groups, Disk: disks(0), Campaign: raftgroup.CampaignPreferred}
}

func propose(t *testing.T, c *raftgrouptest.Cluster, g *raftgroup.Group, n, size int) raftgroup.Result {
	t.Helper()
	var last raftgroup.Result
	var results []<-chan raftgroup.Result
	for i := range n {
		results = append(results, c.Propose(g, raftgrouptest.Batch(fmt.Appendf(make([]byte, size), "%d", i)), raftgroup.AcksAll))
	}
	for _, r := range results {
		last = <-r
		require.NoError(t, last.Err)
	}
	return last
}

// The leader's node dies and the others are told: they elect another at once, not after an election timeout of 3 s and more.
func TestNodeDownElectsAtOnce(t *testing.T) {
	cluster(t, three(20), func(t *testing.T, c *raftgrouptest.Cluster) {
		for g := id.Group(1); g <= 20; g++ {
			require.NotNil(t, c.AwaitLeader(g, time.Second))
		}
		caughtUp(t, c)
		c.Crash(1)
		at := time.Now()
		for _, n := range []id.Node{2, 3} {
			c.Nodes[n].Host.NodeDown(1)
		}
		for g := id.Group(1); g <= 20; g++ {
			leader := c.AwaitLeader(g, time.Second)
			require.NotNil(t, leader)
			propose(t, c, leader, 1, 10)
		}
		t.Logf("20 groups take proposals %v after the node died", time.Since(at))
		require.Less(t, time.Since(at), 500*time.Millisecond)
		require.NoError(t, c.Start(1))
		caughtUp(t, c)
	})
}

// The leader's store fails, and its node lives: another leads at once, not after an election timeout of 3 s and more.
func TestStoppedLeaderIsSucceededAtOnce(t *testing.T) {
	const groups = 20
	cluster(t, three(groups), func(t *testing.T, c *raftgrouptest.Cluster) {
		for g := id.Group(1); g <= groups; g++ {
			require.NotNil(t, c.AwaitLeader(g, time.Second))
		}
		caughtUp(t, c)
		at := time.Now()
		for g := id.Group(1); g <= groups; g++ {
			leader := c.Leader(g)
			result := c.Propose(leader, raftgrouptest.Batch(nil), raftgroup.AcksAll) // which may reach the others or not
			leader.Stop(errors.New("for a test"))
			require.True(t, raftgrouptest.Until(500*time.Millisecond, func() bool {
				for n := id.Node(1); n <= 3; n++ {
					if next := c.Group(n, g); next != nil && next != leader && next.IsLeader() {
						return (<-c.Propose(next, raftgrouptest.Batch(nil), raftgroup.AcksAll)).Err == nil
					}
				}
				return false
			}), "group %d has no leader %v later", g, time.Since(at))
			<-result
		}
		require.Len(t, c.Witness.Take(), groups)
	})
}

// A false alarm: the leader is alive, and stays the leader or is replaced once, and nobody is disturbed for long.
func TestFalseNodeDown(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		caughtUp(t, c)
		c.Nodes[2].Host.NodeDown(raftgrouptest.NodeOf(leader.Replica()))
		pause(2 * time.Second)
		require.True(t, leader.IsLeader(), "one replica alone cannot take leadership from a live leader")
		_, node, _ := c.Group(2, 1).Leader()
		require.Equal(t, raftgrouptest.NodeOf(leader.Replica()), node)
		propose(t, c, leader, 10, 10)
	})
}

// Members that are opened late: the preferred replica leads a moment after a majority is there.
func TestPreferredCampaignsUntilMajority(t *testing.T) {
	config := three(1)
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		require.NotNil(t, c.AwaitLeader(1, time.Second))
		for n := id.Node(1); n <= 3; n++ {
			require.NoError(t, c.Stop(n))
		}
		require.NoError(t, c.Start(2)) // preferred by group 1? no: a follower that must not disturb
		require.NoError(t, c.Start(1))
		at := time.Now()
		require.NotNil(t, c.AwaitLeader(1, time.Second))
		require.Less(t, time.Since(at), 500*time.Millisecond)
		require.NoError(t, c.Start(3))
		caughtUp(t, c)
	})
}

func TestTransferLeaderUnderLoad(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		ctx := context.Background()
		leader := c.AwaitLeader(1, time.Second)
		var results []<-chan raftgroup.Result
		for i := range 100 {
			results = append(results, c.Propose(leader, raftgrouptest.Batch(fmt.Appendf(nil, "%d", i)), raftgroup.AcksAll))
		}
		to := raftgrouptest.ReplicaOf(1, 3)
		require.NoError(t, leader.TransferLeader(ctx, to))
		require.True(t, raftgrouptest.Until(time.Second, func() bool { return c.Group(3, 1).IsLeader() }))
		for _, r := range results {
			if err := (<-r).Err; err != nil {
				var not *raftgroup.NotLeaderError
				require.ErrorAs(t, err, &not)
				require.Equal(t, id.Node(3), not.Leader)
			}
		}
		require.ErrorIs(t, leader.TransferLeader(ctx, to), raftgroup.ErrNotLeader)
		require.ErrorIs(t, c.Group(3, 1).TransferLeader(ctx, 77), raftgroup.ErrUnknownReplica)
		require.NoError(t, c.Group(3, 1).TransferLeader(ctx, id.NoReplica), "to the best one")

		leader = c.AwaitLeader(1, time.Second)
		node := raftgrouptest.NodeOf(leader.Replica())
		dead := node%3 + 1
		c.Crash(dead)
		c.Nodes[node].Host.NodeDown(dead)
		require.ErrorIs(t, leader.TransferLeader(ctx, raftgrouptest.ReplicaOf(1, dead)), raftgroup.ErrTransferFailed)
		require.NoError(t, c.Start(dead))
		caughtUp(t, c)
	})
}

// The successor is cut off in the middle: the transfer is given up, and the proposals that waited go on.
func TestTransferThatFails(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		caughtUp(t, c)
		node := raftgrouptest.NodeOf(leader.Replica())
		c.Net.SetFilter(func(from, to id.Node, g id.Group, m *raftpb.Message) bool {
			return m.GetType() != raftpb.MsgTimeoutNow
		})
		failed := make(chan error, 1)
		go func() { failed <- leader.TransferLeader(context.Background(), raftgrouptest.ReplicaOf(1, node%3+1)) }()
		pause(time.Millisecond)
		result := c.Propose(leader, raftgrouptest.Batch([]byte("waits")), raftgroup.AcksAll)
		require.ErrorIs(t, <-failed, raftgroup.ErrTransferFailed)
		require.NoError(t, (<-result).Err)
	})
}

func TestReadIndex(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		ctx := context.Background()
		leader := c.AwaitLeader(1, time.Second)
		last := propose(t, c, leader, 10, 10)
		for node := id.Node(1); node <= 3; node++ {
			i, err := c.Group(node, 1).ReadIndex(ctx)
			require.NoError(t, err)
			require.GreaterOrEqual(t, i, last.Index)
		}
		// A follower whose request is lost asks again.
		lost := false
		c.Net.SetFilter(func(from, to id.Node, g id.Group, m *raftpb.Message) bool {
			if m.GetType() == raftpb.MsgReadIndex && !lost {
				lost = true
				return false
			}
			return true
		})
		_, err := c.Group(raftgrouptest.NodeOf(leader.Replica())%3+1, 1).ReadIndex(ctx)
		require.NoError(t, err)
		// One that is cut off does not answer from what it has.
		node := raftgrouptest.NodeOf(leader.Replica())
		c.Net.Isolate(node, 1, 2, 3)
		short, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err = leader.ReadIndex(short)
		require.Error(t, err)
		c.Net.Heal()
	})
}

// Entries that are not in memory any more are read beside the worker, in windows, until the follower has them all.
func TestLaggingFollowerIsServedFromDisk(t *testing.T) {
	config := three(2)
	config.Disk = disks(20)
	config.Options.ReadAheadBytes = 16 << 10
	config.Options.MaxMessageBytes = 4 << 10
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		require.NotNil(t, leader)
		caughtUp(t, c)
		node := raftgrouptest.NodeOf(leader.Replica())
		lagging := node%3 + 1
		c.Net.Isolate(lagging, 1, 2, 3)
		for range 10 {
			propose(t, c, leader, 100, 500)
		}
		c.Net.Heal()
		at := time.Now()
		caughtUp(t, c)
		m := c.Nodes[raftgrouptest.NodeOf(c.Leader(1).Replica())].Host.Metrics()
		t.Logf("caught up in %v, %d reads of %d bytes", time.Since(at), m.DiskReads, m.DiskReadBytes)
		require.Greater(t, m.DiskReads, uint64(10))
		require.Less(t, m.DiskReads, uint64(200), "windows are used whole")
	})
}

func TestMembershipChanges(t *testing.T) {
	config := raftgrouptest.Config{Nodes: 5, Voters: 1, Groups: 1, Disk: disks(0), Campaign: raftgroup.CampaignPreferred}
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		ctx := context.Background()
		leader := c.AwaitLeader(1, time.Second)
		require.NotNil(t, leader)
		propose(t, c, leader, 50, 100)
		learner := func(n id.Node) raftgroup.Change {
			return raftgroup.Change{Type: raftpb.ConfChangeAddLearnerNode, Replica: raftgrouptest.ReplicaOf(1, n), Node: n}
		}
		voter := func(n id.Node) raftgroup.Change {
			ch := learner(n)
			ch.Type = raftpb.ConfChangeAddNode
			return ch
		}
		remove := func(n id.Node) raftgroup.Change {
			return raftgroup.Change{Type: raftpb.ConfChangeRemoveNode, Replica: raftgrouptest.ReplicaOf(1, n)}
		}
		change := func(changes ...raftgroup.Change) {
			t.Helper()
			leader = c.AwaitLeader(1, 20*time.Second)
			require.NoError(t, leader.ChangeMembers(ctx, raftgroup.ConfChange(changes...)))
		}
		members := func() (voters, learners int) {
			st, err := c.AwaitLeader(1, time.Second).Status(ctx)
			require.NoError(t, err)
			require.False(t, st.Joint)
			for _, m := range st.Members {
				if m.Learner {
					learners++
				} else {
					voters++
				}
			}
			return voters, learners
		}
		seed := func(n id.Node) {
			// A new replica is seeded with the configuration as of the log's start, in which it is not a member.
			l, err := c.Create(n, 1, []id.Replica{raftgrouptest.ReplicaOf(1, 1)}, nil)
			require.NoError(t, err)
			_, err = c.OpenGroup(n, l, []raftgroup.Member{{Replica: raftgrouptest.ReplicaOf(1, 1), Node: 1}})
			require.NoError(t, err)
		}
		for n := id.Node(2); n <= 5; n++ {
			seed(n)
			change(learner(n))
		}
		caughtUp(t, c)
		change(voter(2), voter(3)) // two at once: joint
		voters, learners := members()
		require.Equal(t, 3, voters)
		require.Equal(t, 2, learners)

		// Two at a time: the second is refused, not mistaken for done.
		first, second := make(chan error, 1), make(chan error, 1)
		leader = c.AwaitLeader(1, time.Second)
		go func() { first <- leader.ChangeMembers(ctx, raftgroup.ConfChange(voter(4))) }()
		go func() { second <- leader.ChangeMembers(ctx, raftgroup.ConfChange(voter(5))) }()
		a, b := <-first, <-second
		require.True(t, errors.Is(a, raftgroup.ErrConfChangeRefused) != errors.Is(b, raftgroup.ErrConfChangeRefused), "%v, %v", a, b)
		change(voter(4), voter(5))
		voters, learners = members()
		require.Equal(t, 5, voters)
		require.Zero(t, learners)

		// The leader removes itself together with another, while proposals go on; the rest goes on without them.
		propose(t, c, c.AwaitLeader(1, time.Second), 20, 100)
		old := raftgrouptest.NodeOf(leader.Replica())
		err := leader.ChangeMembers(ctx, raftgroup.ConfChange(remove(old), remove(old%5+1)))
		if err != nil {
			require.ErrorIs(t, err, raftgroup.ErrNotLeader)
		}
		var successor *raftgroup.Group
		require.True(t, raftgrouptest.Until(time.Minute, func() bool {
			successor = c.Leader(1)
			return successor != nil && successor != leader
		}))
		require.NoError(t, c.Stop(old))
		require.NoError(t, c.Stop(old%5+1))
		propose(t, c, successor, 20, 100)
		voters, _ = members()
		require.Equal(t, 3, voters)

		// All of it comes back from the disks.
		var rest []id.Node
		for n := id.Node(1); n <= 5; n++ {
			if n != old && n != old%5+1 {
				rest = append(rest, n)
				c.Crash(n)
			}
		}
		for _, n := range rest {
			require.NoError(t, c.Start(n))
		}
		propose(t, c, c.AwaitLeader(1, 30*time.Second), 20, 100)
		voters, _ = members()
		require.Equal(t, 3, voters)
		caughtUp(t, c)
	})
}

func TestMinInSyncAboveMajority(t *testing.T) {
	config := three(1)
	config.MinInSync = 3
	config.Options.ReplicaLagMax = 2 * time.Second
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		caughtUp(t, c)
		propose(t, c, leader, 10, 10)
		last := raftgrouptest.NodeOf(leader.Replica())%3 + 1
		c.Net.Isolate(last, 1, 2, 3)
		result := c.Propose(leader, raftgrouptest.Batch([]byte("on two of three")), raftgroup.AcksAll)
		one := <-c.Propose(leader, raftgrouptest.Batch([]byte("acks=1 does not mind")), raftgroup.AcksLeader)
		require.NoError(t, one.Err)
		require.True(t, raftgrouptest.Until(time.Second, func() bool { return leader.Commit() >= one.Index }), "committed by two")
		select {
		case r := <-result:
			t.Fatalf("answered with %v before the third replica had it", r.Err)
		default:
		}
		require.ErrorIs(t, (<-result).Err, raftgroup.ErrNotEnoughReplicasAfterAppend)
		require.ErrorIs(t, (<-c.Propose(leader, raftgrouptest.Batch(nil), raftgroup.AcksAll)).Err, raftgroup.ErrNotEnoughReplicas)
		leader.SetMinInSync(2)
		propose(t, c, leader, 10, 10)
		leader.SetMinInSync(3)
		c.Net.Heal()
		require.True(t, raftgrouptest.Until(10*time.Second, func() bool {
			st, err := leader.Status(context.Background())
			return err == nil && st.InSync() == 3
		}))
		propose(t, c, leader, 10, 10)
	})
}

// With a majority of its voters known to be dead a leader refuses at once what could not be committed.
func TestRefusesWithoutLiveMajority(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		caughtUp(t, c)
		node := raftgrouptest.NodeOf(leader.Replica())
		for n := id.Node(1); n <= 3; n++ {
			if n != node {
				c.Crash(n)
				c.Nodes[node].Host.NodeDown(n)
			}
		}
		require.ErrorIs(t, (<-c.Propose(leader, raftgrouptest.Batch(nil), raftgroup.AcksLeader)).Err, raftgroup.ErrNotEnoughReplicas)
		for n := id.Node(1); n <= 3; n++ {
			if n != node {
				require.NoError(t, c.Start(n))
				c.Nodes[node].Host.NodeUp(n)
			}
		}
		require.True(t, raftgrouptest.Until(20*time.Second, func() bool {
			l := c.Leader(1)
			return l != nil && (<-c.Propose(l, raftgrouptest.Batch(nil), raftgroup.AcksAll)).Err == nil
		}))
		caughtUp(t, c)
	})
}

func TestProposalsAtTheDoor(t *testing.T) {
	config := three(1)
	config.Options.MaxGroupBytes = 4 << 10
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		caughtUp(t, c)
		node := raftgrouptest.NodeOf(leader.Replica())
		follower := c.Group(node%3+1, 1)
		err := (<-c.Propose(follower, raftgrouptest.Batch(nil), raftgroup.AcksAll)).Err
		var not *raftgroup.NotLeaderError
		require.ErrorAs(t, err, &not)
		require.Equal(t, node, not.Leader)

		c.Net.Isolate(node, 1, 2, 3)
		big := c.Propose(leader, raftgrouptest.Batch(make([]byte, 8<<10)), raftgroup.AcksAll)
		require.ErrorIs(t, (<-c.Propose(leader, raftgrouptest.Batch(nil), raftgroup.AcksAll)).Err, raftgroup.ErrOverloaded)
		require.ErrorIs(t, (<-big).Err, raftgroup.ErrNotLeader, "stepped down without a quorum")
		c.Net.Heal()
		require.True(t, raftgrouptest.Until(20*time.Second, func() bool { return c.Leader(1) != nil }))
		caughtUp(t, c)
		propose(t, c, c.Leader(1), 1, 8<<10)
		for n := range c.Nodes { // answered when committed, counted until applied
			require.True(t, raftgrouptest.Until(time.Second, func() bool { return c.Nodes[n].Host.Metrics().UncommittedBytes == 0 }))
		}
	})
}

// More than one turn may propose: it takes several, in order.
func TestManyBytesAtOnce(t *testing.T) {
	cluster(t, three(2), func(t *testing.T, c *raftgrouptest.Cluster) {
		for g := id.Group(1); g <= 2; g++ {
			leader := c.AwaitLeader(g, time.Second)
			var results []<-chan raftgroup.Result
			for range 300 {
				results = append(results, c.Propose(leader, raftgrouptest.Batch(make([]byte, 64<<10)), raftgroup.AcksAll))
			}
			for i, r := range results {
				got := <-r
				require.NoError(t, got.Err)
				require.Equal(t, id.Offset(i), got.Offset)
			}
		}
		caughtUp(t, c)
	})
}

func TestWaitAppliedAndDuplicates(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		caughtUp(t, c)
		m := c.Nodes[raftgrouptest.NodeOf(leader.Replica())].Machines[1]
		run := func(p *raftgroup.Proposal) raftgroup.Result {
			done := make(chan raftgroup.Result, 1)
			p.Done = func(p *raftgroup.Proposal) { done <- p.Result }
			leader.Propose(p)
			return <-done
		}
		r := run(&raftgroup.Proposal{Batch: raftgrouptest.Batch(nil), Wait: raftgroup.WaitApplied, Acks: raftgroup.AcksAll})
		require.NoError(t, r.Err)
		require.Equal(t, r.Index, r.Value, "what the machine returned")
		refused := errors.New("refused")
		answer := raftgroup.Refuse(refused)
		m.Decide = func(index id.Index, term id.Term, b batch.Batch) raftgroup.Admission {
			if string(b[batch.HeaderSize:]) == "" {
				return raftgroup.Accept()
			}
			return answer
		}
		require.ErrorIs(t, run(&raftgroup.Proposal{Batch: raftgrouptest.Batch(nil), Acks: raftgroup.AcksAll}).Err, refused)
		answer = raftgroup.Duplicate(r.Index, r.Term, r.Offset)
		d := run(&raftgroup.Proposal{Batch: raftgrouptest.Batch(nil), Acks: raftgroup.AcksAll})
		require.NoError(t, d.Err)
		require.Equal(t, r.Offset, d.Offset)
		answer = raftgroup.Accept()
		require.Equal(t, r.Offset+1, run(&raftgroup.Proposal{Batch: raftgrouptest.Batch(nil), Acks: raftgroup.AcksAll}).Offset, "refused ones take no offset")

		// A retry of what is not committed yet waits for it.
		node := raftgrouptest.NodeOf(leader.Replica())
		c.Net.Isolate(node, 1, 2, 3)
		first := c.Propose(leader, raftgrouptest.Batch(nil), raftgroup.AcksAll)
		require.True(t, raftgrouptest.Until(time.Second, func() bool { return leader.Log().LastIndex() > leader.Commit() }))
		answer = raftgroup.Duplicate(leader.Log().LastIndex(), r.Term, r.Offset+2)
		retry := c.Propose(leader, raftgrouptest.Batch(nil), raftgroup.AcksAll)
		pause(time.Millisecond)
		require.Empty(t, retry)
		c.Net.Heal()
		require.NoError(t, (<-first).Err)
		require.Equal(t, r.Offset+2, (<-retry).Offset)
	})
}

// A heartbeat with a commit index that this replica cannot have acknowledged: it lost data. It stops, alone.
func TestReplicaThatLostEntriesStops(t *testing.T) {
	cluster(t, three(2), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		require.NotNil(t, c.AwaitLeader(2, time.Second))
		propose(t, c, leader, 10, 10)
		caughtUp(t, c)
		node := raftgrouptest.NodeOf(leader.Replica())
		victim := node%3 + 1
		_, _, term := leader.Leader()
		c.Net.Cut(node, victim) // what the leader really says would contradict
		accuse(c, leader, victim, term, 5)
		stopped(t, c, victim, "acknowledged data was lost", "replace it by a new replica")
		c.Net.Heal()
		propose(t, c, leader, 10, 10)
		propose(t, c, c.Leader(2), 10, 10)
		c.Nodes[victim].Host.Cut(1, raftgrouptest.ReplicaOf(1, victim)) // still possible
	})
}

// beat is how often a leader sends heartbeats, by default.
const beat = 500 * time.Millisecond

// accuse has a leader say, with each of its heartbeats for a little longer than an election timeout, that it knows of entries which a replica
// does not have.
func accuse(c *raftgrouptest.Cluster, leader *raftgroup.Group, victim id.Node, term id.Term, beyond uint64) {
	for range 2 * 20 {
		c.Net.Inject(raftgrouptest.NodeOf(leader.Replica()), victim, 1, lostTo(leader, victim, term, uint64(leader.Log().LastIndex())+beyond))
		pause(beat)
		if c.Nodes[victim].Host.Metrics().Failed > 0 {
			return
		}
	}
}

// lostTo is a heartbeat of which a replica learns that it lost entries.
func lostTo(leader *raftgroup.Group, victim id.Node, term id.Term, commit uint64) *raftpb.Message {
	return &raftpb.Message{
		Type: raftpb.MsgHeartbeat.Enum(), From: new(uint64(leader.Replica())), To: new(uint64(raftgrouptest.ReplicaOf(1, victim))),
		Term: new(uint64(term)), Commit: new(commit),
	}
}

// What a stranger says in a leader's name, who reaches a lane: it is dropped and counted, and stops nobody. The leader's next heartbeat
// says otherwise.
func TestForgedHeartbeatsStopNobody(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		propose(t, c, leader, 10, 10)
		caughtUp(t, c)
		node := raftgrouptest.NodeOf(leader.Replica())
		victim := node%3 + 1
		_, _, term := leader.Leader()
		dropped := func() uint64 { return c.Nodes[victim].Host.Metrics().DroppedInvalid }
		for _, m := range []*raftpb.Message{
			lostTo(leader, victim, term, uint64(leader.Log().LastIndex())+5),
			lostTo(leader, victim, term, 1<<40),
			lostTo(leader, victim, term, math.MaxUint64),
			lostTo(leader, victim, term+1, 1<<40),
			lostTo(leader, victim, 1<<30, 1<<40),
			lostTo(leader, victim, 1<<30, 1),
		} {
			before := dropped()
			for range 100 { // an attack of many heartbeats
				c.Net.Inject(node, victim, 1, raftgrouptest.CopyMessage(m))
				pause(beat / 4)
			}
			require.Equal(t, before+100, dropped(), "%v", m)
		}
		require.Zero(t, c.Nodes[victim].Host.Metrics().Failed)
		_, _, now := leader.Leader()
		require.Equal(t, term, now, "somebody was deposed")
		propose(t, c, leader, 10, 10)
		caughtUp(t, c)
	})
}

// One who is accused takes no part in elections until it is cleared, or found guilty: what it has left must decide nothing.
func TestAccusedDoesNotVote(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		propose(t, c, leader, 10, 10)
		caughtUp(t, c)
		node := raftgrouptest.NodeOf(leader.Replica())
		victim, other := node%3+1, (node+1)%3+1
		_, _, term := leader.Leader()
		c.Net.Isolate(node, 1, 2, 3)
		var votes [4]atomic.Int64 // of each node
		c.Net.SetFilter(func(from, _ id.Node, _ id.Group, m *raftpb.Message) bool {
			if k := m.GetType(); k == raftpb.MsgVoteResp && !m.GetReject() || k == raftpb.MsgVote || k == raftpb.MsgPreVote {
				votes[from].Add(1)
			}
			return true
		})
		c.Net.Inject(node, victim, 1, lostTo(leader, victim, term, uint64(leader.Log().LastIndex())+5))
		pause(beat)
		c.Nodes[other].Host.NodeDown(node)
		c.Nodes[victim].Host.NodeDown(node)
		pause(5 * beat)
		require.Zero(t, votes[victim].Load())
		require.NotZero(t, votes[other].Load())
		require.True(t, raftgrouptest.Until(10*time.Second, func() bool { // the accusation was not repeated
			l := c.Leader(1)
			return l != nil && l != leader
		}))
		c.Net.Heal()
	})
}

// Raft panics when it is to apply a change after which there is no voter. Only that replica stops.
func TestPanicInRaftStopsOneReplica(t *testing.T) {
	config := raftgrouptest.Config{Nodes: 1, Groups: 2, Campaign: raftgroup.CampaignPreferred}
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		require.NotNil(t, c.AwaitLeader(2, time.Second))
		leader := c.AwaitLeader(1, time.Second)
		propose(t, c, leader, 10, 10)
		err := leader.ChangeMembers(context.Background(), raftgroup.ConfChange(
			raftgroup.Change{Type: raftpb.ConfChangeRemoveNode, Replica: leader.Replica()}))
		var failed *raftgroup.FailedError
		require.ErrorAs(t, err, &failed)
		require.Equal(t, leader.Replica(), failed.Replica)
		stopped(t, c, 1, "removed all voters", "it takes part again when its node is started again")
		propose(t, c, c.Leader(2), 10, 10)
	})
}

// stopped checks that group 1's replica on a node has stopped, and why.
func stopped(t *testing.T, c *raftgrouptest.Cluster, node id.Node, reason, remedy string) {
	t.Helper()
	var problems []string
	require.True(t, raftgrouptest.Until(time.Second, func() bool { problems = c.Witness.Take(); return len(problems) > 0 }))
	require.Equal(t, uint64(1), c.Nodes[node].Host.Metrics().Failed)
	require.Len(t, problems, 1)
	require.Contains(t, problems[0], reason)
	require.Contains(t, problems[0], remedy)
	_, err := c.Group(node, 1).ReadIndex(context.Background())
	var failed *raftgroup.FailedError
	require.ErrorAs(t, err, &failed)
	require.ErrorIs(t, (<-c.Propose(c.Group(node, 1), raftgrouptest.Batch(nil), raftgroup.AcksAll)).Err, raftgroup.ErrClosed)
}

func TestCloseGroupEndsEverything(t *testing.T) {
	cluster(t, three(1), func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		node := raftgrouptest.NodeOf(leader.Replica())
		c.Net.Isolate(node, 1, 2, 3)
		result := c.Propose(leader, raftgrouptest.Batch(nil), raftgroup.AcksAll)
		require.NoError(t, c.Nodes[node].Host.CloseGroup(context.Background(), leader))
		require.ErrorIs(t, (<-result).Err, raftgroup.ErrClosed)
		require.ErrorIs(t, (<-c.Propose(leader, raftgrouptest.Batch(nil), raftgroup.AcksAll)).Err, raftgroup.ErrClosed)
		_, err := leader.Status(context.Background())
		require.ErrorIs(t, err, raftgroup.ErrClosed)
		require.Nil(t, c.Nodes[node].Host.Group(1))
		_, err = c.OpenGroup(node, leader.Log(), c.Members(1))
		require.NoError(t, err, "and it can be opened again")
		_, err = c.OpenGroup(node, leader.Log(), c.Members(1))
		require.ErrorIs(t, err, raftgroup.ErrExists)
		c.Net.Heal()
		caughtUp(t, c)
	})
}

// A single replica needs nobody.
func TestSingleReplica(t *testing.T) {
	config := raftgrouptest.Config{Nodes: 1, Groups: 3, Disk: disks(0)}
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		for g := id.Group(1); g <= 3; g++ {
			propose(t, c, c.AwaitLeader(g, 20*time.Second), 20, 100)
		}
		c.Crash(1)
		require.NoError(t, c.Start(1))
		propose(t, c, c.AwaitLeader(1, 20*time.Second), 20, 100)
		caughtUp(t, c)
	})
}

// Boot accepts every combination of what recovery may hand over: commit is a hint, applied may be ahead of it.
func TestBootClamps(t *testing.T) {
	for _, tc := range []struct {
		name            string
		commit, applied id.Index
		term            id.Term
	}{
		{"commit beyond the log", 1000, 10, 2},
		{"commit before applied", 0, 20, 2},
		{"commit before the start", 3, 0, 2},
		{"applied beyond the log", 15, 1000, 2},
		{"term before the last entry's", 20, 20, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			config := raftgrouptest.Config{Nodes: 1, Groups: 1}
			cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
				propose(t, c, c.AwaitLeader(1, 20*time.Second), 20, 10)
				require.NoError(t, c.Stop(1))
				store, err := c.Nodes[1].Disk.Open()
				require.NoError(t, err)
				l := &doctored{Log: store.Logs()[0], hs: wal.HardState{Term: tc.term, Commit: tc.commit}}
				l.state = l.Log.State()
				l.state.Applied = tc.applied
				h, err := raftgroup.New(raftgroup.Options{Node: 1, Store: store, Transport: c.Net.Endpoint(1)})
				require.NoError(t, err)
				g, err := h.Open(raftgroup.Spec{Group: 1, Replica: l.Replica(), Log: l, Machine: quiet{}})
				require.NoError(t, err)
				require.True(t, raftgrouptest.Until(20*time.Second, g.IsLeader))
				require.True(t, raftgrouptest.Until(20*time.Second, func() bool { return g.Applied() == l.LastIndex() }))
				require.NoError(t, h.Close())
				require.NoError(t, store.Close())
			})
		})
	}
}

// doctored is a log with another hard state and state than it recovered.
type doctored struct {
	raftgroup.Log
	hs    wal.HardState
	state wal.State
}

func (d *doctored) HardState() wal.HardState { return d.hs }
func (d *doctored) State() wal.State         { return d.state }

// Unwrap has the store find the log.
func (d *doctored) Unwrap() raftgroup.Log { return d.Log }

// quiet is a machine that does nothing.
type quiet struct{}

func (quiet) Admit(id.Index, id.Term, batch.Batch) raftgroup.Admission    { return raftgroup.Accept() }
func (quiet) Append(id.Index, id.Term, batch.Batch)                       {}
func (quiet) Truncate(id.Index)                                           {}
func (quiet) Apply(id.Index, id.Term, wal.EntryKind, []byte) (any, error) { return nil, nil }
func (quiet) Committed(id.Offset)                                         {}
func (quiet) Elected()                                                    {}
func (quiet) Leader(raftgroup.LeaderChange)                               {}
func (quiet) InSync(raftgroup.InSync)                                     {}
func (quiet) View() []byte                                                { return nil }
func (quiet) CheckView([]byte) error                                      { return nil }
func (quiet) Restore([]byte, id.Index) error                              { return nil }
func (quiet) Rolls([]byte, id.Offset) bool                                { return false }

// TestRetryWaitsForMinInSync sends a batch again that is committed and not yet on as many replicas as min.insync.replicas asks for.
func TestRetryWaitsForMinInSync(t *testing.T) {
	config := three(1)
	config.MinInSync = 3
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		require.NotNil(t, leader)
		node := raftgrouptest.NodeOf(leader.Replica())
		var retryOf atomic.Uint64 // index of the original; 0: batches are new
		c.Nodes[node].Machines[1].Decide = func(_ id.Index, term id.Term, _ batch.Batch) raftgroup.Admission {
			if original := id.Index(retryOf.Load()); original > 0 {
				return raftgroup.Duplicate(original, term, 1)
			}
			return raftgroup.Accept()
		}
		propose(t, c, leader, 1, 10)
		caughtUp(t, c)
		third := node%3 + 1
		// The third replica gets nothing from now on, but is not known to be away yet.
		c.Net.Isolate(third, 1, 2, 3)
		first := c.Propose(leader, raftgrouptest.Batch([]byte("x")), raftgroup.AcksAll)
		pause(time.Second)
		select {
		case r := <-first:
			t.Fatalf("answered on two replicas: %+v", r)
		default:
		}
		retryOf.Store(uint64(leader.Commit()))
		// The producer's connection breaks, it sends the batch again.
		second := c.Propose(leader, raftgrouptest.Batch([]byte("x")), raftgroup.AcksAll)
		pause(100 * time.Millisecond)
		select {
		case r := <-second:
			t.Errorf("the retry was acknowledged on two replicas: %+v", r)
		default:
		}
		c.Net.Heal()
		<-first
	})
}
