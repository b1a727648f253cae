package client_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
)

// A topic that may not be used says so at every door, and at once: it will not be allowed by waiting.
func TestNotAuthorized(t *testing.T) {
	cluster, c := newCluster(t, 3)
	cluster.CreateTopic("secret", 3, nil)
	cluster.Deny("secret")
	ctx := testContext(t)
	p := newProducer(t, c, client.ProducerOptions{})
	k := newConsumer(t, c, client.ConsumerOptions{})
	poll := func(from client.Offset) error {
		if err := k.Assign(tp("secret", 1), from); err != nil {
			return err
		}
		_, err := k.Poll(ctx)
		return err
	}
	a := c.Admin()
	for _, test := range []struct {
		what string
		f    func() error
	}{
		{"produce", func() error { return p.Produce(ctx, client.Record{Topic: "secret"}, nil) }},
		{"produce sync", func() error { _, err := p.ProduceSync(ctx, client.Record{Topic: "secret"}); return err }},
		{"poll", func() error { return poll(0) }},
		{"poll from the beginning", func() error { return poll(client.Beginning) }},
		{"create", func() error { return a.CreateTopic(ctx, client.TopicSpec{Name: "secret"}) }},
		{"describe", func() error { _, err := a.DescribeTopics(ctx, "secret"); return err }},
		{"offsets", func() error { _, err := a.Offsets(ctx, "secret"); return err }},
		{"offsets for a time", func() error { _, err := a.OffsetsForTime(ctx, "secret", time.Now()); return err }},
	} {
		begin := time.Now()
		err := test.f()
		if !errors.Is(err, client.ErrNotAuthorized) || errors.Is(err, client.ErrUnknownTopic) || !strings.Contains(err.Error(), "User:test") {
			t.Errorf("%s: %v", test.what, err)
		}
		if took := time.Since(begin); took > testTime/2 {
			t.Errorf("%s: only after %v", test.what, took)
		}
	}
}

// A producer that is given no id, because it may write to no topic, is told so at once rather than after the delivery timeout; it does not ask
// all the time, and goes on as soon as it may.
func TestNotAuthorizedToProduce(t *testing.T) {
	cluster, c := newCluster(t, 2)
	cluster.CreateTopic("test", 2, nil)
	cluster.DenyProducers()
	ctx := testContext(t)
	p := newProducer(t, c, client.ProducerOptions{DeliveryTimeout: 10 * testTime})
	for range 3 {
		acks, err := p.ProduceSync(ctx, client.Record{Topic: "test", Partition: client.At(0)}, client.Record{Topic: "test", Partition: client.At(1)})
		if !errors.Is(err, client.ErrNotAuthorized) || errors.Is(err, client.ErrDeliveryTimeout) || !strings.Contains(err.Error(), "User:test") {
			t.Fatalf("produce: %v", err)
		}
		if !errors.Is(acks[1].Err, client.ErrNotAuthorized) {
			t.Errorf("the second record: %v", acks[1])
		}
	}
	if asked := cluster.AllowProducers(); asked > 6 { // once or twice for each call: its records may come in two goes
		t.Errorf("an id was asked for %d times", asked)
	}
	if _, err := p.ProduceSync(ctx, client.Record{Topic: "test", Partition: client.At(1), Value: []byte("allowed")}); err != nil {
		t.Errorf("once it is allowed: %v", err)
	}
	if values := cluster.Values(tp("test", 1)); len(values) != 1 || values[0] != "allowed" {
		t.Errorf("written is %q", values)
	}
}

// Permission that is taken away ends what is under way.
func TestNoLongerAuthorized(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("secret", 1, nil)
	ctx := testContext(t)
	p := newProducer(t, c, client.ProducerOptions{})
	k := newConsumer(t, c, client.ConsumerOptions{})
	produceAll(t, p, "secret", 0, 1)
	if err := k.Assign(tp("secret", 0), client.Beginning); err != nil {
		t.Fatal(err)
	}
	if f, err := k.Poll(ctx); err != nil || f.Next != 1 {
		t.Fatalf("%v, %v", f, err)
	}
	cluster.Deny("secret")
	acks, err := p.ProduceSync(ctx, client.Record{Topic: "secret"})
	if !errors.Is(err, client.ErrNotAuthorized) || !errors.Is(acks[0].Err, client.ErrNotAuthorized) {
		t.Errorf("produce: %v", err)
	}
	for err = error(nil); err == nil; {
		_, err = k.Poll(ctx)
	}
	if !errors.Is(err, client.ErrNotAuthorized) {
		t.Errorf("poll: %v", err)
	}
}

