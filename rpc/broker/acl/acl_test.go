package acl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// model is the decision as Kafka's documentation has it, by a look at each binding.
func model(bindings []Binding, q Question) Decision {
	ruled, allowed := false, false
	for _, b := range bindings {
		name := b.Kind == Literal && (b.Name == q.Resource.Name || b.Name == "*") || b.Kind == Prefixed && strings.HasPrefix(q.Resource.Name, b.Name)
		if b.Type != q.Resource.Type || !name {
			continue
		}
		ruled = true
		if (b.Principal.String() != q.Principal.String() && b.Principal.String() != "User:*") || (b.Host != "*" && b.Host != q.Host.String()) {
			continue
		}
		switch exact := b.Operation == q.Operation || b.Operation == All; {
		case b.Permission == Deny && exact:
			return Denied
		case b.Permission == Allow && (exact || implies(b.Operation, q.Operation)):
			allowed = true
		}
	}
	switch {
	case allowed:
		return Allowed
	case ruled:
		return Denied
	}
	return NoRule
}

func implies(have, want Operation) bool {
	switch want {
	case Describe:
		return slices.Contains([]Operation{Read, Write, Delete, Alter}, have)
	case DescribeConfigs:
		return have == AlterConfigs
	}
	return false
}

// modelAny is Kafka's authorizeByResourceType, word for word.
func modelAny(bindings []Binding, p Principal, host netip.Addr, op Operation, t ResourceType) Decision {
	deny, allow := map[Pattern]bool{}, map[Pattern]bool{}
	wild := false
	for _, b := range bindings {
		if b.Type != t || b.Host != "*" && b.Host != host.String() || b.Principal != p && b.Principal != Everybody || b.Operation != op && b.Operation != All {
			continue
		}
		star := b.Kind == Literal && b.Name == "*"
		switch {
		case b.Permission == Deny && star:
			return Denied
		case b.Permission == Deny:
			deny[b.Pattern] = true
		case star:
			wild = true
		default:
			allow[b.Pattern] = true
		}
	}
	if wild {
		return Allowed
	}
	for a := range allow {
		dominated := a.Kind == Literal && deny[a]
		for i := range len(a.Name) {
			dominated = dominated || deny[Pattern{t, a.Name[:i+1], Prefixed}]
		}
		if !dominated {
			return Allowed
		}
	}
	return Denied
}

var (
	anyName = rapid.SampledFrom([]string{"a", "ab", "abc", "abcd", "abd", "b", "bc", "*", "a*", "\x00", "ä"})
	anyHost = rapid.SampledFrom([]string{"10.0.0.1", "10.0.0.2", "::1"})
	anyWho  = rapid.Map(rapid.SampledFrom([]string{"User:alice", "User:bob", "User:", "Group:alice", "User:*"}), func(s string) Principal {
		p, _ := ParsePrincipal(s)
		return p
	})
	anyType = rapid.SampledFrom([]ResourceType{Topic, Topic, Group, Cluster, TransactionalID})
	anyOp   = rapid.SampledFrom([]Operation{Read, Write, Create, Delete, Alter, Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite, TwoPhaseCommit})
)

func drawBinding(t *rapid.T) Binding {
	return Binding{
		Pattern{anyType.Draw(t, "type"), anyName.Draw(t, "name"), rapid.SampledFrom([]PatternType{Literal, Prefixed}).Draw(t, "kind")},
		Entry{
			anyWho.Draw(t, "principal"), rapid.OneOf(anyHost, rapid.Just("*")).Draw(t, "host"), rapid.OneOf(anyOp, rapid.Just(All)).Draw(t, "operation"),
			rapid.SampledFrom([]Permission{Allow, Allow, Deny}).Draw(t, "permission"),
		},
	}
}

