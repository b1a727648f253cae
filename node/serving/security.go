package serving

import (
	"context"
	"fmt"
	"slices"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/placement/quota"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

const (
	// maxACLsAtOnce bounds one call that makes ACLs, and one that deletes some: the controller is busy with it.
	maxACLsAtOnce = 10_000
	// maxFiltersAtOnce bounds the filters of one call: each may look at all ACLs.
	maxFiltersAtOnce = 100
	// maxListed bounds the bytes of one answer that lists ACLs or users. What is more does not fit into a message.
	maxListed = 8 << 20
)

// CreateACLs implements broker.SecurityChanges. More than fit into one command are several: each is carried out as a whole, in order.
func (b *Broker) CreateACLs(ctx context.Context, c *broker.Caller, bindings []acl.Binding) error {
	_, err := atController(ctx, b, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, b.createACLs(ctx, bindings)
	}, func(ctx context.Context, controller broker.Remote) (struct{}, error) {
		return struct{}{}, controller.CreateACLs(ctx, c, bindings)
	})
	return err
}

func (b *Broker) createACLs(ctx context.Context, bindings []acl.Binding) error {
	if len(bindings) > maxACLsAtOnce {
		return kerr.Errorf(kerr.InvalidRequest, "%d ACLs at once: at most %d are allowed", len(bindings), maxACLsAtOnce)
	}
	for _, binding := range bindings { // all of them, before any is made
		if err := placement.CheckACL(binding); err != nil {
			return err
		}
	}
	for some := range slices.Chunk(bindings, placement.MaxBindingsAtOnce) {
		if _, err := b.o.Controller.Propose(ctx, placement.CreateACLs{Bindings: some}); err != nil {
			return err
		}
	}
	return nil
}

// DeleteACLs implements broker.SecurityChanges. What a filter selects is found out where the metadata is led.
func (b *Broker) DeleteACLs(ctx context.Context, c *broker.Caller, filters []acl.Filter) ([][]acl.Binding, error) {
	return atController(ctx, b, func(ctx context.Context) ([][]acl.Binding, error) {
		return b.deleteACLs(ctx, filters)
	}, func(ctx context.Context, controller broker.Remote) ([][]acl.Binding, error) {
		return controller.DeleteACLs(ctx, c, filters)
	})
}

func (b *Broker) deleteACLs(ctx context.Context, filters []acl.Filter) ([][]acl.Binding, error) {
	c := b.o.Controller
	if err := c.CheckLeads(); err != nil {
		return nil, err
	}
	if len(filters) > maxFiltersAtOnce {
		return nil, kerr.Errorf(kerr.InvalidRequest, "%d filters at once: at most %d are allowed", len(filters), maxFiltersAtOnce)
	}
	for _, filter := range filters {
		if err := filter.Check(); err != nil {
			return nil, kerr.Errorf(kerr.InvalidRequest, "%v", err)
		}
	}
	deleted := make([][]acl.Binding, len(filters))
	for i, filter := range filters {
		selected := slices.Collect(c.View().ACLs().Select(filter))
		if len(selected) > maxACLsAtOnce {
			return nil, kerr.Errorf(kerr.InvalidRequest, "the filter selects %d ACLs: at most %d can be deleted at once, by principal or by resource", len(selected), maxACLsAtOnce)
		}
		for some := range slices.Chunk(selected, placement.MaxBindingsAtOnce) {
			gone, err := c.Propose(ctx, placement.DeleteACLs{Bindings: some})
			if err != nil {
				return nil, err
			}
			deleted[i] = append(deleted[i], gone.([]acl.Binding)...)
		}
	}
	return deleted, nil
}

// DescribeACLs implements broker.Security.
func (b *Broker) DescribeACLs(_ context.Context, _ *broker.Caller, filter acl.Filter) ([]acl.Binding, error) {
	if err := filter.Check(); err != nil {
		return nil, kerr.Errorf(kerr.InvalidRequest, "%v", err)
	}
	var list []acl.Binding
	size := 0
	for binding := range b.o.Controller.View().ACLs().Select(filter) {
		list = append(list, binding)
		if size += 64 + len(binding.Name) + len(binding.Principal.Type) + len(binding.Principal.Name) + len(binding.Host); size > maxListed {
			return nil, kerr.Errorf(kerr.PolicyViolation, "more ACLs than fit into an answer: ask for those of one resource, or one principal")
		}
	}
	return list, nil
}

// AuthorizedOperations implements broker.Security.
func (b *Broker) AuthorizedOperations(c *broker.Caller, r acl.Resource) (allowed []acl.Operation) {
	for _, op := range acl.OperationsOn(r.Type) {
		if b.o.Authorizer.Allowed(c, op, r) {
			allowed = append(allowed, op)
		}
	}
	return allowed
}

// mechanisms are the SCRAM mechanisms by their numbers.
var mechanisms = []placement.Mechanism{broker.ScramSHA256: placement.ScramSHA256, broker.ScramSHA512: placement.ScramSHA512}

// credentialKey names a credential. A mechanism that is not known is refused when it is checked.
func credentialKey(c broker.UserCredential) placement.CredentialKey {
	if c.Mechanism > 0 && int(c.Mechanism) < len(mechanisms) {
		return placement.CredentialKey{User: c.User, Mechanism: mechanisms[c.Mechanism]}
	}
	return placement.CredentialKey{User: c.User, Mechanism: placement.Mechanism(fmt.Sprint(c.Mechanism))}
}

