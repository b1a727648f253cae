package leaders

import (
	"maps"
	"slices"
	"sync"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Options are the settings of a Table.
type Options struct {
	Self id.Node
	// View returns the metadata as this node has it; nil as long as it has none.
	View func() *placement.View
	// Alive tells whether a node seems to be up. It is called under the table's lock.
	Alive func(id.Node) bool
	// Changed, when not nil, is called when there is something new to tell other nodes. It must not block.
	Changed func()
}

// Table is what a node knows of who leads. Its methods may be called by anyone and hold its lock for a moment only: workers call them in
// their turns.
type Table struct {
	o     Options
	piece int // bytes of one message of news

	mu      sync.RWMutex
	groups  map[id.Group]*group
	tellers map[id.Node]*teller
	said    saying
	lagging int           // groups that this node leads, with members that are not in sync or do not answer
	changed chan struct{} // closed at the next change; nil: nobody waits
}

// group is what is said of one group.
type group struct {
	own   own
	words []word // of other nodes, one each
}

// word is what another node says of a group.
type word struct {
	by      *teller
	leader  id.Node
	lagging int32
	round   uint64 // of the teller when it said so
	term    id.Term
	inSync  []id.Node // of the leader itself
}

// teller is another node, as far as it has said something.
type teller struct {
	node    id.Node
	session uint64 // the lane that it speaks on, or spoke on last
	open    bool   // that lane is there
	lost    bool   // the lane to the node is not
	at      uint64 // up to which of its changes it was heard
	// It says everything in a round, and then what changes. Words of rounds before since are over: they were not said again.
	round, since uint64
	whole        bool // it has said everything
	missed       bool // there was no room for some of it
	ahead        int  // words of groups that the metadata does not have yet, since the last Sweep at least
}

// speaks tells whether its words count.
func (t *teller) speaks() bool { return t.open && !t.lost }

// New returns an empty table.
func New(o Options) *Table {
	return &Table{o: o, piece: rpc.NewsBytes, groups: make(map[id.Group]*group), tellers: make(map[id.Node]*teller), said: saying{count: 1}}
}

// Changed returns a channel that is closed when something changes after the call. Take it before you look.
func (t *Table) Changed() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.changed == nil {
		t.changed = make(chan struct{})
	}
	return t.changed
}

// announceLocked wakes who waits for a change.
func (t *Table) announceLocked() {
	if t.changed != nil {
		close(t.changed)
		t.changed = nil
	}
}

func (t *Table) groupLocked(g id.Group) *group {
	known := t.groups[g]
	if known == nil {
		known = &group{}
		t.groups[g] = known
	}
	return known
}

// Sweep lets go of groups that the metadata has no more, and of words that are over.
func (t *Table) Sweep() {
	view := t.o.View()
	if view == nil {
		return
	}
	t.mu.Lock()
	for _, l := range t.tellers {
		l.ahead = 0
	}
	all := slices.Collect(maps.Keys(t.groups))
	t.mu.Unlock()
	for some := range slices.Chunk(all, atOnce) { // workers may wait for the lock
		t.sweepSome(view, some)
	}
}

func (t *Table) sweepSome(view *placement.View, some []id.Group) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, g := range some {
		known := t.groups[g]
		if known == nil {
			continue
		}
		fate := fateOf(view, g)
		known.words = slices.DeleteFunc(known.words, func(w word) bool {
			if fate == ahead {
				w.by.ahead++
			}
			return fate == deleted || w.round < w.by.since
		})
		if len(known.words) == 0 {
			known.words = nil
		}
		if known.own.count == 0 && known.words == nil {
			delete(t.groups, g)
		}
	}
}

// fate is what the metadata says of a group.
type fate uint8

const (
	live fate = iota
	ahead
	deleted // or not for this table
)

// fateOf tells it: group ids are given out in order, and never again.
func fateOf(view *placement.View, g id.Group) fate {
	switch {
	case g <= id.MetadataGroup: // who leads that is known to each node by itself
		return deleted
	case view == nil || g >= view.NextGroup():
		return ahead
	}
	if _, p := view.Partition(g); p == nil {
		return deleted
	}
	return live
}
