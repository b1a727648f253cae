package leaders

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/id"
)

// metadata is a table of the metadata of a test.
type metadata struct {
	t     testing.TB
	table *placement.Table
	index id.Index
}

func newMetadata(t testing.TB, nodes int) *metadata {
	m := &metadata{t: t, table: placement.NewTable()}
	m.apply(placement.FoundCluster{ClusterID: "c", Name: "n", Founder: 1})
	for n := 1; n <= nodes; n++ {
		m.apply(placement.RegisterNode{
			Node: id.Node(n), StoreID: fmt.Sprint(n), BootEpoch: 1, RPCAddress: fmt.Sprintf("127.0.0.1:%d", n), GossipAddress: "127.0.0.1:1",
			MinLevel: placement.FirstLevel, MaxLevel: placement.SupportedLevel,
		})
	}
	return m
}

func (m *metadata) apply(c placement.Command) any {
	m.t.Helper()
	m.index++
	result, err := m.table.Apply(m.index, c)
	require.NoError(m.t, err)
	return result
}

func (m *metadata) topic(name string, assignment ...[]id.Node) *placement.Topic {
	m.t.Helper()
	return m.apply(placement.CreateTopic{Name: name, ID: id.NewTopic(), Assignment: assignment}).(*placement.Topic)
}

func alive(id.Node) bool { return true }

// lane carries news from one table to another as a control lane does: all from the beginning of each session, in order.
type lane struct {
	from, to *Table
	session  uint64
	count    uint64
}

func (l *lane) reopen(session uint64) { l.session, l.count = session, 0 }

// carry brings one message over.
func (l *lane) carry() (last bool) {
	n := l.from.Since(l.count, nil)
	if n.From == 0 || n.To != l.count {
		if !l.to.Hear(l.from.o.Self, l.session, n) {
			l.count = 0
			return false
		}
		l.count = n.To
	}
	return n.Last
}

func (l *lane) carryAll() {
	for !l.carry() {
	}
}

func TestOwnWord(t *testing.T) {
	m := newMetadata(t, 3)
	topic := m.topic("t", []id.Node{1, 2, 3})
	p := &topic.Partitions[0]
	told := 0
	table := New(Options{Self: 1, View: m.table.View, Alive: alive, Changed: func() { told++ }})
	require.Equal(t, Leader{Node: id.NoNode, Known: false}, table.Leader(p), "the others have said nothing")
	table.o.Alive = func(id.Node) bool { return false }
	require.True(t, table.Leader(p).Known, "nobody can say anything")
	table.o.Alive = alive
	table.Leads(p.Group, id.NoNode, 4)
	require.Equal(t, id.Epoch(4), table.Leader(p).Epoch, "of nobody the highest term is said")
	table.InSync(p.Group, 5, []id.Node{1, 2}, 1)
	require.Equal(t, 1, told, "it does not lead yet")
	table.Leads(p.Group, 1, 5)
	require.Equal(t, Leader{Node: 1, Epoch: 5, InSync: []id.Node{1, 2}, Lagging: 1, Known: true}, table.Leader(p))
	require.Equal(t, 1, table.Lagging())
	table.Leads(p.Group, 1, 5)
	require.Equal(t, 2, told, "that is nothing new")
	table.Leads(p.Group, 2, 6)
	require.Equal(t, Leader{Node: 2, Epoch: 6, Known: true}, table.Leader(p))
	require.Zero(t, table.Lagging())
	table.Gone(p.Group)
	table.Gone(p.Group)
	require.Equal(t, 4, told)
	require.Equal(t, id.NoNode, table.Leader(p).Node)
	table.Leads(id.MetadataGroup, 1, 1)
	require.Equal(t, 4, told, "the metadata's leader is not for this table")
}

