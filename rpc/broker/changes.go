package broker

import (
	"context"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Changes are the calls that change the metadata. Any node takes them; one that is not the controller passes them on.
type Changes interface {
	// CreateTopic makes a topic and returns when its partitions have leaders, or when the time is over: the topic exists then, too.
	CreateTopic(ctx context.Context, c *Caller, t NewTopic) (*Topic, error)
	// DeleteTopic removes a topic and returns its id. Its data goes as the nodes learn of it.
	DeleteTopic(ctx context.Context, c *Caller, name string) (id.Topic, error)
	// AlterTopicConfig changes configs of a topic and returns those that it has of its own then.
	AlterTopicConfig(ctx context.Context, c *Caller, a ConfigChange) (map[string]string, error)
	// InitProducerID hands out a producer id that nobody else gets.
	InitProducerID(ctx context.Context, c *Caller) (id.Producer, error)
	// UpgradeCluster raises the feature level to one that all nodes know, the highest one for 0. There is no way back.
	UpgradeCluster(ctx context.Context, c *Caller, level FeatureLevel) (Upgrade, error)
	// UnregisterNode takes a node out of the metadata: one that is dead, and holds no replicas.
	UnregisterNode(ctx context.Context, c *Caller, node id.Node) error
}

// NewTopic is a topic to be made. Partitions and ReplicationFactor have defaults for 0.
type NewTopic struct {
	Name              string
	Partitions        int
	ReplicationFactor int
	Configs           map[string]string
	ValidateOnly      bool // check everything, create nothing; the answer is empty
}

// ConfigChange sets configs of a topic, and takes others back to their defaults.
type ConfigChange struct {
	Topic  string
	Set    map[string]string
	Remove []string
	// ValidateOnly: check everything, by this node's copy of the metadata, and change nothing. The answer is empty.
	ValidateOnly bool
}

// FeatureLevel is what all nodes of a cluster can do.
type FeatureLevel int32

// Upgrade is the feature level before and after.
type Upgrade struct{ Was, Is FeatureLevel }

// Leaderships is who leads, at somebody's wish.
type Leaderships interface {
	// TransferLeader hands the leadership of a partition to the replica on another node, on the preferred one for id.NoNode, and returns who
	// leads then. A node that does not lead passes it on to the one that does.
	TransferLeader(ctx context.Context, c *Caller, t Transfer) (id.Node, id.Epoch, error)
}

// Transfer is a leadership to be handed over.
type Transfer struct {
	Topic     string
	Partition id.Partition
	To        id.Node
}
