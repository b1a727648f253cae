package quota

import (
	"cmp"
	"encoding/json"
	"iter"
	"slices"
	"strings"
)

// Key is what a quota bounds. The names are Kafka's.
type Key uint8

// The keys: bytes a second that a client may produce, or fetch; and the share of a node's time for its requests, in percent of one thread.
const (
	ProducerByteRate Key = iota
	ConsumerByteRate
	RequestPercentage
	keys
)

var keyNames = [keys]string{"producer_byte_rate", "consumer_byte_rate", "request_percentage"}

// String returns Kafka's name of the key.
func (k Key) String() string { return keyNames[k] }

// Keys returns the names of all keys, sorted.
func Keys() []string { return slices.Sorted(slices.Values(keyNames[:])) }

// ParseKey returns the key of that name.
func ParseKey(name string) (Key, bool) {
	i := slices.Index(keyNames[:], name)
	return Key(max(i, 0)), i >= 0
}

// Integral tells whether the key takes no fractions.
func (k Key) Integral() bool { return k != RequestPercentage }

// Match is how one side of an entity matches.
type Match uint8

// The ways to match: the entity does not look at this side at all; it stands for all that have no quota of their own; it is one name's.
const (
	Any Match = iota
	Default
	Exact
)

// Side is one side of an entity: a user, or a client id. The zero value is Any.
type Side struct {
	Match Match
	Name  string // of Exact
}

// MarshalJSON implements json.Marshaler: a name, or null for the default, as Kafka has it. A side that is Any is left out.
func (s Side) MarshalJSON() ([]byte, error) {
	if s.Match == Exact {
		return json.Marshal(s.Name)
	}
	return []byte("null"), nil
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *Side) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*s = Side{Match: Default}
		return nil
	}
	s.Match = Exact
	return json.Unmarshal(data, &s.Name)
}

// Named returns the side that is one name's.
func Named(name string) Side { return Side{Exact, name} }

// Entity is whom a rule is for. At least one of its sides is not Any.
type Entity struct {
	User   Side `json:"user,omitzero"`      // the name of a principal, without its type: "alice"
	Client Side `json:"client_id,omitzero"` // what the client calls itself
}

// Rule is the quotas of an entity.
type Rule struct {
	Entity Entity `json:"entity"`
	// Limits are by name. Those of a later release are kept, and bound nothing.
	Limits map[string]float64 `json:"limits"`
}

// Bucket is with whom a client is counted: all clients with equal buckets of a key share one quota. An empty side is not looked at.
//
//	rule for                  bucket
//	a user and a client id    both: each pair has the whole quota
//	a user                    the user, whatever its clients call themselves
//	a client id               the client id, whoever uses it
//
// The same with a rule for the default: each pair, user or client id that it stands for has a quota of its own.
type Bucket struct{ User, Client string }

// Limit is the quota that holds for a client.
type Limit struct {
	Value  float64 // bytes a second, or percent
	Bucket Bucket
	Entity Entity // whose rule it is, for logs
}

// Set is all rules. It is immutable: With and Without return another one. Who keeps what Find said may do so for as long as he is
// given the same *Set. The nil Set has no rules.
type Set struct {
	rules []*Rule // by entity
	found map[Entity]*[keys]bound
}

// bound is a limit, if there is one.
type bound struct {
	set   bool
	value float64
}

// Find returns the limit that holds for a client of the user with the client id; false: none does. The first of these that has a value for the
// key counts, and no other:
//
//	(user, client id), (user, default), user, (default, client id), (default, default), default user, client id, default client id
func (s *Set) Find(key Key, user, client string) (Limit, bool) {
	if s == nil || len(s.rules) == 0 {
		return Limit{}, false
	}
	for _, e := range [...]Entity{
		{Named(user), Named(client)}, {Named(user), Side{Match: Default}}, {User: Named(user)},
		{Side{Match: Default}, Named(client)}, {Side{Match: Default}, Side{Match: Default}}, {User: Side{Match: Default}},
		{Client: Named(client)}, {Client: Side{Match: Default}},
	} {
		if bounds := s.found[e]; bounds != nil && bounds[key].set {
			return Limit{bounds[key].value, bucketOf(e, user, client), e}, true
		}
	}
	return Limit{}, false
}

func bucketOf(e Entity, user, client string) Bucket {
	var b Bucket
	if e.User.Match != Any {
		b.User = user
	}
	if e.Client.Match != Any {
		b.Client = client
	}
	return b
}

// SetOf returns the set of the rules.
func SetOf(rules ...*Rule) *Set {
	if len(rules) == 0 {
		return nil
	}
	var s *Set
	return s.With(rules...)
}

// Len returns the number of entities that have quotas.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return len(s.rules)
}

// All yields the rules, by entity. They are shared and must not be changed.
func (s *Set) All() iter.Seq[*Rule] {
	if s == nil {
		return func(func(*Rule) bool) {}
	}
	return slices.Values(s.rules)
}

// Of returns the rule of the entity, nil if it has none.
func (s *Set) Of(e Entity) *Rule {
	if s == nil {
		return nil
	}
	if i, ok := find(s.rules, e); ok {
		return s.rules[i]
	}
	return nil
}

// With returns the set with these rules in the place of those of their entities. A rule without limits takes its entity out.
func (s *Set) With(rules ...*Rule) *Set {
	next := &Set{}
	if s != nil {
		next.rules = slices.Clone(s.rules)
	}
	for _, r := range rules {
		i, ok := find(next.rules, r.Entity)
		switch {
		case len(r.Limits) == 0 && ok:
			next.rules = slices.Delete(next.rules, i, i+1)
		case len(r.Limits) == 0:
		case ok:
			next.rules[i] = r
		default:
			next.rules = slices.Insert(next.rules, i, r)
		}
	}
	next.found = make(map[Entity]*[keys]bound, len(next.rules))
	for _, r := range next.rules {
		next.found[r.Entity] = boundsOf(r)
	}
	return next
}

func boundsOf(r *Rule) *[keys]bound {
	var b [keys]bound
	for name, value := range r.Limits {
		if k, known := ParseKey(name); known {
			b[k] = bound{true, value}
		}
	}
	return &b
}

func find(rules []*Rule, e Entity) (int, bool) {
	return slices.BinarySearchFunc(rules, e, func(r *Rule, e Entity) int { return Compare(r.Entity, e) })
}

// Compare orders entities: as lists show them.
func Compare(a, b Entity) int {
	return cmp.Or(compareSides(a.User, b.User), compareSides(a.Client, b.Client))
}

func compareSides(a, b Side) int {
	return cmp.Or(cmp.Compare(a.Match, b.Match), strings.Compare(a.Name, b.Name))
}
