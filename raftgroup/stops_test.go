package raftgroup_test

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestRaftAppendsOfItsOwn: a leader inherits a joint configuration. In the turn in which its first entry is applied Raft appends the entry
// that leaves it, and tells nobody. A proposal of that very turn gets the index after it.
func TestRaftAppendsOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := gated{gate: make(chan struct{}, 1)}
		n := &lone{voters: []id.Node{self, 2, 3}, o: raftgroup.Options{Workers: 1, TickInterval: never}}
		n.machine = func() raftgroup.Machine { return m }
		n.run(t)
		t.Cleanup(func() { close(m.gate) })
		n.step(entries(1, 2, 10, 1, nil))
		change := raftgroup.ConfChange(
			raftgroup.Change{Type: raftpb.ConfChangeAddNode, Replica: raftgrouptest.ReplicaOf(1, 4), Node: 4},
			raftgroup.Change{Type: raftpb.ConfChangeRemoveNode, Replica: raftgrouptest.ReplicaOf(1, 3)})
		data, err := proto.Marshal(change)
		require.NoError(t, err)
		app := entries(1, 2, 11, 2, data)
		app.Entries[0].Type, app.Commit = raftpb.EntryConfChangeV2.Enum(), new(uint64(11))
		n.step(app)
		n.step(heartbeat(1, 2, 12))
		n.step(message(raftpb.MsgTimeoutNow, 1, 2, 2))
		n.step(message(raftpb.MsgVoteResp, 1, 2, 3))
		n.step(message(raftpb.MsgVoteResp, 1, 3, 3))
		g := n.group(1)
		require.True(t, g.IsLeader())
		status, err := g.Status(context.Background())
		require.NoError(t, err)
		require.True(t, status.Joint)

		n.host.Cut(1, g.Replica()) // the worker stands, so that what comes next is done in one turn
		synctest.Wait()
		refused := make(chan error, 1)
		go func() { refused <- g.ChangeMembers(context.Background(), change) }()
		synctest.Wait()
		done := make(chan raftgroup.Result, 1)
		g.Propose(&raftgroup.Proposal{Batch: at(0), Acks: raftgroup.AcksAll, Done: func(p *raftgroup.Proposal) { done <- p.Result }})
		n.host.Step(2, 1, stored(2, 13), nil)
		n.host.Step(3, 1, stored(3, 13), nil)
		m.gate <- struct{}{}
		synctest.Wait()
		require.ErrorIs(t, <-refused, raftgroup.ErrConfChangeRefused)
		require.False(t, g.Failed(), "the leader has stopped for good")
		for _, from := range []id.Node{2, 3, 4} {
			n.step(stored(from, 16))
		}
		r := <-done
		require.NoError(t, r.Err)
		require.Greater(t, r.Index, id.Index(14), "14 is the entry that leaves the joint configuration")
	})
}

// grants tells whether any of the messages since then gives somebody a vote or acknowledges entries.
func (n *lone) grants(since int) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range n.sent[since:] {
		switch m.GetType() {
		case raftpb.MsgVoteResp, raftpb.MsgPreVoteResp, raftpb.MsgAppResp:
			if !m.GetReject() {
				return true
			}
		}
	}
	return false
}

// vote asks for the vote of a replica that has the log up to 12.
func vote() *raftpb.Message {
	m := message(raftpb.MsgVote, 1, 3, 3)
	m.Index, m.LogTerm = new(uint64(12)), new(uint64(2))
	return m
}

// believed is how often the leader says that the replica lost entries until that is believed: see accuse.
const believed = 7

// accuse has the leader say that the replica lost entries: that it has 15, with each of some heartbeats.
func (n *lone) accuse(times int) {
	for range times {
		n.step(heartbeat(1, 2, 15))
		pause(5*never + never/10) // between two ticks
	}
}

// TestAcknowledgementsUnderWay: what a replica that finds out that it lost entries is just storing is not acknowledged either.
func TestAcknowledgementsUnderWay(t *testing.T) {
	const write = 10 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		n := follower(t)
		n.disk.Delay = func() time.Duration { return write }
		n.disk.Refuse = func(id.Group) error { return errors.New("not yet") }
		n.accuse(believed - 1)
		sent := n.sends()
		n.step(entries(1, 2, 11, 2, at(0)))
		n.accuse(1)
		standing, _ := n.group(1).Standing()
		require.Equal(t, raftgroup.Stopped, standing)
		require.EqualValues(t, 12, n.group(1).Log().LastIndex())
		require.False(t, n.grants(sent))
	})
}