// TestWhoIsBelieved: what three members, some of them silent, make of it in the table of a fourth node.
func TestWhoIsBelieved(t *testing.T) {
	const none = id.NoNode
	type word struct {
		leader id.Node
		term   id.Term
	}
	for name, c := range map[string]struct {
		words  map[id.Node]word
		lost   []id.Node
		silent []id.Node // they are connected, and have not said everything
		want   Leader
	}{
		"all agree":                       {words: map[id.Node]word{1: {1, 3}, 2: {1, 3}, 3: {1, 3}}, want: Leader{Node: 1, Epoch: 3, Known: true}},
		"the higher term is right":        {words: map[id.Node]word{1: {1, 3}, 2: {3, 4}, 3: {1, 3}}, want: Leader{Node: 3, Epoch: 4, Known: true}},
		"a candidate deposes nobody":      {words: map[id.Node]word{1: {1, 3}, 2: {none, 9}, 3: {1, 3}}, want: Leader{Node: 1, Epoch: 3, Known: true}},
		"a leader knows best":             {words: map[id.Node]word{1: {none, 3}, 2: {1, 3}, 3: {1, 3}}, want: Leader{Node: none, Epoch: 3, Known: true}},
		"a new leader has not said so":    {words: map[id.Node]word{1: {none, 2}, 2: {1, 3}}, want: Leader{Node: 1, Epoch: 3, Known: true}},
		"a leader that is lost here":      {words: map[id.Node]word{1: {1, 3}, 2: {1, 3}, 3: {1, 3}}, lost: []id.Node{1}, want: Leader{Node: 1, Epoch: 3, Known: true}},
		"a leader that is lost":           {words: map[id.Node]word{1: {1, 3}, 2: {none, 3}, 3: {none, 3}}, lost: []id.Node{1}, want: Leader{Node: none, Epoch: 3, Known: true}},
		"its followers are lost as well":  {words: map[id.Node]word{1: {1, 3}, 2: {1, 3}, 3: {1, 3}}, lost: []id.Node{1, 2, 3}, want: Leader{Node: none, Known: true}},
		"one has not said yet":            {words: map[id.Node]word{1: {none, 3}, 2: {none, 3}}, silent: []id.Node{3}, want: Leader{Node: none, Epoch: 3}},
		"one has nothing to say":          {words: map[id.Node]word{1: {none, 3}, 2: {none, 3}}, want: Leader{Node: none, Epoch: 3, Known: true}},
		"a leader that is no member":      {words: map[id.Node]word{3: {4, 8}, 2: {1, 3}}, want: Leader{Node: 1, Epoch: 3, Known: true}},
		"somebody who is no member":       {words: map[id.Node]word{5: {5, 8}, 1: {1, 3}}, want: Leader{Node: 1, Epoch: 3, Known: true}},
		"a follower of a member says so":  {words: map[id.Node]word{2: {1, 3}}, silent: []id.Node{1, 3}, want: Leader{Node: 1, Epoch: 3, Known: true}},
		"nobody has said anything at all": {silent: []id.Node{1, 2, 3}, want: Leader{Node: none}},
	} {
		m := newMetadata(t, 5)
		p := &m.topic("t", []id.Node{1, 2, 3}).Partitions[0]
		table := New(Options{Self: 4, View: m.table.View, Alive: alive})
		for n := id.Node(1); n <= 5; n++ {
			if n == 4 {
				continue
			}
			news := rpc.News{To: 1, Last: !slices.Contains(c.silent, n)}
			if w, ok := c.words[n]; ok {
				news.Words = []rpc.Word{{Group: p.Group, Leader: w.leader, Term: w.term, Led: w.leader == n}}
			}
			require.True(t, table.Hear(n, 1, news))
		}
		for _, n := range c.lost {
			table.Down(n)
		}
		require.Equal(t, c.want, table.Leader(p), name)
		require.Equal(t, c.want, table.Leaders(m.table.View().Topic("t"))[0], name)
	}
}

// TestCount: a node that is silent makes nothing leaderless that it may lead, or that others say who leads.
func TestCount(t *testing.T) {
	const none = id.NoNode
	for _, c := range []struct {
		name       string
		members    []id.Node
		says       map[id.Node]id.Node // of those that speak; of no leader 99: nothing
		dead       id.Node
		known, led bool
	}{
		{"all speak", []id.Node{1, 2, 3}, map[id.Node]id.Node{1: 2, 2: 2, 3: 2}, none, true, true},
		{"nobody leads", []id.Node{1, 2, 3}, map[id.Node]id.Node{1: none, 2: none, 3: none}, none, true, false},
		{"the one that is followed says that it does not lead", []id.Node{1, 2}, map[id.Node]id.Node{1: 2, 2: none}, none, true, false},
		{"a follower is silent", []id.Node{1, 2, 3}, map[id.Node]id.Node{2: 2, 3: 2}, none, true, true},
		{"the leader is silent", []id.Node{1, 2, 3}, map[id.Node]id.Node{2: 1, 3: 1}, none, false, false},
		{"a silent one was forgotten", []id.Node{1, 2, 3}, map[id.Node]id.Node{2: none, 3: none}, none, true, false},
		{"the only replica is silent", []id.Node{1}, map[id.Node]id.Node{2: 99}, none, false, false},
		{"the only replica is dead", []id.Node{1}, map[id.Node]id.Node{2: 99}, 1, true, false},
		{"the only replica is refused", []id.Node{2}, map[id.Node]id.Node{2: 99}, none, true, false},
		{"one is refused and the leader silent", []id.Node{1, 2, 3}, map[id.Node]id.Node{2: 99, 3: 1}, none, false, false},
		{"who is no member knows nothing", []id.Node{1, 2}, map[id.Node]id.Node{1: none, 2: none, 3: 3}, none, true, false},
	} {
		for _, self := range []id.Node{2, 4} { // one that is asked, and one that looks on
			m := newMetadata(t, 4)
			p := &m.topic("t", c.members).Partitions[0]
			table := New(Options{Self: self, View: m.table.View, Alive: func(n id.Node) bool { return n != c.dead }})
			for n, leader := range c.says {
				if n == self {
					if leader != 99 {
						table.Leads(p.Group, leader, 1)
					}
					continue
				}
				news := rpc.News{To: 1, Last: true}
				if leader != 99 {
					news.Words = []rpc.Word{{Group: p.Group, Leader: leader, Term: 1, Led: leader == n}}
				}
				require.True(t, table.Hear(n, 1, news))
			}
			want := Count{}
			switch {
			case !c.known:
				want.Unknown++
			case !c.led:
				want.Leaderless++
			}
			require.Equal(t, want, table.Count(m.table.View()), "%s, on %d", c.name, self)
		}
	}
}

