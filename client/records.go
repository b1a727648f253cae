package client

import (
	"fmt"
	"iter"
	"slices"

	"github.com/quorumlog/quorumlog/wal/batch"
)

// Fetch is a run of records of one partition.
type Fetch struct {
	TopicPartition
	// HighWatermark is the offset after the last committed record, as of this fetch.
	HighWatermark Offset
	// LogStart is the offset of the first record that the partition holds; -1 while a new leader does not know it yet.
	LogStart Offset
	// Next is the offset at which the next fetch of the partition goes on.
	Next Offset
	// CaughtUp says that Next has reached HighWatermark.
	CaughtUp bool

	batches []byte // checked, whole batches
	from    Offset // records below are not the caller's
}

// String returns where the fetch is, and what the partition holds: orders-3 up to 42 (17000 bytes, high watermark 50).
func (f Fetch) String() string {
	return fmt.Sprintf("%s up to %d (%d bytes, high watermark %d)", f.TopicPartition, f.Next, len(f.batches), f.HighWatermark)
}

// Bytes is the size of the batches.
func (f Fetch) Bytes() int { return len(f.batches) }

// Records yields the records in order. A *BatchError stands for those of a batch that cannot be decompressed or read to its end; whoever goes
// on gets what follows it. Key, Value and Headers are valid until the next Poll.
func (f Fetch) Records() iter.Seq2[Message, error] {
	return func(yield func(Message, error) bool) {
		m := Message{TopicPartition: f.TopicPartition}
		for rest := f.batches; len(rest) > 0; {
			var b batch.Batch
			var err error
			if b, rest, err = batch.Next(rest); err != nil {
				yield(Message{}, &PartitionError{f.TopicPartition, err})
				return
			}
			if b.NextOffset() <= f.from {
				continue
			}
			// A reader of its own for each batch: what it decompresses has to last until the next Poll.
			var r batch.Reader
			for r.Reset(b, batch.DefaultLimit); r.Next(); {
				if m.Offset = r.Offset(); m.Offset < f.from {
					continue
				}
				record := r.Record()
				m.Timestamp, m.Key, m.Value, m.Headers = record.Timestamp, record.Key, record.Value, slices.Clone(record.Headers)
				if !yield(m, nil) {
					return
				}
			}
			if err := r.Err(); err != nil {
				if !yield(Message{}, &BatchError{f.TopicPartition, max(r.Offset()+1, f.from), b.NextOffset(), err}) {
					return
				}
			}
		}
	}
}
