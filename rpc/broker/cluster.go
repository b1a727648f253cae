package broker

import (
	"context"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Cluster is the nodes and how they are.
type Cluster interface {
	// ClusterStatus describes the cluster as this node sees it: all others are asked about themselves. If it is Forwarded it is such a
	// question, and answered for this node alone.
	ClusterStatus(ctx context.Context, c *Caller) (*ClusterStatus, error)
	// LogDirs describes the directories that this node keeps replicas in, sorted by path.
	LogDirs(ctx context.Context, c *Caller) ([]LogDir, error)
}

// LogDir is a directory with replicas.
type LogDir struct {
	Path     string
	Replicas []LogDirReplica
}

// LogDirReplica is a replica as it lies on the disk.
type LogDirReplica struct {
	Topic     string
	Partition id.Partition
	Bytes     int64     // of its segments
	Lag       id.Offset // how many records it knows to be committed and does not have yet
}

// ClusterStatus is a cluster as one of its nodes sees it.
type ClusterStatus struct {
	ClusterID, ClusterName string
	Controller, AnsweredBy id.Node
	Nodes                  []NodeStatus
	Metadata               Quorum
	Topics, Partitions     int
	UnderReplicated        int // partitions
	Leaderless             int // partitions
	LeaderUnknown          int // partitions of which nobody who answered can tell; they are not Leaderless
	FeatureLevel           FeatureLevel
	FeatureLevelKnownToAll FeatureLevel
}

// NodeStatus is a node in its own words, or, where it does not answer, in those of the others.
type NodeStatus struct {
	Node
	State                                     string // for people
	Trouble                                   string // what somebody has to do something about, or why there was no answer; empty: nothing
	Protocol, FsyncClass, MetricsAddress      string
	DiskFreeBytes                             int64
	BootEpoch                                 uint64
	AcceptsProduce                            bool
	Replicas, PartitionsLed                   int
	UnderReplicated                           int    // of the partitions that it leads
	ScrubErrors                               uint64 // logs in which the background scrub found rot
	LastScrub                                 int64  // when its last pass ended, ms since 1970; 0: none has
	RefusedReplicas                           int    // that it holds and refuses for good: they have to be replaced
	OldestFeatureLevel, SupportedFeatureLevel FeatureLevel
}

// Quorum is the group of the metadata.
type Quorum struct {
	Leader           id.Node
	Term             id.Term
	Commit           id.Index
	Voters, Learners []id.Node
	Progress         []Member // how far each of them is; empty if the leader cannot be asked
}
