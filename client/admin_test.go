package client_test

import (
	"context"
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/client"
)

func TestTopics(t *testing.T) {
	cluster, _ := newCluster(t, 3)
	// Node 2 is not the controller and says who is; nobody listens at the first address.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	a := newClient(t, []string{nobody, cluster.Servers()[1]}, 0).Admin()
	ctx := testContext(t)
	if err := a.CreateTopic(ctx, client.TopicSpec{Name: "orders", Partitions: 4, Configs: map[string]string{"max.message.bytes": "9000"}}); err != nil {
		t.Fatal(err)
	}
	if err := a.CreateTopic(ctx, client.TopicSpec{Name: "orders"}); !errors.Is(err, client.ErrTopicExists) {
		t.Errorf("created twice: %v", err)
	}
	if err := a.CreateTopic(ctx, client.TopicSpec{Name: "wide", ReplicationFactor: 4}); !errors.Is(err, client.ErrInvalidReplicationFactor) {
		t.Errorf("four replicas on three nodes: %v", err)
	}
	// What is left of these in 32 bits would be fine, and raising the level cannot be undone.
	for _, spec := range []client.TopicSpec{{Partitions: 1<<32 + 3}, {Partitions: 1 << 32}, {ReplicationFactor: 1<<32 + 1}, {ReplicationFactor: -2}} {
		if spec.Name = "large"; a.CreateTopic(ctx, spec) == nil {
			t.Errorf("created with %d partitions and %d replicas", spec.Partitions, spec.ReplicationFactor)
		}
	}
	for _, level := range []int{1 << 32, 1<<32 + 1, -1 << 32} {
		if change, err := a.UpgradeCluster(ctx, level); err == nil {
			t.Errorf("level %d: %+v", level, change)
		}
	}
	if err := a.CreateTopic(ctx, client.TopicSpec{Name: "events"}); err != nil {
		t.Fatal(err)
	}
	names, err := a.ListTopics(ctx)
	if err != nil || !slices.Equal(names, []string{"events", "orders"}) {
		t.Errorf("topics %q, %v", names, err)
	}
	configs, err := a.AlterConfig(ctx, "orders", map[string]string{"retention.ms": "1"}, []string{"max.message.bytes"})
	if err != nil || len(configs) != 1 || configs["retention.ms"] != "1" {
		t.Errorf("configs %v, %v", configs, err)
	}
	topics, err := a.DescribeTopics(ctx, "orders")
	if err != nil || len(topics) != 1 {
		t.Fatalf("topics %v, %v", topics, err)
	}
	if o := topics[0]; o.Name != "orders" || o.ID.IsZero() || len(o.Partitions) != 4 || o.ReplicationFactor != 3 || len(o.Partitions[0].ISR) != 3 || o.Configs["retention.ms"] != "1" {
		t.Errorf("described as %+v", o)
	}
	if err := a.DeleteTopic(ctx, "orders"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.DescribeTopics(ctx, "orders"); !errors.Is(err, client.ErrUnknownTopic) {
		t.Errorf("after its deletion: %v", err)
	}
	if err := a.DeleteTopic(ctx, "orders"); !errors.Is(err, client.ErrUnknownTopic) {
		t.Errorf("deleted twice: %v", err)
	}
}

func TestOffsetsAndLeaders(t *testing.T) {
	cluster, c := newCluster(t, 3)
	cluster.CreateTopic("test", 3, nil)
	p := newProducer(t, c, client.ProducerOptions{})
	produceAll(t, p, "test", 0, 30)
	cluster.Trim(tp("test", 0), 10)
	ctx := testContext(t)
	a := c.Admin()
	if err := a.TransferLeader(ctx, tp("test", 0), 3); err != nil {
		t.Fatal(err)
	}
	if leader := cluster.Leader(tp("test", 0)); leader != 3 {
		t.Errorf("node %d leads", leader)
	}
	offsets, err := a.Offsets(ctx, "test")
	if err != nil || len(offsets) != 3 {
		t.Fatalf("offsets %v, %v", offsets, err)
	}
	if o := offsets[0]; o.Start != 10 || o.End != 30 || o.TopicPartition != tp("test", 0) {
		t.Errorf("offsets %+v", o)
	}
	if o := offsets[2]; o.Start != 0 || o.End != 0 {
		t.Errorf("offsets of an empty partition %+v", o)
	}
	s, err := a.PartitionStatus(ctx, tp("test", 0))
	if err != nil || s.Leader != 3 || s.HighWatermark != 30 {
		t.Errorf("status %+v, %v", s, err)
	}
	if _, err := a.Offsets(ctx, "nowhere"); !errors.Is(err, client.ErrUnknownTopic) {
		t.Errorf("unknown topic: %v", err)
	}
}

func TestClusterStatus(t *testing.T) {
	cluster, c := newCluster(t, 3)
	cluster.CreateTopic("test", 3, nil)
	cluster.Kill(2)
	s, err := c.Admin().ClusterStatus(testContext(t))
	if err != nil || len(s.Nodes) != 3 || s.Metadata.Leader != 1 || s.Topics != 1 || s.Nodes[1].State != "dead" || s.Nodes[0].Leaders == 0 {
		t.Errorf("status %+v, %v", s, err)
	}
	cluster.Restart(2)
}

func TestNobodyAnswers(t *testing.T) {
	_, c := newCluster(t, 1)
	_ = c
	nobody := newClient(t, []string{"127.0.0.1:1"}, 0)
	ctx, cancel := context.WithTimeout(testContext(t), 200*time.Millisecond)
	defer cancel()
	_, err := nobody.Admin().Metadata(ctx)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	t.Log(err)
}

func TestOptions(t *testing.T) {
	for _, o := range []client.Options{{}, {Servers: []string{"host"}}, {Servers: []string{"host:"}}, {Servers: []string{"a:1", ""}}} {
		if _, err := client.New(o); err == nil {
			t.Errorf("%v was taken", o.Servers)
		}
	}
	_, c := newCluster(t, 1)
	for _, o := range []client.ProducerOptions{{Linger: -1}, {BatchBytes: 2 << 20}, {MaxInFlight: 6}, {Acks: 3}, {BufferBytes: -1}, {DeliveryTimeout: -1}} {
		if _, err := c.NewProducer(o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}
