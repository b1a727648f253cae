package serving

import (
	"testing"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestLeaderViews: a node that does not answer in time makes nothing leaderless that it may lead, or that others say who leads.
func TestLeaderViews(t *testing.T) {
	const g, none = id.Group(7), id.NoNode
	says := func(node, leader id.Node) leaderView {
		return leaderView{node: node, leaders: map[id.Group]id.Node{g: leader}}
	}
	silent := func(node id.Node) leaderView { return leaderView{node: node} }
	without := func(node id.Node) leaderView { return leaderView{node: node, leaders: map[id.Group]id.Node{}} }
	for _, test := range []struct {
		name       string
		members    []id.Node
		views      leaderViews
		dead       id.Node
		known, led bool
	}{
		{"all answer", []id.Node{1, 2, 3}, leaderViews{says(1, 2), says(2, 2), says(3, 2)}, none, true, true},
		{"nobody leads", []id.Node{1, 2, 3}, leaderViews{says(1, none), says(2, none), says(3, none)}, none, true, false},
		{"the one that is followed says that it does not lead", []id.Node{1, 2}, leaderViews{says(1, 2), says(2, none)}, none, true, false},
		{"a follower is silent", []id.Node{1, 2, 3}, leaderViews{silent(1), says(2, 2), says(3, 2)}, none, true, true},
		{"the leader is silent", []id.Node{1, 2, 3}, leaderViews{silent(1), says(2, 1), says(3, 1)}, none, false, false},
		{"a silent one was forgotten", []id.Node{1, 2, 3}, leaderViews{silent(1), says(2, none), says(3, none)}, none, true, false},
		{"the only replica is silent", []id.Node{1}, leaderViews{silent(1), without(2)}, none, false, false},
		{"the only replica is dead", []id.Node{1}, leaderViews{silent(1), without(2)}, 1, true, false},
		{"the only replica is refused", []id.Node{2}, leaderViews{silent(1), without(2)}, none, true, false},
		{"one is refused and the leader silent", []id.Node{1, 2, 3}, leaderViews{silent(1), without(2), says(3, 1)}, none, false, false},
		{"who is no member knows nothing", []id.Node{1, 2}, leaderViews{says(1, none), says(2, none), says(3, 3)}, none, true, false},
	} {
		p := placement.Partition{Group: g}
		for i, n := range test.members {
			p.Members = append(p.Members, placement.Member{Replica: id.Replica(i + 1), Node: n})
		}
		known, led := test.views.leads(&p, func(n id.Node) bool { return n != test.dead })
		if known != test.known || led != test.led {
			t.Errorf("%s: known %v, led %v", test.name, known, led)
		}
	}
}
