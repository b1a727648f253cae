package leaders

import (
	"slices"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/id"
)

// maxAhead is how many words a node may say of groups that the metadata here does not have yet, between two sweeps.
const maxAhead = 1 << 16

func (t *Table) tellerLocked(node id.Node) *teller {
	l := t.tellers[node]
	if l == nil {
		l = &teller{node: node}
		t.tellers[node] = l
	}
	return l
}

// Hear takes news of another node, which came by a lane with this number: a higher one is newer. The caller knows the node, so there are
// few. False: something is missing, the node is to begin anew.
func (t *Table) Hear(node id.Node, session uint64, n rpc.News) bool {
	view := t.o.View()
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.tellerLocked(node)
	switch {
	case session > l.session:
		l.session, l.open = session, true
		l.over()
	case session < l.session || !l.open:
		return true // of a lane that is over
	}
	switch {
	case n.From == 0:
		l.round++
		l.missed = false
	case n.From != l.at:
		return false
	}
	for i := range n.Words {
		if !t.takeLocked(l, &n.Words[i], fateOf(view, n.Words[i].Group)) {
			l.missed = true // until it begins anew, however much there is room for from now on
		}
	}
	l.at = n.To
	if n.Last {
		l.since, l.whole = l.round, true
	}
	t.announceLocked()
	return !l.missed
}

// over has nothing count any more that was said before.
func (l *teller) over() {
	l.round++
	l.since, l.at, l.whole = l.round, 0, false
}

// takeLocked takes a word of a node. False: there is no room for it now.
func (t *Table) takeLocked(l *teller, w *rpc.Word, f fate) bool {
	known := t.groups[w.Group]
	at := -1
	if known != nil {
		at = slices.IndexFunc(known.words, func(old word) bool { return old.by == l })
	}
	switch {
	case w.Gone || f == deleted:
		if at >= 0 {
			known.words = slices.Delete(known.words, at, at+1)
		}
		return true
	case at < 0 && f == ahead && l.ahead >= maxAhead:
		return false
	case at < 0:
		if f == ahead {
			l.ahead++
		}
		known = t.groupLocked(w.Group)
		known.words = append(known.words, word{by: l})
		at = len(known.words) - 1
	}
	said := word{by: l, leader: w.Leader, term: w.Term, round: l.round}
	if w.Led && w.Leader == l.node {
		said.inSync, said.lagging = w.InSync, int32(w.Lagging)
	}
	known.words[at] = said
	return true
}

// Closed says that the lane by which a node spoke is over. Of a node that has said nothing there is nothing to forget: whoever is not known may
// have had the lane, under any number.
func (t *Table) Closed(node id.Node, session uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.tellers[node]; l != nil && session >= l.session {
		l.session, l.open = session, false
		l.over()
		t.announceLocked()
	}
}

// Down says that a node is lost: this node's lane to it broke, and does not work yet. Up ends that.
func (t *Table) Down(node id.Node) { t.lost(node, true) }

// Up says that the lane to a node works.
func (t *Table) Up(node id.Node) { t.lost(node, false) }

func (t *Table) lost(node id.Node, lost bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tellerLocked(node).lost = lost
	t.announceLocked()
}
