package client

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// What a node refuses is one of these in the sense of errors.Is, whoever met it: a call, an Ack, Poll. This is the whole table of the codes
// that mean something to a program; of the others the text says what there is to know.
var (
	// ErrUnknownTopic: there is no such topic, or it has no such partition.
	ErrUnknownTopic error = kerr.NewClass("client: unknown topic", kerr.UnknownTopicOrPartition, kerr.UnknownTopicID)
	// ErrTopicExists: there is a topic of that name.
	ErrTopicExists error = kerr.NewClass("client: topic exists", kerr.TopicAlreadyExists)
	// ErrNotAuthorized: the principal may not do that with this topic, group, transaction or cluster.
	ErrNotAuthorized error = kerr.NewClass("client: not authorized", kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed,
		kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed)
	// ErrNotAuthenticated: the node does not believe who this client says it is.
	ErrNotAuthenticated error = kerr.NewClass("client: not authenticated", kerr.SASLAuthenticationFailed, kerr.UnsupportedSASLMechanism,
		kerr.IllegalSASLState)
	// ErrInvalidTopic: no topic can have that name.
	ErrInvalidTopic error = kerr.NewClass("client: invalid topic name", kerr.InvalidTopic)
	// ErrInvalidPartitions: no topic can have that number of partitions.
	ErrInvalidPartitions error = kerr.NewClass("client: invalid number of partitions", kerr.InvalidPartitions)
	// ErrInvalidReplicationFactor: no topic can have that number of replicas, or there are too few nodes for it now.
	ErrInvalidReplicationFactor error = kerr.NewClass("client: invalid replication factor", kerr.InvalidReplicationFactor)
	// ErrInvalidConfig: there is no such setting, or it cannot have that value.
	ErrInvalidConfig error = kerr.NewClass("client: invalid setting", kerr.InvalidConfig)
	// ErrInvalidRecord: the partition does not take such a record, or one with such a timestamp.
	ErrInvalidRecord error = kerr.NewClass("client: invalid record", kerr.InvalidRecord, kerr.InvalidTimestamp)
	// ErrInvalidRequest: what was asked makes no sense to the node.
	ErrInvalidRequest error = kerr.NewClass("client: invalid request", kerr.InvalidRequest)
	// ErrPolicyViolation: it could be done, and the cluster's operators do not want it.
	ErrPolicyViolation error = kerr.NewClass("client: against a policy of the cluster", kerr.PolicyViolation)
	// ErrThrottled: the quota is used up for now.
	ErrThrottled error = kerr.NewClass("client: throttled", kerr.ThrottlingQuotaExceeded)
	// ErrRecordTooLarge: the record does not fit into a batch that the topic takes. See RecordTooLargeError.
	ErrRecordTooLarge error = kerr.NewClass("client: record too large", kerr.MessageTooLarge)
	// ErrOffsetOutOfRange: the offset is not, or no longer, in the partition. See OutOfRangeError.
	ErrOffsetOutOfRange error = kerr.NewClass("client: offset out of range", kerr.OffsetOutOfRange)
	// ErrNotEnoughReplicas: fewer replicas are in sync than the topic demands of an acknowledgement.
	ErrNotEnoughReplicas error = kerr.NewClass("client: not enough replicas in sync", kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfter)
	// ErrFenced: the partition knows a newer incarnation of this producer, and takes nothing from this one.
	ErrFenced error = kerr.NewClass("client: fenced by a newer producer", kerr.InvalidProducerEpoch)
	// ErrUnsupportedVersion: the node is of a release that does not know this call, or the cluster is at a feature level that does not have it.
	ErrUnsupportedVersion error = kerr.NewClass("client: unsupported by this release of the cluster", kerr.UnsupportedVersion)
)

// What the client finds itself.
var (
	// ErrClosed is returned by calls on a closed client, producer or consumer, and for records that Close gave up on.
	ErrClosed = errors.New("client: closed")
	// ErrNoNodeReachable says that no node has answered for a while: neither those that Options name nor those heard of since. What the
	// last attempts failed with is wrapped with it. The client keeps trying.
	ErrNoNodeReachable = errors.New("client: no node can be reached")
	// ErrDeliveryTimeout marks records that got no acknowledgement in time. Whether they were written is not known.
	ErrDeliveryTimeout = errors.New("client: delivery timeout")
	// ErrUnknownPartition marks calls that name a partition which its topic does not have.
	ErrUnknownPartition = errors.New("client: unknown partition")
	// ErrNotAssigned is returned by Poll of a consumer without partitions.
	ErrNotAssigned = errors.New("client: no partition is assigned")
	// ErrUnacknowledged marks records behind one whose outcome could not be learned: whether they were written is not known
	// either, and sending them again might repeat them.
	ErrUnacknowledged = errors.New("client: an earlier batch of the partition has failed, the outcome of this one is not known")
)

