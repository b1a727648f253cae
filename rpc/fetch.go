package rpc

import (
	"context"

	"github.com/quorumlog/quorumlog/wal/id"
)

// FetchKind is what a FetchCommand asks for.
type FetchKind uint8

// The commands of a consumer.
const (
	Subscribe   FetchKind = 1 // push Topic/Partition from Offset, with Credit bytes to begin with, as Subscription
	Unsubscribe FetchKind = 2 // no more events of Subscription; those under way still arrive
	Credit      FetchKind = 3 // Credit more bytes of batches may be pushed to Subscription
)

// FetchCommand goes from the consumer to the node that leads the partition. Subscription is chosen by the client and
// never used twice on a stream.
type FetchCommand struct {
	Kind         FetchKind
	Subscription uint32
	Topic        id.Topic
	Partition    id.Partition
	Offset       id.Offset
	Credit       int64 // bytes of batches; a batch larger than the credit left is sent whole and makes it negative
}

// FetchEvent goes from the node to the consumer. Batches empty and CodeNone: the consumer has caught up at HighWatermark.
// Another code ends the subscription.
type FetchEvent struct {
	Subscription  uint32
	Code          Code
	HighWatermark id.Offset
	LogStart      id.Offset
	Leader        id.Node // with CodeNotLeaderOrFollower: who leads instead, or id.NoNode
	Message       string
	Batches       []byte // whole batches as stored; received: aliases the receive buffer until the callback returns
}

// FetchStream is the server's side of a consumer's stream.
type FetchStream struct{}

// Context ends when the stream does.
func (s *FetchStream) Context() context.Context { return context.Background() }

// Remote is the address of the consumer.
func (s *FetchStream) Remote() string { return "" }

// Recv calls f for each command until the stream ends; nil when the client closed it. f must not block and not send.
func (s *FetchStream) Recv(f func(FetchCommand)) error { return errStub }

// Send writes one event, and what Append has queued before it, and blocks while TCP does. Not on Recv's goroutine. Several
// goroutines may call it.
func (s *FetchStream) Send(e FetchEvent) error { return errStub }

// Append queues an event and writes the queue only when it holds a full message.
func (s *FetchStream) Append(e FetchEvent) error { return errStub }

// AppendRead is Append with batches that read appends to the stream's own buffer, which saves a copy. e.Batches is ignored;
// read returns its argument extended, as wal's Read does. An error of read queues nothing and is returned as it is.
func (s *FetchStream) AppendRead(e FetchEvent, read func(dst []byte) ([]byte, error)) error {
	return errStub
}

// Flush writes what Append has queued.
func (s *FetchStream) Flush() error { return errStub }

// FetchConn is the client's side of a fetch stream: one TCP connection to one node.
type FetchConn struct{}

// Send sends commands in one message.
func (c *FetchConn) Send(cmds ...FetchCommand) error { return errStub }

// Recv calls f for each event until the stream ends, and returns why: an *Error if the server said so. Call it once, on a
// goroutine of its own. f must not send, and should not block for long: the credit is what holds the server back.
func (c *FetchConn) Recv(f func(FetchEvent)) error { return errStub }

// Done is closed when the connection is broken or closed.
func (c *FetchConn) Done() <-chan struct{} { return nil }

// Close closes the connection.
func (c *FetchConn) Close() error { return nil }
