package node_test

import (
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
)

// TestStopWhileTheDiskIsFull: a node that is stopped while its controller waits for space in the store, for the first cut of a new log, stops.
func TestStopWhileTheDiskIsFull(t *testing.T) {
	t.Parallel()
	c := nodetest.StartSimulated(t, 1, 1)
	waits := make(chan struct{})
	var once sync.Once
	c.Disk(0).SetHook(func(op disksim.Op) error {
		if op.Pebble && op.Kind == disksim.OpWrite {
			once.Do(func() { close(waits) })
			return syscall.ENOSPC
		}
		return nil
	})
	go func() {
		_, _ = c.Admin(0).CreateTopic(c.Context(), &pb.CreateTopicRequest{Name: "t", Partitions: 1, ReplicationFactor: 1})
	}()
	<-waits
	stopped := make(chan error, 1)
	go func() { stopped <- c.Nodes[0].Stop(context.Background()) }()
	select {
	case err := <-stopped:
		if !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("the node says %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("a node does not stop while its disk is full")
		c.Disk(0).SetHook(nil)
		<-stopped
	}
	c.CrashNode(0, nodetest.Kill)
	c.Disk(0).SetHook(nil)
	c.StartNode(0)
	nodetest.Eventually(t, "the topic is there", func() bool {
		_, err := c.Admin(0).PartitionStatus(c.Context(), &pb.PartitionStatusRequest{Topic: "t"})
		return err == nil
	})
}
