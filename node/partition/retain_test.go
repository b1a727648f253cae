package partition_test

import (
	"context"
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

// TestRetain is the life of a partition by the clock: its segments give way to others, go when their time has come, and a config that
// changes counts from the next look on. What is refused is not asked for again at once.
func TestRetain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, refusal := 0, error(nil)
		l := beginWith(t, disksim.New(disksim.Options{}), partition.Limits{
			MayTrim:  func() error { asked++; return refusal },
			Internal: func(topic string) bool { return topic == "__t" },
			Trims:    &partition.Trims{},
		})
		write := func() { l.writeAged(-30 * 24 * time.Hour) } // from the future
		configure := func(ms, bytes, segment int64) {
			l.p.SetConfig(partition.Config{MinInSync: 1, Retention: retention.Limits{MS: ms, Bytes: bytes}, SegmentMS: segment})
		}
		seconds := l.retain
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
		require.EqualValues(t, asked-1, l.p.Trims().Early())
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

// TestRetainAfterDeletion: once the records before it are deleted, a segment that is old enough goes, although a look has found nothing to
// do.
func TestRetainAfterDeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := beginWith(t, disksim.New(disksim.Options{}), partition.Limits{})
		l.p.SetConfig(partition.Config{MinInSync: 1, Retention: retention.Limits{MS: 3600_000, Bytes: -1}, SegmentMS: 1 << 62})
		l.writeAged(0)
		l.p.Group().Roll()
		l.writeAged(30 * 24 * time.Hour)
		l.retain(5)
		require.Len(t, l.log.Segments(), 2)
		require.Zero(t, l.p.LogStart())
		_, err := l.p.DeleteRecords(context.Background(), 1)
		require.NoError(t, err)
		l.retain(2)
		require.EqualValues(t, 2, l.p.LogStart())
		l.end()
	})
}

// TestRetainFails: a command that the disk does not take in time, and one that is refused, are counted and repeated.
func TestRetainFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := beginWith(t, disksim.New(disksim.Options{}), partition.Limits{})
		l.writeAged(time.Hour)
		release := l.hang()
		l.p.SetConfig(partition.Config{MinInSync: 1, Retention: retention.Limits{MS: 60_000, Bytes: -1}, SegmentMS: 1 << 62})
		l.retain(9)
		require.Zero(t, l.p.Trims().Failed(), "it is under way")
		l.retain(4)
		require.EqualValues(t, 1, l.p.Trims().Failed(), "it was not durable in time")
		release()
		l.retain(2)
		require.EqualValues(t, 1, l.p.LogStart(), "nothing was taken back")
		l.writeAged(time.Hour)
		l.retain(6)
		require.EqualValues(t, 2, l.p.LogStart(), "the next one")
		require.EqualValues(t, 1, l.p.Trims().Moved(partition.TrimTime))

		l.writeAged(time.Hour)
		require.Error(t, l.propose(&raftgroup.Proposal{Command: unknown()}).Err)
		l.retain(12)
		require.InDelta(t, 4, l.p.Trims().Failed(), 1, "refused, and repeated after five seconds")
		require.EqualValues(t, 2, l.p.LogStart())
		l.end()
	})
}

// writeAged writes a record with a timestamp of some time ago.
func (l *life) writeAged(age time.Duration) {
	var b batch.Builder
	b.Append(batch.Record{Timestamp: time.Now().Add(-age).UnixMilli(), Value: []byte("v")})
	made, err := b.Finish(nil, batch.Plain(batch.None))
	require.NoError(l.t, err)
	require.NoError(l.t, l.propose(&raftgroup.Proposal{Batch: made}).Err)
}

// retain is so many seconds of virtual time, in each of which retention looks.
func (l *life) retain(seconds int) {
	for range seconds {
		time.Sleep(time.Second) // virtual
		synctest.Wait()
		l.p.Retain(time.Now())
		synctest.Wait()
	}
}