func TestOffsetsForTime(t *testing.T) {
	cluster, c := newCluster(t, 2)
	cluster.CreateTopic("test", 3, nil)
	ctx := testContext(t)
	p := newProducer(t, c, client.ProducerOptions{})
	begin := time.UnixMilli(1_000_000)
	for i := range 10 {
		at := begin.Add(time.Duration(i) * time.Second).UnixMilli()
		if _, err := p.ProduceSync(ctx, client.Record{Topic: "test", Partition: client.At(client.PartitionID(i % 2)), Timestamp: at}); err != nil {
			t.Fatal(err)
		}
	}
	a := c.Admin()
	for _, test := range []struct {
		at   time.Time
		want [3]client.Offset
	}{
		{begin, [3]client.Offset{0, 0, client.End}},
		{time.Time{}, [3]client.Offset{0, 0, client.End}}, // before 1970: a negative number means something else to the nodes
		{begin.Add(4500 * time.Millisecond), [3]client.Offset{3, 2, client.End}},
		{begin.Add(9 * time.Second), [3]client.Offset{client.End, 4, client.End}},
		{begin.Add(time.Hour), [3]client.Offset{client.End, client.End, client.End}},
	} {
		found, err := a.OffsetsForTime(ctx, "test", test.at)
		if err != nil || len(found) != 3 {
			t.Fatalf("%v: %v, %v", test.at, found, err)
		}
		for i, o := range found {
			if o.TopicPartition != tp("test", i) || o.Offset != test.want[i] {
				t.Errorf("%v: %v, want offset %d", test.at, o, test.want[i])
			}
		}
	}
	if _, err := a.OffsetsForTime(ctx, "nowhere", begin); !errors.Is(err, client.ErrUnknownTopic) {
		t.Errorf("unknown topic: %v", err)
	}
}

func TestConsumeFromATime(t *testing.T) {
	cluster, c := newCluster(t, 1)
	cluster.CreateTopic("test", 2, nil)
	ctx := testContext(t)
	p := newProducer(t, c, client.ProducerOptions{})
	produce := func(partition client.PartitionID, at int64) {
		t.Helper()
		if _, err := p.ProduceSync(ctx, client.Record{Topic: "test", Partition: client.At(partition), Timestamp: at}); err != nil {
			t.Fatal(err)
		}
	}
	for _, at := range []int64{1000, 2000, 3000} {
		produce(0, at)
		produce(1, at)
	}
	k := newConsumer(t, c, client.ConsumerOptions{})
	for i, at := range []int64{2000, 5000} { // of the second partition nothing is that young
		if err := k.AssignAtTime(tp("test", i), time.UnixMilli(at)); err != nil {
			t.Fatal(err)
		}
	}
	next := k.Assignment()
	for next[tp("test", 0)] < 0 || next[tp("test", 1)] < 0 {
		if _, err := k.Poll(ctx); err != nil {
			t.Fatal(err)
		}
		next = k.Assignment()
	}
	if next[tp("test", 0)] < 1 || next[tp("test", 1)] != 3 {
		t.Errorf("begins at %v", next)
	}
	produce(1, 100) // behind the end as it was: older or not
	for next[tp("test", 1)] != 4 {
		if _, err := k.Poll(ctx); err != nil {
			t.Fatal(err)
		}
		next = k.Assignment()
	}
}

func TestNobodyReachable(t *testing.T) {
	nobody := newClient(t, []string{"127.0.0.1:1"}, 0)
	k := newConsumer(t, nobody, client.ConsumerOptions{})
	if err := k.Assign(tp("test", 0), client.Beginning); err != nil {
		t.Fatal(err)
	}
	p := newProducer(t, nobody, client.ProducerOptions{})
	for what, f := range map[string]func(context.Context) error{
		"poll":    func(ctx context.Context) error { _, err := k.Poll(ctx); return err },
		"produce": func(ctx context.Context) error { return p.Produce(ctx, client.Record{Topic: "test"}, nil) },
		"admin":   func(ctx context.Context) error { _, err := nobody.Admin().ListTopics(ctx); return err },
	} {
		ctx, cancel := context.WithTimeout(testContext(t), 300*time.Millisecond)
		err := f(ctx)
		cancel()
		if !errors.Is(err, client.ErrNoNodeReachable) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("%s: %v", what, err)
		}
	}
}
