package placement

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/wal/id"
)

// quorum is a metadata group for tests: it carries out what is planned.
type quorum map[id.Node]*QuorumMember

func (q quorum) members() []QuorumMember {
	var m []QuorumMember
	for n := range id.Node(100) {
		if q[n] != nil {
			m = append(m, *q[n])
		}
	}
	return m
}

func (q quorum) voters() []id.Node {
	var v []id.Node
	for _, m := range q.members() {
		if m.Role == Voter {
			v = append(v, m.Node)
		}
	}
	return v
}

func (q quorum) apply(c QuorumChange) {
	for _, m := range c.Add {
		q[m.Node] = &QuorumMember{Member: m, Alive: true, CaughtUp: true}
	}
	for _, m := range c.Promote {
		q[m.Node].Role = Voter
	}
	for _, m := range c.Demote {
		q[m.Node].Role = Learner
	}
	for _, m := range c.Remove {
		delete(q, m.Node)
	}
}

func (q quorum) settle(t testing.TB, v *View) {
	t.Helper()
	for range 100 {
		c := PlanQuorum(v, q.members())
		if c.Empty() {
			return
		}
		q.apply(c)
	}
	t.Fatal("the plan never ends")
}

func founded(v *View) quorum {
	q := quorum{}
	q.apply(QuorumChange{Add: v.MetadataMembers()[:1]})
	q[1].Role = Voter
	return q
}

func TestQuorumGrows(t *testing.T) {
	for nodes, want := range map[int][]id.Node{
		1: {1}, 2: {1}, 3: {1, 2, 3}, 4: {1, 2, 3}, 5: {1, 2, 3, 4, 5}, 7: {1, 2, 3, 4, 5},
	} {
		v := clusterOf(t, nodes).View()
		q := founded(v)
		q.settle(t, v)
		if got := q.voters(); !slices.Equal(got, want) || len(q) != nodes {
			t.Errorf("%d nodes: voters %v of %d members, want %v", nodes, got, len(q), want)
		}
	}
}

func TestQuorumWaitsForLearners(t *testing.T) {
	v := clusterOf(t, 3).View()
	q := founded(v)
	q.apply(PlanQuorum(v, q.members()))
	q[3].CaughtUp = false
	if c := PlanQuorum(v, q.members()); !c.Empty() {
		t.Errorf("with one learner behind: %+v", c)
	}
	q[3].CaughtUp, q[3].Alive = true, false
	if c := PlanQuorum(v, q.members()); !c.Empty() {
		t.Errorf("with one learner dead: %+v", c)
	}
	q[3].Alive = true
	if c := PlanQuorum(v, q.members()); len(c.Promote) != 2 {
		t.Errorf("both ready: %+v", c)
	}
}

func TestQuorumReplacesDeadVoter(t *testing.T) {
	v := clusterOf(t, 4).View()
	q := founded(v)
	q.settle(t, v)
	q[1].Alive = false
	q.settle(t, v)
	if got := q.voters(); !slices.Equal(got, []id.Node{2, 3, 4}) {
		t.Errorf("voters %v after node 1 died", got)
	}
	q[2].Alive = false
	if c := PlanQuorum(v, q.members()); !c.Empty() {
		t.Errorf("nobody is left to take over: %+v", c)
	}
}

func TestQuorumSpreadsOverRacks(t *testing.T) {
	tab := NewTable()
	apply(t, tab, FoundCluster{ClusterID: "c", Name: "n", Founder: 1})
	for n, rack := range []string{"a", "a", "a", "b"} {
		r := registration(id.Node(n + 1))
		r.Rack = rack
		apply(t, tab, r)
	}
	q := founded(tab.View())
	q.settle(t, tab.View())
	if got := q.voters(); !slices.Equal(got, []id.Node{1, 2, 4}) {
		t.Errorf("voters %v with racks a a a b", got)
	}
}

func TestQuorumOfUnregisteredNodes(t *testing.T) {
	for _, tc := range []struct {
		nodes int
		gone  id.Node
		want  []id.Node
	}{
		{5, 5, []id.Node{2, 3, 4}}, // five voters become four become three
		{6, 2, []id.Node{1, 3, 4, 5, 6}},
		{3, 1, []id.Node{2, 3}}, // two voters are kept: one alone would hold what was acknowledged
		{2, 1, []id.Node{2}},    // the only voter hands over before it goes
	} {
		tab := clusterOf(t, tc.nodes)
		q := founded(tab.View())
		q.settle(t, tab.View())
		apply(t, tab, UnregisterNode{Node: tc.gone})
		q.settle(t, tab.View())
		if got := q.voters(); !slices.Equal(got, tc.want) {
			t.Errorf("%d nodes, %d removed: voters %v, want %v", tc.nodes, tc.gone, got, tc.want)
		}
		if q[tc.gone] != nil {
			t.Errorf("node %d is still a member", tc.gone)
		}
	}
	tab := clusterOf(t, 2)
	q := founded(tab.View())
	q.settle(t, tab.View())
	apply(t, tab, UnregisterNode{Node: 1})
	q[2].CaughtUp = false
	if c := PlanQuorum(tab.View(), q.members()); !c.Empty() {
		t.Errorf("the only voter cannot go: %+v", c)
	}
}

