package node

import (
	"context"
	"time"

	"github.com/quorumlog/quorumlog/placement"
)

// retentionInterval is how often a node looks which of its replicas are due. Kafka does so every five minutes (log.retention.check.interval.ms);
// with segments of a few seconds that would be hundreds of them.
const retentionInterval = time.Second

// retain has the partitions of this node let go of what their topics do not want to be kept.
func (n *Node) retain(ctx context.Context) {
	tick := time.NewTicker(retentionInterval)
	defer tick.Stop()
	told := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := time.Now()
		for _, p := range n.replicas.All() {
			p.Retain(now)
		}
		if !told && n.replicas.Trims().Early() > 0 {
			told = true
			n.logger.Warn("records that are older than retention.ms, or more than retention.bytes, are kept: the cluster's feature level does not allow "+
				"to delete them before quorumlog cluster upgrade", "needed", placement.LogStartLevel)
		}
	}
}

// logSizes is how many segments the replicas of partitions have on a node, and how many bytes of batches are in them.
type logSizes struct{ segments, bytes int64 }

func (n *Node) logSizes() (sum logSizes) {
	for _, p := range n.replicas.All() {
		list := p.Log().Segments()
		sum.segments += int64(len(list))
		for i := range list {
			sum.bytes += list[i].Bytes
		}
	}
	return sum
}
