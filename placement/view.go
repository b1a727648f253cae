package placement

import (
	"cmp"
	"slices"
	"strings"

	"github.com/quorumlog/quorumlog/placement/quota"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Node is a registered node. It is immutable.
type Node struct {
	ID              id.Node
	StoreID         string
	BootEpoch       uint64
	RPCAddress      string
	GossipAddress   string
	Rack            string
	Version         string
	MinLevel        FeatureLevel // the range that its release can be part of
	MaxLevel        FeatureLevel
	MetadataReplica id.Replica
}

// Topic is a topic with its partitions. It is immutable: a changed topic is another *Topic, so two Views that hold the same pointer
// hold the same topic.
type Topic struct {
	ID                id.Topic
	Name              string
	Sequence          uint64 // of creation, from 0, counting the topics that were deleted
	Created           id.Index
	ReplicationFactor int
	Partitions        []Partition // by number
	Configs           map[string]string
	Config            TopicConfig // what this release makes of Configs, and its defaults: the only thing that is not the same on every node
}

// Partition is one partition of a topic: a Raft group.
type Partition struct {
	ID      id.Partition
	Group   id.Group
	Members []Member // the first one is the preferred leader
}

// Member is one member of a group: a replica and the node it lives on. Replica ids are cluster-wide: no two members of any
// groups share one, ever.
type Member struct {
	Replica id.Replica
	Node    id.Node
}

// NextProducer returns the first producer id that nobody has been given yet.
func (v *View) NextProducer() id.Producer { return v.nextProducer }

// NextGroup returns the id that the next group gets. Those below it were given out, those from it on were not, as of this view.
func (v *View) NextGroup() id.Group { return v.nextGroup }

// View is the table as of one command: an immutable snapshot for any number of readers. What its methods return is shared
// and must not be modified.
type View struct {
	index        id.Index
	clusterID    string
	clusterName  string
	founder      id.Node // until it registers and gets FoundingReplica; NoNode afterwards
	level        FeatureLevel
	nodes        []*Node     // by id
	topics       []*Topic    // by name
	topicsByID   []*Topic    // by id
	groups       []groupSpan // by group
	nextSequence uint64
	nextGroup    id.Group
	nextReplica  id.Replica
	nextProducer id.Producer
	acls         *acl.Set
	users        []*Credential // by user and mechanism
	quotas       *quota.Set
	laterState
}

// groupSpan says that partition p of the topic is the group first+p: groups of a topic are allocated together.
type groupSpan struct {
	first id.Group
	topic *Topic
}

func emptyView() *View {
	return &View{
		founder:     id.NoNode,
		level:       FirstLevel,
		nextGroup:   id.MetadataGroup + 1,
		nextReplica: FoundingReplica + 1,
	}
}

// Index returns the index of the last command that was applied, 0 if none was.
func (v *View) Index() id.Index { return v.index }

// ClusterID returns the id of the cluster, "" before it was founded.
func (v *View) ClusterID() string { return v.clusterID }

// ClusterName returns the name that the founder gave the cluster.
func (v *View) ClusterName() string { return v.clusterName }

// Level returns the feature level of the cluster.
func (v *View) Level() FeatureLevel { return v.level }

// KnownToAll returns the highest level to which the cluster can be raised: all its nodes know it.
func (v *View) KnownToAll() FeatureLevel {
	known := SupportedLevel
	for _, n := range v.nodes {
		known = min(known, n.MaxLevel)
	}
	return max(known, v.level)
}

// Nodes returns the registered nodes, sorted by id, alive or not.
func (v *View) Nodes() []*Node { return v.nodes }

// Node returns a registered node, nil if there is none of that id.
func (v *View) Node(n id.Node) *Node {
	if i, ok := v.findNode(n); ok {
		return v.nodes[i]
	}
	return nil
}

// Topics returns the topics, sorted by name.
func (v *View) Topics() []*Topic { return v.topics }

// Topic returns the topic of that name, nil if there is none.
func (v *View) Topic(name string) *Topic {
	if i, ok := v.findTopic(name); ok {
		return v.topics[i]
	}
	return nil
}

// TopicByID returns the topic of that id, nil if there is none.
func (v *View) TopicByID(t id.Topic) *Topic {
	if i, ok := v.findTopicID(t); ok {
		return v.topicsByID[i]
	}
	return nil
}

// Partition returns the partition that is the group, and its topic; nil if there is none. The metadata group has no topic.
func (v *View) Partition(g id.Group) (*Topic, *Partition) {
	i, ok := v.findGroup(g)
	if !ok {
		i-- // the span that starts before g
	}
	if i < 0 {
		return nil, nil
	}
	span := v.groups[i]
	p := g - span.first
	if p >= id.Group(len(span.topic.Partitions)) {
		return nil, nil
	}
	return span.topic, &span.topic.Partitions[p]
}

// MetadataMembers returns where the replicas of the metadata group are: one on each registered node, sorted by node. Which of
// them vote is the business of the group's own configuration.
func (v *View) MetadataMembers() []Member {
	members := make([]Member, len(v.nodes))
	for i, n := range v.nodes {
		members[i] = Member{Replica: n.MetadataReplica, Node: n.ID}
	}
	return members
}

// Fate is what became of a replica.
type Fate int

// FateUnknown: the table has not heard of it (yet): leave it alone. FateLive: it is a member. FateDeleted: it was a member, or
// its group existed, and that is over for good: its files may go.
const (
	FateUnknown Fate = iota
	FateLive
	FateDeleted
)

// String names the fate.
func (f Fate) String() string {
	return [...]string{"unknown", "live", "deleted"}[f]
}

// Fate tells whether a replica that was found on a disk is still wanted. Because group and replica ids are allocated here, in
// order, and never again, an id below the counter that is not in the table is positive evidence of a deletion; an id at or above
// it belongs to a command that this table has not applied yet, or to another cluster.
func (v *View) Fate(g id.Group, r id.Replica) Fate {
	if g >= v.nextGroup || r >= v.nextReplica || g == 0 || r == id.NoReplica {
		return FateUnknown
	}
	if g == id.MetadataGroup {
		return v.metadataFate(r)
	}
	if _, p := v.Partition(g); p != nil && slices.ContainsFunc(p.Members, func(m Member) bool { return m.Replica == r }) {
		return FateLive
	}
	return FateDeleted
}

func (v *View) metadataFate(r id.Replica) Fate {
	switch {
	case v.clusterID == "":
		return FateUnknown
	case r == FoundingReplica && v.founder != id.NoNode:
		return FateLive // founded, not registered yet
	case slices.ContainsFunc(v.nodes, func(n *Node) bool { return n.MetadataReplica == r }):
		return FateLive
	default:
		return FateDeleted
	}
}

// Candidates lists the registered nodes that are alive, for PlanTopic.
func (v *View) Candidates(alive func(id.Node) bool) []Candidate {
	var c []Candidate
	for _, n := range v.nodes {
		if alive(n.ID) {
			c = append(c, Candidate{Node: n.ID, Rack: n.Rack})
		}
	}
	return c
}

func (v *View) findNode(n id.Node) (int, bool) {
	return slices.BinarySearchFunc(v.nodes, n, func(e *Node, n id.Node) int { return cmp.Compare(e.ID, n) })
}

func (v *View) findTopic(name string) (int, bool) {
	return slices.BinarySearchFunc(v.topics, name, func(e *Topic, name string) int { return strings.Compare(e.Name, name) })
}

func (v *View) findTopicID(t id.Topic) (int, bool) {
	return slices.BinarySearchFunc(v.topicsByID, t, func(e *Topic, t id.Topic) int { return compareTopicID(e.ID, t) })
}

func (v *View) findGroup(g id.Group) (int, bool) {
	return slices.BinarySearchFunc(v.groups, g, func(e groupSpan, g id.Group) int { return cmp.Compare(e.first, g) })
}

func compareTopicID(a, b id.Topic) int { return slices.Compare(a[:], b[:]) }

// Preferred returns the member that leads when all is well.
func (p *Partition) Preferred() Member { return p.Members[0] }

// On returns the member that lives on the node.
func (p *Partition) On(n id.Node) (Member, bool) {
	for _, m := range p.Members {
		if m.Node == n {
			return m, true
		}
	}
	return Member{}, false
}
