package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// fill produces n values into partition 0 of a new topic.
func fill(t *testing.T, cluster *clienttest.Cluster, c *client.Client, topic string, n int) {
	t.Helper()
	cluster.CreateTopic(topic, 1, nil)
	p := newProducer(t, c, client.ProducerOptions{BatchBytes: 500, Linger: time.Millisecond})
	produceAll(t, p, topic, 0, n)
}

func TestConsumeFromInsideABatch(t *testing.T) {
	cluster, c := newCluster(t, 1)
	fill(t, cluster, c, "test", 100)
	for _, from := range []id.Offset{0, 1, 17, 55, 99, 100} {
		got := consumeValues(t, c, tp("test", 0), from)
		if want := cluster.Values(tp("test", 0))[from:]; !slices.Equal(got, want) {
			t.Errorf("from %d: got %d records, want %d", from, len(got), len(want))
		}
	}
}

func TestConsumeFromTheEnd(t *testing.T) {
	cluster, c := newCluster(t, 1)
	fill(t, cluster, c, "test", 100)
	k := newConsumer(t, c, client.ConsumerOptions{})
	if err := k.Assign(tp("test", 0), client.End); err != nil {
		t.Fatal(err)
	}
	f, err := k.Poll(testContext(t))
	if err != nil || !f.CaughtUp || f.Bytes() != 0 || f.Next != 100 || f.HighWatermark != 100 {
		t.Fatalf("got %+v, %v", f, err)
	}
	p := newProducer(t, c, client.ProducerOptions{})
	produceAll(t, p, "test", 0, 1)
	f, err = k.Poll(testContext(t))
	if err != nil || f.Next != 101 {
		t.Fatalf("got %+v, %v", f, err)
	}
	for m, err := range f.Records() {
		if err != nil || m.Offset != 100 || string(m.Value) != "value-000000" || m.Timestamp == 0 {
			t.Errorf("got %+v, %v", m, err)
		}
	}
}

