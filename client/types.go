package client

import (
	"time"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// AnyPartition lets the producer choose: by the key as Kafka does, or, without a key, the same partition for a whole batch.
const AnyPartition id.Partition = -1

// Header is a name and a value that travel with a record.
type Header = batch.Header

// Record is what a producer sends. Produce copies it: the caller may reuse Key, Value and Headers when it returns.
type Record struct {
	Topic     string
	Partition id.Partition // AnyPartition, or an explicit one
	Key       []byte       // nil: no key
	Value     []byte       // nil: a tombstone
	Headers   []Header
	Timestamp int64 // Unix milliseconds; 0: now
}

// Ack is the outcome of one record.
type Ack struct {
	id.TopicPartition
	Offset id.Offset // id.NoOffset with acks=0, and when a duplicate's offset is no longer known
	Err    error
}

// BatchAck is the outcome of one batch.
type BatchAck struct {
	id.TopicPartition
	BaseOffset id.Offset // of its first record; the others follow without gaps
	Count      int
	Latency    time.Duration // since its first record was produced
	Err        error
}

// Message is a record as a consumer sees it.
type Message struct {
	id.TopicPartition
	Offset    id.Offset
	Timestamp int64 // Unix milliseconds
	Key       []byte
	Value     []byte
	Headers   []Header
}
