//go:build quorumlog_next

package placement

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestNextRelease: what came with the level is there from the level on, and not before.
func TestNextRelease(t *testing.T) {
	tab := clusterOf(t, 3)
	mustCreate(t, tab, "a", 1, 3)
	plain := AlterTopicConfig{Name: "a", Set: map[string]string{"retention.ms": "1"}}
	noted := AlterTopicConfig{Name: "a", Set: map[string]string{"note": "n"}}
	if key, _, err := Encode(plain, tab.View().Level()); string(key) != "AlterTopicConfig/1" || err != nil {
		t.Errorf("before: %s, %v", key, err)
	}
	if err := tab.View().Check(noted); !errors.Is(err, ErrFeatureLevel) {
		t.Errorf("before: %v", err)
	}
	if _, err := tab.Apply(50, alterWithNote{noted, "n"}); !errors.Is(err, ErrFeatureLevel) {
		t.Errorf("before: %v", err)
	}
	apply(t, tab, SetFeatureLevel{Level: nextLevel})
	if err := tab.View().Check(noted); err != nil {
		t.Error(err)
	}
	key, value, err := Encode(noted, tab.View().Level())
	if err != nil || string(key) != fmt.Sprintf("AlterTopicConfig/%d", nextLevel) {
		t.Fatalf("%s, %v", key, err)
	}
	c, err := Decode(key, value)
	if err != nil {
		t.Fatal(err)
	}
	apply(t, tab, c)
	snapshot := tab.Snapshot(nil)
	if !strings.Contains(string(snapshot), `"notes":{"a":"n"}`) || FeatureLevel(snapshot[7]) != nextLevel {
		t.Errorf("%q", snapshot)
	}
	restored := NewTable()
	if err := restored.Restore(snapshot); err != nil || !bytes.Equal(restored.Snapshot(nil), snapshot) {
		t.Errorf("restored: %v", err)
	}
	if err := NewTable().Restore(sealed(FirstLevel, string(snapshot[snapshotHeader:]))); err == nil {
		t.Error("a table of the level in the form of the one before is taken")
	}
}
