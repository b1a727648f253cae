package leaders

import (
	"sort"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/id"
)

// own is what this node's replica of a group says.
type own struct {
	count   uint64 // of its last change; 0: there is no replica
	gone    bool   // there is none any more; others have to be told
	leader  id.Node
	term    id.Term
	judged  id.Term // the term of which inSync and lagging are
	inSync  []id.Node
	lagging int32
}

func (o *own) speaks() bool { return o.count != 0 && !o.gone }

// saying are this node's words in the order of their last changes. One that changes gets a new place at the end, and its old one is passed
// over, until there are so many of those that the list is made anew. So a change costs the same for any number of nodes that are to hear of
// it, and each of them needs one number: up to which change it has heard.
type saying struct {
	count   uint64 // of the last change
	list    []change
	current int    // places in list that are not passed over
	gone    int    // of them: of replicas that are gone
	forgot  uint64 // the last change of a replica that is gone, and was dropped from the list
}

type change struct {
	count uint64
	group id.Group
}

// keepGone is how many replicas that are gone are remembered at least, for others to hear of it. Who has heard less than that is told
// everything.
const keepGone = 1024

// Leads says whom this node's replica of a group takes for its leader, NoNode for nobody.
func (t *Table) Leads(g id.Group, leader id.Node, term id.Term) {
	t.change(g, func(o *own) bool {
		if o.speaks() && o.leader == leader && o.term == term {
			return false
		}
		o.gone, o.leader, o.term = false, leader, term
		if leader != t.o.Self {
			o.judged, o.inSync, o.lagging = 0, nil, 0
		}
		return true
	})
}

// InSync says which members are in sync, as this node's replica judges, that leads in the term or will in a moment. Nobody changes nodes
// afterwards.
func (t *Table) InSync(g id.Group, term id.Term, nodes []id.Node, lagging int) {
	t.change(g, func(o *own) bool {
		o.judged, o.inSync, o.lagging = term, nodes, int32(lagging)
		return o.speaks() && o.leader == t.o.Self && o.term == term // otherwise Leads follows
	})
}

// Gone says that this node has no working replica of a group any more.
func (t *Table) Gone(g id.Group) {
	t.change(g, func(o *own) bool {
		was := o.speaks()
		*o = own{count: o.count, gone: o.count != 0}
		return was
	})
}

func (t *Table) change(g id.Group, f func(*own) (news bool)) {
	if g <= id.MetadataGroup {
		return
	}
	t.mu.Lock()
	known := t.groupLocked(g)
	before := known.own
	news := f(&known.own)
	if lags := t.lags(&known.own); lags != t.lags(&before) {
		t.lagging += sign(lags)
	}
	if news {
		t.said.note(g, &before, &known.own)
		t.said.tidy(t.groups)
		t.announceLocked()
	}
	t.mu.Unlock()
	if news && t.o.Changed != nil {
		t.o.Changed()
	}
}

// note gives a change its place.
func (s *saying) note(g id.Group, before, after *own) {
	s.count++
	after.count = s.count
	s.list = append(s.list, change{s.count, g})
	if before.count == 0 {
		s.current++
	}
	switch {
	case after.gone && !before.gone:
		s.gone++
	case before.gone && !after.gone:
		s.gone--
	}
}

// tidy makes the list anew when less than half of it is of use.
func (s *saying) tidy(groups map[id.Group]*group) {
	if len(s.list) <= 2*s.current+keepGone && s.gone <= 2*keepGone {
		return
	}
	drop := max(0, s.gone-keepGone)
	list := make([]change, 0, s.current)
	for _, c := range s.list {
		g := groups[c.group]
		if g == nil || g.own.count != c.count {
			continue
		}
		if g.own.gone && drop > 0 {
			drop--
			s.gone--
			s.current--
			s.forgot = c.count
			if g.own = (own{}); g.words == nil {
				delete(groups, c.group)
			}
			continue
		}
		list = append(list, c)
	}
	s.list = list
}

// Since implements rpc.Teller.
func (t *Table) Since(count uint64, words []rpc.Word) rpc.News {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if count < t.said.forgot || count > t.said.count {
		count = 0
	}
	n := rpc.News{From: count, To: t.said.count, Last: true, Words: words}
	size, last := 0, uint64(0)
	begin := sort.Search(len(t.said.list), func(i int) bool { return t.said.list[i].count > count })
	for _, c := range t.said.list[begin:] {
		known := t.groups[c.group]
		if known == nil || known.own.count != c.count || count == 0 && known.own.gone {
			continue
		}
		w := known.own.word(c.group, t.o.Self)
		if size += w.Size(); size > t.piece && len(n.Words) > len(words) {
			n.To, n.Last = last, false
			break
		}
		n.Words, last = append(n.Words, w), c.count
	}
	return n
}

// word is what others are told.
func (o *own) word(g id.Group, self id.Node) rpc.Word {
	w := rpc.Word{Group: g, Gone: o.gone, Leader: o.leader, Term: o.term}
	if w.Gone {
		w.Leader, w.Term = id.NoNode, 0
		return w
	}
	if o.leader == self {
		w.Led = true
		if o.judged == o.term {
			w.InSync, w.Lagging = o.inSync, int(o.lagging)
		}
	}
	return w
}

// lags tells whether this node leads a group of which not all members are in sync and answer.
func (t *Table) lags(o *own) bool {
	return o.speaks() && o.leader == t.o.Self && o.judged == o.term && o.lagging > 0
}

func sign(more bool) int {
	if more {
		return 1
	}
	return -1
}

// Lagging returns of how many groups that this node leads not all members are in sync and answer.
func (t *Table) Lagging() (groups int) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.lagging
}
