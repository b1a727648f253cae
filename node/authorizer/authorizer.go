// Package authorizer decides what the callers of a node may do, by the permissions in the metadata that the node has applied.
package authorizer

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/time/rate"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
)

// Missing says what holds for resources for which there is no permission at all, for nobody.
type Missing int

const (
	// DenyMissing denies. It is what is meant unless somebody says otherwise.
	DenyMissing Missing = iota
	// AllowMissing allows, as Kafka's allow.everyone.if.no.acl.found does.
	AllowMissing
)

// Options are the settings of an authorizer.
type Options struct {
	// SuperUsers may do everything, whatever the permissions say.
	SuperUsers []acl.Principal
	Missing    Missing
	Rules      func() *acl.Set // the permissions of the metadata, as this node has applied it
	Current    func() bool     // that is as new as this start of the node; nil: always
	Logger     *slog.Logger
}

// Authorizer is a broker.Authorizer.
type Authorizer struct {
	o          Options
	log        *rate.Limiter
	suppressed atomic.Uint64
	current    atomic.Bool // once true
}

var _ broker.Authorizer = (*Authorizer)(nil)

// Denials are logged up to deniedPerSecond, with a burst: whoever is denied everything must not fill the disk with it.
const (
	deniedPerSecond = 2
	deniedBurst     = 20
)

// New returns an authorizer. It starts nothing.
func New(o Options) *Authorizer {
	return &Authorizer{o: o, log: rate.NewLimiter(deniedPerSecond, deniedBurst)}
}

// ParseSuperUsers reads Kafka's form of a list of principals: User:alice;User:bob.
func ParseSuperUsers(text string) ([]acl.Principal, error) {
	var users []acl.Principal
	for _, one := range strings.Split(text, ";") {
		if one = strings.TrimSpace(one); one == "" {
			continue
		}
		p, err := acl.ParsePrincipal(one)
		if err != nil {
			return nil, err
		}
		if p.Type == "" || p.Name == "" {
			return nil, fmt.Errorf("%q is not a principal, such as User:alice", one)
		}
		if p == acl.Everybody {
			return nil, fmt.Errorf("%s is everybody: name the super users, or run without an authorizer", p)
		}
		if strings.Contains(p.Name, ","+p.Type+":") { // the names of certificates have commas
			return nil, fmt.Errorf("super users are separated by semicolons: %s", one)
		}
		users = append(users, p)
	}
	return users, nil
}

// Enabled implements broker.Authorizer.
func (a *Authorizer) Enabled() bool { return true }

// Current implements broker.Authorizer.
func (a *Authorizer) Current() bool {
	if a.current.Load() {
		return true
	}
	if a.o.Current != nil && !a.o.Current() {
		return false
	}
	a.current.Store(true)
	return true
}

// Rules implements broker.Authorizer.
func (a *Authorizer) Rules() *acl.Set { return a.o.Rules() }

// Allowed implements broker.Authorizer.
func (a *Authorizer) Allowed(c *broker.Caller, op acl.Operation, r acl.Resource) bool {
	if a.trusted(c, op) {
		return true
	}
	switch a.o.Rules().Decide(acl.Question{Principal: acl.Principal(c.Principal), Host: c.Host, Operation: op, Resource: r}) {
	case acl.Allowed:
		return true
	case acl.NoRule:
		return a.o.Missing == AllowMissing && a.Current() // there may be one that did not come here yet
	}
	return false
}

// AllowedAny implements broker.Authorizer.
func (a *Authorizer) AllowedAny(c *broker.Caller, op acl.Operation, t acl.ResourceType) bool {
	// A name that nobody has stands for all that nobody has made rules for, as in Kafka.
	if a.Allowed(c, op, acl.Resource{Type: t, Name: "hardcode"}) {
		return true
	}
	return a.o.Rules().DecideAny(acl.Principal(c.Principal), c.Host, op, t) == acl.Allowed
}

// trusted tells whether no permission is asked for: super users, and nodes in what nodes do among themselves.
func (a *Authorizer) trusted(c *broker.Caller, op acl.Operation) bool {
	return c.Peer && op == acl.ClusterAction || slices.Contains(a.o.SuperUsers, acl.Principal(c.Principal))
}

// Denied implements broker.Authorizer.
func (a *Authorizer) Denied(c *broker.Caller, op acl.Operation, r acl.Resource) {
	if !a.log.Allow() {
		a.suppressed.Add(1)
		return
	}
	a.o.Logger.Info("denied", "principal", limited(c.Principal.String()), "host", c.Host.String(), "client", limited(c.ClientID), "operation", op.String(),
		"resource", r.Type.String(), "name", limited(r.Name), "suppressed", a.suppressed.Swap(0))
}

// limited bounds what others have put into a line of the log.
func limited(s string) string {
	if len(s) > 256 {
		return s[:256] + "…"
	}
	return s
}
