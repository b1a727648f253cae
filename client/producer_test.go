package client_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

func TestProduceAndConsume(t *testing.T) {
	for _, o := range []client.ProducerOptions{
		{},
		{Linger: 5 * time.Millisecond},
		{BatchBytes: 200},
		{Acks: client.AcksLeader},
		{Compression: batch.LZ4, Linger: time.Millisecond},
		{Compression: batch.Zstd, Linger: time.Millisecond},
		{MaxInFlight: 1, BatchBytes: 500},
		{BufferBytes: 1000, Linger: time.Hour},
	} {
		t.Run(fmt.Sprintf("acks=%v,linger=%v,%d bytes,%v", o.Acks, o.Linger, o.BatchBytes, o.Compression), func(t *testing.T) {
			cluster, c := newCluster(t, 3)
			cluster.CreateTopic("test", 3, nil)
			p := newProducer(t, c, o)
			const n = 2000
			a := produceAll(t, p, "test", 1, n)
			if ok, failed := a.counts(); ok != n || failed != 0 {
				t.Fatalf("%d acknowledged, %d failed: %v", ok, failed, a.firstFailure())
			}
			if !slices.IsSorted(a.order) {
				t.Error("callbacks are out of order")
			}
			got := consumeValues(t, c, tp("test", 1), client.Beginning)
			if !slices.Equal(got, a.order) {
				t.Fatalf("consumed %d records, other than the %d produced", len(got), n)
			}
			for i, v := range got {
				if a.offset[v] != id.Offset(i) {
					t.Fatalf("%s was acknowledged at offset %d and is at %d", v, a.offset[v], i)
				}
			}
		})
	}
}

