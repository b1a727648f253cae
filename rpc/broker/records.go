package broker

import (
	"context"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Records is where records are deleted before their time.
type Records interface {
	// DeleteRecords answers for the partitions that this node leads, in the order of the deletions; the others have an Err that names the leader.
	// What is deleted stays so, whoever leads next. To be told of an error after some time says nothing: it may have been done.
	DeleteRecords(ctx context.Context, c *Caller, deletions []Deletion) []LowWatermark
}

// Deletion is the records of one partition below an offset.
type Deletion struct {
	Topic     string
	TopicID   id.Topic // the topic that is meant; zero: whichever has the name
	Partition id.Partition
	Before    id.Offset // ToHighWatermark: all there are
}

// ToHighWatermark is the offset of a Deletion that stands for the high watermark, as in Kafka.
const ToHighWatermark id.Offset = -1

// LowWatermark is the answer to a Deletion.
type LowWatermark struct {
	Offset id.Offset // the first that is left; id.NoOffset with an Err
	Leader id.Node
	Err    *kerr.Error
}
