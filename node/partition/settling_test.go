package partition_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/command"
	"github.com/quorumlog/quorumlog/raftgroup/raftgrouptest"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// unsettled requires that nothing is said of what a leader before may have deleted, which is below start, and that the rest is read.
func unsettled(t *testing.T, p *partition.Partition, start, end id.Offset) {
	t.Helper()
	require.True(t, p.Leads())
	for from := range start {
		got, _, err := p.Read(nil, from, partition.ToHighWatermark, 1<<20)
		require.ErrorIs(t, err, partition.ErrUnsettled, "offset %d", from)
		require.Empty(t, got)
	}
	require.Equal(t, id.NoOffset, p.ShownStart())
	got, _, err := p.Read(nil, start, partition.ToHighWatermark, 1<<20)
	require.NoError(t, err)
	next, err := partition.NextOffset(got)
	require.NoError(t, err)
	require.Equal(t, end, next)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err = p.ConfirmedHighWatermark(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, id.NoOffset, p.ShownStart())
}

func settled(t *testing.T, p *partition.Partition, start, hw id.Offset) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	got, err := p.ConfirmedHighWatermark(ctx)
	require.NoError(t, err)
	require.Equal(t, hw, got)
	shows(t, p, start)
}

// shows requires that a replica that has confirmed a log start says so, whether it leads any more or not.
func shows(t *testing.T, p *partition.Partition, start id.Offset) {
	t.Helper()
	require.Equal(t, start, p.LogStart())
	require.Equal(t, start, p.ShownStart())
	var gone *partition.ErrOutOfRange
	_, _, err := p.Read(nil, start-1, partition.ToHighWatermark, 1<<20)
	require.ErrorAs(t, err, &gone)
	require.Equal(t, start, gone.Start)
}

// unknown is a command of no release. It halts the replica.
func unknown() []byte { return command.Command{Kind: 99, Version: 1, Body: []byte{1}}.Append(nil) }

// TestStartAfterRestart: records are deleted, the node is killed and leads again, and its disk hangs before its first entry is durable.
func TestStartAfterRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := begin(t, disksim.New(disksim.Options{}))
		l.fill(10)
		l.checkpoint()
		start, err := l.p.DeleteRecords(context.Background(), 5)
		require.NoError(t, err)
		require.EqualValues(t, 5, start)
		l = l.killed()
		l.onJournal(func() { time.Sleep(time.Second) }) // virtual: a vote has to be durable before it leads
		l.live(partition.Limits{})
		unsettled(t, l.p, 5, 10)
		settled(t, l.p, 5, 10)
		l.end()
	})
}

// TestStartAfterFailover: the leader dies when it has shown that records are deleted, before anybody else knows that this is committed; and
// who takes over commits nothing.
func TestStartAfterFailover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		net := raftgrouptest.NewNetwork(1)
		defer net.Close()
		var members []raftgroup.Member
		for n := id.Node(1); n <= 3; n++ {
			members = append(members, raftgroup.Member{Replica: id.Replica(70 + n), Node: n})
		}
		lives := make(map[id.Node]*life)
		for n := id.Node(1); n <= 3; n++ {
			lives[n] = &life{t: t, sim: disksim.New(disksim.Options{}), node: n, members: members, net: net}
			lives[n].open(partition.Limits{})
		}
		leader := func() (found *life) {
			require.True(t, raftgrouptest.Until(time.Minute, func() bool {
				for _, l := range lives {
					if l.p.Leads() {
						found = l
					}
				}
				return found != nil
			}), "nobody leads")
			return found
		}
		first := leader()
		first.fill(10)
		for _, l := range lives {
			l.until("the high watermark", func() bool { return l.p.HighWatermark() == 10 })
		}
		known := first.p.Group().Commit()
		net.SetFilter(func(_, _ id.Node, _ id.Group, m *raftpb.Message) bool { return id.Index(m.GetCommit()) <= known })
		start, err := first.p.DeleteRecords(context.Background(), 5)
		require.NoError(t, err)
		require.EqualValues(t, 5, start)
		shows(t, first.p, 5)
		first.end()
		delete(lives, first.node)

		net.SetFilter(func(_, _ id.Node, _ id.Group, m *raftpb.Message) bool { return m.GetType() != raftpb.MsgAppResp })
		second := leader()
		require.Zero(t, second.p.LogStart())
		unsettled(t, second.p, 5, 10)
		net.Heal()
		net.SetFilter(nil)
		second.until("what is committed", func() bool { // it may have lost the leadership to the other one
			second = leader()
			hw, err := second.p.ConfirmedHighWatermark(context.Background())
			require.True(t, err != nil || hw == 10)
			return err == nil
		})
		shows(t, second.p, 5)
		for _, l := range lives {
			l.until("the log start", func() bool { return l.p.LogStart() == 5 })
			l.end()
		}
	})
}

