package client

import (
	"errors"
	"fmt"

	"github.com/quorumlog/quorumlog/wal/id"
)

var (
	// ErrClosed is returned by calls on a closed client, producer or consumer, and for records that Close gave up on.
	ErrClosed = errors.New("client: closed")
	// ErrDeliveryTimeout marks records that got no acknowledgement in time. Whether they were written is not known.
	ErrDeliveryTimeout = errors.New("client: delivery timeout")
	// ErrUnknownTopic marks calls that name a topic which no node knows.
	ErrUnknownTopic = errors.New("client: unknown topic")
	// ErrUnknownPartition marks calls that name a partition which its topic does not have.
	ErrUnknownPartition = errors.New("client: unknown partition")
	// ErrNotAssigned is returned by Poll of a consumer without partitions.
	ErrNotAssigned = errors.New("client: no partition is assigned")
	// ErrUnacknowledged marks records behind one whose outcome could not be learned: whether they were written is not known
	// either, and sending them again might repeat them.
	ErrUnacknowledged = errors.New("client: an earlier batch of the partition has failed, the outcome of this one is not known")
)

// ErrWrongCluster is what every WrongClusterError is, in the sense of errors.Is.
var ErrWrongCluster = errors.New("client: a server belongs to another cluster")

// WrongClusterError says that a server belongs to another cluster than the one that the client uses: its answers are not used.
type WrongClusterError struct {
	Server       string
	Ours, Theirs string // cluster ids; Theirs is empty if the server refused to answer
	Err          error  // its refusal, if it did
}

func (e *WrongClusterError) Error() string {
	remedy := "name servers of one cluster only, or the id of the right one"
	if e.Err != nil {
		return fmt.Sprintf("client: %s refuses calls for cluster %s (%v): %s", e.Server, e.Ours, e.Err, remedy)
	}
	return fmt.Sprintf("client: %s belongs to cluster %s, this client uses cluster %s: %s", e.Server, e.Theirs, e.Ours, remedy)
}

// Is makes every WrongClusterError an ErrWrongCluster.
func (e *WrongClusterError) Is(target error) bool { return target == ErrWrongCluster }

// Unwrap returns the server's refusal.
func (e *WrongClusterError) Unwrap() error { return e.Err }

// RecordTooLargeError says that a record does not fit into a batch that its topic accepts.
type RecordTooLargeError struct {
	Topic string
	Size  int // of a batch that holds only this record, in bytes
	Limit int // max.message.bytes of the topic
}

func (e *RecordTooLargeError) Error() string {
	return fmt.Sprintf("client: record of %d bytes is larger than max.message.bytes of topic %q (%d): split it, or raise the topic's limit", e.Size, e.Topic, e.Limit)
}

// OutOfRangeError says that a consumer's offset is not, or no longer, in the partition.
type OutOfRangeError struct {
	id.TopicPartition
	Offset     id.Offset // wanted
	Start, End id.Offset // first offset that exists, and the one after the last committed
}

func (e *OutOfRangeError) Error() string {
	return fmt.Sprintf("client: offset %d of %s is out of range: the log holds offsets %d to %d (exclusive)", e.Offset, e.TopicPartition, e.Start, e.End)
}

// PartitionError is what went wrong with one partition.
type PartitionError struct {
	id.TopicPartition
	Err error
}

func (e *PartitionError) Error() string {
	return fmt.Sprintf("client: %s: %v", e.TopicPartition, e.Err)
}

// Unwrap returns the cause.
func (e *PartitionError) Unwrap() error { return e.Err }
