package placement

import (
	"maps"
	"math"
	"slices"

	"github.com/quorumlog/quorumlog/wal/id"
)

// What a command does to the table. It is a function of the table and the command alone, and has to stay the same for ever: a node of another
// release that applies the same log holds the same table. So nothing here looks at the limits of this release (rules.go), or at a clock.

func (v *View) found(c FoundCluster) error {
	switch {
	case v.clusterID != "" && v.clusterID == c.ClusterID:
		return nil // a retry
	case v.clusterID != "":
		return refuse(ErrFounded, "cluster %s cannot be founded: this is cluster %s", quote(c.ClusterID), quote(v.clusterID))
	case c.ClusterID == "":
		return refuse(ErrInvalidRequest, "the cluster id is empty")
	case c.Founder < 0:
		return refuse(ErrInvalidRequest, "the founder's node id is %d: node ids are 0 or larger", c.Founder)
	case c.Level > SupportedLevel:
		return unsupportedLevel(c.Level)
	}
	v.clusterID, v.clusterName, v.founder = c.ClusterID, c.Name, c.Founder
	v.level = max(c.Level, FirstLevel)
	return nil
}

func (v *View) register(c RegisterNode) (any, error) {
	if err := v.checkRegister(c); err != nil {
		return nil, err
	}
	n := &Node{
		ID: c.Node, StoreID: c.StoreID, BootEpoch: c.BootEpoch, RPCAddress: c.RPCAddress, GossipAddress: c.GossipAddress,
		Rack: c.Rack, Version: c.Version, MinLevel: c.MinLevel, MaxLevel: c.MaxLevel,
	}
	i, known := v.findNode(c.Node)
	if known {
		n.MetadataReplica = v.nodes[i].MetadataReplica
		v.nodes = replaced(v.nodes, i, n)
	} else {
		n.MetadataReplica = v.allocateMetadataReplica(c.Node)
		v.nodes = inserted(v.nodes, i, n)
	}
	return Registered{Node: n.ID, MetadataReplica: n.MetadataReplica}, nil
}

func (v *View) checkRegister(c RegisterNode) error {
	if c.Node < 0 {
		return refuse(ErrInvalidRequest, "node id %d is not allowed: node ids are 0 or larger", c.Node)
	}
	if err := v.checkLevels(c); err != nil {
		return err
	}
	for _, n := range v.nodes {
		if n.StoreID == c.StoreID && n.ID != c.Node {
			return refuse(ErrDuplicateNode, "store %s belongs to node %d, not to node %d: its data directory was copied, or its node id was changed; "+
				"use an empty data directory for a new node", quote(c.StoreID), n.ID, c.Node)
		}
	}
	if err := v.checkRemoved(c); err != nil {
		return err
	}
	old := v.Node(c.Node)
	if old == nil {
		return nil
	}
	if old.StoreID != c.StoreID {
		return &DuplicateNodeError{Node: c.Node, StoreID: c.StoreID, OtherStoreID: old.StoreID, RPCAddress: c.RPCAddress, OtherAddress: old.RPCAddress}
	}
	if c.BootEpoch < old.BootEpoch || c.BootEpoch == old.BootEpoch && c.RPCAddress != old.RPCAddress {
		return refuse(ErrStaleNode, "node %d at %s, start number %d, is refused: start number %d at %s is registered; "+
			"either its data directory was copied and runs twice (stop one), or it was restored from a backup (use an empty directory and an unused node id)",
			c.Node, c.RPCAddress, c.BootEpoch, old.BootEpoch, old.RPCAddress)
	}
	return nil
}

// checkLevels refuses a node that cannot be part of a cluster of this level.
func (v *View) checkLevels(c RegisterNode) error {
	switch {
	case c.MinLevel < FirstLevel || c.MinLevel > c.MaxLevel:
		return refuse(ErrInvalidRequest, "node %d says that its release knows the feature levels from %d to %d", c.Node, c.MinLevel, c.MaxLevel)
	case c.MaxLevel < v.level:
		return refuse(ErrFeatureLevel, "node %d is refused: its release (%s) knows feature levels up to %d, the cluster is at level %d: upgrade the node",
			c.Node, c.Version, c.MaxLevel, v.level)
	case c.MinLevel > v.level:
		return refuse(ErrFeatureLevel, "node %d is refused: its release (%s) knows feature levels from %d on, the cluster is at level %d: "+
			"raise the cluster first, with quorumlog cluster upgrade and releases that know both", c.Node, c.Version, c.MinLevel, v.level)
	}
	return nil
}

