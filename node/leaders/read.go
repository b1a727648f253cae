package leaders

import (
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Leader is who leads a group, as far as this node knows.
type Leader struct {
	Node  id.Node  // NoNode: nobody
	Epoch id.Epoch // the term in which it leads; of nobody the highest that a member has said
	// What the leader itself says, if it was heard. Not to be changed.
	InSync  []id.Node
	Lagging int
	// Known is false where nobody is named, and a member that seems to be alive has not been heard yet.
	Known bool
}

// Leader returns who leads a partition.
func (t *Table) Leader(p *placement.Partition) Leader {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.leaderLocked(p)
}

// Leaders returns who leads each partition of a topic.
func (t *Table) Leaders(topic *placement.Topic) []Leader {
	list := make([]Leader, len(topic.Partitions))
	for from := 0; from < len(list); from += atOnce {
		t.readPart(topic, list, from)
	}
	return list
}

// atOnce is how many partitions are looked at under one lock: a worker may wait for it.
const atOnce = 1000

func (t *Table) readPart(topic *placement.Topic, list []Leader, from int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for i := from; i < min(from+atOnce, len(list)); i++ {
		list[i] = t.leaderLocked(&topic.Partitions[i])
	}
}

// opinion is what a member says of its group.
type opinion struct {
	by      id.Node
	leader  id.Node
	term    id.Term
	inSync  []id.Node
	lagging int
}

// opinionLocked returns what a node says of a group. Heard is false for one that has not said yet all that it knows, or is lost.
func (t *Table) opinionLocked(g *group, node id.Node) (o opinion, heard, said bool) {
	if node == t.o.Self {
		if g == nil || !g.own.speaks() {
			return o, true, false
		}
		o = opinion{by: node, leader: g.own.leader, term: g.own.term}
		if g.own.judged == g.own.term {
			o.inSync, o.lagging = g.own.inSync, int(g.own.lagging)
		}
		return o, true, true
	}
	l := t.tellers[node]
	if l == nil || !l.speaks() {
		return o, false, false
	}
	if g != nil {
		for i := range g.words {
			if w := &g.words[i]; w.by == l && w.round >= l.since {
				return opinion{by: node, leader: w.leader, term: w.term, inSync: w.inSync, lagging: int(w.lagging)}, l.whole, true
			}
		}
	}
	return o, l.whole, false
}

func (t *Table) leaderLocked(p *placement.Partition) Leader {
	g := t.groups[p.Group]
	best, highest, known := opinion{leader: id.NoNode}, id.Term(0), true
	for _, m := range p.Members {
		o, heard, said := t.opinionLocked(g, m.Node)
		if !said {
			known = known && (heard || t.isLostLocked(m.Node) || !t.o.Alive(m.Node))
			continue
		}
		highest = max(highest, o.term)
		if _, member := p.On(o.leader); !member {
			continue
		}
		if best.leader == id.NoNode || o.term > best.term || o.term == best.term && o.by == o.leader {
			best = o
		}
	}
	if best.leader != id.NoNode && best.by != best.leader {
		own, _, said := t.opinionLocked(g, best.leader)
		if said && own.term >= best.term && own.leader != best.leader {
			best = opinion{leader: id.NoNode} // it says itself that it does not lead
		}
	}
	if best.leader == id.NoNode {
		return Leader{Node: id.NoNode, Epoch: id.EpochOf(highest), Known: known}
	}
	return Leader{Node: best.leader, Epoch: id.EpochOf(best.term), InSync: best.inSync, Lagging: best.lagging, Known: true}
}

func (t *Table) isLostLocked(node id.Node) bool {
	l := t.tellers[node]
	return l != nil && l.lost
}

// Count is how it stands with the partitions of a cluster.
type Count struct {
	Leaderless      int // nobody leads
	Unknown         int // that is not known: who may lead is silent
	UnderReplicated int // led, and not all members are in sync and answer
}

// Count looks at all partitions of the metadata. That one is leaderless takes more than that its leader is not heard: as long as followers
// hear it, or as it may be the only one to know, nothing is known.
func (t *Table) Count(view *placement.View) (c Count) {
	for _, topic := range view.Topics() {
		for from := 0; from < len(topic.Partitions); from += atOnce {
			t.countPart(topic, &c, from)
		}
	}
	return c
}

func (t *Table) countPart(topic *placement.Topic, c *Count, from int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for i := from; i < min(from+atOnce, len(topic.Partitions)); i++ {
		known, led, lagging := t.standingLocked(&topic.Partitions[i])
		switch {
		case !known:
			c.Unknown++
		case !led:
			c.Leaderless++
		case lagging:
			c.UnderReplicated++
		}
	}
}

// standingLocked tells whether a partition is led. Only who leads it is sure of that; but where a node does not answer, its followers know
// whether they hear from it as their leader.
func (t *Table) standingLocked(p *placement.Partition) (known, led, lagging bool) {
	g := t.groups[p.Group]
	some, silent, followed := false, false, false // some member was heard; one that was not seems alive, or is followed by one that was
	for _, m := range p.Members {
		o, heard, said := t.opinionLocked(g, m.Node)
		switch {
		case said && o.leader == m.Node:
			return true, true, o.lagging > 0
		case said:
			some = true
			followed = followed || o.leader != id.NoNode && !t.heardLocked(o.leader)
		case heard:
			some = true
		default:
			silent = silent || t.o.Alive(m.Node)
		}
	}
	return !followed && (some || !silent), false, false
}

// heardLocked tells whether a node has said all that it knows.
func (t *Table) heardLocked(node id.Node) bool {
	l := t.tellers[node]
	return node == t.o.Self || l != nil && l.speaks() && l.whole
}