// TestDecide: after any changes, the set holds what it should, earlier sets what they held, and each question is answered as by a look at all.
func TestDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s *Set
		var all []Binding
		for range rapid.IntRange(0, 6).Draw(t, "changes") {
			before, had := s, slices.Collect(s.All())
			some := rapid.SliceOfN(rapid.Custom(drawBinding), 0, 8).Draw(t, "bindings")
			if rapid.IntRange(0, 3).Draw(t, "remove") > 0 {
				s, all = s.With(some...), append(all, some...)
			} else {
				if len(all) > 0 {
					some = append(some, rapid.SampledFrom(all).Draw(t, "known"))
				}
				var gone []Binding
				s, gone = s.Without(some...)
				in := func(b Binding) bool { return slices.Contains(some, b) }
				if slices.ContainsFunc(gone, func(b Binding) bool { return !in(b) || !slices.Contains(all, b) }) {
					t.Fatalf("gone: %v", gone)
				}
				all = slices.DeleteFunc(all, in)
			}
			slices.SortFunc(all, Compare)
			all = slices.Compact(all)
			if got := slices.Collect(s.All()); !slices.Equal(got, all) || s.Len() != len(all) {
				t.Fatalf("%d bindings %v, want %v", s.Len(), got, all)
			}
			if !slices.Equal(had, slices.Collect(before.All())) {
				t.Fatal("the set before has changed")
			}
		}
		for range 20 {
			q := Question{
				anyWho.Draw(t, "who"), netip.MustParseAddr(anyHost.Draw(t, "from")), anyOp.Draw(t, "asks for"),
				Resource{anyType.Draw(t, "of"), anyName.Draw(t, "on")},
			}
			if got, want := s.Decide(q), model(all, q); got != want {
				t.Fatalf("%+v: %v, want %v; bindings: %v", q, got, want, all)
			}
			got, want := s.DecideAny(q.Principal, q.Host, q.Operation, q.Resource.Type), modelAny(all, q.Principal, q.Host, q.Operation, q.Resource.Type)
			if (got == Allowed) != (want == Allowed) {
				t.Fatalf("any %+v: %v, want %v; bindings: %v", q, got, want, all)
			}
		}
	})
}

// TestFilters: each filter of Kafka's, on bindings that differ in one thing each.
func TestFilters(t *testing.T) {
	entry := Entry{Principal{UserType, "alice"}, "*", Read, Allow}
	literal := Binding{Pattern{Topic, "orders", Literal}, entry}
	prefixed := Binding{Pattern{Topic, "ord", Prefixed}, entry}
	star := Binding{Pattern{Topic, "*", Literal}, entry}
	group := Binding{Pattern{Group, "orders", Literal}, entry}
	bob, write, denied, host := literal, literal, literal, literal
	bob.Principal.Name, write.Operation, denied.Permission, host.Host = "bob", Write, Deny, "10.0.0.1"
	all := []Binding{literal, prefixed, star, group, bob, write, denied, host}
	s := SetOf(all...)
	slices.SortFunc(all, Compare)
	for _, tc := range []struct {
		name   string
		filter Filter
		want   []Binding
	}{
		{"nothing said", Filter{}, all},
		{"any of everything", Filter{Type: AnyType, Kind: AnyPattern, Operation: AnyOperation, Permission: AnyPermission}, all},
		{"type", Filter{Type: Group}, []Binding{group}},
		{"principal", Filter{Principal: "User:bob"}, []Binding{bob}},
		{"host", Filter{Host: "10.0.0.1"}, []Binding{host}},
		{"the host * is that of bindings with it, not all", Filter{Host: "*", Type: Group}, []Binding{group}},
		{"operation", Filter{Operation: Write}, []Binding{write}},
		{"permission", Filter{Permission: Deny}, []Binding{denied}},
		{"name of either kind", Filter{Name: "ord", Kind: AnyPattern}, []Binding{prefixed}},
		{"name of one kind", Filter{Name: "ord", Kind: Literal}, nil},
		{"kind", Filter{Kind: Prefixed}, []Binding{prefixed}},
		{"what is looked at for a name", Filter{Type: Topic, Name: "ordinary", Kind: Match}, []Binding{star, prefixed}},
		{"what is looked at for a literal name", Filter{Type: Topic, Name: "orders", Kind: Match, Principal: "User:alice", Operation: Read, Permission: Allow, Host: "*"}, []Binding{star, literal, prefixed}},
	} {
		if got := slices.Collect(s.Select(tc.filter)); !slices.Equal(got, tc.want) {
			t.Errorf("%s: got %v\nwant %v", tc.name, got, tc.want)
		}
	}
	for range s.Select(Filter{}) {
		break // who has seen enough gets no more
	}
	if err := (Filter{Operation: 14}).Check(); err == nil {
		t.Error("an unknown operation is taken")
	}
	if err := (Filter{Operation: -1}).Check(); err == nil {
		t.Error("a negative operation is taken")
	}
}

