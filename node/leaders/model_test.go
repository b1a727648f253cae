package leaders

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/id"
)

// cluster is some nodes that tell each other who leads, over lanes that break, while leaders come and go.
type cluster struct {
	rt       *rapid.T
	metadata *metadata
	tables   map[id.Node]*Table
	lanes    map[[2]id.Node]*lane
	sessions map[id.Node]uint64 // the last one that each has let in
	groups   []*placement.Partition
	led      map[id.Group]map[id.Term]id.Node // who was ever elected
	now      map[id.Group]id.Term
}

const clusterNodes = 4

func newCluster(t *testing.T, rt *rapid.T) *cluster {
	c := &cluster{
		rt: rt, metadata: newMetadata(t, clusterNodes), tables: make(map[id.Node]*Table), lanes: make(map[[2]id.Node]*lane),
		sessions: make(map[id.Node]uint64), led: make(map[id.Group]map[id.Term]id.Node), now: make(map[id.Group]id.Term),
	}
	topic := c.metadata.topic("t", []id.Node{1, 2, 3}, []id.Node{2, 3, 4}, []id.Node{4, 1, 2}, []id.Node{3, 4, 1}, []id.Node{1, 2, 4})
	for i := range topic.Partitions {
		c.groups = append(c.groups, &topic.Partitions[i])
		c.led[topic.Partitions[i].Group] = make(map[id.Term]id.Node)
	}
	for n := id.Node(1); n <= clusterNodes; n++ {
		c.start(n)
	}
	return c
}

// start starts a node that knows nothing, anew if it was there, with its replicas: they remember their terms.
func (c *cluster) start(n id.Node) {
	table := New(Options{Self: n, View: c.metadata.table.View, Alive: alive})
	table.piece = 80 // two words
	c.tables[n] = table
	for _, p := range c.groups {
		if _, member := p.On(n); member {
			table.Leads(p.Group, id.NoNode, c.now[p.Group])
		}
	}
	for other := range c.tables {
		if other != n {
			c.lanes[[2]id.Node{n, other}] = &lane{from: table}
			c.lanes[[2]id.Node{other, n}] = &lane{from: c.tables[other]}
			c.open(n, other)
			c.open(other, n)
		}
	}
}

func (c *cluster) open(from, to id.Node) {
	l := c.lanes[[2]id.Node{from, to}]
	l.from, l.to = c.tables[from], c.tables[to]
	c.sessions[to]++
	l.reopen(c.sessions[to])
}

func (c *cluster) node(label string) id.Node {
	return id.Node(rapid.IntRange(1, clusterNodes).Draw(c.rt, label))
}

func (c *cluster) pair() (from, to id.Node) {
	from = c.node("from")
	if to = c.node("to"); to == from {
		to = from%clusterNodes + 1
	}
	return from, to
}

func (c *cluster) group() *placement.Partition {
	return rapid.SampledFrom(c.groups).Draw(c.rt, "group")
}

func (c *cluster) member(p *placement.Partition) id.Node {
	return rapid.SampledFrom(p.Members).Draw(c.rt, "member").Node
}

func (c *cluster) elect(*rapid.T) {
	p := c.group()
	leader := c.member(p)
	c.now[p.Group]++
	term := c.now[p.Group]
	c.led[p.Group][term] = leader
	c.tables[leader].InSync(p.Group, term, []id.Node{leader}, 2)
	c.tables[leader].Leads(p.Group, leader, term)
}

// follow has a member hear of a leader, which may not be the last one, or of none.
func (c *cluster) follow(*rapid.T) {
	p := c.group()
	n, term := c.member(p), c.now[p.Group]
	leader, elected := c.led[p.Group][term]
	if !elected || rapid.Bool().Draw(c.rt, "nobody") {
		leader = id.NoNode
	}
	c.tables[n].Leads(p.Group, leader, term)
}

// judge has a leader judge its followers.
func (c *cluster) judge(*rapid.T) {
	p := c.group()
	term := c.now[p.Group]
	if leader, ok := c.led[p.Group][term]; ok {
		lagging := rapid.IntRange(0, 2).Draw(c.rt, "lagging")
		c.tables[leader].InSync(p.Group, term, make([]id.Node, 3-lagging), lagging)
	}
}

