package client_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

func TestProduceSync(t *testing.T) {
	cluster, c := newCluster(t, 3)
	cluster.CreateTopic("test", 3, nil)
	p := newProducer(t, c, client.ProducerOptions{})
	var records []client.Record
	for i := range 30 {
		records = append(records, client.Record{Topic: "test", Partition: client.At(client.PartitionID(i % 3)), Timestamp: int64(1000 + i), Opaque: i})
	}
	acks, err := p.ProduceSync(testContext(t), records...)
	if err != nil || len(acks) != len(records) {
		t.Fatalf("%d acknowledgements, %v", len(acks), err)
	}
	for i, a := range acks {
		want := client.Ack{TopicPartition: tp("test", i%3), Offset: client.Offset(i / 3), Timestamp: int64(1000 + i), Opaque: i}
		if a != want {
			t.Errorf("record %d: %+v, want %+v", i, a, want)
		}
	}
	if acks, err := p.ProduceSync(testContext(t)); err != nil || len(acks) != 0 {
		t.Errorf("of no records: %v, %v", acks, err)
	}
}

// What comes behind a record that is not taken is not produced: it may only make sense after it.
func TestProduceSyncStopsAtTheFirst(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	p := newProducer(t, c, client.ProducerOptions{})
	acks, err := p.ProduceSync(testContext(t),
		client.Record{Topic: "test", Value: []byte("a"), Opaque: "a"},
		client.Record{Topic: "test", Value: make([]byte, 2<<20), Opaque: "b"},
		client.Record{Topic: "test", Value: []byte("c"), Opaque: "c"})
	if !errors.Is(err, client.ErrRecordTooLarge) || len(acks) != 3 {
		t.Fatalf("%v, %v", acks, err)
	}
	if acks[0].Err != nil || acks[0].Offset != 0 || !errors.Is(acks[1].Err, client.ErrRecordTooLarge) || acks[2].Err == nil || acks[2].Opaque != "c" {
		t.Errorf("acknowledgements %v", acks)
	}
	if got := cluster.Values(tp("test", 0)); len(got) != 1 || got[0] != "a" {
		t.Errorf("the partition holds %q", got)
	}
}

func TestProduceSyncEndsWithItsContext(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 2, nil)
	cluster.SetFault(func(p id.TopicPartition, _ batch.Batch) clienttest.Fault {
		if p.Partition == 1 {
			return clienttest.Swallow
		}
		return clienttest.None
	})
	p, err := c.NewProducer(client.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(testContext(t), 200*time.Millisecond)
	defer cancel()
	acks, err := p.ProduceSync(ctx, client.Record{Topic: "test", Partition: client.At(0)}, client.Record{Topic: "test", Partition: client.At(1), Opaque: 7})
	if !errors.Is(err, context.DeadlineExceeded) || acks[0].Err != nil || acks[1].Err == nil || acks[1].Opaque != 7 || acks[1].TopicPartition != tp("test", 1) {
		t.Errorf("%v, %v", acks, err)
	}
	mine := acks[1]
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	_ = p.Close(ended) // the record gets its outcome, which nobody hears
	if acks[1] != mine {
		t.Errorf("the result has changed afterwards: %v", acks[1])
	}
}

// The zero value of Record.Partition is no partition, so that a forgotten field does not make partition 0 the only one in use.
func TestRecordsGoByTheirKeys(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 8, nil)
	p := newProducer(t, c, client.ProducerOptions{})
	used := make(map[client.PartitionID]bool)
	for i := range 64 {
		acks, err := p.ProduceSync(testContext(t), client.Record{Topic: "test", Key: fmt.Appendf(nil, "key-%d", i)})
		if err != nil {
			t.Fatal(err)
		}
		used[acks[0].Partition] = true
	}
	if len(used) != 8 {
		t.Errorf("64 keys are in the partitions %v", used)
	}
}

// What is printed of a value says all that matters.
func TestTexts(t *testing.T) {
	at := tp("orders", 3)
	for _, test := range []struct {
		value any
		want  string
	}{
		{client.Ack{TopicPartition: at, Offset: 42}, "orders-3@42"},
		{client.Ack{TopicPartition: at, Offset: client.NoOffset}, "orders-3: written, the offset is not known"},
		{client.Ack{TopicPartition: at, Offset: client.NoOffset, Err: client.ErrClosed}, "orders-3: client: closed"},
		{client.Ack{TopicPartition: tp("orders", -1), Offset: client.NoOffset, Err: client.ErrClosed}, "orders: client: closed"},
		{client.BatchAck{TopicPartition: at, BaseOffset: 42, Count: 7, Latency: time.Millisecond}, "orders-3@42 (7 records, 1ms)"},
		{client.Message{TopicPartition: at, Offset: 42, Key: []byte("alice"), Value: make([]byte, 17)}, `orders-3@42 key "alice" (17 bytes)`},
		{client.Message{TopicPartition: at, Offset: 42}, "orders-3@42 (no value)"},
		{client.OffsetRange{TopicPartition: at, Start: 10, End: 42}, "orders-3 [10, 42)"},
		{client.Fetch{TopicPartition: at, Next: 42, HighWatermark: 50}, "orders-3 up to 42 (0 bytes, high watermark 50)"},
		{&client.PartitionError{TopicPartition: at, Err: client.ErrClosed}, "client: orders-3: client: closed"},
		{client.At(3), "3"},
		{client.Record{}.Partition, "by key"},
	} {
		for _, verb := range []string{"%v", "%+v", "%s"} {
			if got := fmt.Sprintf(verb, test.value); got != test.want {
				t.Errorf("%T as %s: %s, want %s", test.value, verb, got, test.want)
			}
		}
	}
}
