package node_test

import (
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/batch"
)

// TestQuotas sets quotas in the metadata and has clients use more than theirs: a producer's batches are taken, and it is told for how long
// to pause; a consumer is sent no more, and told so; who has another client id is not concerned; and all is over with the quota.
func TestQuotas(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 1)
	p := newRawProducer(t, c)
	alter := func(key string, value *float64) {
		t.Helper()
		change := &pb.AlterQuotasRequest_Change{Entity: &pb.QuotaEntity{ClientId: &pb.QuotaSide{Name: "limited"}}}
		if value != nil {
			change.Set = map[string]float64{key: *value}
		} else {
			change.Remove = []string{key}
		}
		if _, err := c.Admin(0).AlterQuotas(c.Context(), &pb.AlterQuotasRequest{Changes: []*pb.AlterQuotasRequest_Change{change}}); err != nil {
			t.Fatal(err)
		}
	}
	few := 1000.0 // a second; 64 KiB may be used at once
	alter("producer_byte_rate", &few)
	alter("consumer_byte_rate", &few)

	var b batch.Builder
	b.Append(batch.Record{Timestamp: time.Now().UnixMilli(), Value: make([]byte, 70_000)})
	wire, err := b.Finish(nil, batch.Plain(batch.None))
	if err != nil {
		t.Fatal(err)
	}
	address := c.Nodes[0].RPCAddress()
	produce := func(client string) (throttled time.Duration, codes []kerr.Code) {
		t.Helper()
		conn, err := (&rpc.Dialer{ClientID: client}).DialProduce(c.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		answers, ended := make(chan kerr.Code, 10), make(chan struct{})
		go func() {
			defer close(ended)
			_ = conn.Recv(func(r rpc.ProduceResponse) { answers <- r.Code })
		}()
		defer func() {
			_ = conn.Close()
			<-ended
		}()
		for range 3 {
			if err := conn.Send(rpc.ProduceRequest{Topic: p.topic, Acks: rpc.AcksAll, Batch: wire}); err != nil {
				t.Fatal(err)
			}
			if err := conn.Flush(); err != nil {
				t.Fatal(err)
			}
			codes = append(codes, <-answers)
		}
		return conn.Throttled(), codes
	}
	if throttled, codes := produce("limited"); throttled < 60*time.Second || codes[0] != kerr.None || codes[2] != kerr.ThrottlingQuotaExceeded {
		// 4 s ahead after the first, 74 s after the second
		t.Errorf("the limited producer was told to pause for %v; its batches: %v", throttled, codes)
	}
	if throttled, codes := produce("other"); throttled != 0 || codes[0] != kerr.None || codes[2] != kerr.None {
		t.Errorf("the other producer was told to pause for %v; its batches: %v", throttled, codes)
	}

	consumer, err := (&rpc.Dialer{ClientID: "limited"}).DialFetch(c.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	events, ended := make(chan int, 10), make(chan struct{})
	go func() {
		defer close(ended)
		_ = consumer.Recv(func(e rpc.FetchEvent) { events <- len(e.Batches) })
	}()
	defer func() {
		_ = consumer.Close()
		<-ended
	}()
	if err := consumer.Send(rpc.FetchCommand{Kind: rpc.Subscribe, Subscription: 1, Topic: p.topic, Credit: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	if n := <-events; n == 0 {
		t.Error("it was sent nothing")
	}
	nodetest.Eventually(t, "the consumer to be told that it is sent nothing", func() bool { return consumer.Throttled() > time.Minute })
	before := len(events)
	if throttled, codes := produce("other"); throttled != 0 || codes[0] != kerr.None {
		t.Error(throttled, codes)
	}
	if len(events) != before {
		t.Error("a consumer that is ahead of its quota is sent more")
	}
	alter("consumer_byte_rate", nil)
	alter("producer_byte_rate", nil)
	read := 0
	nodetest.Eventually(t, "the consumer to go on", func() bool {
		for {
			select {
			case n := <-events:
				read += n
			default:
				return read > 2*len(wire)
			}
		}
	})
	if throttled, codes := produce("limited"); throttled != 0 || codes[2] != kerr.None {
		t.Errorf("without quota: %v, %v", throttled, codes)
	}
}
