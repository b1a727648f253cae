package client_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// BenchmarkProduce is the producer and the way over loopback to a node that keeps nothing.
func BenchmarkProduce(b *testing.B) {
	for _, size := range []int{100, 1024} {
		for _, linger := range []time.Duration{0, 5 * time.Millisecond} {
			b.Run(fmt.Sprintf("%dB/linger=%v", size, linger), func(b *testing.B) {
				cluster, c := newCluster(b, 1)
				cluster.CreateTopic("test", 12, nil)
				cluster.SetFault(func(id.TopicPartition, batch.Batch) clienttest.Fault { return clienttest.Discard })
				p := newProducer(b, c, client.ProducerOptions{Linger: linger})
				ctx := testContext(b)
				value := make([]byte, size)
				r := client.Record{Topic: "test", Value: value}
				if err := p.Produce(ctx, r, nil); err != nil {
					b.Fatal(err)
				}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				for range b.N {
					if err := p.Produce(ctx, r, nil); err != nil {
						b.Fatal(err)
					}
				}
				if err := p.Flush(ctx); err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}