func TestMessagesAreWhole(t *testing.T) {
	for _, compression := range []batch.Compression{batch.None, batch.Gzip} {
		t.Run(compression.String(), func(t *testing.T) {
			cluster, c := newCluster(t, 1)
			cluster.CreateTopic("test", 1, nil)
			p := newProducer(t, c, client.ProducerOptions{Compression: compression, Linger: time.Millisecond})
			ctx := testContext(t)
			records := []client.Record{
				{Topic: "test", Key: []byte("k"), Value: []byte("v"), Timestamp: 12345, Headers: []client.Header{{Key: "a", Value: []byte("b")}, {Key: "n"}}},
				{Topic: "test", Value: nil, Timestamp: 12346},
				{Topic: "test", Key: []byte{}, Value: []byte{}, Timestamp: 12300},
				{Topic: "test", Value: make([]byte, 5000), Timestamp: 1},
			}
			for _, r := range records {
				if err := p.Produce(ctx, r, nil); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			k := newConsumer(t, c, client.ConsumerOptions{})
			if err := k.Assign(tp("test", 0), 0); err != nil {
				t.Fatal(err)
			}
			var got []client.Message
			for len(got) < len(records) {
				f, err := k.Poll(ctx)
				if err != nil {
					t.Fatal(err)
				}
				for m, err := range f.Records() {
					if err != nil {
						t.Fatal(err)
					}
					m.Key, m.Value = slices.Clone(m.Key), slices.Clone(m.Value)
					got = append(got, m)
				}
			}
			for i, r := range records {
				m := got[i]
				if m.Offset != id.Offset(i) || m.Timestamp != r.Timestamp || !slices.Equal(m.Key, r.Key) || !slices.Equal(m.Value, r.Value) ||
					(m.Key == nil) != (r.Key == nil) || (m.Value == nil) != (r.Value == nil) || fmt.Sprint(m.Headers) != fmt.Sprint(r.Headers) {
					t.Errorf("%v: record %d came back as %+v", compression, i, m)
				}
			}
		})
	}
}

func TestOutOfRange(t *testing.T) {
	cluster, c := newCluster(t, 1)
	fill(t, cluster, c, "test", 100)
	cluster.Trim(tp("test", 0), 40)
	for _, from := range []id.Offset{3, 1000} {
		k := newConsumer(t, c, client.ConsumerOptions{})
		if err := k.Assign(tp("test", 0), from); err != nil {
			t.Fatal(err)
		}
		_, err := k.Poll(testContext(t))
		var out *client.OutOfRangeError
		if !errors.As(err, &out) || out.Offset != from || out.Start != 40 || out.End != 100 {
			t.Errorf("from %d: %v", from, err)
		}
		if _, err := k.Poll(testContext(t)); !errors.Is(err, client.ErrNotAssigned) {
			t.Errorf("after the error: %v", err)
		}
	}
	for reset, want := range map[client.Reset]id.Offset{client.ResetEarliest: 40, client.ResetLatest: 100} {
		k := newConsumer(t, c, client.ConsumerOptions{OnOutOfRange: reset})
		if err := k.Assign(tp("test", 0), 3); err != nil {
			t.Fatal(err)
		}
		f, err := k.Poll(testContext(t))
		if err != nil || f.LogStart != 40 {
			t.Fatalf("reset %d: %+v, %v", reset, f, err)
		}
		first := f.Next
		for m := range f.Records() {
			first = min(first, m.Offset)
		}
		if first != want {
			t.Errorf("reset %d goes on at %d, want %d", reset, first, want)
		}
	}
	if got := consumeValues(t, c, tp("test", 0), client.Beginning); len(got) != 60 {
		t.Errorf("%d records from the beginning, 60 are left", len(got))
	}
}

func TestUnknownPartitions(t *testing.T) {
	waits(t)
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	k := newConsumer(t, c, client.ConsumerOptions{})
	for p, want := range map[id.TopicPartition]error{tp("nowhere", 0): client.ErrUnknownTopic, tp("test", 5): client.ErrUnknownPartition} {
		if err := k.Assign(p, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Poll(testContext(t)); !errors.Is(err, want) {
			t.Errorf("%s: %v", p, err)
		}
	}
	if err := k.Assign(tp("test", -1), 0); err == nil {
		t.Error("a negative partition was taken")
	}
}

func TestReassign(t *testing.T) {
	cluster, c := newCluster(t, 1)
	fill(t, cluster, c, "test", 100)
	k := newConsumer(t, c, client.ConsumerOptions{MaxBytes: 1})
	p := tp("test", 0)
	for _, from := range []id.Offset{50, 10, 90, 0} {
		if err := k.Assign(p, from); err != nil {
			t.Fatal(err)
		}
		f, err := k.Poll(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		for m := range f.Records() {
			if m.Offset != from {
				t.Errorf("assigned at %d, the first record is %d", from, m.Offset)
			}
			break
		}
	}
	k.Unassign(p)
	if _, err := k.Poll(testContext(t)); !errors.Is(err, client.ErrNotAssigned) {
		t.Errorf("after Unassign: %v", err)
	}
}

func TestPollEndsWithItsContext(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 1, nil)
	k := newConsumer(t, c, client.ConsumerOptions{})
	if err := k.Assign(tp("test", 0), 0); err != nil {
		t.Fatal(err)
	}
	if f, err := k.Poll(testContext(t)); err != nil || !f.CaughtUp {
		t.Fatalf("got %+v, %v", f, err)
	}
	ctx, cancel := context.WithTimeout(testContext(t), 20*time.Millisecond)
	defer cancel()
	if _, err := k.Poll(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	_ = k.Close()
	if _, err := k.Poll(testContext(t)); !errors.Is(err, client.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// What cannot be used is asked for again; when that does not help, Poll says so.
func TestDamagedBatch(t *testing.T) {
	cluster, c := newCluster(t, 1)
	fill(t, cluster, c, "test", 10)
	repair := cluster.Corrupt(tp("test", 0))
	k := newConsumer(t, c, client.ConsumerOptions{})
	for _, from := range []id.Offset{0} {
		if err := k.Assign(tp("test", 0), from); err != nil {
			t.Fatal(err)
		}
		var err error
		for err == nil { // what comes before it
			_, err = k.Poll(testContext(t))
		}
		if !errors.Is(err, batch.ErrCorrupt) {
			t.Errorf("got %v", err)
		}
	}
	if err := k.Assign(tp("test", 0), 0); err != nil {
		t.Fatal(err)
	}
	repair()
	if _, err := k.Poll(testContext(t)); err != nil {
		t.Errorf("after the repair: %v", err)
	}
}

// TestConsumeUnderFaults reads while records are produced, leaders move and nodes die. No record may come twice, none be left
// out, and every fetch must go on where the one before ended.
func TestConsumeUnderFaults(t *testing.T) {
	cluster, c := newCluster(t, 3)
	const partitions, records = 3, 3000
	cluster.CreateTopic("test", partitions, nil)
	p := newProducer(t, c, client.ProducerOptions{BatchBytes: 500})
	ctx := testContext(t)
	random := rand.New(rand.NewPCG(1, 2))
	cluster.SetFault(func(id.TopicPartition, batch.Batch) clienttest.Fault {
		if random.IntN(20) == 0 {
			return clienttest.MoveAfter
		}
		return clienttest.None
	})
	stop := make(chan struct{})
	nemesis := make(chan struct{})
	go func() {
		defer close(nemesis)
		killAndRestart(cluster, stop, 7)
	}()
	produced := make(chan error, 1)
	go func() {
		for i := range records {
			r := client.Record{Topic: "test", Partition: client.At(id.Partition(i % partitions)), Value: []byte(fmt.Sprintf("%06d", i))}
			if err := p.Produce(ctx, r, nil); err != nil {
				produced <- err
				return
			}
		}
		produced <- p.Flush(ctx)
	}()
	k := newConsumer(t, c, client.ConsumerOptions{MaxBytes: 10_000})
	next := make(map[id.TopicPartition]id.Offset)
	for i := range partitions {
		if err := k.Assign(tp("test", i), client.Beginning); err != nil {
			t.Fatal(err)
		}
	}
	got := make(map[id.TopicPartition][]string)
	for total := 0; total < records; {
		f, err := k.Poll(ctx)
		if err != nil {
			t.Fatalf("after %d records: %v", total, err)
		}
		for m, err := range f.Records() {
			if err != nil {
				t.Fatal(err)
			}
			if m.Offset != next[f.TopicPartition] {
				t.Fatalf("%s: offset %d came where %d was due", f.TopicPartition, m.Offset, next[f.TopicPartition])
			}
			next[f.TopicPartition]++
			got[f.TopicPartition] = append(got[f.TopicPartition], string(m.Value))
			total++
		}
		if f.Next != next[f.TopicPartition] {
			t.Fatalf("%s: Next is %d after offset %d", f.TopicPartition, f.Next, next[f.TopicPartition]-1)
		}
	}
	close(stop)
	<-nemesis
	if err := <-produced; err != nil {
		t.Fatal(err)
	}
	for i := range partitions {
		if !slices.Equal(got[tp("test", i)], cluster.Values(tp("test", i))) {
			t.Errorf("partition %d: consumed something else than is in the log", i)
		}
	}
}

// TestConsumerOfARecreatedTopic: the offset is one of the topic that is gone. The new one has it as well by now.
func TestConsumerOfARecreatedTopic(t *testing.T) {
	for _, policy := range []client.Reset{client.ResetNone, client.ResetEarliest} {
		t.Run(fmt.Sprint(policy), func(t *testing.T) {
			cluster, c := newCluster(t, 1)
			fill(t, cluster, c, "test", 10)
			fill(t, cluster, c, "next", 20)
			k := newConsumer(t, c, client.ConsumerOptions{OnOutOfRange: policy})
			if err := k.Assign(tp("test", 0), client.Beginning); err != nil {
				t.Fatal(err)
			}
			ctx := testContext(t)
			next := id.Offset(0)
			poll := func() error {
				f, err := k.Poll(ctx)
				if err != nil {
					return err
				}
				for m, err := range f.Records() {
					if err != nil {
						t.Fatal(err)
					}
					if m.Offset != next {
						t.Fatalf("offset %d came where %d was due", m.Offset, next)
					}
					next++
				}
				return nil
			}
			for next < 10 {
				if err := poll(); err != nil {
					t.Fatal(err)
				}
			}
			cluster.Supplant("test", "next")
			next = 0
			var err error
			for next < 20 && err == nil {
				err = poll()
			}
			switch {
			case policy == client.ResetEarliest && err != nil:
				t.Error(err)
			case policy == client.ResetNone && (!errors.Is(err, client.ErrUnknownTopic) || next > 0):
				t.Errorf("%d records, then %v", next, err)
			}
		})
	}
}
