package raftgroup_test

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// follower starts a host with two replicas on one worker that follow node 2 in term 2 and have stored one entry, 11.
func follower(t *testing.T) *lone { return followerWith(t, quiet{}) }

func followerWith(t *testing.T, m raftgroup.Machine) *lone {
	n := &lone{groups: 2, voters: []id.Node{self, 2, 3}, o: raftgroup.Options{Workers: 1, TickInterval: never}}
	n.machine = func() raftgroup.Machine { return m }
	n.run(t)
	n.step(entries(1, 2, 10, 1, nil))
	n.step(entries(2, 2, 10, 1, nil))
	require.EqualValues(t, 11, n.group(1).Log().LastIndex())
	return n
}

// step brings a message, and returns when all is quiet.
func (n *lone) step(m *raftpb.Message) {
	v := n.host.Visit()
	v.Step(raftgrouptest.NodeOf(id.Replica(m.GetFrom())), id.Group(m.GetTo()/100), m, nil)
	v.End()
	synctest.Wait()
}

// at is a batch of one record that begins at an offset.
func at(offset id.Offset) batch.Batch {
	b := raftgrouptest.Batch([]byte("record"))
	b.Stamp(offset, 2)
	return b
}

// TestStoredEntriesWaitForTheNextTurn: the leader is answered when a follower's entry is stored, without a turn; the next turn, whatever
// it is for, knows of it.
func TestStoredEntriesWaitForTheNextTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := follower(t)
		g := n.group(1)
		for i := range uint64(5) {
			turns, sent := n.host.Metrics().Turns, n.sends()
			n.step(entries(1, 2, 11+i, 2, at(id.Offset(i))))
			require.Equal(t, sent+1, n.sends(), "the leader is not answered")
			require.Equal(t, turns+1, n.host.Metrics().Turns, "a turn for what only the leader wants to know")
			require.Less(t, g.Applied(), id.Index(12+i))
			n.step(heartbeat(1, 2, 12+i)) // Raft applies nothing that it does not know to be stored
			require.Equal(t, turns+2, n.host.Metrics().Turns)
			require.Equal(t, id.Index(12+i), g.Applied(), "the next turn does not know what is stored")
		}
	})
}

// TestVotesAndTermsDoNotWait: a follower that has stored a vote has a turn at once, and so has a leader for what it stored.
func TestVotesAndTermsDoNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := follower(t)
		turns := n.host.Metrics().Turns
		n.step(heartbeat(1, 3, 0))
		require.Equal(t, turns+2, n.host.Metrics().Turns)
	})
	synctest.Test(t, func(t *testing.T) {
		n := (&lone{voters: []id.Node{self}, o: raftgroup.Options{Workers: 1, TickInterval: never}}).run(t)
		done := make(chan error, 1)
		n.group(1).Propose(&raftgroup.Proposal{Batch: at(0), Acks: raftgroup.AcksAll, Done: func(p *raftgroup.Proposal) { done <- p.Result.Err }})
		synctest.Wait()
		require.Len(t, done, 1, "nothing is committed without a tick")
		require.NoError(t, <-done)
	})
}

// leader starts a host with one replica that leads in term 3, and whose log, up to entry 12, is committed.
func leader(t *testing.T) *lone {
	n := (&lone{voters: []id.Node{self, 2, 3}, o: raftgroup.Options{Workers: 1, TickInterval: never}}).run(t)
	n.step(entries(1, 2, 10, 1, nil))
	n.step(message(raftpb.MsgTimeoutNow, 1, 2, 2))
	n.step(message(raftpb.MsgVoteResp, 1, 2, 3))
	lead, _, _ := n.group(1).Leader()
	require.Equal(t, n.group(1).Replica(), lead)
	n.step(stored(2, 12))
	require.EqualValues(t, 12, n.group(1).Commit())
	return n
}

// stored is a member's word to the leader of term 3 that it has stored the log up to an entry.
func stored(from id.Node, index uint64) *raftpb.Message {
	m := message(raftpb.MsgAppResp, 1, from, 3)
	m.Index = &index
	return m
}

// propose proposes a batch, and returns when all is quiet.
func (n *lone) propose() (answered *atomic.Bool) {
	answered = new(atomic.Bool)
	b := raftgrouptest.Batch([]byte("record"))
	n.group(1).Propose(&raftgroup.Proposal{Batch: b, Acks: raftgroup.AcksAll, Done: func(p *raftgroup.Proposal) { answered.Store(p.Result.Err == nil) }})
	synctest.Wait()
	return answered
}

// TestLastOfMinInSync: the word of the last member that min.insync.replicas asks for is an answer, though the entry has been committed
// before and Raft makes nothing of it.
func TestLastOfMinInSync(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := leader(t)
		n.step(stored(3, 12)) // from now on Raft replicates to it without waiting for answers
		n.group(1).SetMinInSync(3)
		answered := n.propose()
		n.step(stored(2, 13))
		require.EqualValues(t, 13, n.group(1).Commit())
		require.False(t, answered.Load(), "on two of three")
		n.step(stored(3, 13))
		require.True(t, answered.Load(), "on three, and nobody says so")
	})
}