// AlterUsers implements broker.SecurityChanges.
func (b *Broker) AlterUsers(ctx context.Context, c *broker.Caller, change broker.UserChange) error {
	_, err := atController(ctx, b, func(ctx context.Context) (any, error) {
		var command placement.AlterUsers
		for _, d := range change.Delete {
			command.Delete = append(command.Delete, credentialKey(d))
		}
		for _, u := range change.Upsert {
			command.Set = append(command.Set, &placement.Credential{
				CredentialKey: credentialKey(u.UserCredential), Iterations: u.Iterations, Salt: u.Salt, StoredKey: u.StoredKey, ServerKey: u.ServerKey,
			})
		}
		return b.o.Controller.Propose(ctx, command)
	}, func(ctx context.Context, controller broker.Remote) (any, error) {
		return nil, controller.AlterUsers(ctx, c, change)
	})
	return err
}

// DescribeUsers implements broker.Security, from this node's copy of the metadata.
func (b *Broker) DescribeUsers(_ context.Context, _ *broker.Caller, names []string) ([]broker.User, error) {
	asked := make(map[string]int, len(names))
	for _, name := range names {
		asked[name]++
	}
	var users []broker.User
	size := 0
	for _, c := range b.o.Controller.View().Credentials() {
		if len(names) > 0 && asked[c.User] == 0 {
			continue
		}
		if n := len(users); n == 0 || users[n-1].Name != c.User {
			users = append(users, broker.User{Name: c.User})
		}
		u := &users[len(users)-1]
		mechanism := broker.ScramMechanism(max(slices.Index(mechanisms, c.Mechanism), 0))
		u.Credentials = append(u.Credentials, broker.UserCredential{User: c.User, Mechanism: mechanism, Iterations: c.Iterations})
		if asked[c.User] > 1 {
			u.Credentials, u.Err = nil, kerr.Errorf(kerr.DuplicateResource, "Cannot describe SCRAM credentials for the same user twice in a single request: %s", c.User)
		}
		if size += 32 + len(c.User); size > maxListed {
			return nil, kerr.Errorf(kerr.PolicyViolation, "more users than fit into an answer: ask for some by name")
		}
	}
	for _, u := range users {
		delete(asked, u.Name)
	}
	for _, name := range names {
		if asked[name] > 0 {
			delete(asked, name)
			users = append(users, broker.User{Name: name, Err: kerr.Errorf(kerr.ResourceNotFound, "Attempt to describe a user credential that does not exist: %s", name)})
		}
	}
	return users, nil
}

// AlterQuotas implements broker.SecurityChanges.
func (b *Broker) AlterQuotas(ctx context.Context, c *broker.Caller, change broker.QuotaChange) error {
	_, err := atController(ctx, b, func(ctx context.Context) (any, error) {
		var command placement.AlterQuotas
		for _, one := range change.Changes {
			command.Changes = append(command.Changes, placement.QuotaChange{
				Entity: quota.Entity{User: sideOf(one.Entity.User), Client: sideOf(one.Entity.ClientID)}, Set: one.Set, Remove: one.Remove,
			})
		}
		if !change.ValidateOnly {
			return b.o.Controller.Propose(ctx, command)
		}
		if err := b.o.Controller.CheckLeads(); err != nil {
			return nil, err
		}
		return nil, b.o.Controller.View().Check(command)
	}, func(ctx context.Context, controller broker.Remote) (any, error) {
		return nil, controller.AlterQuotas(ctx, c, change)
	})
	return err
}

// DescribeQuotas implements broker.Security, from this node's copy of the metadata.
func (b *Broker) DescribeQuotas(_ context.Context, _ *broker.Caller, f broker.QuotaFilter) ([]broker.Quota, error) {
	var list []broker.Quota
	for rule := range b.o.Controller.View().Quotas().All() {
		e := broker.QuotaEntity{User: fromSide(rule.Entity.User), ClientID: fromSide(rule.Entity.Client)}
		if selects(f.User, e.User, f.Strict) && selects(f.ClientID, e.ClientID, f.Strict) {
			list = append(list, broker.Quota{Entity: e, Limits: rule.Limits})
		}
	}
	return list, nil
}

// selects tells whether a filter selects a side.
func selects(f *broker.QuotaSideFilter, s broker.QuotaSide, strict bool) bool {
	switch {
	case f == nil:
		return !strict || s.Match == broker.QuotaAnything
	case f.Match == broker.QuotaAnything:
		return s.Match != broker.QuotaAnything
	}
	return s == broker.QuotaSide(*f)
}

func sideOf(s broker.QuotaSide) quota.Side {
	switch s.Match {
	case broker.QuotaName:
		return quota.Named(s.Name)
	case broker.QuotaDefault:
		return quota.Side{Match: quota.Default}
	}
	return quota.Side{}
}

func fromSide(s quota.Side) broker.QuotaSide {
	switch s.Match {
	case quota.Exact:
		return broker.QuotaSide{Match: broker.QuotaName, Name: s.Name}
	case quota.Default:
		return broker.QuotaSide{Match: broker.QuotaDefault}
	}
	return broker.QuotaSide{}
}
