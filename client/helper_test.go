package client_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/wal/id"
)

// testTime bounds every test: what takes longer hangs.
const testTime = 30 * time.Second

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	t.Cleanup(cancel)
	return ctx
}

// waiters are the names of tests that run beside others.
var waiters sync.Map

// waits has a test that spends its time waiting run beside others of its kind. What it leaves running is found when all of them are over.
func waits(t *testing.T) {
	t.Helper()
	waiters.Store(t.Name(), true)
	t.Parallel()
}

// newCluster starts a cluster, and a client of it. At the end nothing may be left running.
func newCluster(t testing.TB, nodes int) (*clienttest.Cluster, *client.Client) {
	t.Helper()
	name, _, _ := strings.Cut(t.Name(), "/")
	if _, beside := waiters.Load(name); !beside {
		t.Cleanup(leaktest.AfterTest(t))
	}
	cluster := clienttest.New(t, nodes)
	return cluster, newClient(t, cluster.Servers(), 0)
}

func newClient(t testing.TB, servers []string, requestTimeout time.Duration) *client.Client {
	t.Helper()
	o := client.Options{Servers: servers, ClientID: "test", RequestTimeout: requestTimeout}
	if os.Getenv("CLIENT_TEST_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	c, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func newProducer(t testing.TB, c *client.Client, o client.ProducerOptions) *client.Producer {
	t.Helper()
	p, err := c.NewProducer(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), testTime)
		defer cancel()
		if err := p.Close(ctx); err != nil {
			t.Errorf("close the producer: %v", err)
		}
	})
	return p
}

func newConsumer(t testing.TB, c *client.Client, o client.ConsumerOptions) *client.Consumer {
	t.Helper()
	k, err := c.NewConsumer(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = k.Close() })
	return k
}

func tp(topic string, partition int) id.TopicPartition {
	return id.TopicPartition{Topic: topic, Partition: id.Partition(partition)}
}

// acks collects outcomes.
type acks struct {
	mu     sync.Mutex
	ok     map[id.TopicPartition][]string // values in the order of their callbacks
	offset map[string]id.Offset
	failed map[string]error
	order  []string
}

func newAcks() *acks {
	return &acks{ok: make(map[id.TopicPartition][]string), offset: make(map[string]id.Offset), failed: make(map[string]error)}
}

func (a *acks) callback(value string) func(client.Ack) {
	return func(k client.Ack) {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.order = append(a.order, value)
		if k.Err != nil {
			a.failed[value] = k.Err
			return
		}
		a.ok[k.TopicPartition] = append(a.ok[k.TopicPartition], value)
		a.offset[value] = k.Offset
	}
}

// firstFailure is the error of some record, for messages.
func (a *acks) firstFailure() error {
	for _, err := range a.failed {
		return err
	}
	return nil
}

func (a *acks) counts() (ok, failed int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.offset), len(a.failed)
}

// waitFor polls a condition.
func waitFor(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.After(testTime)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !condition() {
		select {
		case <-deadline:
			t.Fatalf("%s: not within %v", what, testTime)
		case <-tick.C:
		}
	}
}

// consumeValues reads a partition from an offset to its high watermark.
func consumeValues(t testing.TB, c *client.Client, p id.TopicPartition, from id.Offset) []string {
	t.Helper()
	k := newConsumer(t, c, client.ConsumerOptions{})
	if err := k.Assign(p, from); err != nil {
		t.Fatal(err)
	}
	ctx := testContext(t)
	var out []string
	for {
		f, err := k.Poll(ctx)
		if err != nil {
			t.Fatalf("poll %s: %v", p, err)
		}
		for m, err := range f.Records() {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, string(m.Value))
		}
		if f.CaughtUp {
			return out
		}
	}
}

func produceAll(t testing.TB, p *client.Producer, topic string, partition id.Partition, n int) *acks {
	t.Helper()
	a := newAcks()
	ctx := testContext(t)
	for i := range n {
		v := fmt.Sprintf("value-%06d", i)
		if err := p.Produce(ctx, client.Record{Topic: topic, Partition: client.At(partition), Value: []byte(v)}, a.callback(v)); err != nil {
			t.Fatalf("produce %s: %v", v, err)
		}
	}
	if err := p.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	return a
}
