package membership

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/hashicorp/memberlist"

	"github.com/quorumlog/quorumlog/wal/id"
)

// maxMembers bounds the names that gossip may bring: far above any cluster, far below what hurts.
const maxMembers = 1024

// change is what memberlist said last about one name.
type change struct {
	member Member
	alive  bool
}

// conflict is a second process that uses the name of another one, or of this one.
type conflict struct{ one, other Member }

// mailbox takes what memberlist's callbacks say until the deliver goroutine comes for it. Changes of one name replace each other: a
// hint that was overtaken is worth nothing, and the box stays as small as the cluster.
type mailbox struct {
	mu struct {
		sync.Mutex
		changes   map[string]change
		order     []string // names in changes, in the order in which they came in
		conflicts []conflict
	}
	wake chan struct{} // holds one token while there may be something
}

const maxConflicts = 16

func newMailbox() *mailbox {
	b := &mailbox{wake: make(chan struct{}, 1)}
	b.mu.changes = make(map[string]change)
	return b
}

func (b *mailbox) signal() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
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
	b.mu.changes[n.Name] = change{m, alive}
	b.mu.Unlock()
	b.signal()
}

func (b *mailbox) take() (map[string]change, []string, []conflict) {
	b.mu.Lock()
	defer b.mu.Unlock()
	changes, order, conflicts := b.mu.changes, b.mu.order, b.mu.conflicts
	b.mu.changes, b.mu.order, b.mu.conflicts = make(map[string]change), nil, nil
	return changes, order, conflicts
}

// NotifyJoin implements memberlist.EventDelegate.
func (b *mailbox) NotifyJoin(n *memberlist.Node) { b.put(n, true) }

// NotifyUpdate implements memberlist.EventDelegate.
func (b *mailbox) NotifyUpdate(n *memberlist.Node) { b.put(n, true) }

// NotifyLeave implements memberlist.EventDelegate.
func (b *mailbox) NotifyLeave(n *memberlist.Node) { b.put(n, false) }

// NotifyConflict implements memberlist.ConflictDelegate: one name, two addresses, so one node id and one boot epoch.
func (b *mailbox) NotifyConflict(existing, other *memberlist.Node) {
	one, err1 := memberOf(existing)
	two, err2 := memberOf(other)
	if err1 != nil || err2 != nil {
		return
	}
	b.mu.Lock()
	if len(b.mu.conflicts) < maxConflicts {
		b.mu.conflicts = append(b.mu.conflicts, conflict{one, two})
	}
	b.mu.Unlock()
	b.signal()
}

func memberOf(n *memberlist.Node) (Member, error) {
	s, err := decodeMeta(n.Meta)
	if err != nil {
		return Member{}, err
	}
	if name := memberName(s); name != n.Name {
		return Member{}, fmt.Errorf("member %.40q says it is %s", n.Name, name)
	}
	return Member{Self: s, GossipAddress: n.Address()}, nil
}

// table is what the gossip knows, by node. Only the deliver goroutine changes it.
type table struct {
	self Member // as of the start: the node, boot epoch and store do not change
	mu   struct {
		sync.RWMutex
		names   map[string]Member  // alive, one for each start of a node
		current map[id.Node]Member // the one of names that speaks for the node
	}
	reported map[[2]string]struct{} // duplicates that were reported, by the addresses of both
}

func newTable(self Member) *table {
	t := &table{self: self, reported: make(map[[2]string]struct{})}
	t.mu.names, t.mu.current = make(map[string]Member), make(map[id.Node]Member)
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
	name := memberName(c.member.Self)
	if c.alive {
		t.mu.names[name] = c.member
	} else {
		delete(t.mu.names, name)
	}
	old, had := t.mu.current[node]
	now, have := t.speakerLocked(node)
	if have {
		t.mu.current[node] = now
	} else {
		delete(t.mu.current, node)
	}
	events := edges(node, old, had, now, have)
	if c.alive && have && now.StoreID != c.member.StoreID {
		events = append(events, t.duplicateLocked(now, c.member)...)
	}
	return events
}

// edges says how one speaker for a node became another.
func edges(node id.Node, old Member, had bool, now Member, have bool) []Event {
	down, up := Event{Kind: Down, Node: node, Member: old}, Event{Kind: Up, Node: node, Member: now}
	switch {
	case had && !have:
		return []Event{down}
	case !had && have:
		return []Event{up}
	case !had || old == now:
		return nil
	case old.Boot == now.Boot && old.StoreID == now.StoreID:
		return []Event{{Kind: Updated, Node: node, Member: now}}
	default:
		return []Event{down, up}
	}
}

// speakerLocked chooses among the starts of a node that are alive: a later one of the store that has spoken so far, because the earlier one is
// dead and the gossip does not know it yet; the one that was there first when stores differ, because that is an accident.
func (t *table) speakerLocked(node id.Node) (Member, bool) {
	var best Member
	found := false
	current, had := t.mu.current[node]
	better := func(m Member) bool {
		if had && (m.StoreID == current.StoreID) != (best.StoreID == current.StoreID) {
			return m.StoreID == current.StoreID
		}
		return m.Boot > best.Boot
	}
	for _, m := range t.mu.names {
		if m.Node == node && (!found || better(m)) {
			best, found = m, true
		}
	}
	return best, found
}

// applyNamesake handles news about this node's own id that is not about this process.
func (t *table) applyNamesake(c change) []Event {
	same := c.member.StoreID == t.self.StoreID
	if !c.alive || same && c.member.Boot <= t.self.Boot {
		return nil // this process, or what the gossip still believes of its former self
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.duplicateLocked(t.self, c.member)
}

// conflict handles two processes under one name.
func (t *table) conflict(c conflict) []Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.duplicateLocked(c.one, c.other)
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
	return m, ok
}

func (t *table) members() []Member {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.SortedFunc(maps.Values(t.mu.current), func(a, b Member) int { return cmp.Compare(a.Node, b.Node) })
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