// TestHaltedLeaderAnswers: what is committed can be read, and who asks how much that is gets an answer. A log start behind the entry that
// nobody can apply counts when the node comes back.
func TestHaltedLeaderAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := begin(t, disksim.New(disksim.Options{}))
		l.fill(3)
		_, err := l.p.DeleteRecords(context.Background(), 1)
		require.NoError(t, err)
		release := l.hang()
		for _, c := range [][]byte{unknown(), partition.Trim(2, partition.TrimTime)} {
			l.p.Group().Propose(&raftgroup.Proposal{Command: c, Done: func(*raftgroup.Proposal) {}})
		}
		synctest.Wait()
		release()
		halted := func() bool {
			standing, _ := l.p.Group().Standing()
			return standing == raftgroup.Halted
		}
		l.until("an end", halted)
		settled(t, l.p, 1, 3)
		l = l.killed()
		l.live(partition.Limits{})
		settled(t, l.p, 2, 3)
		require.True(t, halted())
		l.end()
	})
}

// TestDeletionsAreCombined: somebody deletes record by record, a crowd deletes at once. Few commands are written for both, nobody is kept
// waiting for long, the first not at all, and what each is told is true.
func TestDeletionsAreCombined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := begin(t, disksim.New(disksim.Options{}))
		var b batch.Builder
		for range 1000 {
			b.Append(batch.Record{Value: []byte("v")})
		}
		made, err := b.Finish(nil, batch.Plain(batch.None))
		require.NoError(t, err)
		require.NoError(t, l.propose(&raftgroup.Proposal{Batch: made}).Err)
		commands := func() int { return len(l.log.Controls(0)) }
		remove := func(to id.Offset) time.Duration {
			at := time.Now()
			start, err := l.p.DeleteRecords(context.Background(), to)
			require.NoError(t, err)
			require.GreaterOrEqual(t, start, to)
			require.GreaterOrEqual(t, l.p.LogStart(), start)
			return time.Since(at)
		}
		none := commands()
		require.Less(t, remove(1), 100*time.Millisecond, "the first")
		for o := id.Offset(2); o <= 21; o++ {
			require.Less(t, remove(o), 600*time.Millisecond)
		}
		require.Equal(t, none+21, commands())
		time.Sleep(time.Second) // virtual
		waited := make(chan time.Duration)
		for o := id.Offset(22); o <= 1000; o++ {
			go func() { waited <- remove(o) }()
		}
		for range 979 {
			require.Less(t, <-waited, 600*time.Millisecond)
		}
		require.LessOrEqual(t, commands(), none+23)
		require.EqualValues(t, 1000, l.p.LogStart())
		l.end()
	})
}

// TestDeletionsFail: who waits for another's command shares its failure, but not its deadline.
func TestDeletionsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := begin(t, disksim.New(disksim.Options{}))
		l.fill(3)
		release := l.hang()
		remove := func(to id.Offset, limit time.Duration) <-chan error {
			result := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), limit)
				defer cancel()
				_, err := l.p.DeleteRecords(ctx, to)
				result <- err
			}()
			synctest.Wait()
			return result
		}
		first, second := remove(2, time.Second), remove(1, time.Minute)
		require.Error(t, <-first)
		synctest.Wait()
		require.Empty(t, second)
		release()
		require.NoError(t, <-second)
		require.Error(t, l.propose(&raftgroup.Proposal{Command: unknown()}).Err)
		time.Sleep(time.Second) // virtual
		var halted *raftgroup.HaltedError
		require.ErrorAs(t, <-remove(3, time.Minute), &halted)
		l.end()
	})
}
