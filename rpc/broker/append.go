package broker

import (
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Acks says what a producer waits for.
type Acks int8

// Kafka's values.
const (
	AcksAll    Acks = -1 // committed, and on min.insync.replicas voters
	AcksNone   Acks = 0  // nothing: there is no answer at all
	AcksLeader Acks = 1  // the leader's own disk
)

// Loan is memory that its owner uses again when the last reference is released.
type Loan interface {
	Retain()
	Release()
}

// Appends is where records come in.
type Appends interface {
	// OpenAppender begins what one connection appends. answered is called at the end of each turn in which Done was called for some of it,
	// once however many those were: what was said to the client is worth sending now. It must not block.
	OpenAppender(c *Caller, answered func()) Appender
}

// Appender appends the batches of one connection, for the one goroutine that receives them. It has no end of its own: what has not been
// answered when the connection is gone is answered all the same.
type Appender interface {
	// Append takes one batch to the leader of its partition. It does not block. The broker owns a until it calls a.Done, which it does
	// once, and maybe before Append returns.
	Append(a *Append)
	// End says that all batches that came together have been appended: turns are taken once for them, not once for each. It does not
	// block, but may work for a turn.
	End()
}

// Append is one batch on its way into a partition, and its outcome. Whoever appends owns it and uses it again: a batch in flight costs no
// allocation. A request with several partitions, as Kafka's, is several of these with one Owner that counts them.
type Append struct {
	Topic     id.Topic
	Partition id.Partition
	Acks      Acks
	Timeout   time.Duration // for its commit; 0: the broker's default
	// Batch is one record batch as it came. It is lent until Append returns; the broker keeps it by a reference of Data, if it is most of the
	// Memory bytes that Data keeps, and else by a copy, or a few small batches would keep the memory of many. Base offset and leader epoch
	// are written into it.
	Batch  []byte
	Data   Loan // nil: the memory is the caller's
	Memory int

	// Done takes the outcome. It runs in a turn of the partition's worker, or inside of Append; it must not block, and not append. From its
	// call on the Append is the caller's again.
	Done  func(*Append)
	Owner any // the caller's own

	// The outcome. Leader and Epoch are, with an Err of kerr.NotLeaderOrFollower, who leads instead as far as this node knows.
	Err        *kerr.Error
	BaseOffset id.Offset // id.NoOffset with an Err
	Leader     id.Node
	Epoch      id.Epoch
}