func (c *cluster) fail(*rapid.T) {
	p := c.group()
	c.tables[c.member(p)].Gone(p.Group)
}

func (c *cluster) carry(*rapid.T) {
	from, to := c.pair()
	c.lanes[[2]id.Node{from, to}].carry()
}

// breakLane ends a lane. The next one may be open before that is noticed, and then what was under way on the old one comes after it.
func (c *cluster) breakLane(*rapid.T) {
	from, to := c.pair()
	l := c.lanes[[2]id.Node{from, to}]
	old, late := l.session, c.tables[from].Since(l.count, nil)
	switch rapid.SampledFrom([]string{"closed", "late", "reordered"}).Draw(c.rt, "how") {
	case "closed":
		c.tables[to].Closed(from, old)
		c.open(from, to)
	case "late":
		c.open(from, to)
		l.carry()
		c.tables[to].Closed(from, old)
	case "reordered":
		c.open(from, to)
		l.carry()
		c.tables[to].Hear(from, old, late)
	}
}

func (c *cluster) lose(*rapid.T) {
	from, to := c.pair()
	c.tables[to].Down(from)
}

func (c *cluster) find(*rapid.T) {
	from, to := c.pair()
	c.tables[to].Up(from)
}

func (c *cluster) restart(*rapid.T) {
	n := c.node("restarted")
	for other, table := range c.tables {
		if other != n {
			table.Closed(n, c.lanes[[2]id.Node{n, other}].session)
		}
	}
	c.start(n)
}

func (c *cluster) sweep(*rapid.T) { c.tables[c.node("swept")].Sweep() }

// check looks at every answer of every node: nobody is named who was not elected in that term.
func (c *cluster) check(*rapid.T) {
	for n, table := range c.tables {
		for _, p := range c.groups {
			l := table.Leader(p)
			if elected := c.led[p.Group][id.Term(l.Epoch)]; l.Node != id.NoNode && elected != l.Node {
				c.rt.Fatalf("node %d says that %d leads group %d in epoch %d, in which %d was elected", n, l.Node, p.Group, l.Epoch, elected)
			}
			if len(l.InSync)+l.Lagging != 3 && len(l.InSync) > 0 {
				c.rt.Fatalf("node %d says %+v", n, l)
			}
		}
	}
}

// agree heals everything, and has every node say what one would that has heard all of them say all they know.
func (c *cluster) agree(t *testing.T) {
	for key, l := range c.lanes {
		c.tables[key[1]].Up(key[0])
		l.carryAll()
	}
	judge := New(Options{Self: clusterNodes + 1, View: c.metadata.table.View, Alive: alive})
	for n, table := range c.tables {
		table.piece = rpc.NewsBytes
		require.True(t, judge.Hear(n, 1, table.Since(0, nil)))
	}
	for n, table := range c.tables {
		for _, p := range c.groups {
			want := judge.Leader(p)
			require.Equal(t, want, table.Leader(p), "node %d of group %d", n, p.Group)
			require.True(t, want.Known)
		}
		require.Equal(t, judge.Count(c.metadata.table.View()), table.Count(c.metadata.table.View()), "node %d", n)
		table.Sweep()
		require.LessOrEqual(t, len(table.groups), len(c.groups))
		for g, known := range table.groups {
			others := 0
			for other, theirs := range c.tables {
				if own := theirs.groups[g]; other != n && own != nil && own.own.speaks() {
					others++
				}
			}
			require.Len(t, known.words, others, "node %d of group %d", n, g)
		}
	}
}

// TestNodesAgree: whatever happens to leaders, lanes and nodes, in whatever order it is heard of, nobody is named who was not elected, and
// once all is well all nodes say the same, which is what the members say.
func TestNodesAgree(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := newCluster(t, rt)
		rt.Repeat(map[string]func(*rapid.T){
			"elect": c.elect, "follow": c.follow, "follow2": c.follow, "judge": c.judge, "fail": c.fail, "carry": c.carry, "carry2": c.carry,
			"carry3": c.carry, "break": c.breakLane, "lose": c.lose, "find": c.find, "restart": c.restart, "sweep": c.sweep, "": c.check,
		})
		c.agree(t)
	})
}
