package placement

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/quorumlog/quorumlog/wal/id"
)

// The rules of this release: what it does not propose. They may change with each release, because no command in the log is held
// against them: another release, with other rules, has let it in.

// MaxPartitions bounds the partitions of one topic, MaxReplicationFactor the replicas of a partition.
const (
	MaxPartitions        = 10_000
	MaxReplicationFactor = 15
)

// maxProducerBlock bounds one block of producer ids.
const maxProducerBlock = 1_000_000

// Check tells whether the command may not be proposed now: by the rules of this release, because the cluster's feature level does not have it
// yet, or because Apply would refuse it. The answer that counts is that of Apply, and Apply does not know the rules: each proposer
// has to ask.
func (v *View) Check(c Command) error {
	if err := v.hasLevel(c); err != nil {
		return err
	}
	if err := v.allowed(c); err != nil {
		return err
	}
	next := *v
	_, err := next.apply(c)
	var unsupported *UnsupportedError
	if errors.As(err, &unsupported) { // no reason to stop: it is not in the log
		return refuse(ErrFeatureLevel, "%v", err)
	}
	return err
}

// hasLevel refuses a command that came with a later level than the cluster's.
func (v *View) hasLevel(c Command) error {
	if name, level := c.command(); level > v.level {
		return tooNew("the command "+name, level, v.level)
	}
	return nil
}

// tooNew says what to do about something that this release knows and another one in the cluster may not.
func tooNew(what string, level, cluster FeatureLevel) error {
	return refuse(ErrFeatureLevel, "%s needs feature level %d, the cluster is at level %d: "+
		"raise it with quorumlog cluster upgrade, when all its nodes are upgraded", what, level, cluster)
}

func (v *View) allowed(c Command) error {
	switch c := c.(type) {
	case FoundCluster:
		return checkTexts(text{"cluster id", c.ClusterID, 1}, text{"cluster name", c.Name, 1})
	case RegisterNode:
		return checkTexts(text{"store id", c.StoreID, 1}, text{"rpc address", c.RPCAddress, 1}, text{"gossip address", c.GossipAddress, 0},
			text{"rack", c.Rack, 0}, text{"version", c.Version, 0})
	case CreateTopic:
		return v.allowedTopic(c)
	case AlterTopicConfig:
		return v.allowedConfigs(c)
	case AllocateProducerIDs:
		if c.Count > maxProducerBlock {
			return refuse(ErrInvalidRequest, "a block of %d producer ids is not allowed: at most %d are", c.Count, maxProducerBlock)
		}
	case CreateACLs:
		return v.allowedACLs(c)
	case DeleteACLs:
		return checkCount(len(c.Bindings), MaxBindingsAtOnce, "ACLs")
	case AlterUsers:
		return v.allowedUsers(c)
	case AlterQuotas:
		return v.allowedQuotas(c)
	}
	return nil
}

func (v *View) allowedTopic(c CreateTopic) error {
	if v.Topic(c.Name) != nil {
		return nil // a retry, or refused for that
	}
	if err := CheckTopicName(c.Name); err != nil {
		return err
	}
	replicas := 0
	if len(c.Assignment) > 0 {
		replicas = len(c.Assignment[0])
	}
	if err := checkSize(len(c.Assignment), replicas); err != nil {
		return err
	}
	_, err := parseFor(c.Configs, replicas, v.level)
	return err
}

func checkSize(partitions, replicationFactor int) error {
	if partitions < 1 || partitions > MaxPartitions {
		return refuse(ErrInvalidPartitions, "Number of partitions: %d is not between 1 and %d.", partitions, MaxPartitions)
	}
	if replicationFactor < 1 || replicationFactor > MaxReplicationFactor {
		return refuse(ErrInvalidReplicationFactor, "Replication factor: %d is not between 1 and %d.", replicationFactor, MaxReplicationFactor)
	}
	return nil
}

func (v *View) allowedConfigs(c AlterTopicConfig) error {
	t := v.Topic(c.Name)
	if t == nil {
		return nil // refused for that
	}
	for _, name := range c.Remove {
		if _, held := t.Configs[name]; held {
			continue // also one that this release does not know: taking it back does no harm
		}
		if _, err := lookupKey(name, v.level); err != nil {
			return err
		}
	}
	for _, name := range c.Remove {
		if _, both := c.Set[name]; both {
			return refuse(ErrInvalidConfig, "topic config %s is both set and removed", name)
		}
	}
	_, err := parseFor(c.altered(t.Configs), t.ReplicationFactor, v.level)
	return err
}

// TopicSpec is a topic that somebody wants.
type TopicSpec struct {
	Name              string
	Partitions        int
	ReplicationFactor int // 0: DefaultReplicationFactor
	Configs           map[string]string
	Nodes             []Candidate // that may get replicas, sorted by id
}

// Candidate is a node that may get replicas. An empty rack is no rack.
type Candidate struct {
	Node id.Node
	Rack string
}

// PlanTopic returns the command that makes the topic under that id, with its replicas spread over the nodes. It refuses what it cannot
// plan; Check has the rest of the rules.
func (v *View) PlanTopic(s TopicSpec, topic id.Topic) (CreateTopic, error) {
	if v.Topic(s.Name) != nil {
		return CreateTopic{}, topicExists(s.Name)
	}
	if err := CheckTopicName(s.Name); err != nil {
		return CreateTopic{}, err
	}
	rf, remedy := s.ReplicationFactor, ""
	if rf == 0 {
		rf = DefaultReplicationFactor(len(v.nodes))
		remedy = fmt.Sprintf(" %d is the default in a cluster of %d nodes: start those that do not run, remove those that are gone for good, "+
			"or ask for fewer replicas.", rf, len(v.nodes))
	}
	if err := checkSize(s.Partitions, rf); err != nil {
		return CreateTopic{}, err
	}
	if rf > len(s.Nodes) {
		return CreateTopic{}, refuse(ErrInvalidReplicationFactor, "Replication factor: %d larger than available brokers: %d.%s", rf, len(s.Nodes), remedy)
	}
	return CreateTopic{
		Name: s.Name, ID: topic, Configs: s.Configs,
		Assignment: Assign(s.Nodes, s.Partitions, rf, int(v.nextSequence%uint64(len(s.Nodes)))),
	}, nil
}

// DefaultReplicationFactor is how many replicas a topic gets when nobody says: 3, or as many as the cluster has nodes. It counts those that
// are registered, alive or not: a topic that was made while a node restarted would be short of a replica for ever, and nobody would know.
func DefaultReplicationFactor(registered int) int { return max(1, min(3, registered)) }

type text struct {
	what, text string
	least      int
}

// checkTexts bounds what the table stores of what others send: names and addresses, printable and short.
func checkTexts(texts ...text) error {
	for _, t := range texts {
		switch {
		case len(t.text) < t.least:
			return refuse(ErrInvalidRequest, "the %s is empty", t.what)
		case len(t.text) > 255:
			return refuse(ErrInvalidRequest, "the %s has %d bytes, at most 255 are allowed", t.what, len(t.text))
		}
		for _, r := range t.text {
			if r == utf8.RuneError || !unicode.IsPrint(r) {
				return refuse(ErrInvalidRequest, "the %s %s holds characters that cannot be printed", t.what, quote(t.text))
			}
		}
	}
	return nil
}
