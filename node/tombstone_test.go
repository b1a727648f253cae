package node_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// TestDeletedReplicaIsNotBornAgain deletes a topic and restarts a node alone, whose metadata is that of before: its last checkpoint does not
// know of the deletion, and how far its log is committed nobody tells it. It must not make the replica that it deleted, which would be empty
// and could vote.
func TestDeletedReplicaIsNotBornAgain(t *testing.T) {
	c := nodetest.StartSimulated(t, 3, 1)
	nodetest.Eventually(t, "three voters", func() bool {
		status, err := c.Admin(0).ClusterStatus(c.Context(), &pb.ClusterStatusRequest{})
		return err == nil && len(status.GetMetadata().GetVoters()) == 3
	})
	if _, err := c.Admin(0).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: "t", Partitions: 1, ReplicationFactor: 3}); err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(client.Options{Servers: c.Servers()})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cl.Close() }()
	p, err := cl.NewProducer(client.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if err := p.Produce(c.Context(), client.Record{Topic: "t", Value: []byte("v")}, func(client.Ack) {}); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Flush(c.Context()); err != nil {
		t.Fatal(err)
	}
	_ = p.Close(c.Context())
	const node = 2
	status := func() (*pb.PartitionStatusResponse, error) {
		return c.Admin(node).PartitionStatus(c.Context(), &pb.PartitionStatusRequest{Topic: "t", Partition: 0})
	}
	var before *pb.PartitionStatusResponse
	nodetest.Eventually(t, "the records", func() bool {
		before, err = status()
		return err == nil && before.GetLogEndOffset() == 10
	})
	logged := func(what string) bool {
		for line := range strings.Lines(c.Log()) {
			if strings.Contains(line, what) && strings.Contains(line, fmt.Sprintf("partition=t-0 replica=%d", before.GetReplica())) {
				return true
			}
		}
		return false
	}
	if _, err := c.Admin(0).DeleteTopic(c.Context(), &pb.DeleteTopicRequest{Name: "t"}); err != nil {
		t.Fatal(err)
	}
	nodetest.Eventually(t, "the replica to be deleted", func() bool {
		return logged("replica deleted")
	})
	for _, i := range []int{node, 0, 1} { // this one first: a new leader's entry would bring the commit index with it
		c.CrashNode(i, nodetest.Kill)
	}
	c.StartNode(node) // alone: the metadata has no leader, and nothing tells it what it knew
	nodetest.Eventually(t, "the replica to be asked for", func() bool {
		if again, err := status(); err == nil {
			t.Fatalf("replica %d of group %d is back (it was %d of %d) with %d records of 10", again.GetReplica(), again.GetGroup(),
				before.GetReplica(), before.GetGroup(), again.GetLogEndOffset())
		}
		return logged("not as far as its deletion yet")
	})
	c.StartNode(0)
	c.StartNode(1)
	for i := range c.Nodes {
		c.AwaitReady(i)
	}
	if _, err := c.Admin(node).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: "t", Partitions: 1, ReplicationFactor: 3}); err != nil {
		t.Fatal(err)
	}
	nodetest.Eventually(t, "the new topic's replica", func() bool {
		now, err := status()
		return err == nil && now.GetReplica() != before.GetReplica()
	})
}
