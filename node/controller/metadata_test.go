package controller

import (
	"io"
	"log/slog"
	"testing"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/raftgroup"
)

// TestMetadataTakesNoSnapshot: what nodes do by the table, deleting replicas for instance, must not be done by one that a restart does not have.
func TestMetadataTakesNoSnapshot(t *testing.T) {
	m := &Metadata{table: placement.NewTable(), logger: slog.New(slog.NewTextHandler(io.Discard, nil))}
	m.changed.c = make(chan struct{})
	ahead := placement.NewTable()
	if _, err := ahead.Apply(2, placement.FoundCluster{ClusterID: "c", Name: "n", Founder: 1}); err != nil {
		t.Fatal(err)
	}
	var machine raftgroup.Machine = m
	before := m.Current()
	for what, err := range map[string]error{
		"looked at": machine.CheckView(ahead.Snapshot(nil)), "taken": machine.Restore(ahead.Snapshot(nil), 2),
	} {
		if err == nil {
			t.Errorf("a view of another node is %s", what)
		}
	}
	if m.Current() != before {
		t.Error("the table is another one")
	}
}