// Whatever happens: there is always a voter, only ready learners are promoted, and it comes to rest.
func TestQuorumProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tab := NewTable()
		do := func(c Command) { tab.Apply(tab.View().Index(), c) }
		do(FoundCluster{ClusterID: "c", Name: "n", Founder: 1})
		do(registration(1))
		q := founded(tab.View())
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			n := id.Node(rapid.Int32Range(1, 7).Draw(t, "node"))
			switch rapid.IntRange(0, 4).Draw(t, "what") {
			case 0, 1:
				r := registration(n)
				r.StoreID = fmt.Sprintf("%s-%d", r.StoreID, tab.View().nextReplica)
				do(r)
			case 2:
				do(UnregisterNode{Node: n})
			default:
				if q[n] != nil {
					q[n].Alive = rapid.Bool().Draw(t, "alive")
					q[n].CaughtUp = rapid.Bool().Draw(t, "caught up")
				}
			}
			for i := 0; rapid.IntRange(0, 2).Draw(t, "plan") > 0; i++ {
				c := PlanQuorum(tab.View(), q.members())
				for _, m := range c.Promote {
					if q[m.Node].Role == Voter || !q[m.Node].Alive || !q[m.Node].CaughtUp {
						t.Fatalf("promotes %+v", q[m.Node])
					}
				}
				q.apply(c)
				if len(q.voters()) == 0 {
					t.Fatalf("no voter left after %+v", c)
				}
				if c.Empty() {
					break
				}
				if i > 50 {
					t.Fatal("the plan never ends")
				}
			}
		}
	})
}

func TestPlanLeaders(t *testing.T) {
	tab := clusterOf(t, 3)
	topic := mustCreate(t, tab, "a", 30, 3)
	v := tab.View()
	states := func(leader func(i int) id.Node) []LeaderState {
		var s []LeaderState
		for i, p := range topic.Partitions {
			state := LeaderState{Group: p.Group}
			if m, ok := p.On(leader(i)); ok {
				state.Leader = m.Replica
			}
			for _, m := range p.Members {
				state.CaughtUp = append(state.CaughtUp, m.Replica)
			}
			s = append(s, state)
		}
		return s
	}
	preferred := func(i int) id.Node { return topic.Partitions[i].Preferred().Node }

	if got := PlanLeaders(v, states(preferred), all, 100); len(got) != 0 {
		t.Errorf("balanced, and yet %v", got)
	}
	oneAway := states(func(i int) id.Node {
		if i == 0 {
			return topic.Partitions[0].Members[1].Node
		}
		return preferred(i)
	})
	if got := PlanLeaders(v, oneAway, all, 100); len(got) != 0 {
		t.Errorf("one of ten away is not more than 10 %%: %v", got)
	}
	afterFailure := states(func(i int) id.Node {
		if preferred(i) == 2 {
			return 3
		}
		return preferred(i)
	})
	got := PlanLeaders(v, afterFailure, all, 100)
	if len(got) != 10 {
		t.Fatalf("%d transfers back to node 2, want 10", len(got))
	}
	for _, tr := range got {
		if tr.From.Node != 3 || tr.To.Node != 2 {
			t.Errorf("transfer %+v", tr)
		}
	}
	if got := PlanLeaders(v, afterFailure, func(n id.Node) bool { return n != 2 }, 100); len(got) != 0 {
		t.Errorf("to a dead node: %v", got)
	}
	for i := range afterFailure {
		afterFailure[i].CaughtUp = nil
	}
	if got := PlanLeaders(v, afterFailure, all, 100); len(got) != 0 {
		t.Errorf("to voters that are behind: %v", got)
	}
	allOnOne := PlanLeaders(v, states(func(int) id.Node { return 1 }), all, 4)
	var to []id.Node
	for _, tr := range allOnOne {
		to = append(to, tr.To.Node)
	}
	if !slices.Equal(to, []id.Node{2, 3, 2, 3}) {
		t.Errorf("with a limit, transfers go to %v", to)
	}
	if got := PlanLeaders(v, states(func(int) id.Node { return 99 }), all, 4); len(got) != 0 {
		t.Errorf("groups without a leader: %v", got)
	}
}

func BenchmarkCreateTopicAmongThousands(b *testing.B) {
	tab := clusterOf(b, 3)
	for i := range 5000 {
		mustCreate(b, tab, fmt.Sprintf("topic-%d", i), 2, 3)
	}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		mustCreate(b, tab, fmt.Sprintf("more-%d", i), 1, 3)
	}
}
