package quota

import (
	"testing"

	"pgregory.net/rapid"
)

// order is Kafka's precedence, as its ClientQuotaManager has it, with the tags of its metrics.
var order = []struct {
	entity func(user, client string) Entity
	bucket func(user, client string) Bucket
}{
	{func(u, c string) Entity { return Entity{Named(u), Named(c)} }, func(u, c string) Bucket { return Bucket{u, c} }},
	{func(u, _ string) Entity { return Entity{Named(u), Side{Match: Default}} }, func(u, c string) Bucket { return Bucket{u, c} }},
	{func(u, _ string) Entity { return Entity{User: Named(u)} }, func(u, _ string) Bucket { return Bucket{User: u} }},
	{func(_, c string) Entity { return Entity{Side{Match: Default}, Named(c)} }, func(u, c string) Bucket { return Bucket{u, c} }},
	{func(_, _ string) Entity { return Entity{Side{Match: Default}, Side{Match: Default}} }, func(u, c string) Bucket { return Bucket{u, c} }},
	{func(_, _ string) Entity { return Entity{User: Side{Match: Default}} }, func(u, _ string) Bucket { return Bucket{User: u} }},
	{func(_, c string) Entity { return Entity{Client: Named(c)} }, func(_, c string) Bucket { return Bucket{Client: c} }},
	{func(_, _ string) Entity { return Entity{Client: Side{Match: Default}} }, func(_, c string) Bucket { return Bucket{Client: c} }},
}

// TestPrecedence: for each entity, the rules of all that come after it in Kafka's order yield to its own, key by key.
func TestPrecedence(t *testing.T) {
	for first := range order {
		var s *Set
		for i := first; i < len(order); i++ {
			s = s.With(&Rule{order[i].entity("alice", "app"), map[string]float64{"producer_byte_rate": float64(100 + i), "of a later release": 1}})
		}
		if first > 0 { // has no value for the key, so it does not count
			s = s.With(&Rule{order[first-1].entity("alice", "app"), map[string]float64{"consumer_byte_rate": 7}})
		}
		got, ok := s.Find(ProducerByteRate, "alice", "app")
		want := Limit{float64(100 + first), order[first].bucket("alice", "app"), order[first].entity("alice", "app")}
		if !ok || got != want {
			t.Errorf("from rule %d on: got %+v, %v, want %+v", first, got, ok, want)
		}
	}
	var none *Set
	if _, ok := none.Find(RequestPercentage, "alice", "app"); ok || none.Len() != 0 || none.Of(Entity{}) != nil {
		t.Error("a set without rules has limits")
	}
	other := none.With(&Rule{Entity{User: Named("bob")}, map[string]float64{"request_percentage": 1}})
	for _, user := range []string{"alice", "", "<default>"} {
		if _, ok := other.Find(RequestPercentage, user, "bob"); ok {
			t.Errorf("the limit of bob holds for %q", user)
		}
	}
}

// TestSetIsImmutable: a set is what the changes make of a map, in order of the entities, and no earlier set changes.
func TestSetIsImmutable(t *testing.T) {
	side := rapid.Map(rapid.SampledFrom([]string{"", "<default>", "a", "b"}), func(s string) Side {
		switch s {
		case "":
			return Side{}
		case "<default>":
			return Side{Match: Default}
		}
		return Named(s)
	})
	rapid.Check(t, func(t *rapid.T) {
		var s *Set
		model := map[Entity]float64{}
		for range rapid.IntRange(0, 20).Draw(t, "changes") {
			e := Entity{side.Draw(t, "user"), side.Draw(t, "client")}
			value := rapid.Float64Range(0, 3).Draw(t, "value")
			before, had := s.Of(e), s.Len()
			r := &Rule{Entity: e}
			if delete(model, e); value >= 1 {
				r.Limits, model[e] = map[string]float64{"consumer_byte_rate": value}, value
			}
			next := s.With(r)
			if s.Of(e) != before || s.Len() != had {
				t.Fatal("the set before has changed")
			}
			s = next
		}
		var last *Rule
		for r := range s.All() {
			if last != nil && Compare(last.Entity, r.Entity) >= 0 {
				t.Fatalf("%+v before %+v", last.Entity, r.Entity)
			}
			if last = r; model[r.Entity] != r.Limits["consumer_byte_rate"] {
				t.Fatalf("%+v has %v", r.Entity, r.Limits)
			}
		}
		if s.Len() != len(model) {
			t.Fatalf("%d rules, want %d", s.Len(), len(model))
		}
	})
}
