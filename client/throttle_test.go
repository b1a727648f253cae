package client_test

import (
	"sync"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestProducerPauses: a producer that is told that it is over its quota sends nothing to the node for as long, on any partition, and then goes
// on; also one that gets no answers.
func TestProducerPauses(t *testing.T) {
	for _, acks := range []client.Acks{client.AcksAll, client.AcksNone} {
		t.Run(acks.String(), func(t *testing.T) {
			cluster, c := newCluster(t, 1)
			cluster.CreateTopic("test", 2, nil)
			var mu sync.Mutex
			var came []time.Time
			cluster.SetFault(func(id.TopicPartition, batch.Batch) clienttest.Fault {
				mu.Lock()
				defer mu.Unlock()
				if came = append(came, time.Now()); len(came) == 1 {
					return clienttest.Pause
				}
				return clienttest.None
			})
			p := newProducer(t, c, client.ProducerOptions{Acks: acks})
			record := 0
			waitFor(t, "a pause", func() bool { // the word to pause may come after the next record has left
				err := p.Produce(testContext(t), client.Record{Topic: "test", Partition: client.At(id.Partition(record % 2)), Value: []byte("v")}, nil)
				if record++; err != nil {
					t.Fatal(err)
				}
				mu.Lock()
				defer mu.Unlock()
				return longest(came) > clienttest.PauseTime*9/10
			})
			if err := p.Flush(testContext(t)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// longest returns the longest time between two of them.
func longest(times []time.Time) time.Duration {
	var longest time.Duration
	for i := 1; i < len(times); i++ {
		longest = max(longest, times[i].Sub(times[i-1]))
	}
	return longest
}
