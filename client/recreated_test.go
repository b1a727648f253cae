package client_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// recreate deletes a topic and creates one of the same name.
func recreate(t *testing.T, cluster *clienttest.Cluster, c *client.Client, topic string, partitions int) {
	t.Helper()
	require.NoError(t, c.Admin().DeleteTopic(testContext(t), topic))
	cluster.CreateTopic(topic, partitions, nil)
}

// TestRecreatedWithFewerPartitions: keys go over the partitions that there are.
func TestRecreatedWithFewerPartitions(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 8, nil)
	p := newProducer(t, c, client.ProducerOptions{})
	ctx := testContext(t)
	send := func(partition client.Choice, key string) error {
		done := make(chan error, 1)
		r := client.Record{Topic: "test", Partition: partition, Key: []byte(key), Value: []byte(key)}
		if err := p.Produce(ctx, r, func(a client.Ack) { done <- a.Err }); err != nil {
			return err
		}
		return <-done
	}
	for i := range id.Partition(8) {
		require.NoError(t, send(client.At(i), "before"))
	}
	recreate(t, cluster, c, "test", 2)
	begin := time.Now()
	keys := []string{"a", "b", "c", "d", "e", "f", "g", "h"}
	for _, key := range keys {
		require.NoError(t, send(client.Choice{}, key))
	}
	err := send(client.At(7), "named")
	require.ErrorIs(t, err, client.ErrUnknownPartition)
	require.Less(t, time.Since(begin), 10*time.Second, "something waited for its delivery timeout")
	got := append(cluster.Values(tp("test", 0)), cluster.Values(tp("test", 1))...)
	slices.Sort(got)
	require.Equal(t, keys, got)
}

// TestRecreatedWhileRecordsWait: those that nobody sent anywhere go to the new topic, in order, if their partition was not named.
func TestRecreatedWhileRecordsWait(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 8, nil)
	p := newProducer(t, c, client.ProducerOptions{BatchBytes: 300, MaxInFlight: 1}) // of a batch behind one that is refused nobody knows
	for i := range id.Partition(8) {
		produceAll(t, p, "test", i, 1)
	}
	cluster.SetFault(func(id.TopicPartition, batch.Batch) clienttest.Fault { return clienttest.Throttle })
	a := newAcks()
	ctx := testContext(t)
	const n = 400
	for i := range n {
		v := fmt.Sprintf("%d-%06d", i%5, i)
		r := client.Record{Topic: "test", Key: []byte(v[:1]), Value: []byte(v)}
		require.NoError(t, p.Produce(ctx, r, a.callback(v)))
	}
	named := make(chan client.Ack, 1)
	// One of the eight that no key of those above goes to: a batch with a named record in it stays together.
	require.NoError(t, p.Produce(ctx, client.Record{Topic: "test", Partition: client.At(unusedPartition(t, "01234")), Value: []byte("named")}, func(k client.Ack) { named <- k }))
	recreate(t, cluster, c, "test", 1)
	cluster.SetFault(nil)
	require.NoError(t, p.Flush(ctx))
	if k := <-named; !errors.Is(k.Err, client.ErrUnacknowledged) { // as some of those below
		require.ErrorIs(t, k.Err, client.ErrTopicRecreated)
		require.ErrorIs(t, k.Err, client.ErrUnknownPartition)
	}
	ok, failed := a.counts()
	require.Equal(t, n, ok+failed)
	for v, err := range a.failed {
		require.ErrorIs(t, err, client.ErrUnacknowledged, v) // it was on its way to the old topic at that moment
	}
	require.Greater(t, ok, n*3/4)
	last := make(map[string]string)
	values := cluster.Values(tp("test", 0))
	for _, v := range values {
		if v <= last[v[:1]] {
			t.Errorf("%s comes after %s", v, last[v[:1]])
		}
		last[v[:1]] = v
	}
	require.Len(t, values, ok)
}

// unusedPartition is one of eight, other than 0, that no record of the keys goes to.
func unusedPartition(t *testing.T, keys string) id.Partition {
	t.Helper()
	for i := id.Partition(7); i > 0; i-- {
		used := false
		for _, key := range keys {
			used = used || client.PartitionOf([]byte(string(key)), 8) == i
		}
		if !used {
			return i
		}
	}
	t.Fatal("the keys go to all partitions")
	return 0
}