// failures are what a host reports.
func (n *lone) failures() *[]*raftgroup.FailedError {
	list := new([]*raftgroup.FailedError)
	n.o.OnGroupFailed = func(_ *raftgroup.Group, err error) {
		var f *raftgroup.FailedError
		if errors.As(err, &f) {
			*list = append(*list, f)
		}
	}
	return list
}

// lost starts a follower that has stored 11 and 12, and which its leader then accuses. Refusals fail as refuse says.
func lost(t *testing.T, refuse func(id.Group) error) (*lone, *[]*raftgroup.FailedError) {
	n := &lone{groups: 2, voters: []id.Node{self, 2, 3}, o: raftgroup.Options{Workers: 1, TickInterval: never}}
	failures := n.failures()
	n.run(t)
	n.disk.Refuse = refuse
	n.step(entries(1, 2, 10, 1, nil))
	n.step(entries(1, 2, 11, 2, at(0)))
	n.accuse(believed)
	return n, failures
}

// TestReplicaThatLostEntriesIsRefused: neither in this life nor in a later one does a replica vote or acknowledge that has found out that
// it lost what it had acknowledged. Nobody hears of it before that is durable.
func TestReplicaThatLostEntriesIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan error)
		n, failures := lost(t, func(id.Group) error { return <-gate })
		g, sent := n.group(1), n.sends()
		quietly := func() {
			t.Helper()
			n.step(vote())
			n.step(entries(1, 2, 12, 2, at(1)))
			require.False(t, n.grants(sent), "it votes, or acknowledges")
		}
		standing, cause := g.Standing()
		require.Equal(t, raftgroup.Stopped, standing)
		require.ErrorContains(t, cause, "acknowledged data was lost")
		require.Empty(t, *failures, "reported before it is durable")
		require.False(t, g.Failed())
		quietly()
		gate <- errors.New("the disk is full")
		synctest.Wait()
		require.Empty(t, *failures)
		quietly()
		gate <- nil // the next attempt
		synctest.Wait()
		require.Len(t, *failures, 1)
		require.True(t, (*failures)[0].Refused)
		require.True(t, g.Failed())
		standing, _ = g.Standing()
		require.Equal(t, raftgroup.Refused, standing)
		require.Contains(t, n.disk.Refused(1), "acknowledged data was lost")
		quietly()

		n.restart()
		require.Nil(t, n.group(1), "it is opened again")
		require.NotNil(t, n.group(2))
		sent = n.sends()
		quietly()
	})
}

// TestRefusalThatWasNotStored: where the process ends first nobody has heard of it, and the next life finds out again. An orderly end
// tries once more.
func TestRefusalThatWasNotStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var space atomic.Bool
		n, failures := lost(t, func(id.Group) error {
			if space.Load() {
				return nil
			}
			return errors.New("no space")
		})
		n.disk.Halt()
		require.NoError(t, n.host.Close())
		n.disk.Crash()
		require.Empty(t, *failures)
		n.start()
		n.openAll()
		n.accuse(believed)
		standing, _ := n.group(1).Standing()
		require.Equal(t, raftgroup.Stopped, standing)
		space.Store(true)
		n.restart()
		require.Nil(t, n.group(1))
		require.NotEmpty(t, n.disk.Refused(1))
	})
}

