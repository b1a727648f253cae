package client

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// fillPartitions writes batches of one record of a size into each partition.
func fillPartitions(t *testing.T, cluster *clienttest.Cluster, topic string, from, to, batches, size int) {
	t.Helper()
	var b batch.Builder
	b.Append(batch.Record{Timestamp: 1, Value: make([]byte, size)})
	one, err := b.Finish(nil, batch.Plain(batch.None))
	require.NoError(t, err)
	for p := from; p < to; p++ {
		for range batches {
			cluster.Append(id.TopicPartition{Topic: topic, Partition: id.Partition(p)}, one)
		}
	}
}

// bounded polls until so many records have come, and watches what the consumer holds.
func (c *Consumer) bounded(t *testing.T, records int, limit int64, each func(id.TopicPartition)) {
	t.Helper()
	ctx := t.Context()
	for n := 0; n < records; {
		f, err := c.Poll(ctx)
		require.NoError(t, err)
		for _, err := range f.Records() {
			require.NoError(t, err)
			n++
			if each != nil {
				each(f.TopicPartition)
			}
		}
		c.mu.Lock()
		held, reserved := c.mu.held, c.mu.reserved
		sum, expected := int64(0), int64(0)
		for _, d := range c.mu.deliveries {
			sum += int64(len(d.batches))
		}
		for _, cur := range c.mu.cursors {
			expected += cur.reserved
		}
		if d := c.mu.handedOut; d != nil {
			sum += int64(len(d.batches))
		}
		c.mu.Unlock()
		require.LessOrEqual(t, held, limit, "after %d records", n)
		require.Equal(t, [2]int64{sum, expected}, [2]int64{held, reserved})
	}
}

func newCreditTest(t *testing.T, partitions int, maxBytes int64) (*clienttest.Cluster, *Consumer) {
	t.Helper()
	cluster := clienttest.New(t, 1)
	cluster.CreateTopic("test", partitions, nil)
	c, err := New(Options{Servers: cluster.Servers()})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	k, err := c.NewConsumer(ConsumerOptions{MaxBytes: maxBytes})
	require.NoError(t, err)
	return cluster, k
}

func (c *Consumer) assignAll(t *testing.T, partitions int) {
	t.Helper()
	for i := range partitions {
		require.NoError(t, c.Assign(id.TopicPartition{Topic: "test", Partition: id.Partition(i)}, 0))
	}
}

// TestMaxBytesIsForAllPartitions: however many there are, and however large the batches, and each gets its share.
func TestMaxBytesIsForAllPartitions(t *testing.T) {
	for _, tt := range []struct {
		partitions, batches, size int
		maxBytes, limit           int64
	}{
		{200, 4, 60 << 10, 1 << 20, 1 << 20},
		{12, 40, 10 << 10, 8 << 20, 8 << 20},
		{3, 4, 900 << 10, 100 << 10, 901 << 10}, // one batch may always come
		{1, 200, 5 << 10, 64 << 10, 64<<10 + 6<<10},
	} {
		t.Run(fmt.Sprintf("%d partitions, batches of %d bytes, at most %d", tt.partitions, tt.size, tt.maxBytes), func(t *testing.T) {
			cluster, k := newCreditTest(t, tt.partitions, tt.maxBytes)
			fillPartitions(t, cluster, "test", 0, tt.partitions, tt.batches, tt.size)
			k.assignAll(t, tt.partitions)
			k.bounded(t, tt.partitions*tt.batches, tt.limit, nil)
		})
	}
}

// TestMaxBytesWhenAllHaveNews: nothing was reserved for partitions that had caught up, and then all have something at once.
func TestMaxBytesWhenAllHaveNews(t *testing.T) {
	const partitions, maxBytes = 100, 256 << 10
	cluster, k := newCreditTest(t, partitions, maxBytes)
	k.assignAll(t, partitions)
	for range partitions {
		f, err := k.Poll(t.Context())
		require.NoError(t, err)
		require.True(t, f.CaughtUp)
	}
	for range 2 {
		fillPartitions(t, cluster, "test", 0, partitions, 2, 30<<10)
		seen := make(map[id.TopicPartition]int)
		k.bounded(t, 2*partitions, maxBytes, func(tp id.TopicPartition) { seen[tp]++ })
		require.Len(t, seen, partitions)
	}
}

// TestSilentPartitionsHoldNobodyUp: credit that is not used is not counted for long.
func TestSilentPartitionsHoldNobodyUp(t *testing.T) {
	const partitions = 8
	cluster := clienttest.New(t, 2)
	cluster.CreateTopic("test", partitions, nil) // the odd ones are led by node 2
	c, err := New(Options{Servers: cluster.Servers()[:1]})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	k, err := c.NewConsumer(ConsumerOptions{MaxBytes: 1})
	require.NoError(t, err)
	fillPartitions(t, cluster, "test", 0, partitions, 3, 1000)
	thaw := cluster.Freeze(2)
	defer thaw()
	k.assignAll(t, partitions)
	begin := time.Now()
	k.bounded(t, 3*partitions/2, 4000, func(tp id.TopicPartition) { require.Zero(t, tp.Partition%2) })
	require.Less(t, time.Since(begin), 15*time.Second)
}

// TestRoomOfAPartitionThatCannotBeRead goes to the others: its turn came when it is not known any more where it begins.
func TestRoomOfAPartitionThatCannotBeRead(t *testing.T) {
	_, k := newCreditTest(t, 1, 1)
	known := &metadata{}
	cur := &cursor{tp: id.TopicPartition{Topic: "gone"}, next: Beginning}
	k.mu.Lock()
	k.mu.cursors[cur.tp] = cur
	k.queueLocked(cur)
	k.allotLocked()
	admitted := cur.admitted
	k.mu.Unlock()
	require.True(t, admitted)
	now := time.Now()
	k.mu.Lock()
	known.topics = map[string]*topicMeta{"gone": {name: "gone", partitions: []partitionMeta{{leader: NoNode}}}}
	k.mu.Unlock()
	k.client.cache.mu.Lock()
	k.client.cache.publishLocked(known)
	k.client.cache.mu.Unlock()
	k.subscribeAll(now)
	k.mu.Lock()
	defer k.mu.Unlock()
	require.Zero(t, k.mu.reserved)
}
