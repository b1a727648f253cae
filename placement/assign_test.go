package placement

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/wal/id"
)

func candidates(ids ...id.Node) []Candidate {
	c := make([]Candidate, len(ids))
	for i, n := range ids {
		c[i].Node = n
	}
	return c
}

func rowsText(rows [][]id.Node) string {
	var lines []string
	for _, r := range rows {
		lines = append(lines, strings.Trim(strings.ReplaceAll(fmt.Sprint(r), " ", ","), "[]"))
	}
	return strings.Join(lines, " / ")
}

// The first two are rows that people saw Kafka print; the rest follows from the rules.
func TestAssignGolden(t *testing.T) {
	for _, tc := range []struct {
		name           string
		nodes          []Candidate
		partitions, rf int
		start          int
		want           string
	}{
		{"three nodes", candidates(1, 2, 3), 3, 3, 2, "3,1,2 / 1,2,3 / 2,3,1"},
		{"a gap in the ids", candidates(0, 2, 3), 3, 2, 0, "0,2 / 2,3 / 3,0"},
		{"one node", candidates(7), 2, 1, 0, "7 / 7"},
		{"more partitions than nodes", candidates(1, 2, 3, 4), 5, 3, 1, "2,3,4 / 3,4,1 / 4,1,2 / 1,2,3 / 2,3,4"},
		{"a rack each is as if there were none", []Candidate{{1, "a"}, {2, "b"}, {3, "c"}}, 3, 2, 2, "3,1 / 1,2 / 2,3"},
		{"one rack is none", []Candidate{{1, "a"}, {2, "a"}, {3, "a"}}, 3, 2, 2, "3,1 / 1,2 / 2,3"},
		{"a node without a rack: none count", []Candidate{{1, "a"}, {2, "a"}, {3, ""}}, 3, 2, 0, "1,2 / 2,3 / 3,1"},
		{"two racks", []Candidate{{1, "a"}, {2, "a"}, {3, "b"}, {4, "b"}}, 4, 2, 0, "1,3 / 3,2 / 2,4 / 4,1"},
		{"two racks, three replicas", []Candidate{{1, "a"}, {2, "a"}, {3, "b"}, {4, "b"}}, 2, 3, 0, "1,3,2 / 3,2,4"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := rowsText(Assign(tc.nodes, tc.partitions, tc.rf, tc.start)); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func drawNodes(t *rapid.T, racks []string) []Candidate {
	ids := rapid.SliceOfNDistinct(rapid.Int32Range(0, 1000), 1, 12, rapid.ID[int32]).Draw(t, "nodes")
	slices.Sort(ids)
	c := make([]Candidate, len(ids))
	for i, n := range ids {
		c[i] = Candidate{Node: id.Node(n), Rack: rapid.SampledFrom(racks).Draw(t, "rack")}
	}
	return c
}

func spreadOf(counts map[id.Node]int, nodes []Candidate) int {
	low, high := counts[nodes[0].Node], counts[nodes[0].Node]
	for _, n := range nodes {
		low, high = min(low, counts[n.Node]), max(high, counts[n.Node])
	}
	return high - low
}

func TestAssignProperties(t *testing.T) {
	for name, racks := range map[string][]string{"no racks": {""}, "racks": {"a", "b", "c", "d"}, "some racks": {"", "a", "b"}} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				nodes := drawNodes(t, racks)
				rf := rapid.IntRange(1, len(nodes)).Draw(t, "rf")
				partitions := rapid.IntRange(1, 60).Draw(t, "partitions")
				start := rapid.IntRange(0, 100).Draw(t, "start")
				checkRows(t, nodes, Assign(nodes, partitions, rf, start), partitions, rf)
			})
		})
	}
}

func checkRows(t *rapid.T, nodes []Candidate, rows [][]id.Node, partitions, rf int) {
	if len(rows) != partitions {
		t.Fatalf("%d rows for %d partitions", len(rows), partitions)
	}
	leaders, replicas := map[id.Node]int{}, map[id.Node]int{}
	rackOf, inRack := map[id.Node]string{}, map[string]int{}
	for _, n := range nodes {
		rackOf[n.Node] = n.Rack
		inRack[n.Rack]++
	}
	for i, row := range rows {
		if len(row) != rf || len(slices.Compact(slices.Sorted(slices.Values(row)))) != rf {
			t.Fatalf("partition %d: %v is not %d different nodes", i, row, rf)
		}
		leaders[row[0]]++
		used := map[string]int{}
		for _, n := range row {
			if _, ok := rackOf[n]; !ok {
				t.Fatalf("partition %d: unknown node %d", i, n)
			}
			replicas[n]++
			used[rackOf[n]]++
		}
		if _, none := inRack[""]; !none {
			checkRacks(t, row, used, inRack)
		}
	}
	if d := spreadOf(leaders, nodes); d > 1 {
		t.Fatalf("leaders differ by %d: %v", d, leaders)
	}
	if _, none := inRack[""]; (none || len(inRack) == 1 || len(inRack) == len(nodes)) && partitions%len(nodes) == 0 && spreadOf(replicas, nodes) != 0 {
		t.Fatalf("replicas are uneven: %v", replicas)
	}
}

// checkRacks: no rack has two replicas more than another that still had a free node.
func checkRacks(t *rapid.T, row []id.Node, used, inRack map[string]int) {
	for more, n := range used {
		for less, size := range inRack {
			if used[less] < size && n > used[less]+1 {
				t.Fatalf("%v: rack %s has %d replicas, rack %s only %d and room", row, more, n, less, used[less])
			}
		}
	}
}

// Topics that are created one after the other begin on different nodes.
func TestAssignStartSpreadsTopics(t *testing.T) {
	tab := clusterOf(t, 3)
	var first []id.Node
	for i := range 6 {
		topic := mustCreate(t, tab, fmt.Sprintf("t%d", i), 1, 1)
		first = append(first, topic.Partitions[0].Preferred().Node)
	}
	if !slices.Equal(first, []id.Node{1, 2, 3, 1, 2, 3}) {
		t.Errorf("leaders of one-partition topics: %v", first)
	}
}