// TestCheck: what would never match, or not as somebody thinks, is refused, with Kafka's words where it has some.
func TestCheck(t *testing.T) {
	good := Binding{Pattern{Topic, "orders", Literal}, Entry{Principal{UserType, "alice"}, "*", Read, Allow}}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Binding){
		"The only valid name for the CLUSTER resource is kafka-cluster": func(b *Binding) { b.Type, b.Operation = Cluster, Alter },
		"Invalid empty resource name":                                   func(b *Binding) { b.Name = "" },
		"Invalid resource type ANY":                                     func(b *Binding) { b.Type = AnyType },
		"Invalid resource type UNKNOWN(0)":                              func(b *Binding) { b.Type = 0 },
		"Invalid resource pattern type MATCH":                           func(b *Binding) { b.Kind = Match },
		"Invalid permission type ANY":                                   func(b *Binding) { b.Permission = AnyPermission },
		"Invalid operation UNKNOWN(13)":                                 func(b *Binding) { b.Operation = 13 },
		"Invalid operation ANY":                                         func(b *Binding) { b.Operation = AnyOperation },
		"nobody asks for it on a TOPIC":                                 func(b *Binding) { b.Operation = ClusterAction },
		"it must be Type:Name":                                          func(b *Binding) { b.Principal.Name = "" },
		"names are not looked up":                                       func(b *Binding) { b.Host = "localhost" },
		"write it ::1":                                                  func(b *Binding) { b.Host = "0:0::1" },
		"write it 10.0.0.1":                                             func(b *Binding) { b.Host = "::ffff:10.0.0.1" },
		"it must be an IP address":                                      func(b *Binding) { b.Host = "fe80::1%eth0" },
	} {
		b := good
		change(&b)
		if err := b.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	if _, err := ParsePrincipal("bob"); err == nil || !strings.Contains(err.Error(),
		"Could not parse principal from `bob` (no colon is present separating the principal type from the principal name)") {
		t.Error(err)
	}
}

// TestWords: every name in every spelling, and nothing else.
func TestWords(t *testing.T) {
	for _, text := range []string{"DESCRIBE_CONFIGS", "DescribeConfigs", "describe-configs", "describeconfigs"} {
		if o, err := ParseOperation(text); o != DescribeConfigs || err != nil {
			t.Errorf("%s: %v, %v", text, o, err)
		}
	}
	for _, text := range []string{"", "_", "UNKNOWN", "CREATE_TOKENS", strings.Repeat("READ", 100)} {
		if o, err := ParseOperation(text); err == nil || len(err.Error()) > 400 {
			t.Errorf("%q: %v, %v", text, o, err)
		}
	}
	for o := Operation(-2); o < 20; o++ {
		text := []byte(o.String())
		var back Operation
		if err := back.UnmarshalText(text); (err == nil) != operationWords.valid(int(o), int(All)) || err == nil && back != o {
			t.Errorf("%s: %v, %v", text, back, err)
		}
	}
	for types, operations := range map[ResourceType]int{Topic: 8, Group: 5, Cluster: 7, TransactionalID: 3} {
		if got := len(OperationsOn(types)); got != operations {
			t.Errorf("%v has %d operations", types, got)
		}
	}
}

// benchmarkSet has 10,000 bindings: literals, prefixes, and a pattern for all.
func benchmarkSet() *Set {
	var all []Binding
	for i := range 5000 {
		who := Principal{UserType, fmt.Sprint("user-", i%500)}
		all = append(all,
			Binding{Pattern{Topic, fmt.Sprintf("team-%d.orders-%d", i%100, i), Literal}, Entry{who, "*", Write, Allow}},
			Binding{Pattern{Topic, fmt.Sprintf("team-%d.", i), Prefixed}, Entry{who, "*", Read, Allow}})
	}
	all = append(all, Binding{Pattern{Topic, "*", Literal}, Entry{Principal{UserType, "auditor"}, "*", Read, Allow}})
	return SetOf(all...)
}

func BenchmarkDecide(b *testing.B) {
	s := benchmarkSet()
	q := Question{Principal{UserType, "user-77"}, netip.MustParseAddr("10.0.0.1"), Write, Resource{Topic, "team-77.orders-4077"}}
	if s.Decide(q) != Allowed {
		b.Fatal("denied")
	}
	b.ReportAllocs()
	for b.Loop() {
		s.Decide(q)
	}
}

// TestDecideAllocatesNothing: it is asked on the data path.
func TestDecideAllocatesNothing(t *testing.T) {
	s := benchmarkSet()
	q := Question{Principal{UserType, "user-77"}, netip.MustParseAddr("10.0.0.1"), Write, Resource{Topic, strings.Repeat("t", 249)}}
	if n := testing.AllocsPerRun(100, func() { s.Decide(q) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}
