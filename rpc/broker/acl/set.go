package acl

import (
	"iter"
	"net/netip"
	"slices"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
)

// Set is a set of bindings. It is immutable: With and Without return another one, which shares what did not change. The nil Set is empty.
//
// The tree has a node for each pattern; the key is its type, its kind, and its name. So what is there for a name is found on three ways down:
// to the literal of the name, to the literal "*", and past all prefixes of the name.
type Set struct {
	patterns *iradix.Tree[*rules]
	bindings int
}

// rules is all that is said about one pattern.
type rules struct {
	pattern Pattern
	entries []rule // by entry
}

// rule is an entry, made ready to be compared.
type rule struct {
	Entry
	host netip.Addr // the zero value, which no caller has, unless Host is an address
}

func ruleOf(e Entry) rule {
	r := rule{Entry: e}
	if e.Host != Wildcard {
		r.host, _ = netip.ParseAddr(e.Host)
		r.host = r.host.Unmap()
	}
	return r
}

// SetOf returns the set of the bindings.
func SetOf(bindings ...Binding) *Set {
	var s *Set
	return s.With(bindings...)
}

// Len returns the number of bindings.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return s.bindings
}

// With returns the set with these bindings. Those that are there are there once.
func (s *Set) With(bindings ...Binding) *Set {
	next := s.begin()
	for p, entries := range byPattern(bindings) {
		have := next.entries(p)
		merged := slices.Clone(have)
		for _, e := range entries {
			if i, found := slices.BinarySearchFunc(merged, e, compareRule); !found {
				merged = slices.Insert(merged, i, ruleOf(e))
			}
		}
		next.put(p, merged, len(merged)-len(have))
	}
	return next.commit(s)
}

// Without returns the set without these bindings, and those of them that were in it.
func (s *Set) Without(bindings ...Binding) (*Set, []Binding) {
	next := s.begin()
	var gone []Binding
	for p, entries := range byPattern(bindings) {
		have := next.entries(p)
		left := slices.Clone(have)
		for _, e := range entries {
			if i, found := slices.BinarySearchFunc(left, e, compareRule); found {
				left = slices.Delete(left, i, i+1)
				gone = append(gone, Binding{p, e})
			}
		}
		next.put(p, left, len(left)-len(have))
	}
	slices.SortFunc(gone, Compare)
	return next.commit(s), gone
}

func compareRule(r rule, e Entry) int { return compareEntries(r.Entry, e) }

// byPattern sorts the entries of bindings by their patterns, so that each pattern is changed once, however many entries it gets.
func byPattern(bindings []Binding) map[Pattern][]Entry {
	sorted := make(map[Pattern][]Entry)
	for _, b := range bindings {
		sorted[b.Pattern] = append(sorted[b.Pattern], b.Entry)
	}
	return sorted
}

// change is a set that is being made.
type change struct {
	txn      *iradix.Txn[*rules]
	bindings int
	changed  bool
}

func (s *Set) begin() *change {
	if s == nil {
		return &change{txn: iradix.New[*rules]().Txn()}
	}
	return &change{txn: s.patterns.Txn(), bindings: s.bindings}
}

func (c *change) entries(p Pattern) []rule {
	if r, ok := c.txn.Get(appendKey(nil, p.Type, p.Kind, p.Name)); ok {
		return r.entries
	}
	return nil
}

// put replaces what is said about a pattern; more is by how many entries that is more than before.
func (c *change) put(p Pattern, entries []rule, more int) {
	if more == 0 {
		return // entries are only ever added, or only taken away: it is what was there
	}
	c.changed = true
	c.bindings += more
	key := appendKey(nil, p.Type, p.Kind, p.Name)
	if len(entries) == 0 {
		c.txn.Delete(key)
		return
	}
	c.txn.Insert(key, &rules{p, entries})
}

func (c *change) commit(before *Set) *Set {
	if !c.changed {
		return before
	}
	return &Set{patterns: c.txn.Commit(), bindings: c.bindings}
}

func appendKey(dst []byte, t ResourceType, k PatternType, name string) []byte {
	return append(append(dst, byte(t), byte(k)), name...)
}

// All yields the bindings, in the order of Compare.
func (s *Set) All() iter.Seq[Binding] { return s.Select(Filter{}) }

// Select yields the bindings that the filter selects, in the order of All.
func (s *Set) Select(f Filter) iter.Seq[Binding] {
	return func(yield func(Binding) bool) {
		if s == nil {
			return
		}
		s.patterns.Root().Walk(func(_ []byte, r *rules) bool {
			if !isAny(f.Type, r.pattern.Type) || !f.matchesName(r.pattern) {
				return false
			}
			for i := range r.entries {
				if b := (Binding{r.pattern, r.entries[i].Entry}); f.Matches(b) && !yield(b) {
					return true
				}
			}
			return false
		})
	}
}
