package rpc

import (
	"context"
	"errors"
	"time"

	"github.com/quorumlog/quorumlog/wal/id"
)

var errStub = errors.New("rpc: stub")

// Acks says what a producer waits for.
type Acks int8

// Kafka's values.
const (
	AcksAll    Acks = -1 // committed, and on min.insync.replicas voters
	AcksNone   Acks = 0  // nothing: there is no answer at all
	AcksLeader Acks = 1  // the leader's own disk
)

// ProduceRequest carries exactly one record batch to the leader of a partition.
type ProduceRequest struct {
	Correlation uint64 // chosen by the client, returned in the answer
	Topic       id.Topic
	Partition   id.Partition
	Acks        Acks
	Timeout     time.Duration // milliseconds on the wire
	Batch       []byte        // received: aliases the receive buffer until the callback returns
}

// ProduceResponse answers one ProduceRequest. Answers of different partitions come in any order.
type ProduceResponse struct {
	Correlation uint64
	Code        Code
	BaseOffset  id.Offset // id.NoOffset unless Code is CodeNone
	Leader      id.Node   // with CodeNotLeaderOrFollower: who leads instead, or id.NoNode
	Epoch       id.Epoch
	Message     string // empty on success
}

// Limits is what a server tells a producer when the stream opens.
type Limits struct {
	Node          id.Node // who answers at this address
	MaxBatchBytes int     // a larger batch is refused with CodeMessageTooLarge
	InFlightBytes int     // bytes of unanswered batches; beyond it requests may be refused with CodeThrottlingQuotaExceeded
}

// ProduceStream is the server's side of a producer's stream.
type ProduceStream struct{}

// Context ends when the stream does.
func (s *ProduceStream) Context() context.Context { return context.Background() }

// Remote is the address of the producer.
func (s *ProduceStream) Remote() string { return "" }

// Recv calls f for each request, in the order in which the client sent them, until the stream ends. It returns nil when
// the client closed it. f must not block: while it runs nothing is read, and a broken connection goes unnoticed.
func (s *ProduceStream) Recv(f func(ProduceRequest)) error { return errStub }

// Send queues an answer. It never blocks; any goroutine may call it, also after the stream has ended. A client that lets
// answers pile up beyond a bound loses its stream.
func (s *ProduceStream) Send(r ProduceResponse) {}

// Fail ends the stream with err: Recv returns, and the client sees err's code and text.
func (s *ProduceStream) Fail(err error) {}

// ProduceConn is the client's side of a produce stream: one TCP connection to one node.
type ProduceConn struct{}

// Limits returns what the server said when the stream opened.
func (c *ProduceConn) Limits() Limits { return Limits{} }

// Send queues a request in the connection's own buffer and writes that out when it is full; the batch is copied. It blocks
// while TCP does. Call Flush when there is nothing more to send right now. Several goroutines may call Send.
func (c *ProduceConn) Send(r ProduceRequest) error { return errStub }

// Flush writes out what Send has queued.
func (c *ProduceConn) Flush() error { return errStub }

// Recv calls f for each answer until the stream ends, and returns why: an *Error if the server said so. Call it once, on
// a goroutine of its own that does not send. Message is the only part of the answer that is allocated.
func (c *ProduceConn) Recv(f func(ProduceResponse)) error { return errStub }

// Done is closed when the connection is broken or closed.
func (c *ProduceConn) Done() <-chan struct{} { return nil }

// Close closes the connection; requests that are not answered yet never will be.
func (c *ProduceConn) Close() error { return nil }
