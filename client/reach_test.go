package client

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Poll says that nobody is there, again and again but not at once, and goes on when somebody is.
func TestPollWhenNoNodeIsReachable(t *testing.T) {
	cluster := clienttest.New(t, 2)
	cluster.CreateTopic("test", 1, nil)
	c, err := New(Options{Servers: cluster.Servers()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.unreachableAfter = 200 * time.Millisecond
	k, err := c.NewConsumer(ConsumerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	if err := k.Assign(TopicPartition{Topic: "test"}, Beginning); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if f, err := k.Poll(ctx); err != nil || !f.CaughtUp {
		t.Fatalf("%v, %v", f, err)
	}
	idle, cancelIdle := context.WithTimeout(ctx, 2*c.unreachableAfter)
	defer cancelIdle()
	if _, err := k.Poll(idle); err != context.DeadlineExceeded { //nolint:errorlint // nothing around it
		t.Errorf("a quiet partition: %v", err)
	}
	for n := range 2 {
		cluster.Kill(id.Node(n + 1))
	}
	for range 2 {
		begin := time.Now()
		_, err := k.Poll(ctx)
		if !errors.Is(err, ErrNoNodeReachable) || ctx.Err() != nil {
			t.Fatalf("nobody is there: %v", err)
		}
		if took := time.Since(begin); took < c.unreachableAfter {
			t.Errorf("after %v: %v", took, err)
		}
	}
	for n := range 2 {
		cluster.Restart(id.Node(n + 1))
	}
	p, err := c.NewProducer(ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.ProduceSync(ctx, Record{Topic: "test", Value: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := k.Poll(ctx)
		if errors.Is(err, ErrNoNodeReachable) {
			continue // it had not noticed yet
		}
		if err != nil {
			t.Fatal(err)
		}
		if f.Next == 1 {
			break
		}
	}
	if err := p.Close(ctx); err != nil {
		t.Error(err)
	}
}
