package placement

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/wal/id"
)

// later registers a node whose release knows a level more than this one.
func later(n id.Node) RegisterNode {
	return node(n, func(r *RegisterNode) { r.MaxLevel = SupportedLevel + 1 })
}

// at gives the table a level without the command: tests of this release have no other level to go to.
func at(tab *Table, level FeatureLevel) *View {
	v := *tab.View()
	v.level = level
	return &v
}

// TestLogDecidesAlone: two releases fold the same log into the same table, also where one of them knows a topic config that the other
// does not, or has other limits. A topic that only one of them made would shift every id after it.
func TestLogDecidesAlone(t *testing.T) {
	old, newer := clusterOf(t, 3), clusterOf(t, 3)
	topic := creation(old.View(), "a", 2, 3)
	topic.Configs = map[string]string{"retention.local.ms": "1000", "retention.ms": "-5"}
	next := creation(old.View(), "b", 1, 3)
	fold := func(tab *Table) {
		for _, c := range []Command{topic, next, AlterTopicConfig{Name: "a", Set: map[string]string{"min.insync.replicas": "99"}, Remove: []string{"unheard.of"}}} {
			apply(t, tab, c)
		}
	}
	fold(old)
	rules := configKeys
	configKeys = append(slices.Clone(rules), integer("retention.local.ms", "-2", -2, 1<<40, func(*TopicConfig, int64) {}))
	slices.SortFunc(configKeys, func(a, b ConfigKey) int { return strings.Compare(a.Name, b.Name) })
	fold(newer)
	configKeys = rules
	if !bytes.Equal(old.Snapshot(nil), newer.Snapshot(nil)) {
		t.Errorf("same log, different tables:\n%s\n%s", old.Snapshot(nil), newer.Snapshot(nil))
	}
	if got := old.View().Topic("a").Config.RetentionMS; got != DefaultTopicConfig().RetentionMS {
		t.Errorf("a value that this release does not know counts as %d", got)
	}
	restored := NewTable()
	if err := restored.Restore(newer.Snapshot(nil)); err != nil {
		t.Errorf("this release does not start: %v", err)
	}
}

// TestUnknownStops: a level that this release does not know stops it where it is, and nothing of the entry is carried out.
func TestUnknownStops(t *testing.T) {
	tab := clusterOf(t, 2)
	apply(t, tab, later(1))
	raise := SetFeatureLevel{Level: SupportedLevel + 1}
	if _, err := tab.Apply(tab.View().Index()+1, raise); !errors.Is(err, ErrFeatureLevel) || !strings.Contains(err.Error(), "not known to node 2") {
		t.Errorf("raised over node 2, which does not know the level: %v", err)
	}
	apply(t, tab, later(2))
	before, snapshot := tab.View(), tab.Snapshot(nil)
	outcomes, err := tab.Fold(before.Index()+1, AllocateProducerIDs{Node: 1, Count: 7}, raise, AllocateProducerIDs{Node: 1, Count: 7})
	var unsupported *UnsupportedError
	if !errors.As(err, &unsupported) || unsupported.Level != raise.Level || outcomes != nil {
		t.Errorf("got %v, %v", outcomes, err)
	}
	if tab.View() != before || !bytes.Equal(tab.Snapshot(nil), snapshot) {
		t.Error("a part of the entry was carried out")
	}
	if err := before.Check(raise); !errors.Is(err, ErrFeatureLevel) {
		t.Errorf("would be proposed: %v", err)
	}
	if _, err := NewTable().Fold(1, FoundCluster{ClusterID: "c", Name: "n", Founder: 1, Level: SupportedLevel + 1}); !errors.As(err, &unsupported) {
		t.Errorf("a cluster that begins at a later level: %v", err)
	}
}

func TestLevels(t *testing.T) {
	tab := clusterOf(t, 2)
	if v := tab.View(); v.Level() != FirstLevel || v.KnownToAll() != SupportedLevel {
		t.Errorf("level %d, known to all %d", v.Level(), v.KnownToAll())
	}
	apply(t, tab, SetFeatureLevel{Level: SupportedLevel})
	old := node(2, func(r *RegisterNode) { r.MaxLevel = SupportedLevel })
	raised := at(tab, SupportedLevel+1)
	if err := raised.Check(old); !errors.Is(err, ErrFeatureLevel) || !strings.Contains(err.Error(),
		fmt.Sprintf("node 2 is refused: its release (0.1.0) knows feature levels up to %d, the cluster is at level %d: upgrade the node", SupportedLevel, raised.level)) {
		t.Errorf("an old release: %v", err)
	}
	if err := raised.Check(later(2)); err != nil {
		t.Errorf("a release that knows the level: %v", err)
	}
	if got := raised.KnownToAll(); got != raised.level {
		t.Errorf("known to all: %d, below the cluster's level", got)
	}
}

// TestLogStartHasItsLevel: no log start moves before all nodes know what that is, and who is refused is told how to get there.
func TestLogStartHasItsLevel(t *testing.T) {
	v := clusterOf(t, 3)
	err := at(v, LogStartLevel-1).MayMoveLogStarts()
	if !errors.Is(err, ErrFeatureLevel) || err.Error() != fmt.Sprintf("deleting records needs feature level %d, the cluster is at level %d: "+
		"raise it with quorumlog cluster upgrade, when all its nodes are upgraded", LogStartLevel, LogStartLevel-1) {
		t.Errorf("got %v", err)
	}
	if err := at(v, LogStartLevel).MayMoveLogStarts(); err != nil {
		t.Error(err)
	}
}

