package placement

import (
	"maps"
	"math"
	"slices"
	"unicode"
	"unicode/utf8"

	"github.com/quorumlog/quorumlog/wal/id"
)

// MaxPartitions bounds the partitions of one topic, MaxReplicationFactor the replicas of a partition.
const (
	MaxPartitions        = 10_000
	MaxReplicationFactor = 15
)

// maxProducerBlock bounds one block of producer ids.
const maxProducerBlock = 1_000_000

func (v *View) found(c FoundCluster) error {
	switch {
	case v.clusterID != "" && v.clusterID == c.ClusterID:
		return nil // a retry
	case v.clusterID != "":
		return refuse(ErrFounded, "cluster %s cannot be founded: this is cluster %s", quote(c.ClusterID), quote(v.clusterID))
	case c.Founder < 0:
		return refuse(ErrInvalidRequest, "the founder's node id is %d: node ids are 0 or larger", c.Founder)
	}
	if err := checkText("cluster id", c.ClusterID, 1); err != nil {
		return err
	}
	if err := checkText("cluster name", c.Name, 1); err != nil {
		return err
	}
	v.clusterID, v.clusterName, v.founder = c.ClusterID, c.Name, c.Founder
	return nil
}

func (v *View) register(c RegisterNode) (any, error) {
	if err := v.checkRegister(c); err != nil {
		return nil, err
	}
	n := &Node{
		ID: c.Node, StoreID: c.StoreID, BootEpoch: c.BootEpoch, RPCAddress: c.RPCAddress, GossipAddress: c.GossipAddress,
		Rack: c.Rack, Version: c.Version, Level: c.Level,
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
	for _, t := range []struct {
		what, text string
		least      int
	}{{"store id", c.StoreID, 1}, {"rpc address", c.RPCAddress, 1}, {"gossip address", c.GossipAddress, 0}, {"rack", c.Rack, 0}, {"version", c.Version, 0}} {
		if err := checkText(t.what, t.text, t.least); err != nil {
			return err
		}
	}
	if c.Level < v.level {
		return refuse(ErrFeatureLevel, "node %d knows feature levels up to %d, the cluster is at level %d: upgrade the node", c.Node, c.Level, v.level)
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
		return nil, refuse(ErrTopicExists, "Topic '%s' already exists.", c.Name)
	}
	config, err := v.checkCreate(c)
	if err != nil {
		return nil, err
	}
	t := &Topic{
		ID: c.ID, Name: c.Name, Sequence: v.nextSequence, Created: v.index, ReplicationFactor: c.ReplicationFactor,
		Configs: maps.Clone(c.Configs), Config: config,
	}
	rows := Assign(c.Nodes, c.Partitions, c.ReplicationFactor, int(v.nextSequence%uint64(len(c.Nodes))))
	t.Partitions = v.allocatePartitions(rows)
	v.nextSequence++
	v.addTopic(t)
	return t, nil
}

func (v *View) checkCreate(c CreateTopic) (TopicConfig, error) {
	none := TopicConfig{}
	if err := CheckTopicName(c.Name); err != nil {
		return none, err
	}
	if c.ID.IsZero() || v.TopicByID(c.ID) != nil {
		return none, refuse(ErrInvalidRequest, "the id %s of the new topic is zero or taken", c.ID)
	}
	for _, t := range v.topics {
		if collisionName(t.Name) == collisionName(c.Name) {
			return none, refuse(ErrInvalidTopic, "Topic '%s' collides with existing topic: %s ('.' and '_' are the same in the names of metrics)", c.Name, t.Name)
		}
	}
	if c.Partitions < 1 || c.Partitions > MaxPartitions {
		return none, refuse(ErrInvalidPartitions, "Number of partitions: %d is not between 1 and %d.", c.Partitions, MaxPartitions)
	}
	if c.ReplicationFactor < 1 || c.ReplicationFactor > MaxReplicationFactor {
		return none, refuse(ErrInvalidReplicationFactor, "Replication factor: %d is not between 1 and %d.", c.ReplicationFactor, MaxReplicationFactor)
	}
	if c.ReplicationFactor > len(c.Nodes) {
		return none, refuse(ErrInvalidReplicationFactor, "Replication factor: %d larger than available brokers: %d.", c.ReplicationFactor, len(c.Nodes))
	}
	for i, n := range c.Nodes {
		if v.Node(n.Node) == nil {
			return none, refuse(ErrUnknownNode, "topic '%s' cannot be placed on node %d: it is not registered", c.Name, n.Node)
		}
		if i > 0 && n.Node <= c.Nodes[i-1].Node {
			return none, refuse(ErrInvalidRequest, "the nodes for topic '%s' are not sorted by id", c.Name)
		}
	}
	return parseFor(c.Configs, c.ReplicationFactor)
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
		return nil, refuse(ErrUnknownTopic, "Topic '%s' with id %s does not exist: the present one has id %s", c.Name, c.ID, t.ID)
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
	configs := maps.Clone(old.Configs)
	for _, name := range c.Remove {
		if _, err := lookupKey(name); err != nil {
			return nil, err
		}
		if _, both := c.Set[name]; both {
			return nil, refuse(ErrInvalidConfig, "topic config %s is both set and removed", name)
		}
		delete(configs, name)
	}
	if configs == nil {
		configs = make(map[string]string, len(c.Set))
	}
	maps.Copy(configs, c.Set)
	config, err := parseFor(configs, old.ReplicationFactor)
	if err != nil {
		return nil, err
	}
	t := *old
	t.Configs, t.Config = configs, config
	v.replaceTopic(&t)
	return &t, nil
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
	case c.Count < 1 || c.Count > maxProducerBlock:
		return nil, refuse(ErrInvalidRequest, "a block of %d producer ids is not allowed: 1 to %d are", c.Count, maxProducerBlock)
	case v.nextProducer > math.MaxInt64-maxProducerBlock:
		return nil, refuse(ErrInvalidRequest, "all producer ids are used up")
	}
	block := ProducerIDs{First: v.nextProducer, Count: c.Count}
	v.nextProducer += id.Producer(c.Count)
	return block, nil
}

func (v *View) setLevel(c SetFeatureLevel) error {
	if c.Level < v.level {
		return refuse(ErrFeatureLevel, "the cluster is at feature level %d and cannot go back to %d", v.level, c.Level)
	}
	if c.Level > SupportedLevel {
		return refuse(ErrFeatureLevel, "feature level %d is not known, this release knows levels up to %d: upgrade all nodes first", c.Level, SupportedLevel)
	}
	if i := slices.IndexFunc(v.nodes, func(n *Node) bool { return n.Level < c.Level }); i >= 0 {
		return refuse(ErrFeatureLevel, "feature level %d is not known to node %d, which knows levels up to %d: upgrade it first", c.Level, v.nodes[i].ID, v.nodes[i].Level)
	}
	v.level = c.Level
	return nil
}

// checkText bounds what the table stores of what others send: names and addresses, printable and short.
func checkText(what, text string, least int) error {
	switch {
	case len(text) < least:
		return refuse(ErrInvalidRequest, "the %s is empty", what)
	case len(text) > 255:
		return refuse(ErrInvalidRequest, "the %s has %d bytes, at most 255 are allowed", what, len(text))
	}
	for _, r := range text {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return refuse(ErrInvalidRequest, "the %s %s holds characters that cannot be printed", what, quote(text))
		}
	}
	return nil
}
