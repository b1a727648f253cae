package placement

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/wal/id"
)

func apply(t testing.TB, tab *Table, c Command) any {
	t.Helper()
	r, err := tab.Apply(tab.View().Index()+1, c)
	if err != nil {
		t.Fatalf("%T: %v", c, err)
	}
	return r
}

func registration(n id.Node) RegisterNode {
	return RegisterNode{
		Node: n, StoreID: fmt.Sprintf("store-%d", n), BootEpoch: 1, RPCAddress: fmt.Sprintf("127.0.0.1:%d", 9000+n),
		GossipAddress: fmt.Sprintf("127.0.0.1:%d", 7000+n), Version: "0.1.0", MinLevel: OldestLevel, MaxLevel: SupportedLevel,
	}
}

// clusterOf returns a table with nodes 1 to n, founded by node 1.
func clusterOf(t testing.TB, n int) *Table {
	t.Helper()
	tab := NewTable()
	apply(t, tab, FoundCluster{ClusterID: "c-1", Name: "test", Founder: 1})
	for i := 1; i <= n; i++ {
		apply(t, tab, registration(id.Node(i)))
	}
	return tab
}

func all(id.Node) bool { return true }

// topicID is a topic id that depends on the name alone.
func topicID(name string) id.Topic {
	var b id.Topic
	copy(b[:], name)
	b[15] = 1
	return b
}

func creation(v *View, name string, partitions, rf int) CreateTopic {
	c, err := v.PlanTopic(TopicSpec{Name: name, Partitions: partitions, ReplicationFactor: rf, Nodes: v.Candidates(all)}, topicID(name))
	if err == nil {
		return c
	}
	c = CreateTopic{Name: name, ID: topicID(name)} // it will be refused, or is in spite of the rules
	for p := range partitions {
		var row []id.Node
		for r := range rf {
			if len(v.nodes) == 0 {
				row = append(row, 99)
				continue
			}
			row = append(row, v.nodes[(p+r)%len(v.nodes)].ID) // more replicas than nodes: some twice
		}
		c.Assignment = append(c.Assignment, row)
	}
	return c
}

func mustCreate(t testing.TB, tab *Table, name string, partitions, rf int) *Topic {
	t.Helper()
	return apply(t, tab, creation(tab.View(), name, partitions, rf)).(*Topic)
}

// refusal is a command that is refused in a cluster of so many nodes.
type refusal struct {
	name   string
	nodes  int
	c      func(*View) Command
	reason error
	text   string
}

func (r refusal) table(t *testing.T) (*Table, Command) {
	tab := clusterOf(t, r.nodes)
	mustCreate(t, tab, "there", 1, 1)
	mustCreate(t, tab, "x.y", 1, 1)
	return tab, r.c(tab.View())
}

func (r refusal) check(t *testing.T, who string, err error) {
	t.Helper()
	if !errors.Is(err, r.reason) || !strings.Contains(err.Error(), r.text) {
		t.Fatalf("%s says %v\nwant %q (%v)", who, err, r.text, r.reason)
	}
}

func with(c CreateTopic, change func(*CreateTopic)) CreateTopic {
	change(&c)
	return c
}

func node(n id.Node, change func(*RegisterNode)) RegisterNode {
	r := registration(n)
	change(&r)
	return r
}