// TestConfigsHaveLevels: a topic config is not proposed before the cluster's level has it.
func TestConfigsHaveLevels(t *testing.T) {
	rules := configKeys
	defer func() { configKeys = rules }()
	configKeys = append(slices.Clone(rules), ConfigKey{Name: "zone", Level: SupportedLevel + 1, apply: func(*TopicConfig, string) error { return nil }})
	tab := clusterOf(t, 1)
	mustCreate(t, tab, "a", 1, 1)
	set := map[string]string{"zone": "x"}
	create := creation(tab.View(), "b", 1, 1)
	create.Configs = set
	for _, c := range []Command{create, AlterTopicConfig{Name: "a", Set: set}, AlterTopicConfig{Name: "a", Remove: []string{"zone"}}} {
		err := tab.View().Check(c)
		if !errors.Is(err, ErrFeatureLevel) || !strings.Contains(err.Error(), "topic config zone needs feature level") || !strings.Contains(err.Error(), "quorumlog cluster upgrade") {
			t.Errorf("%T: %v", c, err)
		}
		if err := at(tab, SupportedLevel+1).Check(c); err != nil {
			t.Errorf("%T at the level: %v", c, err)
		}
	}
}

// futureCommand is of a level that no cluster has.
type futureCommand struct{}

func (futureCommand) command() (string, FeatureLevel) { return "Future", 1 << 20 }

func TestCommandsHaveLevels(t *testing.T) {
	if _, _, err := Encode(futureCommand{}, SupportedLevel); !errors.Is(err, ErrFeatureLevel) {
		t.Errorf("encoded: %v", err)
	}
	tab := clusterOf(t, 1)
	if err := tab.View().Check(futureCommand{}); !errors.Is(err, ErrFeatureLevel) {
		t.Errorf("would be proposed: %v", err)
	}
	if _, err := tab.Apply(100, futureCommand{}); !errors.Is(err, ErrFeatureLevel) {
		t.Errorf("carried out: %v", err)
	}
}

// goldenSnapshot is the snapshot of a table at the first level, whichever release wrote it: the ones before it have to read it.
const goldenSnapshot = `{"index":5,"cluster_id":"c-1","cluster_name":"test","founder":-1,"level":1,"next_sequence":1,"next_group":3,"next_replica":4,` +
	`"next_producer":7,"nodes":[{"node":1,"store_id":"store-1","boot_epoch":1,"rpc_address":"127.0.0.1:9001","gossip_address":"127.0.0.1:7001",` +
	`"version":"0.1.0","min_level":1,"max_level":1,"metadata_replica":1},{"node":2,"store_id":"store-2","boot_epoch":1,"rpc_address":"127.0.0.1:9002",` +
	`"gossip_address":"127.0.0.1:7002","version":"0.1.0","min_level":1,"max_level":1,"metadata_replica":2}],"topics":[{"name":"a",` +
	`"id":"YQAAAAAAAAAAAAAAAAAAAQ","sequence":0,"created":4,"replication_factor":1,"first_group":2,"configs":{"retention.ms":"5"},"partitions":[[3,1]]}]}`

// sealed puts a header before the JSON of a snapshot.
func sealed(form FeatureLevel, body string) []byte {
	b := append(make([]byte, snapshotHeader), body...)
	copy(b, snapshotMagic)
	binary.BigEndian.PutUint32(b[4:], uint32(form))
	binary.BigEndian.PutUint32(b[8:], uint32(len(body)))
	binary.BigEndian.PutUint32(b[12:], snapshotSum(b))
	return b
}

func TestSnapshotForms(t *testing.T) {
	tab := NewTable()
	apply(t, tab, FoundCluster{ClusterID: "c-1", Name: "test", Founder: 1})
	for n := range id.Node(2) {
		apply(t, tab, node(n+1, func(r *RegisterNode) { r.MinLevel, r.MaxLevel = 1, 1 }))
	}
	topic := creation(tab.View(), "a", 1, 1)
	topic.Configs = map[string]string{"retention.ms": "5"}
	apply(t, tab, topic)
	apply(t, tab, AllocateProducerIDs{Node: 1, Count: 7})
	if got, want := string(tab.Snapshot(nil)), string(sealed(FirstLevel, goldenSnapshot)); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var unsupported *UnsupportedError
	for _, tc := range []struct {
		name, want string
		snapshot   []byte
		stops      bool
	}{
		{"a later form", "the form of the metadata's snapshot", sealed(SupportedLevel+1, goldenSnapshot), true},
		{"a later level", "the level of the cluster", sealed(SupportedLevel, strings.Replace(goldenSnapshot, `"level":1`, fmt.Sprintf(`"level":%d`, SupportedLevel+1), 1)), true},
		{"a field of the table that is not of the form", "unknown field", sealed(FirstLevel, strings.Replace(goldenSnapshot, `{`, `{"colour":1,`, 1)), false},
		{"a field of a node that is not of the form", "unknown field", sealed(FirstLevel, strings.Replace(goldenSnapshot, `{"node"`, `{"colour":1,"node"`, 1)), false},
		{"a field of a topic that is not of the form", "unknown field", sealed(FirstLevel, strings.Replace(goldenSnapshot, `{"name"`, `{"colour":1,"name"`, 1)), false},
		{"no form", "should have form 1", sealed(0, goldenSnapshot), false},
	} {
		err := NewTable().Restore(tc.snapshot)
		if err == nil || !strings.Contains(err.Error(), tc.want) || errors.As(err, &unsupported) != tc.stops {
			t.Errorf("%s: got %v", tc.name, err)
		}
	}
}