// TestClosingDoesNotWaitForATick closes a follower with an entry on its way to the disk.
func TestClosingDoesNotWaitForATick(t *testing.T) {
	const write = 10 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		n := follower(t)
		n.disk.Delay = func() time.Duration { return write }
		n.step(entries(1, 2, 11, 2, at(0)))
		begin := time.Now()
		require.NoError(t, n.host.CloseGroup(context.Background(), n.group(1)))
		require.LessOrEqual(t, time.Since(begin), write)

		n.disk.Delay = nil // and when that is over, what others store waits again
		turns := n.host.Metrics().Turns
		n.step(entries(2, 2, 11, 2, at(0)))
		require.Equal(t, turns+1, n.host.Metrics().Turns)
	})
}

// TestClosingBetweenCompletionAndRound closes a follower when the store has completed its append, and has yet to say so of the round.
func TestClosingBetweenCompletionAndRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := follower(t)
		var hold atomic.Bool
		held := make(chan struct{})
		n.store.completed = func() {
			if hold.Load() {
				<-held
			}
		}
		hold.Store(true)
		n.step(entries(1, 2, 11, 2, at(0)))
		g := n.group(1)
		closed := make(chan error, 1)
		begin := time.Now()
		go func() { closed <- n.host.CloseGroup(context.Background(), g) }()
		synctest.Wait()
		require.True(t, g.Failed())
		require.Empty(t, closed, "something is in flight")
		close(held)
		require.NoError(t, <-closed)
		require.Zero(t, time.Since(begin))
	})
}

// gated is a machine that waits at the gate whenever a cut is taken, and keeps its worker waiting.
type gated struct {
	quiet
	gate chan struct{}
}

func (m gated) View() []byte {
	<-m.gate
	return nil
}

// TestClosingAfterTheRound closes a follower in a turn that began before the store said that its append is done. The store could not know
// then that somebody waits for it.
func TestClosingAfterTheRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := gated{gate: make(chan struct{})}
		n := followerWith(t, m)
		var hold atomic.Bool
		held := make(chan struct{})
		n.store.completed = func() {
			if hold.Load() {
				<-held
			}
		}
		hold.Store(true)
		n.step(entries(1, 2, 11, 2, at(0)))
		g := n.group(1)
		closed := make(chan error, 1)
		begin := time.Now()
		n.host.Cut(1, g.Replica()) // a turn, so that what comes next is done in one
		synctest.Wait()
		n.host.Cut(1, g.Replica())
		go func() { closed <- n.host.CloseGroup(context.Background(), g) }()
		synctest.Wait()
		m.gate <- struct{}{}
		synctest.Wait()
		close(held) // while the worker stands at the second cut, with the closing before it
		synctest.Wait()
		require.False(t, g.Failed())
		close(m.gate)
		require.NoError(t, <-closed)
		require.Zero(t, time.Since(begin))
	})
}

// TestOnlyCommitMovesIsNoAppend counts what is submitted: nothing where only the commit index moved, and every new term and vote, with
// whatever came with it.
func TestOnlyCommitMovesIsNoAppend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := follower(t)
		n.step(entries(1, 2, 11, 2, at(0), at(1), at(2), at(3)))
		n.store.take()
		commit := func(term, i uint64) {
			t.Helper()
			appends := n.host.Metrics().Appends
			n.step(heartbeat(1, term, i))
			require.EqualValues(t, i, n.group(1).Commit())
			require.Empty(t, n.store.take(), "submitted for commit index %d", i)
			require.Equal(t, appends, n.host.Metrics().Appends)
		}
		voted := func(m *raftpb.Message, want wal.HardState) {
			t.Helper()
			n.step(m)
			got := n.store.take()
			require.Len(t, got, 1)
			require.NotNil(t, got[0].vote)
			want.Commit = got[0].vote.Commit
			require.Equal(t, want, *got[0].vote)
		}
		commit(2, 11)
		commit(2, 12)
		voted(heartbeat(1, 3, 12), wal.HardState{Term: 3})
		commit(3, 13)
		n.restart()
		require.Empty(t, n.store.take())
		commit(3, 14)
		voted(heartbeat(1, 4, 14), wal.HardState{Term: 4})
		n.restart()
		vote := message(raftpb.MsgVote, 1, 2, 4) // of the term that is known, for which nobody has this replica's vote
		vote.Index, vote.LogTerm = new(uint64(15)), new(uint64(2))
		voted(vote, wal.HardState{Term: 4, Vote: raftgrouptest.ReplicaOf(1, 2)})
		n.restart()
		commit(4, 15)
		voted(message(raftpb.MsgAppResp, 1, 3, 5), wal.HardState{Term: 5})
		require.EqualValues(t, 5, n.group(1).Log().HardState().Term)
	})
}

// TestTermOfTheLastEntryIsStored: where the log has an entry of a later term than its hard state, as after a torn write, the term is
// stored with the first thing that happens.
func TestTermOfTheLastEntryIsStored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := follower(t)
		n.step(entries(1, 2, 11, 2, at(0)))
		n.doctor = func(l raftgroup.Log) raftgroup.Log {
			return &doctored{Log: l, hs: wal.HardState{Term: 1, Vote: 9, Commit: 11}, state: l.State()}
		}
		n.restart()
		n.step(heartbeat(1, 2, 12))
		got := n.store.take()
		require.Len(t, got, 1)
		require.Equal(t, &wal.HardState{Term: 2, Commit: 12}, got[0].vote)
		n.step(entries(1, 2, 12, 2, at(1)))
		n.store.take()
		n.step(heartbeat(1, 2, 13))
		require.Empty(t, n.store.take())
	})
}