// TestRefusals: what the table does not allow is refused wherever it stands in the log.
func TestRefusals(t *testing.T) {
	for _, tc := range []refusal{
		{"a node twice", 1, func(v *View) Command { return creation(v, "a", 1, 2) }, ErrInvalidRequest, "partition 0 is on node 1 twice"},
		{"uneven rows", 2, func(v *View) Command {
			return with(creation(v, "a", 2, 2), func(c *CreateTopic) { c.Assignment[1] = c.Assignment[1][:1] })
		}, ErrInvalidRequest, "partition 1 has 1 replicas, partition 0 has 2"},
		{"topic exists", 1, func(v *View) Command {
			return with(creation(v, "there", 1, 1), func(c *CreateTopic) { c.ID = topicID("other") })
		}, ErrTopicExists, "Topic 'there' already exists."},
		{"topic id taken", 1, func(v *View) Command {
			return with(creation(v, "a", 1, 1), func(c *CreateTopic) { c.ID = topicID("there") })
		}, ErrInvalidRequest, "zero or taken"},
		{"names collide", 1, func(v *View) Command { return creation(v, "x_y", 1, 1) }, ErrInvalidTopic, "collides with existing topic: x.y"},
		{"unknown node", 1, func(v *View) Command {
			return with(creation(v, "a", 1, 1), func(c *CreateTopic) { c.Assignment = [][]id.Node{{9}} })
		}, ErrUnknownNode, "node 9"},
		{"delete unknown", 1, func(*View) Command { return DeleteTopic{Name: "nope"} }, ErrUnknownTopic, "Topic 'nope' does not exist."},
		{"delete a namesake", 1, func(*View) Command { return DeleteTopic{Name: "there", ID: topicID("older")} }, ErrUnknownTopic, "the present one has id"},
		{"alter unknown", 1, func(*View) Command { return AlterTopicConfig{Name: "nope"} }, ErrUnknownTopic, "does not exist"},
		{"wiped disk", 2, func(*View) Command { return node(2, func(r *RegisterNode) { r.StoreID = "fresh" }) }, ErrDuplicateNode,
			"node id 2 at 127.0.0.1:9002 with store fresh is refused: the id belongs to store store-2, last seen at 127.0.0.1:9002"},
		{"copied directory under another id", 2, func(*View) Command { return node(3, func(r *RegisterNode) { r.StoreID = "store-2" }) }, ErrDuplicateNode,
			`store "store-2" belongs to node 2, not to node 3`},
		{"copied directory runs twice", 2, func(*View) Command { return node(2, func(r *RegisterNode) { r.RPCAddress = "127.0.0.1:1" }) }, ErrStaleNode,
			"start number 1 at 127.0.0.1:9002 is registered"},
		{"restored from a backup", 2, func(*View) Command { return node(2, func(r *RegisterNode) { r.BootEpoch = 0 }) }, ErrStaleNode, "backup"},
		{"negative node id", 1, func(*View) Command { return node(-1, func(*RegisterNode) {}) }, ErrInvalidRequest, "node id -1"},
		{"late release", 1, func(*View) Command { return node(5, func(r *RegisterNode) { r.MinLevel, r.MaxLevel = 3, 4 }) }, ErrFeatureLevel, "knows feature levels from 3 on, the cluster is at level 1: raise the cluster first"},
		{"no levels", 1, func(*View) Command { return node(5, func(r *RegisterNode) { r.MinLevel, r.MaxLevel = 0, 0 }) }, ErrInvalidRequest, "from 0 to 0"},
		{"level from the future", 1, func(*View) Command { return SetFeatureLevel{Level: SupportedLevel + 1} }, ErrFeatureLevel, "is not known to node 1, whose release (0.1.0) knows levels up to"},
		{"level back", 1, func(*View) Command { return SetFeatureLevel{Level: 0} }, ErrFeatureLevel, "cannot go back"},
		{"founded twice", 1, func(*View) Command { return FoundCluster{ClusterID: "c-2", Name: "x"} }, ErrFounded, `"c-2" cannot be founded: this is cluster "c-1"`},
		{"unregister unknown", 1, func(*View) Command { return UnregisterNode{Node: 9} }, ErrUnknownNode, "not registered"},
		{"unregister in use", 2, func(*View) Command { return UnregisterNode{Node: 1} }, ErrNodeInUse, "node 1 still holds"},
		{"producer ids for nobody", 1, func(*View) Command { return AllocateProducerIDs{Node: 9, Count: 1} }, ErrUnknownNode, "node 9"},
		{"no producer ids", 1, func(*View) Command { return AllocateProducerIDs{Node: 1} }, ErrInvalidRequest, "a block of 0"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tab, c := tc.table(t)
			before := tab.View().encode()
			_, err := tab.Apply(tab.View().Index(), c)
			tc.check(t, "Apply", err)
			tc.check(t, "Check", tab.View().Check(c))
			if string(before) != string(tab.View().encode()) {
				t.Error("a refused command changed the table")
			}
		})
	}
}