func (v *View) allocateMetadataReplica(n id.Node) id.Replica {
	if n == v.founder {
		v.founder = id.NoNode
		return FoundingReplica
	}
	r := v.nextReplica
	v.nextReplica++
	return r
}

func (v *View) unregister(c UnregisterNode) error {
	i, ok := v.findNode(c.Node)
	if !ok {
		return refuse(ErrUnknownNode, "node %d is not registered", c.Node)
	}
	if n := v.replicasHeld(c.Node); n > 0 {
		return refuse(ErrNodeInUse, "node %d still holds %d replicas: delete their topics or move the replicas first", c.Node, n)
	}
	if len(v.nodes) == 1 {
		return refuse(ErrNodeInUse, "node %d is the only node of the cluster", c.Node)
	}
	v.nodes = removed(v.nodes, i)
	return nil
}

func (v *View) replicasHeld(n id.Node) int {
	held := 0
	for _, t := range v.topics {
		for i := range t.Partitions {
			if _, ok := t.Partitions[i].On(n); ok {
				held++
			}
		}
	}
	return held
}

func (v *View) createTopic(c CreateTopic) (any, error) {
	if i, ok := v.findTopic(c.Name); ok {
		if v.topics[i].ID == c.ID {
			return v.topics[i], nil // a retry
		}
		return nil, topicExists(c.Name)
	}
	if c.ID.IsZero() || v.TopicByID(c.ID) != nil {
		return nil, refuse(ErrInvalidRequest, "the id %s of the new topic is zero or taken", c.ID)
	}
	for _, t := range v.topics {
		if collisionName(t.Name) == collisionName(c.Name) {
			return nil, refuse(ErrInvalidTopic, "Topic '%s' collides with existing topic: %s ('.' and '_' are the same in the names of metrics)", c.Name, t.Name)
		}
	}
	if err := v.checkAssignment(c); err != nil {
		return nil, err
	}
	t := &Topic{
		ID: c.ID, Name: c.Name, Sequence: v.nextSequence, Created: v.index, ReplicationFactor: len(c.Assignment[0]),
		Configs: maps.Clone(c.Configs), Config: effective(c.Configs),
	}
	t.Partitions = v.allocatePartitions(c.Assignment)
	v.nextSequence++
	v.addTopic(t)
	return t, nil
}

func topicExists(name string) error {
	return refuse(ErrTopicExists, "Topic '%s' already exists.", name)
}

// checkAssignment refuses rows that cannot be kept: every node there is, and once, and every partition has equally many.
func (v *View) checkAssignment(c CreateTopic) error {
	if len(c.Assignment) == 0 || len(c.Assignment[0]) == 0 {
		return refuse(ErrInvalidPartitions, "topic '%s' has no partitions, or partitions without replicas", c.Name)
	}
	for p, row := range c.Assignment {
		if len(row) != len(c.Assignment[0]) {
			return refuse(ErrInvalidRequest, "topic '%s': partition %d has %d replicas, partition 0 has %d", c.Name, p, len(row), len(c.Assignment[0]))
		}
		for i, n := range row {
			if v.Node(n) == nil {
				return refuse(ErrUnknownNode, "topic '%s' cannot be placed on node %d: it is not registered", c.Name, n)
			}
			if slices.Contains(row[:i], n) {
				return refuse(ErrInvalidRequest, "topic '%s': partition %d is on node %d twice", c.Name, p, n)
			}
		}
	}
	return nil
}

// allocatePartitions gives each partition its group and each member its replica id. Groups of one topic are consecutive: View.Partition
// relies on it.
func (v *View) allocatePartitions(rows [][]id.Node) []Partition {
	partitions := make([]Partition, len(rows))
	for i, row := range rows {
		members := make([]Member, len(row))
		for j, n := range row {
			members[j] = Member{Replica: v.nextReplica, Node: n}
			v.nextReplica++
		}
		partitions[i] = Partition{ID: id.Partition(i), Group: v.nextGroup, Members: members}
		v.nextGroup++
	}
	return partitions
}

func (v *View) addTopic(t *Topic) {
	i, _ := v.findTopic(t.Name)
	v.topics = inserted(v.topics, i, t)
	i, _ = v.findTopicID(t.ID)
	v.topicsByID = inserted(v.topicsByID, i, t)
	i, _ = v.findGroup(t.Partitions[0].Group)
	v.groups = inserted(v.groups, i, groupSpan{t.Partitions[0].Group, t})
}

