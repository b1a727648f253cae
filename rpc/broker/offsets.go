package broker

import (
	"context"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Timestamps that mean an end of the log, as in Kafka.
const (
	LatestTime   = -1 // the high watermark
	EarliestTime = -2
)

// NoTimestamp stands where there is no record to have one.
const NoTimestamp = -1

// Offsets is where offsets are looked up.
type Offsets interface {
	// ListOffsets answers for the partitions that this node leads, in the order of the queries; the others have an Err that names the leader.
	ListOffsets(ctx context.Context, c *Caller, queries []OffsetQuery) []Offset
}

// OffsetQuery asks for one offset of one partition.
type OffsetQuery struct {
	Topic     string
	Partition id.Partition
	Time      int64 // milliseconds since 1970: the first record at or after it; or LatestTime, EarliestTime
}

// Offset is the answer to an OffsetQuery.
type Offset struct {
	Offset    id.Offset // id.NoOffset: no record is as late, or there is an Err
	Timestamp int64     // of the record, NoTimestamp for an end of the log
	Leader    id.Node
	Epoch     id.Epoch
	Err       *kerr.Error
}
