package client

import (
	"fmt"
	"strconv"
	"time"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// The names under which the types of numbers and of identities are used with this package: who uses it needs no other import.
type (
	// TopicPartition names a partition: the fields Topic, a string, and Partition, a PartitionID. It is comparable, and prints as
	// "orders-3".
	TopicPartition = id.TopicPartition
	// PartitionID is the number of a partition within its topic, from 0.
	PartitionID = id.Partition
	// Offset is the number of a record within its partition, from 0. Below 0 are NoOffset, End, Beginning and AtTime.
	Offset = id.Offset
	// NodeID is the number of a node, from 0.
	NodeID = id.Node
	// TopicID tells a topic from another one that has its name: 16 bytes, shown as Kafka's tools do.
	TopicID = id.Topic
	// ReplicaID is the id of one incarnation of one replica.
	ReplicaID = id.Replica
	// Epoch is the leader epoch of a partition: it grows with each leader.
	Epoch = id.Epoch
	// Term is a Raft term, Index the number of an entry in a Raft log: in what is told about the groups of nodes.
	Term  = id.Term
	Index = id.Index
	// Header is a name and a value that travel with a record: the fields Key, a string, and Value, a []byte.
	Header = batch.Header
	// Compression is a codec. It reads and prints itself as text by Kafka's names: none, gzip, snappy, lz4, zstd.
	Compression = batch.Compression
)

const (
	// NoOffset says that the offset is not known, or that there is none.
	NoOffset Offset = id.NoOffset
	// NoPartition is the partition of a record that was given none, because it failed before.
	NoPartition PartitionID = -1
	// NoNode is the id of no node, as in "leader: none".
	NoNode NodeID = id.NoNode
)

// The codecs.
const (
	NoCompression Compression = batch.None
	Gzip          Compression = batch.Gzip
	Snappy        Compression = batch.Snappy
	LZ4           Compression = batch.LZ4
	Zstd          Compression = batch.Zstd
)

// ParseCompression returns the codec of a name.
func ParseCompression(name string) (Compression, error) {
	c, err := batch.ParseCompression(name)
	if err != nil {
		return c, fmt.Errorf("client: compression %q: use none, gzip, snappy, lz4 or zstd", name)
	}
	return c, nil
}

// Record is what a producer sends. Produce copies it: the caller may reuse Key, Value and Headers when it returns.
type Record struct {
	Topic     string
	Partition Choice // zero: where the key says
	Key       []byte // nil: no key
	Value     []byte // nil: a tombstone
	Headers   []Header
	Timestamp int64 // Unix milliseconds; 0: now
	// Opaque is the caller's own. It is not sent; the record's Ack brings it back.
	Opaque any
}

// Choice is the partition that a record goes to. The zero value chooses by the key as Kafka does, or, without a key, the same partition for
// a whole batch.
type Choice struct {
	named     bool
	partition PartitionID
}

// At chooses one partition: Record{Topic: "orders", Partition: client.At(3)}.
func At(p PartitionID) Choice { return Choice{true, p} }

// String returns the number of the partition, or "by key".
func (c Choice) String() string {
	if !c.named {
		return "by key"
	}
	return strconv.Itoa(int(c.partition))
}

// Ack is the outcome of one record.
type Ack struct {
	TopicPartition
	Offset    Offset // NoOffset with acks=0, and when a duplicate's offset is no longer known
	Timestamp int64  // of the record, Unix milliseconds
	Opaque    any    // of the Record
	Err       error
}

// String returns where the record is, orders-3@42, or why it failed.
func (a Ack) String() string { return placed(a.TopicPartition, a.Offset, a.Err) }

// BatchAck is the outcome of one batch.
type BatchAck struct {
	TopicPartition
	BaseOffset Offset // of its first record; the others follow without gaps
	Count      int
	Latency    time.Duration // since its first record was produced
	Err        error
}

// String returns where the batch is, and how many records it has: orders-3@42 (7 records), or why it failed.
func (a BatchAck) String() string {
	return fmt.Sprintf("%s (%d records, %v)", placed(a.TopicPartition, a.BaseOffset, a.Err), a.Count, a.Latency)
}

// placed is a place in a partition, or why there is none, as text.
func placed(tp TopicPartition, offset Offset, err error) string {
	switch {
	case err != nil && tp.Partition == NoPartition:
		return fmt.Sprintf("%s: %v", tp.Topic, err)
	case err != nil:
		return fmt.Sprintf("%s: %v", tp, err)
	case offset == NoOffset:
		return tp.String() + ": written, the offset is not known"
	}
	return fmt.Sprintf("%s@%d", tp, offset)
}

// Message is a record as a consumer sees it.
type Message struct {
	TopicPartition
	Offset    Offset
	Timestamp int64 // Unix milliseconds
	Key       []byte
	Value     []byte
	Headers   []Header
}

// textLimit bounds what String shows of a key.
const textLimit = 64

// String returns where the message is, its key, and how large it is: orders-3@42 key "alice" (17 bytes).
func (m Message) String() string {
	size := fmt.Sprintf("%d bytes", len(m.Value))
	if m.Value == nil {
		size = "no value"
	}
	if m.Key == nil {
		return fmt.Sprintf("%s@%d (%s)", m.TopicPartition, m.Offset, size)
	}
	key, more := m.Key, ""
	if len(key) > textLimit {
		key, more = key[:textLimit], "..."
	}
	return fmt.Sprintf("%s@%d key %q%s (%s)", m.TopicPartition, m.Offset, key, more, size)
}
