package id

import (
	"encoding/base64"
	"fmt"

	"github.com/google/uuid"
)

// Node is the id of a node: unique in the cluster, chosen by the operator, kept for the life of a data directory.
type Node int32

// NoNode is the id of no node, as in "leader: none".
const NoNode Node = -1

// Group is the id of a Raft group, one for each partition. It is allocated by the metadata and never used again.
type Group uint64

// MetadataGroup is the group of __cluster_metadata-0: the only one that is not allocated by the metadata.
const MetadataGroup Group = 1

// Replica is one incarnation of one member of a group, and its id in the Raft sense. It is allocated by the metadata, used
// once and never again: a replica that lost its disk comes back under another id. 0 is no replica.
type Replica uint64

// NoReplica is the id of no replica.
const NoReplica Replica = 0

// Partition is the number of a partition within its topic, dense from 0.
type Partition int32

// Offset is the number of a record within its partition, dense from 0. Never mixed with Index.
type Offset int64

// NoOffset says that there is no offset: the batch was refused, or nothing is there.
const NoOffset Offset = -1

// Index is the number of an entry in a Raft log. Never mixed with Offset.
type Index uint64

// Term is a Raft term.
type Term uint64

// Epoch is a Raft term as Kafka's clients see it: the leader epoch that is stamped into each batch.
type Epoch int32

// EpochOf returns the leader epoch of a term. Terms grow by one an election; 2^31 of them are out of reach.
func EpochOf(t Term) Epoch { return Epoch(t) }

// Position is a byte position in a segment file.
type Position int64

// Producer is a producer id, allocated by the metadata. NoProducer is that of a producer without idempotence.
type Producer int64

// NoProducer marks batches of producers that are not idempotent.
const NoProducer Producer = -1

// ProducerEpoch fences earlier incarnations of the same producer id.
type ProducerEpoch int16

// Sequence is the number of a record among those that a producer sent to one partition. It wraps after 2^31-1 to 0.
type Sequence int32

// Add returns the sequence n records after s, wrapping as Kafka's does.
func (s Sequence) Add(n int32) Sequence {
	return Sequence((int64(s) + int64(n)) & 0x7fffffff)
}

// Topic is the identity of a topic: two topics of the same name, one created after the other was deleted, differ.
type Topic [16]byte

// NewTopic returns a fresh random topic id.
func NewTopic() Topic { return Topic(uuid.New()) }

// IsZero tells whether t is no topic.
func (t Topic) IsZero() bool { return t == Topic{} }

// String prints the id as Kafka's tools do: unpadded URL-safe base64, 22 characters.
func (t Topic) String() string { return base64.RawURLEncoding.EncodeToString(t[:]) }

// MarshalText implements encoding.TextMarshaler with the form of String.
func (t Topic) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler for the form of String.
func (t *Topic) UnmarshalText(text []byte) error {
	b, err := base64.RawURLEncoding.DecodeString(string(text))
	if err != nil || len(b) != len(t) {
		return fmt.Errorf("id: %q is not a topic id (22 characters of URL-safe base64)", text)
	}
	copy(t[:], b)
	return nil
}

// TopicPartition names a partition as people do.
type TopicPartition struct {
	Topic     string
	Partition Partition
}

// String prints topic-partition, which is also the name of the partition's directory.
func (tp TopicPartition) String() string { return fmt.Sprintf("%s-%d", tp.Topic, tp.Partition) }
