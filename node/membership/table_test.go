package membership

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/wal/id"
)

func start(node id.Node, boot uint64, store string) Member {
	return Member{Self: Self{Node: node, Boot: boot, StoreID: store, RPCAddress: fmt.Sprintf("%s:%d", store, boot)}, GossipAddress: fmt.Sprintf("%s-%d:1", store, boot)}
}

func nameOf(m Member) string {
	return namePrefix(m.Self) + m.RPCAddress[:strings.Index(m.RPCAddress, ":")]
}

// twin is a process on a copy of the directory, at the same start.
func twin(m Member) Member {
	m.RPCAddress = "twin:" + m.RPCAddress
	return m
}

// step says what the gossip says, "+" for alive, and what has to follow.
type step struct {
	member Member
	alive  bool
	want   string
}

func TestTable(t *testing.T) {
	changed := start(2, 1, "a")
	changed.ClusterID = "c"
	for _, tc := range []struct {
		name  string
		steps []step
		final string // who speaks for node 2 at the end
	}{
		{"comes and goes", []step{{start(2, 1, "a"), true, "up a:1"}, {start(2, 1, "a"), false, "down a:1"}}, ""},
		{"says it twice", []step{{start(2, 1, "a"), true, "up a:1"}, {start(2, 1, "a"), true, ""}}, "a:1"},
		{"changes", []step{{start(2, 1, "a"), true, "up a:1"}, {changed, true, "updated a:1"}}, "a:1"},
		{"restarts, and the old start dies later", []step{
			{start(2, 1, "a"), true, "up a:1"}, {start(2, 2, "a"), true, "down a:1, up a:2"}, {start(2, 1, "a"), false, ""},
		}, "a:2"},
		{"restarts after it was declared dead", []step{
			{start(2, 1, "a"), true, "up a:1"}, {start(2, 1, "a"), false, "down a:1"}, {start(2, 2, "a"), true, "up a:2"},
		}, "a:2"},
		{"an old start is heard of late", []step{{start(2, 5, "a"), true, "up a:5"}, {start(2, 4, "a"), true, ""}, {start(2, 4, "a"), false, ""}}, "a:5"},
		{"two stores claim the id: the first one stays, even with fewer starts", []step{
			{start(2, 1, "a"), true, "up a:1"}, {start(2, 9, "b"), true, "duplicate b:9"}, {start(2, 9, "b"), true, ""},
		}, "a:1"},
		{"the first one goes, the other takes over", []step{
			{start(2, 1, "a"), true, "up a:1"}, {start(2, 9, "b"), true, "duplicate b:9"}, {start(2, 1, "a"), false, "down a:1, up b:9"},
		}, "b:9"},
		{"a new disk with fewer starts, the old one is gone", []step{
			{start(2, 9, "a"), true, "up a:9"}, {start(2, 9, "a"), false, "down a:9"}, {start(2, 1, "b"), true, "up b:1"},
		}, "b:1"},
		{"two processes on one start of a store", []step{
			{start(2, 1, "a"), true, "up a:1"}, {twin(start(2, 1, "a")), true, "duplicate twin:a:1"}, {start(2, 1, "a"), false, "down a:1, up twin:a:1"},
		}, "twin:a:1"},
		{"this node's own former start", []step{{start(1, 2, "self"), true, ""}, {start(1, 2, "self"), false, ""}}, ""},
		{"this node itself", []step{{start(1, 3, "self"), true, ""}}, ""},
		{"a copy of this node's directory at the same start", []step{{twin(start(1, 3, "self")), true, "duplicate twin:self:3"}}, ""},
		{"a copy of this node's directory, started later", []step{{start(1, 4, "self"), true, "duplicate self:4"}}, ""},
		{"another node under this one's id", []step{{start(1, 1, "b"), true, "duplicate b:1"}, {start(1, 1, "b"), false, ""}}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tab := newTable("1.3.self", start(1, 3, "self"))
			for i, s := range tc.steps {
				var got []string
				for _, e := range tab.apply(change{nameOf(s.member), s.member, s.alive}) {
					got = append(got, e.Kind.String()+" "+e.Member.RPCAddress)
					var d *DuplicateError
					if errors.As(e.Err, &d) != (e.Kind == Duplicate) {
						t.Errorf("step %d: %v with error %v", i, e.Kind, e.Err)
					}
				}
				if strings.Join(got, ", ") != s.want {
					t.Errorf("step %d: got %q, want %q", i, got, s.want)
				}
			}
			if m, _ := tab.member(2); m.RPCAddress != tc.final {
				t.Errorf("at the end it is %q, want %q", m.RPCAddress, tc.final)
			}
		})
	}
}

func TestTableIsBounded(t *testing.T) {
	tab := newTable("1.1.self", start(1, 1, "self"))
	for i := range maxMembers {
		if tab.full(fmt.Sprintf("2.%d", i)) {
			t.Fatalf("full after %d", i)
		}
		tab.apply(change{fmt.Sprintf("2.%d", i), start(2, uint64(i), "a"), true})
	}
	if !tab.full("3.1") || tab.full("2.0") {
		t.Error("one more name, or not one that is there")
	}
}

func TestLogBridge(t *testing.T) {
	var lines []string
	l := newLogBridge(slog.New(recorder{func(r slog.Record) {
		text := r.Level.String()
		r.Attrs(func(a slog.Attr) bool { text += " " + a.String(); return true })
		lines = append(lines, text)
	}}))
	l.Printf("[ERR] memberlist: Failed to receive: %s from=127.0.0.1:%d", "EOF", 1)
	l.Printf("[ERR] memberlist: Failed to receive: %s from=127.0.0.1:%d", "EOF", 2)
	l.Printf("[DEBUG] memberlist: Stream connection from=127.0.0.1:1")
	l.Printf("[WARN] memberlist: Got ping for unexpected node '2.1'")
	l.Printf("[ERR] memberlist: %s", strings.Repeat("x", 10_000))
	want := []string{"WARN memberlist=Failed to receive: EOF from=127.0.0.1:1", "WARN memberlist=" + strings.Repeat("x", 300)}
	if !slices.Equal(lines, want) {
		t.Errorf("got  %q\nwant %q", lines, want)
	}
}
