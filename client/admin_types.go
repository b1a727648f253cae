package client

import (
	"fmt"
	"time"

	"github.com/quorumlog/quorumlog/rpc"
)

// Node is a node as the cluster's metadata knows it.
type Node struct {
	ID            NodeID `json:"id"`
	Address       string `json:"address"` // of rpc
	GossipAddress string `json:"gossip_address,omitempty"`
	Rack          string `json:"rack,omitempty"`
	Alive         bool   `json:"alive"`
	Version       string `json:"version,omitempty"`
}

// Partition is the state of a partition.
type Partition struct {
	Partition PartitionID `json:"partition"`
	Leader    NodeID      `json:"leader"` // NoNode: none
	Epoch     Epoch       `json:"epoch"`
	Replicas  []NodeID    `json:"replicas"` // preferred leader first
	ISR       []NodeID    `json:"isr"`
	Error     string      `json:"error,omitempty"`
}

// Topic is a topic as the cluster's metadata knows it.
type Topic struct {
	Name       string            `json:"name"`
	ID         TopicID           `json:"id"`
	Partitions []Partition       `json:"partitions"`
	Configs    map[string]string `json:"configs"`
	// ReplicationFactor is the number of replicas of each partition.
	ReplicationFactor int  `json:"replication_factor"`
	Internal          bool `json:"internal,omitempty"`
}

// Metadata is what every node knows about the cluster.
type Metadata struct {
	ClusterID  string  `json:"cluster_id"`
	Controller NodeID  `json:"controller"`
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
	TopicPartition
	Start Offset // of the first record
	End   Offset // the high watermark: after the last committed record
}

// String returns the partition and its offsets: orders-3 [10, 42).
func (r OffsetRange) String() string {
	return fmt.Sprintf("%s [%d, %d)", r.TopicPartition, r.Start, r.End)
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
	RefusedReplicas int `json:"refused_replicas"`
	// ScrubErrors is in how many logs the background scrub found rot since the node started, LastScrub when its last whole pass ended, in
	// milliseconds since 1970; 0: none has.
	ScrubErrors    uint64 `json:"scrub_errors"`
	LastScrub      int64  `json:"last_scrub_ms"`
	MetricsAddress string `json:"metrics_address,omitempty"`
	Error          string `json:"error,omitempty"` // why the node could not be asked
	// The range of feature levels that the node's release can be part of.
	MinFeatureLevel int `json:"min_feature_level"`
	MaxFeatureLevel int `json:"max_feature_level"`
}

// Unsafe tells whether the node acknowledges records that a power failure may take: it was started with --unsafe-no-fsync, for
// comparisons.
func (n NodeStatus) Unsafe() bool { return n.FsyncClass == rpc.FsyncClassNone }

// MetadataQuorum is the group that holds the cluster's metadata.
type MetadataQuorum struct {
	Leader   NodeID   `json:"leader"`
	Term     Term     `json:"term"`
	Commit   Index    `json:"commit"`
	Voters   []NodeID `json:"voters"`
	Learners []NodeID `json:"learners"`
}

// ClusterStatus is the state of the whole cluster.
type ClusterStatus struct {
	ClusterID       string         `json:"cluster_id"`
	ClusterName     string         `json:"cluster_name"`
	Controller      NodeID         `json:"controller"`
	AnsweredBy      NodeID         `json:"answered_by"`
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
	TopicPartition
	Leader        NodeID
	Epoch         Epoch
	Start         Offset // of the first record
	HighWatermark Offset
	LogEnd        Offset // after the last appended record, committed or not
	ISR           []NodeID
	Members       []PartitionMember
}

// String returns who leads the partition and how far it is.
func (s PartitionStatus) String() string {
	return fmt.Sprintf("%s led by node %d in epoch %d: high watermark %d, log end %d, ISR %v",
		s.TopicPartition, s.Leader, s.Epoch, s.HighWatermark, s.LogEnd, s.ISR)
}

// PartitionMember is a replica as the leader sees it.
type PartitionMember struct {
	Node    NodeID
	Replica ReplicaID
	Match   Index // the last entry it has on disk
	InSync  bool
	Learner bool
	LastAck time.Duration // ago; negative: never in this term
}
