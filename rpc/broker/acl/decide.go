package acl

import (
	"net/netip"
	"slices"
)

// Decision is what the bindings say about a question.
type Decision int8

// NoRule: there is no binding for the resource, for anybody. Denied: some deny it, or none that is there allows it.
const (
	NoRule Decision = iota
	Denied
	Allowed
)

// Question is who wants to do what, on which resource, from where.
type Question struct {
	Principal Principal
	Host      netip.Addr
	Operation Operation
	Resource  Resource
}

// implied is a bit for each operation of which the permission to do another one is a permission, too. It holds for ALLOW only: who may read a
// topic can describe it, and who may not read it can still be allowed to describe it.
var implied = [...]uint32{
	Describe:        1<<Describe | 1<<Read | 1<<Write | 1<<Delete | 1<<Alter,
	DescribeConfigs: 1<<DescribeConfigs | 1<<AlterConfigs,
	TwoPhaseCommit:  1 << TwoPhaseCommit,
}

// Decide answers a question, in the time that it takes to find the bindings for the resource, however many others there are. It allocates
// nothing for names up to 250 bytes.
func (s *Set) Decide(q Question) Decision {
	if s == nil || q.Operation <= All || int(q.Operation) >= len(implied) {
		return NoRule
	}
	var (
		a      = asked{allows: implied[q.Operation] | 1<<q.Operation | 1<<All, denies: 1<<q.Operation | 1<<All, host: q.Host.Unmap(), principal: q.Principal}
		buffer [256]byte
		root   = s.patterns.Root()
	)
	if r, ok := root.Get(appendKey(buffer[:0], q.Resource.Type, Literal, q.Resource.Name)); ok {
		a.look(r)
	}
	if r, ok := root.Get(appendKey(buffer[:0], q.Resource.Type, Literal, Wildcard)); ok && q.Resource.Name != Wildcard {
		a.look(r)
	}
	root.WalkPath(appendKey(buffer[:0], q.Resource.Type, Prefixed, q.Resource.Name), func(_ []byte, r *rules) bool {
		a.look(r)
		return a.denied
	})
	switch {
	case a.denied:
		return Denied
	case a.allowed:
		return Allowed
	case a.ruled:
		return Denied
	}
	return NoRule
}

// asked is a question on its way through the bindings.
type asked struct {
	allows, denies         uint32 // operations, as bits
	host                   netip.Addr
	principal              Principal
	ruled, allowed, denied bool
}

// look takes what is said about one pattern: to the principal, and to everybody.
func (a *asked) look(r *rules) {
	a.ruled = true
	a.lookFor(r, a.principal)
	if a.principal != Everybody {
		a.lookFor(r, Everybody)
	}
}

func (a *asked) lookFor(r *rules, p Principal) {
	i, _ := slices.BinarySearchFunc(r.entries, p, func(r rule, p Principal) int {
		if r.Principal.compare(p) < 0 {
			return -1
		}
		return 1 // the first of them
	})
	for ; i < len(r.entries) && r.entries[i].Principal == p; i++ {
		e := &r.entries[i]
		if e.Host != Wildcard && (e.host != a.host || !a.host.IsValid()) {
			continue
		}
		switch bit := uint32(1) << e.Operation; {
		case e.Permission == Deny && a.denies&bit != 0:
			a.denied = true
		case e.Permission == Allow && a.allows&bit != 0:
			a.allowed = true
		}
	}
}

// DecideAny tells whether the principal may do the operation on any resource of the type at all: what Kafka asks of idempotent producers, which
// do not say what they will write to. Of what is allowed, something has to be left by what is denied. A name that is only implied to be allowed
// does not count, as in Kafka.
func (s *Set) DecideAny(p Principal, host netip.Addr, op Operation, t ResourceType) Decision {
	if s == nil || op <= All || int(op) >= len(implied) {
		return NoRule
	}
	bits := uint32(1)<<op | 1<<All
	of := func(r *rules) asked {
		a := asked{allows: bits, denies: bits, host: host.Unmap(), principal: p}
		a.look(r)
		return a
	}
	if r, ok := s.patterns.Get(appendKey(nil, t, Literal, Wildcard)); ok {
		switch a := of(r); {
		case a.denied:
			return Denied
		case a.allowed: // whatever prefixes are denied: there are always other names
			return Allowed
		}
	}
	found := Denied
	s.patterns.Root().WalkPrefix([]byte{byte(t)}, func(_ []byte, r *rules) bool {
		if r.pattern.Kind == Literal && r.pattern.Name == Wildcard {
			return false
		}
		if a := of(r); !a.allowed || a.denied {
			return false
		}
		dominated := false
		s.patterns.Root().WalkPath(appendKey(nil, t, Prefixed, r.pattern.Name), func(_ []byte, above *rules) bool {
			dominated = of(above).denied
			return dominated
		})
		if !dominated {
			found = Allowed
		}
		return !dominated
	})
	return found
}
