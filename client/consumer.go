package client

import (
	"context"
	"iter"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Consumer reads assigned partitions. Within one consumer no record comes twice and none is left out. It belongs to one
// goroutine; Close may be called from any.
type Consumer struct {
	client *Client
	opts   ConsumerOptions
}

// NewConsumer returns a consumer without partitions.
func (c *Client) NewConsumer(o ConsumerOptions) (*Consumer, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Consumer{client: c, opts: o.withDefaults()}, nil
}

// Assign adds a partition, to be read from offset, Beginning or End on; if it is assigned already, it moves there. It does
// not wait: a partition that does not exist shows in Poll.
func (c *Consumer) Assign(tp id.TopicPartition, offset id.Offset) error { return ErrClosed }

// Unassign removes a partition.
func (c *Consumer) Unassign(tp id.TopicPartition) {}

// Poll waits for records of any partition, or for the news that a partition has no more for now (Fetch.CaughtUp). What it
// returns is valid until the next call. Errors about one partition are a *PartitionError or an *OutOfRangeError: that
// partition is no longer assigned, the others go on.
func (c *Consumer) Poll(ctx context.Context) (Fetch, error) { return Fetch{}, ErrClosed }

// Close stops the consumer.
func (c *Consumer) Close() error { return nil }

// Fetch is a run of records of one partition.
type Fetch struct {
	id.TopicPartition
	// HighWatermark is the offset after the last committed record, as of this fetch.
	HighWatermark id.Offset
	// LogStart is the offset of the first record that the partition holds.
	LogStart id.Offset
	// Next is the offset at which the next fetch of the partition goes on.
	Next id.Offset
	// CaughtUp says that Next has reached HighWatermark.
	CaughtUp bool

	batches []byte    // checked, whole batches
	from    id.Offset // records below are not the caller's
}

// Bytes is the size of the batches.
func (f Fetch) Bytes() int { return len(f.batches) }

// Records yields the records in order; an error (a batch that cannot be decompressed) is the last thing it yields. Key,
// Value and Headers are valid until the next Poll.
func (f Fetch) Records() iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {}
}