// TestRules: what the rules of this release refuse is not proposed. If it is in the log, another release let it in, and all of them carry it out.
func TestRules(t *testing.T) {
	for _, tc := range []refusal{
		{"too many partitions", 1, func(v *View) Command { return creation(v, "a", 10_001, 1) }, ErrInvalidPartitions, "between 1 and 10000"},
		{"too many replicas", 16, func(v *View) Command { return creation(v, "a", 1, 16) }, ErrInvalidReplicationFactor, "between 1 and 15"},
		{"name", 1, func(v *View) Command { return creation(v, "a b", 1, 1) }, ErrInvalidTopic, `"a b" contains characters other than`},
		{"dots", 1, func(v *View) Command { return creation(v, "..", 1, 1) }, ErrInvalidTopic, "not allowed"},
		{"long name", 1, func(v *View) Command { return creation(v, strings.Repeat("n", 250), 1, 1) }, ErrInvalidTopic, "250 characters, at most 249"},
		{"the metadata's name", 1, func(v *View) Command { return creation(v, MetadataTopic, 1, 1) }, ErrInvalidTopic, "the cluster's own"},
		{"min.insync.replicas", 3, func(v *View) Command {
			return with(creation(v, "a", 1, 2), func(c *CreateTopic) { c.Configs = map[string]string{"min.insync.replicas": "3"} })
		}, ErrInvalidConfig, "min.insync.replicas: 3 larger than replication factor: 2"},
		{"alter to nonsense", 1, func(*View) Command {
			return AlterTopicConfig{Name: "there", Set: map[string]string{"min.insync.replicas": "2"}}
		}, ErrInvalidConfig, "larger than replication factor: 1"},
		{"remove unknown config", 1, func(*View) Command { return AlterTopicConfig{Name: "there", Remove: []string{"retention"}} }, ErrInvalidConfig, "Unknown topic config"},
		{"no store id", 1, func(*View) Command { return node(5, func(r *RegisterNode) { r.StoreID = "" }) }, ErrInvalidRequest, "store id is empty"},
		{"binary rack", 1, func(*View) Command { return node(5, func(r *RegisterNode) { r.Rack = "a\x00b" }) }, ErrInvalidRequest, "cannot be printed"},
		{"too many producer ids", 1, func(*View) Command { return AllocateProducerIDs{Node: 1, Count: maxProducerBlock + 1} }, ErrInvalidRequest, "at most 1000000 are"},
		{"unknown config", 1, func(v *View) Command {
			return with(creation(v, "a", 1, 1), func(c *CreateTopic) { c.Configs = map[string]string{"colour": "red"} })
		}, ErrInvalidConfig, "Unknown topic config"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tab, c := tc.table(t)
			tc.check(t, "Check", tab.View().Check(c))
			if _, err := tab.Apply(tab.View().Index()+1, c); err != nil {
				t.Fatalf("Apply refuses it: %v", err)
			}
			restored := NewTable()
			if err := restored.Restore(tab.Snapshot(nil)); err != nil || string(restored.Snapshot(nil)) != string(tab.Snapshot(nil)) {
				t.Fatalf("after a restart: %v", err)
			}
		})
	}
}

