//go:build unix

package main

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

// lastRead keeps when each partition was last read.
type lastRead struct {
	mu sync.Mutex
	at map[id.Partition]time.Time
}

func (l *lastRead) run(ctx context.Context, k *client.Consumer) {
	for {
		f, err := k.Poll(ctx)
		if err != nil {
			return
		}
		if f.Bytes() > 0 {
			l.mu.Lock()
			l.at[f.Partition] = time.Now()
			l.mu.Unlock()
		}
	}
}

// TestFrozenNode stops a node with SIGSTOP, from which a producer and a consumer have all that they know. Its connections stay open and its
// kernel takes new ones. Both go on soon after the others have elected leaders, and when it wakes up it does no harm.
func TestFrozenNode(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	ctx := testContext(t)
	cluster, err := bench.StartCluster(ctx, bench.ClusterOptions{Binary: buildBinary(t), Dir: t.TempDir(), Nodes: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	const partitions = 6
	victim := cluster.Nodes()[1]
	address := cluster.Servers()[1]
	writer, reader := newClient(t, address), newClient(t, address)
	makeTopic(t, writer, client.TopicSpec{Name: "beats", Partitions: partitions, ReplicationFactor: 3})
	h := &heartbeat{last: make(map[id.Partition]time.Time)}
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- h.run(ctx, writer, "beats", partitions, stop) }()
	k, err := reader.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	defer func() {
		_ = k.Close()
		reading.Wait()
	}()
	for p := range id.Partition(partitions) {
		if err := k.Assign(id.TopicPartition{Topic: "beats", Partition: p}, client.Beginning); err != nil {
			t.Fatal(err)
		}
	}
	read := &lastRead{at: make(map[id.Partition]time.Time)}
	reading.Go(func() { read.run(ctx, k) })
	since := func(mu *sync.Mutex, at map[id.Partition]time.Time, begin time.Time) bool {
		mu.Lock()
		defer mu.Unlock()
		for _, last := range at {
			if !last.After(begin) {
				return false
			}
		}
		return len(at) == partitions
	}
	leads := func() bool {
		s, err := writer.Admin().ClusterStatus(ctx)
		return err == nil && len(s.Nodes) == 3 && s.Nodes[1].Leaders == partitions/3 && s.Leaderless == 0
	}
	eventually(t, "the victim to lead", leads)
	now := time.Now()
	eventually(t, "traffic", func() bool { return since(&h.mu, h.last, now) && since(&read.mu, read.at, now) })
	if err := victim.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	begin := time.Now().Add(100 * time.Millisecond) // what was on its way has arrived
	eventually(t, "acknowledgements on all partitions", func() bool { return since(&h.mu, h.last, begin) })
	written := time.Since(begin)
	eventually(t, "records of all partitions", func() bool { return since(&read.mu, read.at, begin) })
	took := time.Since(begin)
	t.Logf("producers waited for %v, consumers for %v", written.Round(10*time.Millisecond), took.Round(10*time.Millisecond))
	// The others notice after 1.5 s; a machine that has nothing else to do needs about two.
	if took > 4500*time.Millisecond {
		t.Errorf("clients waited for a frozen node for %v", took)
	}
	if err := victim.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	close(stop)
	if err := <-done; err != nil {
		t.Errorf("producing: %v", err)
	}
}