// TestRefusalOutlivesAPowerLoss: the same on the real wal. What was reported is durable.
func TestRefusalOutlivesAPowerLoss(t *testing.T) {
	refused := make(map[id.Node][]wal.Refusal)
	config := raftgrouptest.Config{Nodes: 3, Groups: 2, Campaign: raftgroup.CampaignPreferred, Disk: func(n id.Node) raftgrouptest.Disk {
		d := raftgrouptest.NewWalDisk(uint64(n))
		d.Options = wal.Options{JournalFileBytes: 1 << 20, CacheBytes: 8 << 20, ReserveBytes: 1}
		d.OnRefused = func(r wal.Refusal) { refused[n] = append(refused[n], r) }
		return d
	}}
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		propose(t, c, leader, 10, 10)
		caughtUp(t, c)
		node := raftgrouptest.NodeOf(leader.Replica())
		victim := node%3 + 1
		g := c.Group(victim, 1)
		_, _, term := leader.Leader()
		c.Net.Cut(node, victim) // or its own heartbeats would say otherwise
		accuse(c, leader, victim, term, 5)
		require.True(t, raftgrouptest.Until(time.Minute, g.Failed))
		c.Crash(victim)
		require.Len(t, c.Witness.Take(), 1)
		store, err := c.Nodes[victim].Disk.Open()
		require.NoError(t, err)
		defer func() { require.NoError(t, store.Close()) }()
		require.Len(t, refused[victim], 1)
		require.Equal(t, g.Replica(), refused[victim][0].Replica)
		require.Len(t, store.Logs(), 1)
	})
}

// TestLossThatCannotBe: a heartbeat that nobody can have sent takes no replica out.
func TestLossThatCannotBe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := follower(t)
		n.step(heartbeat(1, 2, 11))
		dropped := n.host.Metrics().DroppedInvalid
		n.step(heartbeat(1, 2, 1<<40)) // of the leader, and of a log that nobody can have
		other := message(raftpb.MsgHeartbeat, 1, 3, 2)
		other.Commit = new(uint64(15))
		n.step(other) // of a term in which another leads
		stranger := message(raftpb.MsgHeartbeat, 1, 7, 3)
		stranger.Commit = new(uint64(15))
		n.step(stranger) // of no member
		require.Equal(t, dropped+3, n.host.Metrics().DroppedInvalid)
		standing, cause := n.group(1).Standing()
		require.Equal(t, raftgroup.Working, standing, "%v", cause)
		n.step(entries(1, 2, 11, 2, at(0)))
		require.EqualValues(t, 12, n.group(1).Log().LastIndex())
	})
}

// TestStopIsNotRefusal: a replica whose leader sends entries that do not fit stops, and stores none of them. Nothing says whose log is
// wrong, and every follower would find the same: with the next start it takes part again, and its vote is by what it acknowledged.
func TestStopIsNotRefusal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &lone{groups: 2, voters: []id.Node{self, 2, 3}, o: raftgroup.Options{Workers: 1, TickInterval: never}}
		failures := n.failures()
		n.run(t)
		n.step(entries(1, 2, 10, 1, nil))
		n.step(entries(1, 2, 11, 2, at(0)))
		n.step(entries(1, 2, 12, 2, at(7)))
		require.Len(t, *failures, 1)
		require.False(t, (*failures)[0].Refused)
		standing, cause := n.group(1).Standing()
		require.Equal(t, raftgroup.Stopped, standing)
		require.ErrorContains(t, cause, "begins at offset 7")
		require.Empty(t, n.disk.Refused(1))
		sent := n.sends()
		n.step(vote())
		require.False(t, n.grants(sent))

		n.restart()
		require.EqualValues(t, 12, n.group(1).Log().LastIndex())
		sent = n.sends()
		n.step(vote())
		require.True(t, n.grants(sent), "it is one vote less for good")
	})
}

// old has the machines of some nodes be of a release that does not know batches with a certain value.
type old struct{ nodes [6]atomic.Bool }

var errUnknown = errors.New("nobody has heard of this")

// unknown is a batch that an older release does not know.
var unknown = raftgrouptest.Batch([]byte("a command of a later release"))

func (o *old) set(release bool, nodes ...id.Node) {
	for _, n := range nodes {
		o.nodes[n].Store(release)
	}
}

func (o *old) machine(n id.Node, m *raftgrouptest.Machine) {
	m.Knows = func(value []byte) error {
		if o.nodes[n].Load() && string(value) == "a command of a later release" {
			return errUnknown
		}
		return nil
	}
}

func standingOf(g *raftgroup.Group) raftgroup.Standing {
	s, _ := g.Standing()
	return s
}

// awaitHalted waits until a replica is halted and knows a commit index.
func awaitHalted(t *testing.T, g *raftgroup.Group, commit id.Index) {
	t.Helper()
	require.True(t, raftgrouptest.Until(time.Minute, func() bool { return standingOf(g) == raftgroup.Halted && g.Commit() >= commit }),
		"it is %v, with commit index %d", standingOf(g), g.Commit())
}