func TestPlanTopic(t *testing.T) {
	tab := clusterOf(t, 3)
	v := tab.View()
	spec := func(partitions, rf int, alive ...id.Node) TopicSpec {
		return TopicSpec{Name: "a", Partitions: partitions, ReplicationFactor: rf, Nodes: candidates(alive...)}
	}
	for _, tc := range []struct {
		name   string
		spec   TopicSpec
		reason error
		text   string
	}{
		{"more replicas than nodes", spec(1, 4, 1, 2, 3), ErrInvalidReplicationFactor, "Replication factor: 4 larger than available brokers: 3."},
		{"by default, while a node is away", spec(1, 0, 1, 2), ErrInvalidReplicationFactor,
			"Replication factor: 3 larger than available brokers: 2. 3 is the default in a cluster of 3 nodes: start those that do not run, remove those that are gone for good, or ask for fewer replicas."},
		{"nobody there", spec(1, 1), ErrInvalidReplicationFactor, "Replication factor: 1 larger than available brokers: 0."},
		{"no partitions", spec(0, 1, 1), ErrInvalidPartitions, "Number of partitions: 0"},
		{"too many partitions", spec(1<<30, 1, 1), ErrInvalidPartitions, "between 1 and 10000"},
		{"no replicas", spec(1, -1, 1), ErrInvalidReplicationFactor, "Replication factor: -1 is not"},
	} {
		_, err := v.PlanTopic(tc.spec, topicID("a"))
		if !errors.Is(err, tc.reason) || err.Error() != tc.text && !strings.Contains(err.Error(), tc.text) {
			t.Errorf("%s: got %v\nwant %s", tc.name, err, tc.text)
		}
	}
	for _, tc := range []struct{ nodes, want int }{{1, 1}, {2, 2}, {3, 3}, {4, 3}} {
		v := clusterOf(t, tc.nodes).View()
		c, err := v.PlanTopic(TopicSpec{Name: "a", Partitions: 5, Nodes: v.Candidates(all)}, topicID("a"))
		if err != nil || v.Check(c) != nil || len(c.Assignment) != 5 || len(c.Assignment[0]) != tc.want {
			t.Errorf("%d nodes: %v, %v", tc.nodes, c, err)
		}
	}
}

func TestNothingBeforeFounding(t *testing.T) {
	tab := NewTable()
	if _, err := tab.Apply(1, registration(1)); !errors.Is(err, ErrNotFounded) {
		t.Errorf("got %v", err)
	}
}

// A proposer that lost its answer proposes again.
func TestRetriesSucceed(t *testing.T) {
	tab := clusterOf(t, 3)
	apply(t, tab, FoundCluster{ClusterID: "c-1", Name: "test", Founder: 1})
	first := mustCreate(t, tab, "a", 2, 3)
	if again := mustCreate(t, tab, "a", 2, 3); again != first {
		t.Error("the retry made another topic")
	}
	r1 := apply(t, tab, registration(2)).(Registered)
	later := registration(2)
	later.BootEpoch, later.RPCAddress = 2, "127.0.0.1:1234"
	r2 := apply(t, tab, later).(Registered)
	if r1 != r2 {
		t.Errorf("registered as %v, then as %v", r1, r2)
	}
	if n := tab.View().Node(2); n.RPCAddress != "127.0.0.1:1234" || n.BootEpoch != 2 {
		t.Errorf("not renewed: %+v", n)
	}
}

func TestMetadataReplicas(t *testing.T) {
	tab := NewTable()
	apply(t, tab, FoundCluster{ClusterID: "c", Name: "n", Founder: 7})
	if f := tab.View().Fate(id.MetadataGroup, FoundingReplica); f != FateLive {
		t.Errorf("the founder's replica is %v before it registers", f)
	}
	apply(t, tab, registration(3)) // somebody may be faster than the founder
	r := apply(t, tab, registration(7)).(Registered)
	if r.MetadataReplica != FoundingReplica {
		t.Errorf("the founder has replica %d", r.MetadataReplica)
	}
	want := []Member{{Replica: 2, Node: 3}, {Replica: 1, Node: 7}}
	if got := tab.View().MetadataMembers(); !slices.Equal(got, want) {
		t.Errorf("members %v, want %v", got, want)
	}
	apply(t, tab, UnregisterNode{Node: 7})
	wiped := registration(7)
	wiped.StoreID = "another disk"
	if again := apply(t, tab, wiped).(Registered); again.MetadataReplica != 3 {
		t.Errorf("a removed node came back as replica %d", again.MetadataReplica)
	}
	if f := tab.View().Fate(id.MetadataGroup, FoundingReplica); f != FateDeleted {
		t.Errorf("the founder's first replica is %v", f)
	}
}

