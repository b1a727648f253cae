package client_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// timeLimit is the largest timestamp that the nodes of lives take; some are ahead of the others by timeDrift.
const timeLimit, timeDrift = 1_000_000, 10

// lives is a topic that is created again and again, and what its producers were told. Values are "<writer>.<number>", in the order of production.
type lives struct {
	cluster *clienttest.Cluster
	old     [][]string // logs of partitions of topics that are gone

	mu    sync.Mutex
	told  map[string]client.Ack
	taken map[string]client.Record
}

// heard is the callback of a record.
func (l *lives) heard(t *testing.T, a client.Ack) {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := a.Opaque.(string)
	if before, twice := l.told[v]; twice {
		t.Errorf("%s was told twice: %v, %v", v, before, a)
	}
	l.told[v] = a
}

// check compares what was told with what is in all the logs.
func (l *lives) check(t *testing.T, partitions int) {
	t.Helper()
	logs := l.old
	for i := range partitions {
		logs = append(logs, l.cluster.Values(tp("test", i)))
	}
	seen := make(map[string]int)
	for n, log := range logs {
		last := make(map[string]int) // by key
		for _, v := range log {
			if seen[v]++; seen[v] > 1 {
				t.Errorf("%s is in the logs %d times (%v)", v, seen[v], l.told[v])
			}
			r := l.taken[v]
			if r.Key == nil {
				continue
			}
			number, _ := strconv.Atoi(v[strings.IndexByte(v, '.')+1:])
			if last[string(r.Key)] > number {
				t.Errorf("log %d: %s of key %s comes after %d", n, v, r.Key, last[string(r.Key)])
			}
			last[string(r.Key)] = number
		}
	}
	ok := 0
	for v := range l.taken {
		a, told := l.told[v]
		var refused *client.RecordError
		switch {
		case !told:
			t.Errorf("%s was taken, and nothing was told of it", v)
		case a.Err == nil && seen[v] != 1:
			t.Errorf("%s was acknowledged (%v) and is in no log", v, a)
		case seen[v] != 0 && !errors.Is(a.Err, client.ErrUnacknowledged) &&
			(errors.As(a.Err, &refused) || errors.Is(a.Err, client.ErrUnknownPartition) || errors.Is(a.Err, client.ErrInvalidRecord)):
			t.Errorf("%s is in a log, and it was said that it is not: %v", v, a)
		case a.Err == nil:
			ok++
		}
	}
	if len(l.told) != len(l.taken) {
		t.Errorf("%d records were taken, %d outcomes told", len(l.taken), len(l.told))
	}
	t.Logf("%d records, %d acknowledged, %d logs", len(l.taken), ok, len(logs))
	if ok < len(l.taken)/3 {
		t.Error("most of them failed")
	}
}

// write produces records until stop, and flushes now and then: then all that it produced has its outcome.
func (l *lives) write(t *testing.T, p *client.Producer, writer string, random *rand.Rand, stop <-chan struct{}) {
	var open atomic.Int64
	for i := 1; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		v := fmt.Sprintf("%s.%d", writer, i)
		r := client.Record{Topic: "test", Value: []byte(v), Timestamp: 1 + int64(i%1000), Opaque: v}
		switch random.IntN(4) {
		case 0:
			r.Partition, r.Key = client.At(id.Partition(random.IntN(6))), []byte(writer+"-named")
		case 1, 2:
			r.Key = []byte(writer + strconv.Itoa(random.IntN(5)))
		}
		switch random.IntN(150) {
		case 0:
			r.Timestamp = timeLimit + 1 + random.Int64N(timeDrift) // some take it
		case 1:
			r.Timestamp = timeLimit + timeDrift + 1 + random.Int64N(3)
		}
		l.mu.Lock()
		l.taken[v] = r
		l.mu.Unlock()
		open.Add(1)
		ctx, cancel := context.WithTimeout(context.Background(), testTime)
		err := p.Produce(ctx, r, func(a client.Ack) { l.heard(t, a); open.Add(-1) })
		if err != nil {
			open.Add(-1)
			l.mu.Lock()
			delete(l.taken, v)
			l.mu.Unlock()
			if !errors.Is(err, client.ErrUnknownPartition) && !errors.Is(err, client.ErrUnknownTopic) && !errors.Is(err, client.ErrClosed) {
				t.Errorf("produce %s: %v", v, err)
			}
		}
		if random.IntN(300) == 0 {
			if err := p.Flush(ctx); err == nil && open.Load() != 0 {
				t.Errorf("%d records of %s had no outcome when Flush returned", open.Load(), writer)
			} else if err != nil {
				t.Errorf("flush: %v", err)
			}
		}
		cancel()
		if random.IntN(20) == 0 {
			pause(stop, time.Duration(random.IntN(4))*time.Millisecond)
		}
	}
}