// TestSessions: words count for the lane that they came by. Both ends of it may be noticed in any order.
func TestSessions(t *testing.T) {
	m := newMetadata(t, 3)
	p := &m.topic("t", []id.Node{2, 3}).Partitions[0]
	table := New(Options{Self: 1, View: m.table.View, Alive: alive})
	leads := func(term id.Term, last bool) rpc.News {
		return rpc.News{To: 1, Last: last, Words: []rpc.Word{{Group: p.Group, Leader: 2, Term: term, Led: true}}}
	}
	epoch := func() id.Epoch { return table.Leader(p).Epoch }
	require.True(t, table.Hear(2, 5, leads(3, true)))
	require.Equal(t, id.Epoch(3), epoch())
	require.True(t, table.Hear(2, 4, leads(9, true)), "of an old lane: it is not asked for more")
	require.Equal(t, id.Epoch(3), epoch(), "and not believed")
	require.True(t, table.Hear(2, 6, leads(4, false)), "a new lane, before the old one ends")
	table.Closed(2, 5)
	require.Equal(t, id.Epoch(4), epoch(), "that the old one ends is no news")
	table.Closed(2, 6)
	require.Zero(t, epoch())
	require.True(t, table.Hear(2, 6, leads(5, true)), "nothing comes of a lane that is over")
	require.Zero(t, epoch())
	require.False(t, table.Hear(2, 7, rpc.News{From: 1, To: 2, Last: true}), "a lane does not begin in the middle")
	require.True(t, table.Hear(2, 7, leads(6, true)))
	require.False(t, table.Hear(2, 7, rpc.News{From: 2, To: 3, Last: true}), "something is missing")
	require.Equal(t, id.Epoch(6), epoch(), "what was said stands")
	require.True(t, table.Hear(2, 7, rpc.News{To: 3, Last: false}), "it begins anew")
	require.Equal(t, id.Epoch(6), epoch(), "what was said before counts until everything is said")
	require.True(t, table.Hear(2, 7, rpc.News{From: 3, To: 4, Last: true}))
	require.Zero(t, epoch(), "it was not said again")
}

// TestGroupsComeAndGo: words of groups that this node's metadata does not have yet are kept, within bounds; those of deleted groups go.
func TestGroupsComeAndGo(t *testing.T) {
	m := newMetadata(t, 3)
	topic := m.topic("old", []id.Node{2, 3})
	table := New(Options{Self: 1, View: m.table.View, Alive: alive})
	first := m.table.View().NextGroup()
	news := rpc.News{To: 1, Last: true, Words: []rpc.Word{{Group: topic.Partitions[0].Group, Leader: 2, Term: 1, Led: true}, {Group: id.MetadataGroup, Leader: 2, Term: 1}}}
	for i := range id.Group(maxAhead) {
		news.Words = append(news.Words, rpc.Word{Group: first + i, Leader: 2, Term: 1, Led: true, InSync: []id.Node{2}})
	}
	require.True(t, table.Hear(2, 1, news))
	require.Len(t, table.groups, 1+maxAhead)
	require.False(t, table.Hear(2, 1, rpc.News{From: 1, To: 2, Last: true, Words: []rpc.Word{{Group: 1 << 60, Leader: 2, Term: 1}}}), "that is too many")
	require.Len(t, table.groups, 1+maxAhead)

	fresh := m.topic("new", []id.Node{2, 3})
	require.Equal(t, Leader{Node: 2, Epoch: 1, InSync: []id.Node{2}, Known: true}, table.Leader(&fresh.Partitions[0]), "it was said before")
	m.apply(placement.DeleteTopic{Name: "old"})
	m.apply(placement.DeleteTopic{Name: "new"})
	again := m.topic("old", []id.Node{2, 3})
	table.Sweep()
	require.Len(t, table.groups, maxAhead-1, "two were deleted, and one was added again")
	require.Equal(t, maxAhead-2, table.tellers[2].ahead)
	late := rpc.News{From: 2, To: 3, Last: true, Words: []rpc.Word{{Group: topic.Partitions[0].Group, Leader: 2, Term: 2}}}
	require.False(t, table.Hear(2, 1, late), "what there was no room for is missing until all is said again")
	require.Len(t, table.groups, maxAhead-1, "a group that is gone does not come back")
	require.NotEqual(t, topic.Partitions[0].Group, again.Partitions[0].Group)

	require.True(t, table.Hear(2, 1, rpc.News{To: 4, Last: true}), "it says everything again: nothing")
	table.Sweep()
	require.Empty(t, table.groups)
}

