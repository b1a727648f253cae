package placement

import (
	"errors"
	"testing"

	"github.com/quorumlog/quorumlog/wal/id"
)

// TestRemovedNode has a node come back after it was unregistered: with its old replica it is refused, whoever proposed it and whenever;
// without one it is new. The founder, whose replica is older than the table, is not taken for a removed one.
func TestRemovedNode(t *testing.T) {
	tab := NewTable()
	index := id.Index(1)
	do := func(c Command) (any, error) {
		index++
		return tab.Apply(index, c)
	}
	register := func(n id.Node, store string, replica id.Replica) (id.Replica, error) {
		result, err := do(RegisterNode{Node: n, StoreID: store, BootEpoch: 1, RPCAddress: "a:1", Version: "v", MinLevel: FirstLevel, MaxLevel: SupportedLevel, MetadataReplica: replica})
		if err != nil {
			return id.NoReplica, err
		}
		return result.(Registered).MetadataReplica, nil
	}
	if _, err := do(FoundCluster{ClusterID: "c", Name: "n", Founder: 1}); err != nil {
		t.Fatal(err)
	}
	if r, err := register(1, "s1", FoundingReplica); r != FoundingReplica || err != nil {
		t.Fatalf("the founder: %d, %v", r, err)
	}
	second, err := register(2, "s2", id.NoReplica)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := register(2, "s2", second); r != second || err != nil {
		t.Errorf("a restart: %d, %v", r, err)
	}
	if _, err := do(UnregisterNode{Node: 2}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := register(2, "s2", second); !errors.Is(err, ErrRemovedNode) {
			t.Errorf("with its old replica: %v", err)
		}
	}
	if r, err := register(3, "s3", id.NoReplica); r <= second || err != nil {
		t.Errorf("a new node: %d, %v", r, err)
	}
	if _, err := register(2, "s2", second); !errors.Is(err, ErrRemovedNode) {
		t.Errorf("with its old replica, later: %v", err)
	}
}
