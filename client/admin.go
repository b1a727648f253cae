package client

import (
	"context"
	"time"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Admin is the calls for topics and the cluster. Each may be sent to any node; it is repeated at other nodes, and at the
// controller where only that one can do it, until it is answered or its context ends.
type Admin struct{ client *Client }

// Node is a node as the cluster's metadata knows it.
type Node struct {
	ID            id.Node `json:"id"`
	Address       string  `json:"address"` // of rpc
	GossipAddress string  `json:"gossip_address,omitempty"`
	Rack          string  `json:"rack,omitempty"`
	Alive         bool    `json:"alive"`
	Version       string  `json:"version,omitempty"`
}

// Partition is the state of a partition.
type Partition struct {
	Partition id.Partition `json:"partition"`
	Leader    id.Node      `json:"leader"` // id.NoNode: none
	Epoch     id.Epoch     `json:"epoch"`
	Replicas  []id.Node    `json:"replicas"` // preferred leader first
	ISR       []id.Node    `json:"isr"`
	Err       error        `json:"-"`
}

// Topic is a topic as the cluster's metadata knows it.
type Topic struct {
	Name       string            `json:"name"`
	ID         id.Topic          `json:"id"`
	Partitions []Partition       `json:"partitions"`
	Configs    map[string]string `json:"configs"`
	// ReplicationFactor is the number of replicas of each partition.
	ReplicationFactor int  `json:"replication_factor"`
	Internal          bool `json:"internal,omitempty"`
}

// Metadata is what every node knows about the cluster.
type Metadata struct {
	ClusterID  string  `json:"cluster_id"`
	Controller id.Node `json:"controller"`
	Nodes      []Node  `json:"nodes"`
	Topics     []Topic `json:"topics"`
}

// TopicSpec says how a topic is created.
type TopicSpec struct {
	Name string
	// Partitions is at least 1. 0: the cluster's default.
	Partitions int
	// ReplicationFactor 0: the cluster's default, which is 3, or the number of nodes when there are fewer.
	ReplicationFactor int
	Configs           map[string]string
}

// OffsetRange is what a partition holds.
type OffsetRange struct {
	id.TopicPartition
	Start id.Offset // of the first record
	End   id.Offset // the high watermark: after the last committed record
}

// NodeStatus is what a node tells about itself, or what the others know when it does not answer.
type NodeStatus struct {
	Node
	State           string `json:"state"`
	Protocol        string `json:"protocol"`
	AcceptsProduce  bool   `json:"accepts_produce"`
	DiskFreeBytes   int64  `json:"disk_free_bytes"`
	DiskTotalBytes  int64  `json:"disk_total_bytes"`
	FsyncClass      string `json:"fsync_class"`
	Leaders         int    `json:"leaders"`
	Replicas        int    `json:"replicas"`
	UnderReplicated int    `json:"under_replicated"`
	MetricsAddress  string `json:"metrics_address,omitempty"`
	Error           string `json:"error,omitempty"` // why the node could not be asked
}

// MetadataQuorum is the group that holds the cluster's metadata.
type MetadataQuorum struct {
	Leader   id.Node   `json:"leader"`
	Term     id.Term   `json:"term"`
	Commit   id.Index  `json:"commit"`
	Voters   []id.Node `json:"voters"`
	Learners []id.Node `json:"learners"`
}

// ClusterStatus is the state of the whole cluster.
type ClusterStatus struct {
	ClusterID       string         `json:"cluster_id"`
	ClusterName     string         `json:"cluster_name"`
	Controller      id.Node        `json:"controller"`
	AnsweredBy      id.Node        `json:"answered_by"`
	Nodes           []NodeStatus   `json:"nodes"`
	Metadata        MetadataQuorum `json:"metadata"`
	Topics          int            `json:"topics"`
	Partitions      int            `json:"partitions"`
	UnderReplicated int            `json:"under_replicated"`
	Leaderless      int            `json:"leaderless"`
}

// PartitionStatus is what the leader of a partition knows about its replicas.
type PartitionStatus struct {
	id.TopicPartition
	Leader        id.Node
	Epoch         id.Epoch
	Start         id.Offset // of the first record
	HighWatermark id.Offset
	LogEnd        id.Offset // after the last appended record, committed or not
	ISR           []id.Node
	Members       []PartitionMember
}

// PartitionMember is a replica as the leader sees it.
type PartitionMember struct {
	Node    id.Node
	Replica id.Replica
	Match   id.Index // the last entry it has on disk
	InSync  bool
	Learner bool
	LastAck time.Duration // ago; negative: never in this term
}

// Metadata returns the cluster, with the named topics, or all of them when none is named.
func (a *Admin) Metadata(ctx context.Context, topics ...string) (Metadata, error) {
	return Metadata{}, ErrClosed
}

// CreateTopic creates a topic and returns it once its partitions have leaders, or when ctx ends.
func (a *Admin) CreateTopic(ctx context.Context, t TopicSpec) error { return ErrClosed }

// DeleteTopic deletes a topic and its records.
func (a *Admin) DeleteTopic(ctx context.Context, name string) error { return ErrClosed }

// ListTopics returns the names of all topics, sorted.
func (a *Admin) ListTopics(ctx context.Context) ([]string, error) { return nil, ErrClosed }

// DescribeTopics returns the named topics, or all, sorted by name. One that does not exist is an error.
func (a *Admin) DescribeTopics(ctx context.Context, names ...string) ([]Topic, error) {
	return nil, ErrClosed
}

// AlterConfig sets and removes settings of a topic, in one step.
func (a *Admin) AlterConfig(ctx context.Context, topic string, set map[string]string, remove []string) error {
	return ErrClosed
}

// Offsets returns what the partitions of a topic hold, in the order of the partitions.
func (a *Admin) Offsets(ctx context.Context, topic string) ([]OffsetRange, error) {
	return nil, ErrClosed
}

// ClusterStatus returns the state of the cluster.
func (a *Admin) ClusterStatus(ctx context.Context) (ClusterStatus, error) {
	return ClusterStatus{}, ErrClosed
}

// PartitionStatus returns what the leader of a partition knows.
func (a *Admin) PartitionStatus(ctx context.Context, tp id.TopicPartition) (PartitionStatus, error) {
	return PartitionStatus{}, ErrClosed
}

// TransferLeader asks the leader of a partition to hand over to the replica on node to.
func (a *Admin) TransferLeader(ctx context.Context, tp id.TopicPartition, to id.Node) error {
	return ErrClosed
}