// ErrTopicRecreated marks what belonged to a topic that was deleted, and whose name another one has now: the offset at which a consumer was, or a
// record on its way to a partition that the new topic does not have. It is an ErrUnknownTopic as well.
var ErrTopicRecreated = fmt.Errorf("%w: it was deleted, and another one was created under its name", ErrUnknownTopic)

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

// Is makes every RecordTooLargeError an ErrRecordTooLarge.
func (e *RecordTooLargeError) Is(target error) bool { return target == ErrRecordTooLarge }

// OutOfRangeError says that a consumer's offset is not, or no longer, in the partition.
type OutOfRangeError struct {
	TopicPartition
	Offset     Offset // wanted
	Start, End Offset // first offset that exists, and the one after the last committed
}

func (e *OutOfRangeError) Error() string {
	return fmt.Sprintf("client: offset %d of %s is out of range: the log holds offsets %d to %d (exclusive)", e.Offset, e.TopicPartition, e.Start, e.End)
}

// Is makes every OutOfRangeError an ErrOffsetOutOfRange.
func (e *OutOfRangeError) Is(target error) bool { return target == ErrOffsetOutOfRange }

// PartitionError is what went wrong with one partition.
type PartitionError struct {
	TopicPartition
	Err error
}

func (e *PartitionError) Error() string {
	return fmt.Sprintf("client: %s: %v", e.TopicPartition, e.Err)
}

// Unwrap returns the cause.
func (e *PartitionError) Unwrap() error { return e.Err }

// BatchError says that records of a batch cannot be had: it cannot be decompressed, or its bytes are damaged wherever they were read. The
// consumer goes on behind it.
type BatchError struct {
	TopicPartition
	Offset Offset // of the first record that is missing
	Next   Offset // where the consumer goes on
	Err    error
}

func (e *BatchError) Error() string {
	return fmt.Sprintf("client: the records of %s from offset %d to %d cannot be read, %d is the next one: %v", e.TopicPartition, e.Offset, e.Next-1, e.Next, e.Err)
}

// Unwrap returns the cause.
func (e *BatchError) Unwrap() error { return e.Err }

// RecordError says that a record was refused for what it is. The records that were sent with it are not concerned.
type RecordError struct {
	TopicPartition
	Timestamp int64  // of the record, Unix milliseconds
	Key       []byte // of the record
	Err       error  // the node's refusal
}

func (e *RecordError) Error() string {
	return fmt.Sprintf("client: the record of %s with timestamp %d (%s) and key %s is refused: %v",
		e.TopicPartition, e.Timestamp, time.UnixMilli(e.Timestamp).UTC().Format(time.RFC3339), quoteKey(e.Key), e.Err)
}

// Unwrap returns the node's refusal.
func (e *RecordError) Unwrap() error { return e.Err }

// quoteKey is a key for people, cut short.
func quoteKey(key []byte) string {
	const most = 64
	switch {
	case key == nil:
		return "none"
	case len(key) > most:
		return fmt.Sprintf("%q...", key[:most])
	}
	return fmt.Sprintf("%q", key)
}

// at says where an error comes from, unless it says so itself.
func at(server string, err error) error {
	if strings.Contains(err.Error(), server) {
		return err
	}
	return fmt.Errorf("%s: %w", server, err)
}

// isFinal tells whether an error is a refusal that will be the same when it is asked again.
func isFinal(err error) bool {
	var refused *kerr.Error
	return errors.As(err, &refused) && !refused.Code.Retriable() && refused.Code != kerr.Unknown
}

// otherRelease tells of what a refresh failed with whether that is because no node speaks a version of the protocol that this client speaks:
// waiting does not help, and what they say does.
func otherRelease(failed error) bool {
	all, ok := failed.(interface{ Unwrap() []error })
	if !ok {
		return false
	}
	for _, err := range all.Unwrap() {
		if kerr.CodeOf(err) != kerr.UnsupportedVersion {
			return false
		}
	}
	return true
}
