package client

import (
	"time"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/id"
)

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
	Error     string       `json:"error,omitempty"`
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
	// Partitions 0: the cluster's default.
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
	FsyncClass      string `json:"fsync_class"` // what its acknowledgements wait for; see Unsafe
	Leaders         int    `json:"leaders"`
	Replicas        int    `json:"replicas"`
	UnderReplicated int    `json:"under_replicated"`
	// RefusedReplicas are out for good: their disk did not keep, or does not give back, what they acknowledged. They have to be replaced.
	RefusedReplicas int    `json:"refused_replicas"`
	MetricsAddress  string `json:"metrics_address,omitempty"`
	Error           string `json:"error,omitempty"` // why the node could not be asked
	// The range of feature levels that the node's release can be part of.
	MinFeatureLevel int `json:"min_feature_level"`
	MaxFeatureLevel int `json:"max_feature_level"`
}

// Unsafe tells whether the node acknowledges records that a power failure may take: it was started with --unsafe-no-fsync, for
// comparisons.
func (n NodeStatus) Unsafe() bool { return n.FsyncClass == rpc.FsyncClassNone }

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
	// LeaderUnknown counts partitions whose leader, or all replicas, are on nodes that seem to be alive and did not answer in time.
	LeaderUnknown int `json:"leader_unknown"`
	// FeatureLevel is the cluster's, FeatureLevelKnown the highest that all its nodes know.
	FeatureLevel      int `json:"feature_level"`
	FeatureLevelKnown int `json:"feature_level_known"`
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
