package client_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// checkDelivery compares what the producer was told with what is in the logs: every acknowledged record exactly once, where it
// was said to be, in the order of its production; nothing twice, whatever its outcome.
func checkDelivery(t *testing.T, cluster *clienttest.Cluster, a *acks, topic string, partitions int) {
	t.Helper()
	seen := make(map[string]id.Offset)
	for p := range partitions {
		last := ""
		for at, v := range cluster.Values(tp(topic, p)) {
			if before, twice := seen[v]; twice {
				t.Errorf("%s is in the log twice, at %d and %d", v, before, at)
			}
			if v < last {
				t.Errorf("partition %d: %s comes after %s", p, v, last)
			}
			last = v
			seen[v] = id.Offset(at)
		}
	}
	for v, offset := range a.offset {
		at, ok := seen[v]
		if !ok {
			t.Errorf("%s was acknowledged and is not in any log", v)
		} else if offset != at && offset != id.NoOffset {
			t.Errorf("%s was acknowledged at %d and is at %d", v, offset, at)
		}
	}
	for p, values := range a.ok {
		if !slices.IsSorted(values) {
			t.Errorf("%s: callbacks out of order", p)
		}
	}
}

// TestFaultsOneByOne injects each fault once into a stream of batches.
func TestFaultsOneByOne(t *testing.T) {
	waits(t)
	for fault := clienttest.None; fault < clienttest.NumFaults; fault++ {
		for _, at := range []int{0, 1, 7} {
			t.Run(fmt.Sprintf("fault %d at batch %d", fault, at), func(t *testing.T) {
				cluster, _ := newCluster(t, 3)
				c := newClient(t, cluster.Servers(), 300*time.Millisecond)
				cluster.CreateTopic("test", 2, nil)
				count := 0
				cluster.SetFault(func(id.TopicPartition, batch.Batch) clienttest.Fault {
					if count++; count == at+1 {
						return fault
					}
					return clienttest.None
				})
				p := newProducer(t, c, client.ProducerOptions{BatchBytes: 400})
				a := produceAll(t, p, "test", 0, 300)
				ok, failed := a.counts()
				if fault != clienttest.Reject && failed > 0 || ok+failed != 300 || fault == clienttest.Reject && failed == 0 {
					t.Errorf("%d acknowledged, %d failed: %v", ok, failed, a.firstFailure())
				}
				checkDelivery(t, cluster, a, "test", 2)
			})
		}
	}
}

// TestRandomFaults lets random faults hit several partitions while nodes die and come back.
func TestRandomFaults(t *testing.T) {
	waits(t)
	for seed := range uint64(6) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			cluster, _ := newCluster(t, 3)
			c := newClient(t, cluster.Servers(), 300*time.Millisecond)
			const partitions, records = 4, 4000
			cluster.CreateTopic("test", partitions, nil)
			random := rand.New(rand.NewPCG(seed, 1))
			rate := 0.02 + 0.08*random.Float64()
			cluster.SetFault(func(id.TopicPartition, batch.Batch) clienttest.Fault {
				if random.Float64() > rate {
					return clienttest.None
				}
				return clienttest.Fault(random.IntN(int(clienttest.NumFaults)))
			})
			p := newProducer(t, c, client.ProducerOptions{BatchBytes: 500, BufferBytes: 64 << 10})
			a := newAcks()
			ctx := testContext(t)
			var nemesis sync.WaitGroup
			stop := make(chan struct{})
			nemesis.Go(func() { killAndRestart(cluster, stop, seed) })
			for i := range records {
				v := fmt.Sprintf("%06d", i)
				r := client.Record{Topic: "test", Key: []byte(strconv.Itoa(i % 50)), Value: []byte(v)}
				if err := p.Produce(ctx, r, a.callback(v)); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Flush(ctx); err != nil {
				t.Fatal(err)
			}
			close(stop)
			nemesis.Wait()
			ok, failed := a.counts()
			if ok+failed != records || ok < records/2 {
				t.Errorf("%d acknowledged, %d failed", ok, failed)
			}
			t.Logf("rate %.2f: %d acknowledged, %d failed", rate, ok, failed)
			checkDelivery(t, cluster, a, "test", partitions)
		})
	}
}

// killAndRestart takes nodes down and up, one at a time.
func killAndRestart(cluster *clienttest.Cluster, stop chan struct{}, seed uint64) {
	random := rand.New(rand.NewPCG(seed, 2))
	pause := func() bool {
		select {
		case <-stop:
			return false
		case <-time.After(time.Duration(20+random.IntN(100)) * time.Millisecond):
			return true
		}
	}
	for pause() {
		n := id.Node(1 + random.IntN(3))
		cluster.Kill(n)
		again := pause()
		cluster.Restart(n)
		if !again {
			return
		}
	}
}