// restarted stops nodes in good order, one after the other, and starts each again.
func restarted(t *testing.T, c *raftgrouptest.Cluster, nodes ...id.Node) {
	t.Helper()
	for _, n := range nodes {
		require.NoError(t, c.Stop(n))
		require.NoError(t, c.Start(n))
	}
}

// TestOldFollowersHalt: two of three replicas do not know a command. They acknowledge it and all that comes after, and apply nothing from
// there on, in this life and the next; a newer release applies everything. Membership goes on meanwhile.
func TestOldFollowersHalt(t *testing.T) {
	var o old
	config := three(1)
	config.Machine = o.machine
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		require.EqualValues(t, 1, raftgrouptest.NodeOf(leader.Replica()))
		o.set(true, 2, 3)
		propose(t, c, leader, 5, 10)
		caughtUp(t, c)
		hole := (<-c.Propose(leader, unknown, raftgroup.AcksAll)).Index
		last := propose(t, c, leader, 20, 10).Index
		followers := []id.Node{2, 3}
		checkHalted := func() {
			t.Helper()
			for _, n := range followers {
				g := c.Group(n, 1)
				awaitHalted(t, g, last)
				require.Equal(t, hole-1, g.Applied())
				_, err := g.Standing()
				require.ErrorIs(t, err, errUnknown)
				var halted *raftgroup.HaltedError
				require.ErrorAs(t, err, &halted)
				require.Equal(t, hole, halted.Index)
				status, err := g.Status(context.Background())
				require.NoError(t, err)
				require.Equal(t, raftgroup.Halted, status.Standing)
				require.Equal(t, hole-1, status.Applied)
				require.Equal(t, leader.HighWatermark(), g.HighWatermark(), "what is committed can be read")
			}
		}
		checkHalted()
		require.True(t, leader.IsLeader())
		err := leader.TransferLeader(context.Background(), raftgrouptest.ReplicaOf(1, 2))
		require.ErrorIs(t, err, raftgroup.ErrTransferFailed, "a halted replica leads though another can")
		require.True(t, raftgrouptest.Until(time.Second, leader.IsLeader))

		for _, n := range followers {
			state := c.Group(n, 1).Log().State()
			c.Nodes[n].Host.Cut(1, raftgrouptest.ReplicaOf(1, n))
			restarted(t, c, n) // which would take a last cut
			require.Less(t, state.Applied, hole-1)
			require.Equal(t, state, c.Group(n, 1).Log().State(), "a cut of a halted replica")
		}
		last = propose(t, c, leader, 5, 10).Index
		checkHalted()

		// 3 becomes a learner: two entries behind the hole, of which the second leaves the joint configuration.
		require.NoError(t, leader.ChangeMembers(context.Background(), raftgroup.ConfChange(
			raftgroup.Change{Type: raftpb.ConfChangeAddLearnerNode, Replica: raftgrouptest.ReplicaOf(1, 3), Node: 3})))
		last = propose(t, c, leader, 5, 10).Index
		checkHalted()
		status, err := c.Group(2, 1).Status(context.Background())
		require.NoError(t, err)
		voters := 0
		for _, m := range status.Members {
			if !m.Learner {
				voters++
			}
		}
		require.Equal(t, 2, voters, "a halted replica counts by the members of some time ago")

		o.set(false, 2, 3)
		restarted(t, c, followers...)
		caughtUp(t, c)
		for _, n := range followers {
			require.Equal(t, raftgroup.Working, standingOf(c.Group(n, 1)))
		}
	})
}

