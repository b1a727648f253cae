package client_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
)

func TestDeleteRecords(t *testing.T) {
	waits(t)
	cluster, c := newCluster(t, 3)
	cluster.CreateTopic("test", 4, nil)
	cluster.CreateTopic("secret", 1, nil)
	p := newProducer(t, c, client.ProducerOptions{})
	for part := range 3 {
		produceAll(t, p, "test", client.PartitionID(part), 10)
	}
	ctx, a := testContext(t), c.Admin()
	if _, err := a.Offsets(ctx, "test"); err != nil { // the leaders are known
		t.Fatal(err)
	}
	cluster.MoveLeader(tp("test", 1), 3)
	cluster.Deny("secret")
	got, err := a.DeleteRecords(ctx, map[client.TopicPartition]client.Offset{
		tp("test", 0): 4, tp("test", 1): client.End, tp("test", 2): 11, tp("test", 9): 0, tp("test", 3): 0, tp("secret", 0): 0, tp("nowhere", 0): 1,
	})
	want := []struct {
		tp  client.TopicPartition
		low client.Offset
		err error
	}{
		{tp("nowhere", 0), -1, client.ErrUnknownTopic}, {tp("secret", 0), -1, client.ErrNotAuthorized}, {tp("test", 0), 4, nil}, {tp("test", 1), 10, nil},
		{tp("test", 2), -1, client.ErrOffsetOutOfRange}, {tp("test", 3), 0, nil}, {tp("test", 9), -1, client.ErrUnknownPartition},
	}
	if len(got) != len(want) {
		t.Fatalf("%d answers: %v", len(got), got)
	}
	for i, w := range want {
		if g := got[i]; g.TopicPartition != w.tp || g.LowWatermark != w.low || !errors.Is(g.Err, w.err) || (g.Err != nil) != (w.err != nil) {
			t.Errorf("%v, want %v %d %v", g, w.tp, w.low, w.err)
		}
		if w.err != nil && !errors.Is(err, w.err) {
			t.Errorf("the error does not tell of %v: %v", w.err, err)
		}
	}
	again, err := a.DeleteRecords(ctx, map[client.TopicPartition]client.Offset{tp("test", 0): 2})
	if err != nil || again[0].LowWatermark != 4 {
		t.Errorf("below the log start: %v, %v", again, err)
	}
	if _, err := a.DeleteRecords(ctx, map[client.TopicPartition]client.Offset{tp("test", 0): -2}); !errors.Is(err, client.ErrOffsetOutOfRange) {
		t.Errorf("a negative offset: %v", err)
	}
	short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
	defer cancel()
	cluster.MoveLeader(tp("test", 0), -1)
	late, err := a.DeleteRecords(short, map[client.TopicPartition]client.Offset{tp("test", 0): 5})
	if !errors.Is(err, context.DeadlineExceeded) || len(late) != 1 || late[0].LowWatermark != -1 {
		t.Errorf("without a leader: %v, %v", late, err)
	}
}