func TestUnknownTopic(t *testing.T) {
	waits(t)
	_, c := newCluster(t, 1)
	p := newProducer(t, c, client.ProducerOptions{})
	err := p.Produce(testContext(t), client.Record{Topic: "nowhere", Value: []byte("v")}, nil)
	if !errors.Is(err, client.ErrUnknownTopic) {
		t.Fatalf("got %v", err)
	}
	// By now it is known to be unknown: no second wait.
	start := time.Now()
	if err := p.Produce(testContext(t), client.Record{Topic: "nowhere"}, nil); !errors.Is(err, client.ErrUnknownTopic) {
		t.Fatalf("got %v", err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("the second answer took %v", took)
	}
}

func TestTopicAppearsWhileProduceWaits(t *testing.T) {
	cluster, c := newCluster(t, 1)
	p := newProducer(t, c, client.ProducerOptions{})
	done := make(chan error, 1)
	go func() { done <- p.Produce(testContext(t), client.Record{Topic: "soon", Value: []byte("v")}, nil) }()
	waitFor(t, "a metadata request", func() bool { return cluster.MetadataRequests() > 0 })
	cluster.CreateTopic("soon", 1, nil)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestWrongPartition(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 2, nil)
	p := newProducer(t, c, client.ProducerOptions{})
	for _, partition := range []id.Partition{2, -1, -2, math.MaxInt32, math.MinInt32} {
		err := p.Produce(testContext(t), client.Record{Topic: "test", Partition: client.At(partition)}, nil)
		if !errors.Is(err, client.ErrUnknownPartition) {
			t.Errorf("partition %d: %v", partition, err)
		}
	}
}

func TestRecordTooLarge(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	cluster.CreateTopic("small", 1, map[string]string{"max.message.bytes": "1000"})
	p := newProducer(t, c, client.ProducerOptions{})
	ctx := testContext(t)
	for topic, limit := range map[string]int{"test": 1 << 20, "small": 1000} {
		var large *client.RecordTooLargeError
		err := p.Produce(ctx, client.Record{Topic: topic, Value: make([]byte, limit)}, nil)
		if !errors.As(err, &large) || large.Limit != limit || large.Size <= limit {
			t.Errorf("%s: %v", topic, err)
		}
		// What just fits is taken by both sides.
		fits := limit - (large.Size - limit)
		if err := p.Produce(ctx, client.Record{Topic: topic, Value: make([]byte, fits)}, nil); err != nil {
			t.Errorf("%s: %d bytes: %v", topic, fits, err)
		}
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	for _, topic := range []string{"test", "small"} {
		if n := len(cluster.Values(tp(topic, 0))); n != 1 {
			t.Errorf("%s has %d records", topic, n)
		}
	}
}

func TestKeysAndStickyPartitions(t *testing.T) {
	cluster, c := newCluster(t, 3)
	cluster.CreateTopic("keys", 7, nil)
	cluster.CreateTopic("sticky", 4, nil)
	p := newProducer(t, c, client.ProducerOptions{BatchBytes: 300})
	ctx := testContext(t)
	for i := range 500 {
		value := []byte(fmt.Sprintf("%03d", i))
		for _, r := range []client.Record{
			{Topic: "keys", Key: value[:2], Value: value},
			{Topic: "sticky", Value: value},
		} {
			if err := p.Produce(ctx, r, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	home := make(map[string]int)
	for i := range 7 {
		for _, v := range cluster.Values(tp("keys", i)) {
			if other, ok := home[v[:2]]; ok && other != i {
				t.Errorf("key %s is in partitions %d and %d", v[:2], other, i)
			}
			home[v[:2]] = i
		}
	}
	for i := range 4 {
		if n := len(cluster.Values(tp("sticky", i))); n < 50 {
			t.Errorf("partition %d got %d of 500 records without a key", i, n)
		}
	}
}

func TestDeliveryTimeoutLeavesNoHole(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	p := newProducer(t, c, client.ProducerOptions{DeliveryTimeout: 300 * time.Millisecond})
	before := produceAll(t, p, "test", 0, 10)
	if ok, _ := before.counts(); ok != 10 {
		t.Fatalf("%d of 10 acknowledged", ok)
	}
	cluster.SetFault(func(id.TopicPartition, batch.Batch) clienttest.Fault { return clienttest.Swallow })
	lost := produceAll(t, p, "test", 0, 10)
	if _, failed := lost.counts(); failed != 10 {
		t.Fatalf("%d of 10 failed", failed)
	}
	for v, err := range lost.failed {
		if !errors.Is(err, client.ErrDeliveryTimeout) {
			t.Errorf("%s: %v", v, err)
		}
	}
	cluster.SetFault(nil)
	after := produceAll(t, p, "test", 0, 10)
	if ok, failed := after.counts(); ok != 10 {
		t.Fatalf("%d of 10 acknowledged afterwards, %d failed: %v", ok, failed, after.firstFailure())
	}
	if n := len(cluster.Values(tp("test", 0))); n != 20 {
		t.Errorf("%d records in the log, 20 were acknowledged", n)
	}
}

// A batch that was written before its delivery timeout must not come again under the next epoch, and what had no outcome either
// must not be guessed.
func TestDeliveryTimeoutOfWrittenBatches(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	p := newProducer(t, c, client.ProducerOptions{DeliveryTimeout: 400 * time.Millisecond, BatchBytes: 300})
	produceAll(t, p, "test", 0, 1)
	cluster.SetFault(func(id.TopicPartition, batch.Batch) clienttest.Fault { return clienttest.LoseAck })
	a := produceAll(t, p, "test", 0, 500)
	cluster.SetFault(nil)
	_, failed := a.counts()
	if failed == 0 {
		t.Fatal("nothing failed")
	}
	if b := produceAll(t, p, "test", 0, 1); len(b.failed) > 0 {
		t.Errorf("afterwards: %v", b.failed)
	}
	checkOnce(t, cluster, "test", 1)
}

func TestForgottenProducer(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	p := newProducer(t, c, client.ProducerOptions{BatchBytes: 300})
	for round := range 3 {
		a := produceAll(t, p, "test", 0, 100)
		if ok, failed := a.counts(); ok != 100 {
			t.Fatalf("round %d: %d acknowledged, %d failed: %v", round, ok, failed, a.firstFailure())
		}
		cluster.ForgetProducers(tp("test", 0))
	}
}

func TestFencedProducer(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	p := newProducer(t, c, client.ProducerOptions{})
	produceAll(t, p, "test", 0, 1)
	cluster.FenceProducers(tp("test", 0))
	a := produceAll(t, p, "test", 0, 1)
	if err := a.firstFailure(); !errors.Is(err, client.ErrFenced) {
		t.Errorf("fenced: %v", err)
	}
	// With another producer id it goes on.
	b := produceAll(t, p, "test", 0, 100)
	if ok, failed := b.counts(); ok != 100 || failed != 0 {
		t.Errorf("%d acknowledged, %d failed: %v", ok, failed, b.firstFailure())
	}
}

func TestFullBufferBlocks(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	cluster.SetFault(func(id.TopicPartition, batch.Batch) clienttest.Fault { return clienttest.Throttle })
	p := newProducer(t, c, client.ProducerOptions{BufferBytes: 4 << 10})
	ctx, cancel := context.WithTimeout(testContext(t), 200*time.Millisecond)
	defer cancel()
	taken := 0
	var err error
	for ; err == nil && taken < 1000; taken++ {
		err = p.Produce(ctx, client.Record{Topic: "test", Value: make([]byte, 100)}, nil)
	}
	if !errors.Is(err, context.DeadlineExceeded) || taken < 10 || taken > 50 {
		t.Fatalf("%d records taken, then %v", taken, err)
	}
	cluster.SetFault(nil)
	if err := p.Produce(testContext(t), client.Record{Topic: "test", Value: make([]byte, 100)}, nil); err != nil {
		t.Fatal(err)
	}
}

func TestCloseGivesUp(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	cluster.SetFault(func(id.TopicPartition, batch.Batch) clienttest.Fault { return clienttest.Swallow })
	p := newProducer(t, c, client.ProducerOptions{})
	a := newAcks()
	if err := p.Produce(testContext(t), client.Record{Topic: "test", Value: []byte("v")}, a.callback("v")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(testContext(t), 50*time.Millisecond)
	defer cancel()
	if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	if !errors.Is(a.failed["v"], client.ErrClosed) {
		t.Errorf("the record ended with %v", a.failed["v"])
	}
	if err := p.Produce(testContext(t), client.Record{Topic: "test"}, nil); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Produce after Close: %v", err)
	}
}

func TestOnBatch(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	var batches []client.BatchAck // called by one goroutine at a time, for one partition
	p := newProducer(t, c, client.ProducerOptions{Linger: 5 * time.Millisecond, BatchBytes: 500, OnBatch: func(b client.BatchAck) { batches = append(batches, b) }})
	produceAll(t, p, "test", 0, 300)
	next := id.Offset(0)
	for _, b := range batches {
		if b.Err != nil || b.BaseOffset != next || b.Count == 0 || b.Latency <= 0 {
			t.Fatalf("got %+v, offset %d is next", b, next)
		}
		next += id.Offset(b.Count)
	}
	if next != 300 {
		t.Errorf("batches of %d records", next)
	}
}

func TestAcksNone(t *testing.T) {
	cluster, c := newCluster(t, 3)
	cluster.CreateTopic("test", 1, nil)
	p := newProducer(t, c, client.ProducerOptions{Acks: client.AcksNone})
	a := produceAll(t, p, "test", 0, 100)
	if ok, _ := a.counts(); ok != 100 {
		t.Fatalf("%d of 100", ok)
	}
	waitFor(t, "100 records", func() bool { return len(cluster.Values(tp("test", 0))) == 100 })
	// The refusal of a batch closes the stream; the next ones find the new leader.
	cluster.MoveLeader(tp("test", 0), 2)
	waitFor(t, "a record at the new leader", func() bool {
		produceAll(t, p, "test", 0, 1)
		return len(cluster.Values(tp("test", 0))) > 100
	})
}

// A frozen leader breaks no connection and answers nothing. Once another node leads, the batches go there.
func TestFrozenLeader(t *testing.T) {
	cluster, c := newCluster(t, 2)
	cluster.CreateTopic("test", 1, nil)
	p := newProducer(t, c, client.ProducerOptions{})
	produceAll(t, p, "test", 0, 5)
	cluster.SetFault(func(id.TopicPartition, batch.Batch) clienttest.Fault { return clienttest.Swallow })
	a := newAcks()
	if err := p.Produce(testContext(t), client.Record{Topic: "test", Value: []byte("late")}, a.callback("late")); err != nil {
		t.Fatal(err)
	}
	cluster.MoveLeader(tp("test", 0), 2)
	cluster.SetFault(nil)
	start := time.Now()
	if err := p.Flush(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("the record took %v", took)
	}
	checkOnce(t, cluster, "test", 1)
}

func TestKilledLeader(t *testing.T) {
	cluster, c := newCluster(t, 3)
	cluster.CreateTopic("test", 3, nil)
	p := newProducer(t, c, client.ProducerOptions{})
	for partition := range id.Partition(3) {
		produceAll(t, p, "test", partition, 10)
	}
	cluster.Kill(1)
	start := time.Now()
	a := produceAll(t, p, "test", 0, 10)
	if ok, _ := a.counts(); ok != 10 {
		t.Fatalf("%d of 10", ok)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("acknowledgements resumed after %v", took)
	}
	cluster.Restart(1)
}

func TestRecreatedTopic(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 2, nil)
	p := newProducer(t, c, client.ProducerOptions{})
	produceAll(t, p, "test", 0, 10)
	ctx := testContext(t)
	if err := c.Admin().DeleteTopic(ctx, "test"); err != nil {
		t.Fatal(err)
	}
	cluster.CreateTopic("test", 2, nil)
	a := newAcks()
	if err := p.Produce(ctx, client.Record{Topic: "test", Partition: client.At(0), Value: []byte("new")}, a.callback("new")); err != nil {
		t.Fatal(err)
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	if got := cluster.Values(tp("test", 0)); !slices.Equal(got, []string{"new"}) {
		t.Errorf("the new topic holds %q, errors %v", got, a.failed)
	}
}

func TestDeletedTopic(t *testing.T) {
	waits(t)
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	p := newProducer(t, c, client.ProducerOptions{})
	produceAll(t, p, "test", 0, 10)
	if err := c.Admin().DeleteTopic(testContext(t), "test"); err != nil {
		t.Fatal(err)
	}
	a := produceAll(t, p, "test", 0, 1)
	if err := a.failed["value-000000"]; !errors.Is(err, client.ErrUnknownTopic) {
		t.Errorf("the record ended with %v", err)
	}
	if err := p.Produce(testContext(t), client.Record{Topic: "test"}, nil); !errors.Is(err, client.ErrUnknownTopic) {
		t.Errorf("Produce: %v", err)
	}
}

// checkOnce makes sure that no value is in the logs twice.
func checkOnce(t *testing.T, cluster *clienttest.Cluster, topic string, partitions int) {
	t.Helper()
	seen := make(map[string]bool)
	for p := range partitions {
		for _, v := range cluster.Values(tp(topic, p)) {
			if seen[v] && v != "value-000000" {
				t.Errorf("%s is in the log twice", v)
			}
			seen[v] = true
		}
	}
}
