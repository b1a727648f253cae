package placement

import "github.com/quorumlog/quorumlog/wal/id"

// Command is one change of the metadata. level.go has the rules for whoever adds one, or a field to one.
type Command interface {
	// command returns the name, and the feature level in which the command got its present form.
	command() (string, FeatureLevel)
}

// FoundCluster is the first command of every cluster. The founder's replica of the metadata group is FoundingReplica: it
// had to exist before there was a table to allocate it.
type FoundCluster struct {
	ClusterID string  `json:"cluster_id"`
	Name      string  `json:"name"`
	Founder   id.Node `json:"founder"`
	// Level is the one that the cluster begins with: the highest that the founder knows. Without it, it is FirstLevel.
	Level FeatureLevel `json:"level,omitzero"`
}

// FoundingReplica is the founder's replica of the metadata group.
const FoundingReplica id.Replica = 1

// RegisterNode makes a node known, or renews what is known of it after a start. Its result is Registered.
type RegisterNode struct {
	Node          id.Node `json:"node"`
	StoreID       string  `json:"store_id"`
	BootEpoch     uint64  `json:"boot_epoch"` // grows with each start of the node, kept in its data directory
	RPCAddress    string  `json:"rpc_address"`
	GossipAddress string  `json:"gossip_address"`
	Rack          string  `json:"rack,omitempty"`
	Version       string  `json:"version"`
	// MinLevel and MaxLevel are the range of feature levels that the node's release can be part of.
	MinLevel FeatureLevel `json:"min_level"`
	MaxLevel FeatureLevel `json:"max_level"`
	// MetadataReplica is the replica that the node was given at an earlier registration, NoReplica if there was none. If it is gone, the
	// node was unregistered since: it must not get another replica under the log of that one.
	MetadataReplica id.Replica `json:"metadata_replica,omitempty"`
}

// Registered is the result of RegisterNode.
type Registered struct {
	Node            id.Node
	MetadataReplica id.Replica // allocated at the first registration, the same at every later one
}

// UnregisterNode removes a node that holds no replicas any more. Its id may be taken by another store afterwards.
type UnregisterNode struct {
	Node id.Node `json:"node"`
}

// CreateTopic makes a topic. Its result is the new *Topic. When a topic of the same name and id exists, the command is a
// retry and succeeds without changing anything. View.PlanTopic makes one from what a user asked for.
type CreateTopic struct {
	Name    string            `json:"name"`
	ID      id.Topic          `json:"id"`
	Configs map[string]string `json:"configs,omitempty"`
	// Assignment has a row of nodes for each partition, the preferred leader first; all rows are of one length. It is in the command
	// because neither who is alive nor how a release spreads replicas is a fact of the log.
	Assignment [][]id.Node `json:"assignment"`
}

// DeleteTopic removes a topic and all that belongs to it. With an ID that is not zero, only the topic of that id is meant and
// not one that was created later under the same name. Its result is the removed *Topic.
type DeleteTopic struct {
	Name string   `json:"name"`
	ID   id.Topic `json:"id,omitzero"`
}

// AlterTopicConfig sets some configs of a topic and takes others back to their defaults. With an ID that is not zero, only the topic
// of that id is meant: the one for which the configs were checked. Its result is the changed *Topic.
type AlterTopicConfig struct {
	Name   string            `json:"name"`
	ID     id.Topic          `json:"id,omitzero"`
	Set    map[string]string `json:"set,omitempty"`
	Remove []string          `json:"remove,omitempty"`
}

// AllocateProducerIDs reserves a block of producer ids for a node. Its result is ProducerIDs.
type AllocateProducerIDs struct {
	Node  id.Node `json:"node"`
	Count int     `json:"count"`
}

// ProducerIDs is a block of ids that nobody else gets: First, First+1, ... First+Count-1.
type ProducerIDs struct {
	First id.Producer
	Count int
}

// SetFeatureLevel raises the cluster to a level that all its nodes know. There is no way back: what was written at the level is in
// the log and in the snapshots. A release that does not know the level stops at this command.
type SetFeatureLevel struct {
	Level FeatureLevel `json:"level"`
}

func (FoundCluster) command() (string, FeatureLevel)        { return "FoundCluster", 1 }
func (RegisterNode) command() (string, FeatureLevel)        { return "RegisterNode", 1 }
func (UnregisterNode) command() (string, FeatureLevel)      { return "UnregisterNode", 1 }
func (CreateTopic) command() (string, FeatureLevel)         { return "CreateTopic", 1 }
func (DeleteTopic) command() (string, FeatureLevel)         { return "DeleteTopic", 1 }
func (AlterTopicConfig) command() (string, FeatureLevel)    { return "AlterTopicConfig", 1 }
func (AllocateProducerIDs) command() (string, FeatureLevel) { return "AllocateProducerIDs", 1 }
func (SetFeatureLevel) command() (string, FeatureLevel)     { return "SetFeatureLevel", 1 }
