package placement

import (
	"maps"
	"slices"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Placement is one replica that a node has to hold, with all it needs to open it.
type Placement struct {
	Topic     id.Topic
	Name      string // of the topic
	Partition id.Partition
	Group     id.Group
	Replica   id.Replica
	Members   []Member // of the group, the preferred leader first
	Config    TopicConfig
}

// TopicPartition names the partition.
func (p Placement) TopicPartition() id.TopicPartition {
	return id.TopicPartition{Topic: p.Name, Partition: p.Partition}
}

// ReplicasOn lists the replicas of topics that the node has to hold, in the order of their groups. The metadata replica, which every node
// holds, is not among them.
func (v *View) ReplicasOn(n id.Node) []Placement {
	var all []Placement
	for _, span := range v.groups {
		all = appendPlacements(all, span.topic, n)
	}
	return all
}

func appendPlacements(all []Placement, t *Topic, n id.Node) []Placement {
	for i := range t.Partitions {
		p := &t.Partitions[i]
		if m, ok := p.On(n); ok {
			all = append(all, Placement{
				Topic: t.ID, Name: t.Name, Partition: p.ID, Group: p.Group, Replica: m.Replica, Members: p.Members, Config: t.Config,
			})
		}
	}
	return all
}

// Changes is what a node has to do to get from one view to a later one.
type Changes struct {
	Open   []Placement // replicas it holds now and did not before
	Close  []Placement // replicas it held and does not any more, as they were: deleted for good
	Change []Placement // replicas it held and holds, whose members or config changed, as they are now
}

// Empty tells whether there is nothing to do.
func (c Changes) Empty() bool { return len(c.Open)+len(c.Close)+len(c.Change) == 0 }

// ChangesOn returns what changed for the node since the earlier view; nil stands for the view of an empty table. It looks only at
// topics that differ, so it costs little after a small change.
//
// A node that starts compares with nil and then holds the replicas it finds on its disk against Fate: what was deleted while it was down is in
// no two views of its own.
func (v *View) ChangesOn(n id.Node, since *View) Changes {
	if since == nil {
		return Changes{Open: v.ReplicasOn(n)}
	}
	var before, after []Placement
	old := since.groups
	for _, span := range v.groups {
		for len(old) > 0 && old[0].first < span.first {
			before = appendPlacements(before, old[0].topic, n)
			old = old[1:]
		}
		if len(old) > 0 && old[0].first == span.first {
			same := old[0].topic == span.topic
			if !same {
				before = appendPlacements(before, old[0].topic, n)
			}
			old = old[1:]
			if same {
				continue
			}
		}
		after = appendPlacements(after, span.topic, n)
	}
	for _, span := range old {
		before = appendPlacements(before, span.topic, n)
	}
	return comparePlacements(before, after)
}

func comparePlacements(before, after []Placement) Changes {
	was := make(map[id.Replica]Placement, len(before))
	for _, p := range before {
		was[p.Replica] = p
	}
	var c Changes
	for _, p := range after {
		old, held := was[p.Replica]
		delete(was, p.Replica)
		switch {
		case !held:
			c.Open = append(c.Open, p)
		case old.Config != p.Config || !slices.Equal(old.Members, p.Members):
			c.Change = append(c.Change, p)
		}
	}
	for _, r := range slices.Sorted(maps.Keys(was)) {
		c.Close = append(c.Close, was[r])
	}
	return c
}