// pause waits, or less if it is over; it tells whether it is not.
func pause(stop <-chan struct{}, d time.Duration) bool {
	select {
	case <-stop:
		return false
	case <-time.After(d):
		return true
	}
}

// TestLivesOfATopic creates a topic again and again, with more and fewer partitions, under producers whose batches are refused, lost, split and
// sent to the wrong node, also by nodes whose clocks differ. Everything that was taken is told once, what is acknowledged is written once, and
// nothing is written twice or out of the order of its key.
func TestLivesOfATopic(t *testing.T) {
	waits(t)
	for seed := range uint64(6) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			cluster, _ := newCluster(t, 3)
			c := newClient(t, cluster.Servers(), 300*time.Millisecond)
			cluster.CreateTopic("test", 6, nil)
			l := &lives{cluster: cluster, told: make(map[string]client.Ack), taken: make(map[string]client.Record)}
			faults := rand.New(rand.NewPCG(seed, 1))
			cluster.SetFault(func(_ id.TopicPartition, b batch.Batch) clienttest.Fault {
				limit := int64(timeLimit)
				if faults.IntN(2) == 0 {
					limit += timeDrift
				}
				switch n := faults.IntN(400); {
				case b.MaxTimestamp() > limit:
					return clienttest.RejectTime
				case n == 0:
					return clienttest.LoseAck
				case n == 1:
					return clienttest.Swallow
				case n < 30:
					some := []clienttest.Fault{
						clienttest.Refuse, clienttest.RefuseAfter, clienttest.Throttle, clienttest.Drop, clienttest.DropAfter, clienttest.Twice,
						clienttest.Reject, clienttest.MoveLeader, clienttest.MoveAfter,
					}
					return some[faults.IntN(len(some))]
				}
				return clienttest.None
			})
			p, err := c.NewProducer(client.ProducerOptions{
				BatchBytes: 600, BufferBytes: 40_000, Linger: time.Duration(seed%2) * time.Millisecond, DeliveryTimeout: 10 * time.Second,
			})
			require.NoError(t, err)
			stop := make(chan struct{})
			var writers, nemesis sync.WaitGroup
			for i := range 3 {
				writers.Go(func() { l.write(t, p, "abc"[i:i+1], rand.New(rand.NewPCG(seed, uint64(10+i))), stop) })
			}
			partitions := 6
			nemesis.Go(func() {
				random := rand.New(rand.NewPCG(seed, 2))
				for range 25 {
					pause(nil, time.Duration(10+random.IntN(80))*time.Millisecond)
					switch random.IntN(4) {
					case 0, 1:
						partitions = 1 + random.IntN(6)
						l.old = append(l.old, cluster.Recreate("test", partitions)...)
					case 2:
						n := id.Node(1 + random.IntN(3))
						cluster.Kill(n)
						pause(nil, time.Duration(random.IntN(30))*time.Millisecond)
						cluster.Restart(n)
					case 3:
						at := tp("test", random.IntN(partitions))
						cluster.MoveLeader(at, id.Node(1+random.IntN(3)))
						if random.IntN(3) == 0 {
							cluster.FenceProducers(at)
						}
					}
				}
			})
			nemesis.Wait()
			close(stop)
			returns(t, "a writer", writers.Wait)
			if seed%3 != 2 {
				require.NoError(t, p.Flush(testContext(t)))
				require.Zero(t, p.Buffered(), "bytes of the budget are lost")
			}
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
			defer cancel()
			if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
				require.NoError(t, err)
			}
			require.Zero(t, p.Buffered(), "bytes of the budget are lost")
			l.check(t, partitions)
		})
	}
}
