package membership

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/hashicorp/memberlist"

	"github.com/quorumlog/quorumlog/wal/id"
)

// maxMembers bounds the names that gossip may bring: far above any cluster, far below what hurts.
const maxMembers = 1024

// change is what memberlist said last about one name.
type change struct {
	name   string
	member Member
	alive  bool
}

// mailbox takes what memberlist's callbacks say until the deliver goroutine comes for it. Changes of one name replace each other: a
// hint that was overtaken is worth nothing, and the box stays as small as the cluster.
type mailbox struct {
	mu struct {
		sync.Mutex
		changes map[string]change
		order   []string // names in changes, in the order in which they came in
	}
	wake chan struct{} // holds one token while there may be something
}

func newMailbox() *mailbox {
	b := &mailbox{wake: make(chan struct{}, 1)}
	b.mu.changes = make(map[string]change)
	return b
}

func (b *mailbox) put(n *memberlist.Node, alive bool) {
	m, err := memberOf(n)
	if err != nil {
		return // NotifyAlive has refused it already
	}
	b.mu.Lock()
	if _, waiting := b.mu.changes[n.Name]; !waiting {
		b.mu.order = append(b.mu.order, n.Name)
	}
	b.mu.changes[n.Name] = change{n.Name, m, alive}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// take empties the box: the changes in the order in which their names came in.
func (b *mailbox) take() []change {
	b.mu.Lock()
	defer b.mu.Unlock()
	changes := make([]change, len(b.mu.order))
	for i, name := range b.mu.order {
		changes[i] = b.mu.changes[name]
	}
	clear(b.mu.changes)
	b.mu.order = nil
	return changes
}

// NotifyJoin implements memberlist.EventDelegate.
func (b *mailbox) NotifyJoin(n *memberlist.Node) { b.put(n, true) }

// NotifyUpdate implements memberlist.EventDelegate.
func (b *mailbox) NotifyUpdate(n *memberlist.Node) { b.put(n, true) }

// NotifyLeave implements memberlist.EventDelegate.
func (b *mailbox) NotifyLeave(n *memberlist.Node) { b.put(n, false) }

func memberOf(n *memberlist.Node) (Member, error) {
	s, err := decodeMeta(n.Meta)
	if err != nil {
		return Member{}, err
	}
	if prefix := namePrefix(s); !strings.HasPrefix(n.Name, prefix) || len(n.Name) > maxName {
		return Member{}, fmt.Errorf("member %.40q says it is %s…", n.Name, prefix)
	}
	return Member{Self: s, GossipAddress: n.Address()}, nil
}

type named struct {
	name string
	Member
}

// table is what the gossip knows, by node. Only the deliver goroutine changes it.
type table struct {
	name string // of this process
	self Member // as of the start: the node, boot epoch and store do not change
	mu   struct {
		sync.RWMutex
		names   map[string]Member // alive, one for each start of a node
		current map[id.Node]named // the one of names that speaks for the node
		former  map[string]Member // alive: earlier starts of this node
	}
	reported map[[2]string]struct{} // duplicates that were reported, by the addresses of both
}

func newTable(name string, self Member) *table {
	t := &table{name: name, self: self, reported: make(map[[2]string]struct{})}
	t.mu.names, t.mu.current, t.mu.former = make(map[string]Member), make(map[id.Node]named), make(map[string]Member)
	return t
}

// full tells whether one more name would be too much. Called by memberlist's callbacks too: it takes no lock but the table's own.
func (t *table) full(name string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	_, known := t.mu.names[name]
	return !known && len(t.mu.names) >= maxMembers
}

// apply takes a change and returns the events that follow from it.
func (t *table) apply(c change) []Event {
	node := c.member.Node
	if node == t.self.Node {
		return t.applyNamesake(c)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if c.alive {
		t.mu.names[c.name] = c.member
	} else {
		delete(t.mu.names, c.name)
	}
	old, had := t.mu.current[node]
	now, have := t.speakerLocked(node)
	if have {
		t.mu.current[node] = now
	} else {
		delete(t.mu.current, node)
	}
	events := edges(node, old, had, now, have)
	if c.alive && have && now.name != c.name && (now.StoreID != c.member.StoreID || now.Boot == c.member.Boot) {
		events = append(events, t.duplicateLocked(now.Member, c.member)...)
	}
	return events
}

// edges says how one speaker for a node became another.
func edges(node id.Node, old named, had bool, now named, have bool) []Event {
	down, up := Event{Kind: Down, Node: node, Member: old.Member}, Event{Kind: Up, Node: node, Member: now.Member}
	switch {
	case had && !have:
		return []Event{down}
	case !had && have:
		return []Event{up}
	case !had || old == now:
		return nil
	case old.name == now.name:
		return []Event{{Kind: Updated, Node: node, Member: now.Member}}
	default:
		return []Event{down, up}
	}
}

// speakerLocked chooses among the starts of a node that are alive: a later one of the store that has spoken so far, because the earlier one is
// dead and the gossip does not know it yet; otherwise the one that was there first, because two stores, or two processes on one start of a
// store, are an accident.
func (t *table) speakerLocked(node id.Node) (named, bool) {
	var best named
	found := false
	current, had := t.mu.current[node]
	better := func(m named) bool {
		if had && (m.StoreID == current.StoreID) != (best.StoreID == current.StoreID) {
			return m.StoreID == current.StoreID
		}
		if m.Boot != best.Boot {
			return m.Boot > best.Boot
		}
		return m.name == current.name || best.name != current.name && m.name < best.name
	}
	for name, member := range t.mu.names {
		if m := (named{name, member}); m.Node == node && (!found || better(m)) {
			best, found = m, true
		}
	}
	return best, found
}

// applyNamesake handles news about this node's own id.
func (t *table) applyNamesake(c change) []Event {
	former := c.member.StoreID == t.self.StoreID && c.member.Boot < t.self.Boot // mostly the gossip does not know yet that it is over
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case !c.alive:
		delete(t.mu.former, c.name)
		return nil
	case c.name == t.name:
		return nil
	case former:
		if len(t.mu.former) < maxMembers {
			t.mu.former[c.name] = c.member
		}
		return nil
	}
	return t.duplicateLocked(t.self, c.member)
}

// duplicateLocked reports a pair once.
func (t *table) duplicateLocked(one, other Member) []Event {
	key := [2]string{one.RPCAddress + " " + one.GossipAddress, other.RPCAddress + " " + other.GossipAddress}
	if _, done := t.reported[key]; done {
		return nil
	}
	if len(t.reported) >= maxMembers {
		clear(t.reported)
	}
	t.reported[key] = struct{}{}
	return []Event{{Kind: Duplicate, Node: other.Node, Member: other, Err: &DuplicateError{Node: other.Node, One: one, Other: other}}}
}

func (t *table) member(n id.Node) (Member, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	m, ok := t.mu.current[n]
	return m.Member, ok
}

func (t *table) members() []Member {
	t.mu.RLock()
	defer t.mu.RUnlock()
	members := make([]Member, 0, len(t.mu.current))
	for _, m := range t.mu.current {
		members = append(members, m.Member)
	}
	slices.SortFunc(members, func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
	return members
}

func (t *table) formerSelves() []Member {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Collect(maps.Values(t.mu.former))
}

// hasAddress tells whether a live member gossips at the address.
func (t *table) hasAddress(address string) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for _, m := range t.mu.names {
		if m.GossipAddress == address {
			return true
		}
	}
	return false
}
