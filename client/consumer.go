package client

import (
	"context"
	"sync"
	"time"
)

// Consumer reads assigned partitions. Within one consumer no record comes twice and none is left out. It belongs to one
// goroutine; Close may be called from any.
type Consumer struct {
	client *Client
	opts   ConsumerOptions

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{} // capacity 1: the housekeeper has something to do
	news   chan struct{} // capacity 1: Poll has
	// patience is Poll's: when it looks next whether anybody is there. nil: it has not waited yet.
	patience *time.Timer
	spare    bufferPool

	mu struct {
		sync.Mutex
		cursors       map[TopicPartition]*cursor
		streams       map[NodeID]*fetchStream
		backoff       map[NodeID]nodeBackoff
		deliveries    []*delivery // in the order of their arrival
		handedOut     *delivery   // by the last Poll
		held          int64       // bytes of those
		reserved      int64       // bytes that may be on their way
		thirsty       []*cursor   // wait for room, the longest first; each has queued set
		subscriptions uint32      // given out so far
		asked         time.Time   // for metadata, because of silence
	}
}