// TestStrangersLeaveNothing: whoever opens lanes under made-up numbers, and says nothing that is heard, is not remembered.
func TestStrangersLeaveNothing(t *testing.T) {
	m := newMetadata(t, 3)
	table := New(Options{Self: 1, View: m.table.View, Alive: alive})
	for n := range id.Node(1000) {
		table.Closed(10+n, uint64(n)+1)
	}
	require.Zero(t, len(table.tellers)) // not its contents
}

// TestSince: whoever asks hears each group's last word once, in pieces, however often it has changed, and of replicas that are gone unless he
// begins; nothing grows with the number of changes.
func TestSince(t *testing.T) {
	const groups = 10_000
	m := newMetadata(t, 3)
	table := New(Options{Self: 1, View: m.table.View, Alive: alive})
	for term := id.Term(1); term <= 5; term++ {
		for g := range id.Group(groups) {
			table.Leads(g+2, 1, term)
			table.InSync(g+2, term, []id.Node{1, 2, 3}, 0)
		}
	}
	require.LessOrEqual(t, len(table.said.list), 2*groups+keepGone+1)
	heard := make(map[id.Group]bool)
	count, pieces := uint64(0), 0
	for n := table.Since(0, nil); ; n = table.Since(count, nil) {
		require.Equal(t, count, n.From)
		size := 0
		for _, w := range n.Words {
			require.False(t, heard[w.Group], "group %d is told twice", w.Group)
			require.Equal(t, rpc.Word{Group: w.Group, Leader: 1, Term: 5, Led: true, InSync: []id.Node{1, 2, 3}}, w)
			heard[w.Group] = true
			size += w.Size()
		}
		require.LessOrEqual(t, size, rpc.NewsBytes)
		pieces++
		if count = n.To; n.Last {
			break
		}
	}
	require.Len(t, heard, groups)
	require.Greater(t, pieces, 5)

	table.Gone(7)
	n := table.Since(count, nil)
	require.Equal(t, []rpc.Word{{Group: 7, Gone: true, Leader: id.NoNode}}, n.Words)
	require.True(t, n.Last)
	count = n.To
	for g := range id.Group(groups) {
		table.Gone(g + 2)
	}
	require.LessOrEqual(t, len(table.said.list), 4*keepGone)
	require.LessOrEqual(t, len(table.groups), 2*keepGone+1)
	require.Zero(t, table.Since(count, nil).From, "what is forgotten cannot be told: everything is")
	require.Empty(t, table.Since(0, nil).Words)
	require.True(t, table.Since(0, nil).Last)
}

func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetadata(t, 3)
		p := &m.topic("t", []id.Node{2, 3}).Partitions[0]
		table := New(Options{Self: 1, View: m.table.View, Alive: alive})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, table.Await(ctx, p), context.DeadlineExceeded)
		done := make(chan error)
		go func() { done <- table.Await(context.Background(), p) }()
		synctest.Wait()
		table.Down(3)
		require.True(t, table.Hear(2, 1, rpc.News{To: 1, Last: true, Words: []rpc.Word{{Group: p.Group, Leader: 2, Term: 1, Led: true}}}))
		require.NoError(t, <-done)
	})
}

// TestKeep: what was deleted goes by itself, a moment later.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMetadata(t, 3)
		p := &m.topic("t", []id.Node{2, 3}).Partitions[0]
		table := New(Options{Self: 1, View: m.table.View, Alive: alive})
		require.True(t, table.Hear(2, 1, rpc.News{To: 1, Last: true, Words: []rpc.Word{{Group: p.Group, Leader: 2, Term: 1, Led: true}}}))
		changed := make(chan struct{}, 1)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			table.Keep(ctx, func() <-chan struct{} { return changed })
		}()
		synctest.Wait()
		require.Len(t, table.groups, 1)
		m.apply(placement.DeleteTopic{Name: "t"})
		changed <- struct{}{}
		time.Sleep(2 * sweepGap) // virtual
		synctest.Wait()
		require.Empty(t, table.groups)
		cancel()
		<-done
	})
}