// TestHaltedLeaderHandsOver: a leader that cannot follow its own log is replaced by one that can; what waited for it to apply learns that
// the outcome is not known here.
func TestHaltedLeaderHandsOver(t *testing.T) {
	var o old
	config := three(1)
	config.Machine = o.machine
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		propose(t, c, leader, 5, 10)
		caughtUp(t, c)
		o.set(true, 1)
		done := make(chan error, 1)
		leader.Propose(&raftgroup.Proposal{Batch: append([]byte(nil), unknown...), Acks: raftgroup.AcksAll, Wait: raftgroup.WaitApplied,
			Done: func(p *raftgroup.Proposal) { done <- p.Result.Err }})
		var halted *raftgroup.HaltedError
		require.ErrorAs(t, <-done, &halted)
		require.ErrorAs(t, (<-c.Propose(leader, raftgrouptest.Batch(nil), raftgroup.AcksAll)).Err, &halted, "it admits what it cannot judge")
		require.True(t, raftgrouptest.Until(time.Second, func() bool { l := c.Leader(1); return l != nil && l != leader }), "it leads on")
		propose(t, c, c.Leader(1), 5, 10)
		require.Equal(t, halted.Index-1, leader.Applied())
		o.set(false, 1)
		restarted(t, c, 1)
		caughtUp(t, c)
	})
}

// TestAllHalted: where nobody can follow the log somebody leads nevertheless, so that it can be read. The first node with a release that
// can takes over.
func TestAllHalted(t *testing.T) {
	var o old
	config := three(1)
	config.Machine = o.machine
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		propose(t, c, leader, 5, 10)
		caughtUp(t, c)
		o.set(true, 1, 2, 3)
		hole := (<-c.Propose(leader, unknown, raftgroup.AcksAll)).Index
		for n := id.Node(1); n <= 3; n++ {
			awaitHalted(t, c.Group(n, 1), hole)
		}
		c.Crash(1)
		for _, n := range []id.Node{2, 3} {
			c.Nodes[n].Host.NodeDown(1)
		}
		leader = c.AwaitLeader(1, time.Minute)
		require.NotNil(t, leader, "nobody leads")
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		read, err := leader.ReadIndex(ctx)
		require.NoError(t, err)
		require.GreaterOrEqual(t, read, hole)
		var halted *raftgroup.HaltedError
		require.ErrorAs(t, (<-c.Propose(leader, raftgrouptest.Batch(nil), raftgroup.AcksAll)).Err, &halted)

		o.set(false, 1)
		require.NoError(t, c.Start(1))
		for _, n := range []id.Node{2, 3} {
			c.Nodes[n].Host.NodeUp(1)
		}
		require.True(t, raftgrouptest.Until(time.Minute, func() bool { return c.Group(1, 1).IsLeader() }), "who can follow does not lead")
		propose(t, c, c.Group(1, 1), 5, 10)
		o.set(false, 2, 3)
		restarted(t, c, 2, 3)
		caughtUp(t, c)
	})
}

// TestHaltedLeaderServesFromDisk: a halted leader has what nobody can apply on its disk alone. Who is behind gets it all the same.
func TestHaltedLeaderServesFromDisk(t *testing.T) {
	var o old
	config := three(1)
	config.Machine, config.Disk = o.machine, disks(10)
	cluster(t, config, func(t *testing.T, c *raftgrouptest.Cluster) {
		leader := c.AwaitLeader(1, time.Second)
		require.EqualValues(t, 1, raftgrouptest.NodeOf(leader.Replica()))
		propose(t, c, leader, 5, 10)
		caughtUp(t, c)
		o.set(true, 1, 2)
		c.Net.Isolate(3, 1, 2)
		c.Propose(leader, unknown, raftgroup.AcksAll)
		var last <-chan raftgroup.Result
		for range 60 {
			last = c.Propose(leader, raftgrouptest.Batch(nil), raftgroup.AcksAll)
		}
		r := <-last
		require.NoError(t, r.Err)
		awaitHalted(t, leader, r.Index)
		c.Net.Heal()
		within(t, 10*time.Second, "node 3 has what it missed", func() bool { return c.Group(3, 1).Applied() >= r.Index })
		o.set(false, 1, 2)
		restarted(t, c, 1, 2)
		caughtUp(t, c)
	})
}

// TestAccusedCandidate: a replica asked for votes before it heard that it may have lost entries. What it is answered does not count.
func TestAccusedCandidate(t *testing.T) {
	for _, accused := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			n := follower(t)
			n.group(1).Campaign()
			synctest.Wait()
			if accused {
				n.step(heartbeat(1, 3, 15))
			}
			n.step(message(raftpb.MsgPreVoteResp, 1, 3, 3))
			stands := slices.ContainsFunc(n.sent, func(m *raftpb.Message) bool { return m.GetType() == raftpb.MsgVote })
			require.Equal(t, !accused, stands)
		})
	}
}
