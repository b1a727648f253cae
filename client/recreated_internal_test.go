package client

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/client/clienttest"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestTopicThatIsAwayForMinutes: the cache does not ask for it any more, but the producer has its queues.
func TestTopicThatIsAwayForMinutes(t *testing.T) {
	cluster := clienttest.New(t, 1)
	cluster.CreateTopic("test", 4, nil)
	c, err := New(Options{Servers: cluster.Servers()})
	require.NoError(t, err)
	defer c.Close()
	p, err := c.NewProducer(ProducerOptions{DeliveryTimeout: 10 * time.Second})
	require.NoError(t, err)
	ctx := t.Context()
	send := func(key string) error {
		done := make(chan error, 1)
		if err := p.Produce(ctx, Record{Topic: "test", Key: []byte(key)}, func(a Ack) { done <- a.Err }); err != nil {
			return err
		}
		return <-done
	}
	require.NoError(t, send("a"))
	require.NoError(t, c.Admin().DeleteTopic(ctx, "test"))
	refresh := func() {
		t.Helper()
		n := c.cache.refreshes()
		c.cache.want("test")
		for deadline := time.Now().Add(20 * time.Second); c.cache.refreshes() == n; {
			changed := c.cache.changed()
			c.cache.request()
			select {
			case <-changed:
			case <-time.After(time.Until(deadline)):
				t.Fatal("no refresh")
			}
		}
	}
	missing := func() *absence {
		c.cache.mu.Lock()
		defer c.cache.mu.Unlock()
		return c.cache.mu.missing["test"]
	}
	for missing() == nil {
		refresh() // MetadataMaxAge later
	}
	c.cache.mu.Lock()
	if a := c.cache.mu.missing["test"]; a != nil {
		a.since, a.last = time.Now().Add(-5*time.Minute), time.Now().Add(-5*time.Minute)
	}
	delete(c.cache.mu.wanted, "test") // as after one more
	c.cache.mu.Unlock()
	cluster.CreateTopic("test", 1, nil)
	for _, key := range []string{"a", "b", "c", "d", "e"} {
		require.NoError(t, send(key), key)
	}
}

// TestPositionsBelongToATopic: what a cursor does with its offset when the topic's name is another one's.
func TestPositionsBelongToATopic(t *testing.T) {
	before, after := id.Topic{1}, id.Topic{2}
	for _, tt := range []struct {
		name           string
		policy         Reset
		next, assigned id.Offset
		want           id.Offset
		fails          bool
	}{
		{"in the middle", ResetNone, 7, 0, 7, true},
		{"in the middle, earliest", ResetEarliest, 7, 0, Beginning, false},
		{"in the middle, latest", ResetLatest, 7, 0, End, false},
		{"the old one's end, of which Poll knows nothing yet", ResetNone, 7, End, End, false},
		{"the old one's beginning", ResetLatest, 7, Beginning, Beginning, false},
		{"nothing was read", ResetNone, 0, 0, 0, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := New(Options{Servers: []string{"127.0.0.1:1"}})
			require.NoError(t, err)
			defer c.Close()
			k, err := c.NewConsumer(ConsumerOptions{OnOutOfRange: tt.policy})
			require.NoError(t, err)
			tp := id.TopicPartition{Topic: "t"}
			known := &metadata{
				nodes:  map[id.Node]string{1: "127.0.0.1:1"},
				topics: map[string]*topicMeta{"t": {name: "t", id: after, partitions: []partitionMeta{{leader: 1, epoch: 1}}}},
			}
			k.mu.Lock()
			cur := &cursor{tp: tp, next: tt.next, assigned: tt.assigned, topicID: before, notBefore: time.Now().Add(time.Hour)}
			k.mu.cursors[tp] = cur
			k.findStreamLocked(cur, known, time.Now())
			got, failed := cur.next, cur.failed
			k.mu.Unlock()
			require.Equal(t, tt.fails, failed)
			require.Equal(t, tt.want, got)
			if failed {
				_, err := k.Poll(context.Background())
				require.ErrorIs(t, err, ErrTopicRecreated)
				require.ErrorIs(t, err, ErrUnknownTopic)
			}
		})
	}
}