func (v *View) deleteTopic(c DeleteTopic) (any, error) {
	t, err := v.existing(c.Name)
	if err != nil {
		return nil, err
	}
	if !c.ID.IsZero() && t.ID != c.ID {
		return nil, anotherTopic(c.Name, c.ID, t.ID)
	}
	i, _ := v.findTopic(t.Name)
	v.topics = removed(v.topics, i)
	i, _ = v.findTopicID(t.ID)
	v.topicsByID = removed(v.topicsByID, i)
	i, _ = v.findGroup(t.Partitions[0].Group)
	v.groups = removed(v.groups, i)
	return t, nil
}

func (v *View) existing(name string) (*Topic, error) {
	if t := v.Topic(name); t != nil {
		return t, nil
	}
	if len(name) > maxTopicName {
		name = name[:maxTopicName] + "…"
	}
	return nil, refuse(ErrUnknownTopic, "Topic '%s' does not exist.", name)
}

func (v *View) alterConfig(c AlterTopicConfig) (any, error) {
	old, err := v.existing(c.Name)
	if err != nil {
		return nil, err
	}
	if !c.ID.IsZero() && old.ID != c.ID {
		return nil, anotherTopic(c.Name, c.ID, old.ID)
	}
	t := *old
	t.Configs = c.altered(old.Configs)
	t.Config = effective(t.Configs)
	v.replaceTopic(&t)
	return &t, nil
}

// altered returns the configs after the command.
func (c AlterTopicConfig) altered(configs map[string]string) map[string]string {
	configs = maps.Clone(configs)
	for _, name := range c.Remove {
		delete(configs, name)
	}
	if configs == nil {
		configs = make(map[string]string, len(c.Set))
	}
	maps.Copy(configs, c.Set)
	return configs
}

func anotherTopic(name string, want, have id.Topic) error {
	return refuse(ErrUnknownTopic, "Topic '%s' with id %s does not exist: the present one has id %s", name, want, have)
}

// replaceTopic puts a changed topic into the place of the one with its name, id and groups.
func (v *View) replaceTopic(t *Topic) {
	i, _ := v.findTopic(t.Name)
	v.topics = replaced(v.topics, i, t)
	i, _ = v.findTopicID(t.ID)
	v.topicsByID = replaced(v.topicsByID, i, t)
	first := t.Partitions[0].Group
	i, _ = v.findGroup(first)
	v.groups = replaced(v.groups, i, groupSpan{first, t})
}

func (v *View) allocateProducers(c AllocateProducerIDs) (any, error) {
	switch {
	case v.Node(c.Node) == nil:
		return nil, refuse(ErrUnknownNode, "node %d asks for producer ids but is not registered", c.Node)
	case c.Count < 1:
		return nil, refuse(ErrInvalidRequest, "a block of %d producer ids is not allowed", c.Count)
	case v.nextProducer > math.MaxInt64-id.Producer(c.Count):
		return nil, refuse(ErrInvalidRequest, "all producer ids are used up")
	}
	block := ProducerIDs{First: v.nextProducer, Count: c.Count}
	v.nextProducer += id.Producer(c.Count)
	return block, nil
}

// setLevel raises the level, or stops this release if that is beyond it. Refusals come first: they are the same for every release.
func (v *View) setLevel(c SetFeatureLevel) error {
	if c.Level < v.level {
		return refuse(ErrFeatureLevel, "the cluster is at feature level %d and cannot go back to %d: what was written at its level is in the log", v.level, c.Level)
	}
	if i := slices.IndexFunc(v.nodes, func(n *Node) bool { return n.MaxLevel < c.Level }); i >= 0 {
		n := v.nodes[i]
		return refuse(ErrFeatureLevel, "feature level %d is not known to node %d, whose release (%s) knows levels up to %d: upgrade it first, "+
			"or remove it from the cluster if it is gone for good", c.Level, n.ID, n.Version, n.MaxLevel)
	}
	if c.Level > SupportedLevel {
		return unsupportedLevel(c.Level)
	}
	v.level = c.Level
	return nil
}

func unsupportedLevel(level FeatureLevel) error {
	return &UnsupportedError{What: "the level of the cluster", Level: level, Supported: SupportedLevel}
}
