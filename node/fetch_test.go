package node_test

import (
	"math"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestFetchStream: one stream with a subscription that reads, one without credit, and some that cannot be.
func TestFetchStream(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1)
	ctx := c.Context()
	topic := make(map[string]id.Topic)
	for _, name := range []string{"kept", "deleted"} {
		created, err := c.Admin(0).CreateTopic(ctx, &pb.CreateTopicRequest{Name: name, Partitions: 1, ReplicationFactor: 1})
		if err != nil {
			t.Fatal(err)
		}
		topic[name] = id.Topic(created.GetTopic().GetId())
	}
	cl, err := client.New(client.Options{Servers: c.Servers()})
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	p, err := cl.NewProducer(client.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(ctx)
	produce := func() {
		t.Helper()
		done := make(chan error, 1)
		if err := p.Produce(ctx, client.Record{Topic: "kept", Value: []byte("v")}, func(a client.Ack) { done <- a.Err }); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	produce()

	conn, err := new(rpc.Dialer).DialFetch(ctx, c.Servers()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	events := make(chan rpc.FetchEvent, 100)
	over := make(chan error, 1)
	go func() {
		over <- conn.Recv(func(e rpc.FetchEvent) {
			e.Batches = append([]byte(nil), e.Batches...)
			events <- e
		})
	}()
	next := func(subscription uint32) rpc.FetchEvent {
		t.Helper()
		select {
		case e := <-events:
			if e.Subscription != subscription {
				t.Fatalf("got %+v, want an event of subscription %d", e, subscription)
			}
			return e
		case <-time.After(time.Minute):
			t.Fatalf("no event of subscription %d", subscription)
			panic("unreachable")
		}
	}
	send := func(commands ...rpc.FetchCommand) {
		t.Helper()
		if err := conn.Send(commands...); err != nil {
			t.Fatal(err)
		}
	}

	send(rpc.FetchCommand{Kind: rpc.Subscribe, Subscription: 1, Topic: topic["deleted"]},
		rpc.FetchCommand{Kind: rpc.Subscribe, Subscription: 2, Topic: topic["kept"], Credit: math.MaxInt64},
		rpc.FetchCommand{Kind: rpc.Credit, Subscription: 2, Credit: math.MaxInt64},
		rpc.FetchCommand{Kind: rpc.Credit, Subscription: 2, Credit: math.MaxInt64})
	for offset := range id.Offset(3) {
		if e := next(2); len(e.Batches) == 0 || e.HighWatermark != offset+1 {
			t.Fatalf("got %+v, want the record at %d", e, offset)
		}
		if e := next(2); len(e.Batches) > 0 || e.HighWatermark != offset+1 {
			t.Fatalf("got %+v, want to be told that this is all", e)
		}
		if offset < 2 {
			produce()
		}
	}
	send(rpc.FetchCommand{Kind: rpc.Subscribe, Subscription: 3, Topic: topic["kept"], Offset: 4})
	if e := next(3); e.Code != kerr.OffsetOutOfRange || e.HighWatermark != 3 || e.LogStart != 0 {
		t.Errorf("beyond the end: got %+v", e)
	}
	send(rpc.FetchCommand{Kind: rpc.Subscribe, Subscription: 4, Topic: topic["kept"], Partition: 1})
	if e := next(4); e.Code != kerr.UnknownTopicOrPartition {
		t.Errorf("a partition that is not there: got %+v", e)
	}
	if _, err := c.Admin(0).DeleteTopic(ctx, &pb.DeleteTopicRequest{Name: "deleted"}); err != nil {
		t.Fatal(err)
	}
	if e := next(1); e.Code != kerr.UnknownTopicOrPartition {
		t.Errorf("a topic that was deleted: got %+v", e)
	}
	send(rpc.FetchCommand{Kind: rpc.Credit, Subscription: 2, Credit: -1})
	if err := <-over; kerr.CodeOf(err) != kerr.InvalidRequest {
		t.Errorf("a negative credit: the stream ended with %v", err)
	}
}