// TestDeletedTopicEndsAllItsRecords: also those of partitions from which nothing was heard.
func TestDeletedTopicEndsAllItsRecords(t *testing.T) {
	waits(t)
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 2, nil)
	p := newProducer(t, c, client.ProducerOptions{})
	for i := range id.Partition(2) {
		produceAll(t, p, "test", i, 1)
	}
	var swallowed atomic.Bool
	cluster.SetFault(func(p id.TopicPartition, _ batch.Batch) clienttest.Fault {
		if p.Partition == 1 {
			swallowed.Store(true)
			return clienttest.Swallow
		}
		return clienttest.None
	})
	a := newAcks()
	send := func(partition id.Partition, v string) {
		t.Helper()
		require.NoError(t, p.Produce(testContext(t), client.Record{Topic: "test", Partition: client.At(partition), Value: []byte(v)}, a.callback(v)))
	}
	send(1, "silent")
	waitFor(t, "the record to be swallowed", swallowed.Load)
	require.NoError(t, c.Admin().DeleteTopic(testContext(t), "test"))
	send(0, "told")
	begin := time.Now()
	require.NoError(t, p.Flush(testContext(t)))
	for _, v := range []string{"silent", "told"} {
		require.ErrorIs(t, a.failed[v], client.ErrUnknownTopic, v)
	}
	require.Less(t, time.Since(begin), 8*time.Second)
}

// TestConsumerOfARecreatedTopicWithFewerPartitions is told that, and why.
func TestConsumerOfARecreatedTopicWithFewerPartitions(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 2, nil)
	p := newProducer(t, c, client.ProducerOptions{})
	produceAll(t, p, "test", 1, 3)
	k := newConsumer(t, c, client.ConsumerOptions{OnOutOfRange: client.ResetEarliest})
	require.NoError(t, k.Assign(tp("test", 1), 0))
	_, err := k.Poll(testContext(t))
	require.NoError(t, err)
	recreate(t, cluster, c, "test", 1)
	for err == nil {
		_, err = k.Poll(testContext(t))
	}
	require.True(t, errors.Is(err, client.ErrUnknownPartition) && errors.Is(err, client.ErrTopicRecreated), err)
}

// TestFlushWaitsForTheRecordsOfATopicThatIsGone: who looks for failures when it returns has to find them.
func TestFlushWaitsForTheRecordsOfATopicThatIsGone(t *testing.T) {
	waits(t)
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	p := newProducer(t, c, client.ProducerOptions{BatchBytes: 100})
	produceAll(t, p, "test", 0, 1)
	require.NoError(t, c.Admin().DeleteTopic(testContext(t), "test"))
	unblock := make(chan struct{})
	release := sync.OnceFunc(func() { close(unblock) })
	defer release()
	var taken, told atomic.Int64
	waitFor(t, "the producer to forget the topic", func() bool {
		err := p.Produce(testContext(t), client.Record{Topic: "test", Value: make([]byte, 50)}, func(client.Ack) { <-unblock; told.Add(1) })
		if err == nil {
			taken.Add(1)
		}
		return errors.Is(err, client.ErrUnknownTopic)
	})
	ctx, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, p.Flush(ctx), context.DeadlineExceeded)
	release()
	require.NoError(t, p.Flush(testContext(t)))
	require.Equal(t, taken.Load(), told.Load())
}

// TestPartitionThatCameAfterwards: the consumer was told of the topic before it was created again, with more partitions.
func TestPartitionThatCameAfterwards(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	k := newConsumer(t, c, client.ConsumerOptions{})
	require.NoError(t, k.Assign(tp("test", 0), 0))
	_, err := k.Poll(testContext(t))
	require.NoError(t, err)
	cluster.Recreate("test", 3)
	require.NoError(t, k.Assign(tp("test", 2), 0))
	for f := (client.Fetch{}); f.TopicPartition != tp("test", 2); { // partition 0 of the new topic may have its say first
		f, err = k.Poll(testContext(t))
		require.NoError(t, err)
	}
	require.NoError(t, k.Assign(tp("test", 3), 0))
	for err == nil {
		_, err = k.Poll(testContext(t))
	}
	require.ErrorIs(t, err, client.ErrUnknownPartition)
}
