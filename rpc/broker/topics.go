package broker

import (
	"context"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Topics is what there is, and who leads it.
type Topics interface {
	// Metadata answers from this node's copy of the metadata.
	Metadata(ctx context.Context, c *Caller, q MetadataQuery) (*Metadata, error)
	// PartitionStatus returns what this node's replica knows about its group.
	PartitionStatus(ctx context.Context, c *Caller, topic string, p id.Partition) (*PartitionStatus, error)
}

// MetadataQuery selects topics.
type MetadataQuery struct {
	Topics []string   // by name
	IDs    []id.Topic // by id, beside those
	All    bool       // all there are, instead
}

// Metadata is what a client has to know to find everything.
type Metadata struct {
	ClusterID  string
	Controller id.Node
	Nodes      []Node
	Topics     []Topic
	Index      id.Index // of the metadata's log that this reflects: answers of two nodes can be ordered by it
	// Age is how old what this node knows may be: since it last had word from the leader of the metadata, or, where it leads that itself, from
	// a majority. Negative: not since its start, or it cannot tell yet who leads one of the topics.
	Age time.Duration
}

// Node is a registered node.
type Node struct {
	ID                                       id.Node
	RPCAddress, GossipAddress, Rack, Version string
	KafkaAddress                             string // for clients of Kafka's protocol; empty: none is known
	Alive                                    bool   // as it seems
}

// Topic is a topic, or a name that no topic has.
type Topic struct {
	Name              string
	ID                id.Topic
	Partitions        []Partition
	Configs           map[string]string // the topic's own
	ReplicationFactor int
	Err               *kerr.Error // there is none of that name, or of that ID; the rest is empty
}

// Partition is where a partition is.
type Partition struct {
	ID            id.Partition
	Group         id.Group
	Leader        id.Node // id.NoNode: none is known
	Epoch         id.Epoch
	Replicas, ISR []id.Node // the ISR is empty where the leader's word is not known. Not to be changed
}

// PartitionStatus is what a replica knows about its group.
type PartitionStatus struct {
	Group            id.Group
	Replica          id.Replica
	Role             string // for people
	Leader           id.Node
	Epoch            id.Epoch
	HighWatermark    id.Offset
	LogStart, LogEnd id.Offset // the start is id.NoOffset while a new leader does not know it yet
	Commit, Applied  id.Index
	ISR              []id.Node // known to the leader alone
	Members          []Member
	Condemned        bool // its disk did not give back what was written
}

// Member is a replica as another one knows it.
type Member struct {
	Node            id.Node
	Replica         id.Replica
	Match           id.Index
	InSync, Learner bool
	LastAck         time.Duration // ago; negative: never in this term
}