func TestReads(t *testing.T) {
	tab := clusterOf(t, 3)
	a := mustCreate(t, tab, "a", 3, 2)
	b := mustCreate(t, tab, "b", 2, 3)
	v := tab.View()
	if v.Topic("a") != a || v.TopicByID(b.ID) != b || v.Topic("c") != nil || v.TopicByID(topicID("c")) != nil {
		t.Error("topics are not found by name and id")
	}
	for _, topic := range v.Topics() {
		for i := range topic.Partitions {
			if gt, gp := v.Partition(topic.Partitions[i].Group); gt != topic || gp != &topic.Partitions[i] {
				t.Errorf("group %d is not found", topic.Partitions[i].Group)
			}
		}
	}
	for _, g := range []id.Group{0, id.MetadataGroup, b.Partitions[1].Group + 1} {
		if gt, _ := v.Partition(g); gt != nil {
			t.Errorf("group %d is topic %s", g, gt.Name)
		}
	}
	if got := len(v.ReplicasOn(2)); got != 2+2 {
		t.Errorf("node 2 holds %d replicas", got)
	}
	if got := v.ReplicasOn(2)[0].TopicPartition().String(); got != "a-0" {
		t.Errorf("first placement is %s", got)
	}
}

func TestFate(t *testing.T) {
	tab := clusterOf(t, 2)
	a := mustCreate(t, tab, "a", 1, 1).Partitions[0]
	b := mustCreate(t, tab, "b", 1, 1).Partitions[0]
	apply(t, tab, DeleteTopic{Name: "a"})
	v := tab.View()
	for _, tc := range []struct {
		g    id.Group
		r    id.Replica
		want Fate
	}{
		{a.Group, a.Members[0].Replica, FateDeleted},
		{b.Group, b.Members[0].Replica, FateLive},
		{b.Group, a.Members[0].Replica, FateDeleted},
		{b.Group + 1, b.Members[0].Replica + 1, FateUnknown},
		{b.Group, b.Members[0].Replica + 1, FateUnknown},
		{id.MetadataGroup, FoundingReplica, FateLive},
		{0, 0, FateUnknown},
	} {
		if got := v.Fate(tc.g, tc.r); got != tc.want {
			t.Errorf("fate of group %d replica %d is %v, want %v", tc.g, tc.r, got, tc.want)
		}
	}
	if got := NewTable().View().Fate(id.MetadataGroup, FoundingReplica); got != FateUnknown {
		t.Errorf("an empty table says %v", got)
	}
}

func TestProducerIDs(t *testing.T) {
	tab := clusterOf(t, 2)
	next := id.Producer(0)
	for i := range 5 {
		block := apply(t, tab, AllocateProducerIDs{Node: id.Node(1 + i%2), Count: 1000}).(ProducerIDs)
		if block.First != next || block.Count != 1000 {
			t.Fatalf("block %d is %+v, want it to start at %d", i, block, next)
		}
		next += 1000
	}
}

func TestIndexNeverGoesBack(t *testing.T) {
	tab := clusterOf(t, 1)
	defer func() {
		if recover() == nil {
			t.Error("a command at an index below the last one was applied")
		}
	}()
	tab.Apply(tab.View().Index()-1, SetFeatureLevel{Level: 1})
}

func TestReadersKeepTheirView(t *testing.T) {
	tab := clusterOf(t, 3)
	mustCreate(t, tab, "a", 3, 3)
	v := tab.View()
	before := v.encode()
	apply(t, tab, AlterTopicConfig{Name: "a", Set: map[string]string{"retention.ms": "5"}})
	mustCreate(t, tab, "0", 1, 1)
	apply(t, tab, DeleteTopic{Name: "a"})
	apply(t, tab, registration(9))
	if string(before) != string(v.encode()) {
		t.Error("a view changed after it was published")
	}
}
