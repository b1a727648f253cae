package placement

import (
	"cmp"
	"slices"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Assign spreads the replicas of a new topic, for the command that makes it; no table depends on how it does that. Row i lists the nodes
// of partition i, the preferred leader first. nodes are sorted by id and at least replicationFactor many; start, at least 0, shifts
// everything, so that topics do not all begin on the same node.
//
// Without racks, replica j of partition i goes to node (i+j+start) mod n. So leaders differ by at most one between nodes, and
// when n divides the number of partitions, replicas are even as well.
//
// With racks, that is when every node has one and there are at least two, leaders go round the nodes in an order in which
// neighbours are in different racks, and followers go where, in this order, the rack has the fewest replicas of the partition, the
// node has the fewest of the topic, and the way round the ring is shortest. A partition is spread as widely as racks allow: a
// rack has a second replica of it only when every rack that could take one has its first.
func Assign(nodes []Candidate, partitions, replicationFactor, start int) [][]id.Node {
	if replicationFactor > len(nodes) {
		panic("placement: more replicas than nodes")
	}
	ring, racks := rackRing(nodes)
	n := len(ring)
	rows := make([][]id.Node, partitions)
	held := make([]int, n) // replicas of the topic, by position in the ring
	for i := range rows {
		leader := (i + start) % n
		picked := spread(ring, racks, held, leader, replicationFactor)
		row := make([]id.Node, len(picked))
		for j, at := range picked {
			row[j] = ring[at].Node
		}
		rows[i] = row
	}
	return rows
}

// spread returns the positions for one partition, that of the leader first, and counts them in held. racks is the number of racks,
// 0 to ignore them.
func spread(ring []ringNode, racks int, held []int, leader, replicationFactor int) []int {
	n := len(ring)
	picked := make([]int, 0, replicationFactor)
	inRack := make([]int, racks)
	take := func(at int) {
		picked = append(picked, at)
		held[at]++
		if racks > 0 {
			inRack[ring[at].rack]++
		}
	}
	take(leader)
	for len(picked) < replicationFactor {
		if racks == 0 {
			take((leader + len(picked)) % n)
			continue
		}
		best := -1
		for step := 1; step < n; step++ {
			at := (leader + step) % n
			if slices.Contains(picked, at) {
				continue
			}
			if best < 0 || cmp.Or(cmp.Compare(inRack[ring[at].rack], inRack[ring[best].rack]), cmp.Compare(held[at], held[best])) < 0 {
				best = at
			}
		}
		take(best)
	}
	return picked
}

type ringNode struct {
	Candidate
	rack int // number of the rack, in the order of their lowest node ids
}

// rackRing puts the nodes in the order in which leaders go round, and returns how many racks there are: 0 if they do not count, and
// then the order is that of the ids. With racks it deals them out like cards, one from each rack in turn.
func rackRing(nodes []Candidate) ([]ringNode, int) {
	var byRack [][]ringNode
	number := make(map[string]int)
	for _, n := range nodes {
		r, ok := number[n.Rack]
		if !ok {
			r = len(byRack)
			number[n.Rack] = r
			byRack = append(byRack, nil)
		}
		byRack[r] = append(byRack[r], ringNode{n, r})
	}
	ring := make([]ringNode, 0, len(nodes))
	if _, some := number[""]; some || len(byRack) < 2 {
		for _, n := range nodes {
			ring = append(ring, ringNode{Candidate: n})
		}
		return ring, 0
	}
	for i := 0; len(ring) < len(nodes); i++ {
		for _, rack := range byRack {
			if i < len(rack) {
				ring = append(ring, rack[i])
			}
		}
	}
	return ring, len(byRack)
}
