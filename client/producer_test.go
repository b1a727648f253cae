package client_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
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
				t.Fatalf("%d acknowledged, %d failed: %v", ok, failed, a.failed)
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
