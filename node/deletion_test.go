package node_test

import (
	"context"
	"errors"
	"testing"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// TestDeleteRecords deletes by every way of naming an offset, looks at the log start that follows, and at the ends of epochs, also after the
// leadership has moved: the new leader does not go back.
func TestDeleteRecords(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 3)
	servers := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		servers[i] = n.RPCAddress()
	}
	k, err := client.New(client.Options{Servers: servers})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = k.Close() }()
	ctx, a, tp := c.Context(), k.Admin(), client.TopicPartition{Topic: "t"}
	if err := a.CreateTopic(ctx, client.TopicSpec{Name: "t", Partitions: 1, ReplicationFactor: 3}); err != nil {
		t.Fatal(err)
	}
	p, err := k.NewProducer(client.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close(ctx) }()
	produce := func(n int) {
		t.Helper()
		for range n {
			if _, err := p.ProduceSync(ctx, client.Record{Topic: "t", Value: []byte("v")}); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(before, want client.Offset) {
		t.Helper()
		got, err := a.DeleteRecords(ctx, map[client.TopicPartition]client.Offset{tp: before})
		if err != nil || len(got) != 1 || got[0].LowWatermark != want {
			t.Fatalf("below %d: %v, %v", before, got, err)
		}
		r, err := a.Offsets(ctx, "t")
		if err != nil || r[0].Start != want {
			t.Fatalf("after a deletion below %d: %v, %v", before, r, err)
		}
	}
	produce(10)
	before, err := a.PartitionStatus(ctx, tp)
	if err != nil {
		t.Fatal(err)
	}
	remove(4, 4)
	remove(2, 4)
	if _, err := a.DeleteRecords(ctx, map[client.TopicPartition]client.Offset{tp: 11}); !errors.Is(err, client.ErrOffsetOutOfRange) {
		t.Fatalf("above the high watermark: %v", err)
	}
	to := client.NodeID(1)
	if before.Leader == to {
		to = 2
	}
	if err := a.TransferLeader(ctx, tp, to); err != nil {
		t.Fatal(err)
	}
	remove(0, 4)
	produce(3)
	after, err := a.PartitionStatus(ctx, tp)
	if err != nil || after.Start != 4 || after.Epoch <= before.Epoch {
		t.Fatalf("%+v, %v, before %+v", after, err, before)
	}
	ends := func(epoch client.Epoch) (answer client.Epoch, end client.Offset) {
		t.Helper()
		request := &pb.OffsetForLeaderEpochRequest{Partitions: []*pb.OffsetForLeaderEpochRequest_Partition{{Topic: "t", Epoch: int32(epoch)}}}
		nodetest.Eventually(t, "a node that leads", func() bool { // who does changes: leaderships are balanced
			for i := range c.Nodes {
				r, err := c.Admin(i).OffsetForLeaderEpoch(ctx, request)
				if err != nil || len(r.GetPartitions()) != 1 {
					t.Fatalf("epoch %d: %v, %v", epoch, r, err)
				}
				switch p := r.GetPartitions()[0]; kerr.Code(p.GetErrorCode()) {
				case kerr.None:
					answer, end = client.Epoch(p.GetEpoch()), client.Offset(p.GetEndOffset())
					return true
				case kerr.NotLeaderOrFollower:
				default:
					t.Fatalf("epoch %d: %v", epoch, r)
				}
			}
			return false
		})
		return answer, end
	}
	for epoch, want := range map[client.Epoch]client.Offset{before.Epoch: 10, after.Epoch: 13} {
		if got, end := ends(epoch); got != epoch || end != want {
			t.Errorf("epoch %d: %d ends at %d, want %d", epoch, got, end, want)
		}
	}
	if got, end := ends(after.Epoch + 1); got != -1 || end != -1 {
		t.Errorf("an epoch to come: %d, %d", got, end)
	}
	remove(client.End, 13)
	if got, end := ends(before.Epoch); got != before.Epoch || end != 13 {
		t.Errorf("an epoch below the log start: %d ends at %d", got, end)
	}
	for _, time := range []int64{-3, -4, -1 << 63} { // Kafka's largest timestamp, and others that are no times
		r, err := c.Admin(0).ListOffsets(ctx, &pb.ListOffsetsRequest{Partitions: []*pb.ListOffsetsRequest_Partition{{Topic: "t", Timestamp: time}}})
		if err != nil || kerr.Code(r.GetPartitions()[0].GetErrorCode()) != kerr.UnsupportedVersion {
			t.Errorf("the offset of time %d: %v, %v", time, r, err)
		}
	}
	wrong := &pb.DeleteRecordsRequest{Partitions: []*pb.DeleteRecordsRequest_Partition{
		{Topic: "t", Offset: 0, TopicId: make([]byte, 16)}, {Topic: "t", Offset: 0, TopicId: append(make([]byte, 15), 1)}, {Topic: "t", Offset: -2},
		{Topic: "__cluster_metadata"},
	}}
	r, err := c.Admin(int(after.Leader)-1).DeleteRecords(context.WithoutCancel(ctx), wrong)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []kerr.Code{kerr.None, kerr.UnknownTopicID, kerr.OffsetOutOfRange, kerr.InvalidTopic} {
		if got := kerr.Code(r.GetPartitions()[i].GetErrorCode()); got != want {
			t.Errorf("deletion %d: %v, want %v", i, got, want)
		}
	}
	if _, err := c.Admin(0).DeleteRecords(ctx, &pb.DeleteRecordsRequest{Partitions: []*pb.DeleteRecordsRequest_Partition{{Topic: "t", TopicId: []byte{1}}}}); kerr.CodeOf(err) != kerr.InvalidRequest {
		t.Errorf("half a topic id: %v", err)
	}
}
