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
	// OffsetForLeaderEpoch does the same for the ends of leader epochs.
	OffsetForLeaderEpoch(ctx context.Context, c *Caller, queries []EpochQuery) []EpochEnd
}

// EpochQuery asks where a leader epoch of a partition ended.
type EpochQuery struct {
	Topic     string
	Partition id.Partition
	Epoch     id.Epoch
}

// EpochEnd is the answer to an EpochQuery: the largest epoch that has records and is not above the one asked for, and the offset after the last
// of them, which for the leader's own epoch is the end of its log. The epoch asked for and the log start, if no record of so low an epoch is left.
// NoEpoch and id.NoOffset: there is none, or the leader knows of no epoch as high as the one asked for.
type EpochEnd struct {
	Epoch  id.Epoch
	End    id.Offset
	Leader id.Node
	// LeaderEpoch is that of the leader who answers; NoEpoch with an Err.
	LeaderEpoch id.Epoch
	Err         *kerr.Error
}

// NoEpoch stands where there is none.
const NoEpoch id.Epoch = -1

// OffsetQuery asks for one offset of one partition.
type OffsetQuery struct {
	Topic     string
	Partition id.Partition
	Time      int64 // milliseconds since 1970: the first record at or after it; or LatestTime, EarliestTime; else UNSUPPORTED_VERSION
}

// Offset is the answer to an OffsetQuery.
type Offset struct {
	Offset    id.Offset // id.NoOffset: no record is as late, or there is an Err
	Timestamp int64     // of the record, NoTimestamp for an end of the log
	Leader    id.Node
	Epoch     id.Epoch
	Err       *kerr.Error
}
