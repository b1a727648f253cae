package partition_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/node/retention"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestRetain is the life of a partition by the clock: its segments give way to others, go when their time has come, and a config that changes
// counts from the next look on. What is refused is not asked for again at once.
func TestRetain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, refusal := 0, error(nil)
		l := beginWith(t, disksim.New(disksim.Options{}), partition.Limits{
			MayTrim:  func() error { asked++; return refusal },
			Internal: func(topic string) bool { return topic == "__t" },
			Trims:    &partition.Trims{},
		})
		write := func() {
			var b batch.Builder
			b.Append(batch.Record{Timestamp: time.Now().Add(30 * 24 * time.Hour).UnixMilli(), Value: []byte("v")}) // from the future
			made, err := b.Finish(nil, batch.Plain(batch.None))
			require.NoError(t, err)
			require.NoError(t, l.propose(&raftgroup.Proposal{Batch: made}).Err)
		}
		configure := func(ms, bytes, segment int64) {
			l.p.SetConfig(partition.Config{MinInSync: 1, Retention: retention.Limits{MS: ms, Bytes: bytes}, SegmentMS: segment})
		}
		seconds := func(n int) {
			for range n {
				time.Sleep(time.Second) // virtual
				synctest.Wait()
				l.p.Retain(time.Now())
				synctest.Wait()
			}
		}
		segments := func() int { return len(l.log.Segments()) }

		configure(-1, -1, 10_000)
		seconds(20)
		write()
		seconds(9)
		write()
		require.Equal(t, 1, segments())
		seconds(2)
		require.Equal(t, 1, segments(), "nothing has come since")
		write()
		require.Equal(t, 2, segments())
		write()
		require.Equal(t, 2, segments(), "asked once")
		require.Zero(t, l.p.LogStart())

		configure(60_000, -1, 1<<62)
		seconds(45)
		require.Zero(t, l.p.LogStart())
		require.Zero(t, asked)
		seconds(14)
		require.EqualValues(t, 2, l.p.LogStart(), "the first segment")
		seconds(4)
		require.EqualValues(t, 4, l.p.LogStart(), "the one that is written to")
		write()
		seconds(3)
		require.EqualValues(t, 4, l.p.LogStart())
		require.Equal(t, 1, segments())
		require.EqualValues(t, 2, l.p.Trims().Moved(partition.TrimTime))
		require.EqualValues(t, 4, l.p.Trims().Records())

		refusal, asked = errors.New("no"), 0
		configure(-1, 0, 1<<62)
		seconds(21)
		require.EqualValues(t, 4, l.p.LogStart())
		require.InDelta(t, 5, asked, 1, "in 21 s")
		refusal = nil
		seconds(6)
		require.EqualValues(t, 5, l.p.LogStart())
		require.EqualValues(t, 1, l.p.Trims().Moved(partition.TrimSize))
		require.Zero(t, l.p.Trims().Failed())
		asked = 0
		seconds(60)
		require.Zero(t, asked, "there is nothing to let go of")

		l.p.TopicPartition = id.TopicPartition{Topic: "__t"}
		write()
		seconds(10)
		require.EqualValues(t, 5, l.p.LogStart(), "the system's own")
		require.Zero(t, asked)
		require.NoError(t, l.host.Close())
		require.NoError(t, l.store.Close())
	})
}
