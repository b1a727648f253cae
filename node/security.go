package node

import (
	"context"
	"fmt"
	"slices"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/placement/quota"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

const (
	// maxACLsAtOnce bounds one call that makes ACLs: the controller is busy with it.
	maxACLsAtOnce = 10_000
	// maxListed bounds the bytes of one answer that lists ACLs or users. What is more does not fit into a message.
	maxListed = 8 << 20
)

// atControllerSimply is atController for a call that is passed on as it came.
func atControllerSimply[Q, A any](ctx context.Context, n *Node, timeout int32, q Q, local func(context.Context, Q) (A, error),
	forward func(pb.DRPCAdminClient, context.Context, Q) (A, error),
) (A, error) {
	ctx, cancel := withTimeout(ctx, timeout)
	defer cancel()
	return atController(ctx, n, func(ctx context.Context) (A, error) { return local(ctx, q) },
		func(ctx context.Context, peer pb.DRPCAdminClient) (A, error) { return forward(peer, ctx, q) })
}

// CreateACLs makes permissions. More than fit into one command are several: each is made as a whole, in order.
func (a *admin) CreateACLs(ctx context.Context, r *pb.CreateACLsRequest) (*pb.CreateACLsResponse, error) {
	return atControllerSimply(ctx, a.node, r.GetTimeoutMs(), r, a.createACLs, pb.DRPCAdminClient.CreateACLs)
}

func (a *admin) createACLs(ctx context.Context, r *pb.CreateACLsRequest) (*pb.CreateACLsResponse, error) {
	if len(r.GetAcls()) > maxACLsAtOnce {
		return nil, kerr.Errorf(kerr.InvalidRequest, "%d ACLs at once: at most %d are allowed", len(r.GetAcls()), maxACLsAtOnce)
	}
	bindings := make([]acl.Binding, len(r.GetAcls()))
	for i, one := range r.GetAcls() {
		var err error
		if bindings[i], err = bindingOf(one); err != nil {
			return nil, kerr.Errorf(kerr.InvalidRequest, "%v", err)
		}
		if err := placement.CheckACL(bindings[i]); err != nil { // of all, before any is made
			return nil, err
		}
	}
	for some := range slices.Chunk(bindings, placement.MaxBindingsAtOnce) {
		if _, err := a.node.controller.Propose(ctx, placement.CreateACLs{Bindings: some}); err != nil {
			return nil, err
		}
	}
	return &pb.CreateACLsResponse{}, nil
}

// DeleteACLs takes away what the filters select, as the controller has it now.
func (a *admin) DeleteACLs(ctx context.Context, r *pb.DeleteACLsRequest) (*pb.DeleteACLsResponse, error) {
	return atControllerSimply(ctx, a.node, r.GetTimeoutMs(), r, a.deleteACLs, pb.DRPCAdminClient.DeleteACLs)
}

func (a *admin) deleteACLs(ctx context.Context, r *pb.DeleteACLsRequest) (*pb.DeleteACLsResponse, error) {
	c := a.node.controller
	if err := c.CheckLeads(); err != nil {
		return nil, err
	}
	filters := make([]acl.Filter, len(r.GetFilters()))
	for i, one := range r.GetFilters() {
		if filters[i] = filterOf(one); filters[i].Check() != nil {
			return nil, kerr.Errorf(kerr.InvalidRequest, "%v", filters[i].Check())
		}
	}
	response := &pb.DeleteACLsResponse{}
	for _, filter := range filters {
		deleted := &pb.DeleteACLsResponse_Deleted{}
		response.Filters = append(response.Filters, deleted)
		for some := range slices.Chunk(slices.Collect(c.View().ACLs().Select(filter)), placement.MaxBindingsAtOnce) {
			gone, err := c.Propose(ctx, placement.DeleteACLs{Bindings: some})
			if err != nil {
				return nil, err
			}
			for _, b := range gone.([]acl.Binding) {
				deleted.Acls = append(deleted.Acls, aclOf(b))
			}
		}
	}
	return response, nil
}

// DescribeACLs lists permissions from this node's copy of the metadata.
func (a *admin) DescribeACLs(_ context.Context, r *pb.DescribeACLsRequest) (*pb.DescribeACLsResponse, error) {
	filter := filterOf(r.GetFilter())
	if err := filter.Check(); err != nil {
		return nil, kerr.Errorf(kerr.InvalidRequest, "%v", err)
	}
	response := &pb.DescribeACLsResponse{}
	size := 0
	for b := range a.node.controller.View().ACLs().Select(filter) {
		response.Acls = append(response.Acls, aclOf(b))
		if size += 64 + len(b.Name) + len(b.Principal.Type) + len(b.Principal.Name) + len(b.Host); size > maxListed {
			return nil, kerr.Errorf(kerr.PolicyViolation, "more ACLs than fit into an answer: ask for those of one resource, or one principal")
		}
	}
	return response, nil
}

func bindingOf(p *pb.ACL) (acl.Binding, error) {
	principal, err := acl.ParsePrincipal(p.GetPrincipal())
	return acl.Binding{
		Pattern: acl.Pattern{Type: small[acl.ResourceType](p.GetResourceType()), Name: p.GetName(), Kind: small[acl.PatternType](p.GetPatternType())},
		Entry: acl.Entry{
			Principal: principal, Host: p.GetHost(),
			Operation: small[acl.Operation](p.GetOperation()), Permission: small[acl.Permission](p.GetPermission()),
		},
	}, err
}

func filterOf(p *pb.ACL) acl.Filter {
	return acl.Filter{
		Type: small[acl.ResourceType](p.GetResourceType()), Name: p.GetName(), Kind: small[acl.PatternType](p.GetPatternType()),
		Principal: p.GetPrincipal(), Host: p.GetHost(),
		Operation: small[acl.Operation](p.GetOperation()), Permission: small[acl.Permission](p.GetPermission()),
	}
}

// small makes a number off the wire one of an enumeration. What does not fit becomes -1, which is none: 259 is not 3.
func small[T ~int8](n int32) T {
	if n != int32(int8(n)) {
		return -1
	}
	return T(n)
}

func aclOf(b acl.Binding) *pb.ACL {
	return &pb.ACL{
		ResourceType: int32(b.Type), Name: b.Name, PatternType: int32(b.Kind), Principal: b.Principal.String(), Host: b.Host,
		Operation: int32(b.Operation), Permission: int32(b.Permission),
	}
}

// mechanisms are the numbers of SCRAM mechanisms on Kafka's wire.
var mechanisms = []placement.Mechanism{1: placement.ScramSHA256, 2: placement.ScramSHA512}

// mechanismOf returns the mechanism of a number. One that is not known is refused with Kafka's words when it is checked.
func mechanismOf(n int32) placement.Mechanism {
	if n > 0 && int(n) < len(mechanisms) {
		return mechanisms[n]
	}
	return placement.Mechanism(fmt.Sprint(n))
}

// AlterUsers sets and takes away what is known of users' passwords.
func (a *admin) AlterUsers(ctx context.Context, r *pb.AlterUsersRequest) (*pb.AlterUsersResponse, error) {
	return atControllerSimply(ctx, a.node, r.GetTimeoutMs(), r, a.alterUsers, pb.DRPCAdminClient.AlterUsers)
}

func (a *admin) alterUsers(ctx context.Context, r *pb.AlterUsersRequest) (*pb.AlterUsersResponse, error) {
	var command placement.AlterUsers
	for _, d := range r.GetDelete() {
		command.Delete = append(command.Delete, placement.CredentialKey{User: d.GetUser(), Mechanism: mechanismOf(d.GetMechanism())})
	}
	for _, u := range r.GetUpsert() {
		command.Set = append(command.Set, &placement.Credential{
			CredentialKey: placement.CredentialKey{User: u.GetUser(), Mechanism: mechanismOf(u.GetMechanism())},
			Iterations:    int(u.GetIterations()), Salt: u.GetSalt(), StoredKey: u.GetStoredKey(), ServerKey: u.GetServerKey(),
		})
	}
	if _, err := a.node.controller.Propose(ctx, command); err != nil {
		return nil, err
	}
	return &pb.AlterUsersResponse{}, nil
}

// DescribeUsers lists users and for which mechanisms they have passwords, from this node's copy of the metadata. Nothing of what proves a
// password leaves the node.
func (a *admin) DescribeUsers(_ context.Context, r *pb.DescribeUsersRequest) (*pb.DescribeUsersResponse, error) {
	known := make(map[string]*pb.DescribeUsersResponse_User)
	response := &pb.DescribeUsersResponse{}
	size := 0
	for _, c := range a.node.controller.View().Credentials() {
		if len(r.GetUsers()) > 0 && !slices.Contains(r.GetUsers(), c.User) {
			continue
		}
		u := known[c.User]
		if u == nil {
			u = &pb.DescribeUsersResponse_User{Name: c.User}
			known[c.User], response.Users = u, append(response.Users, u)
		}
		u.Credentials = append(u.Credentials, &pb.DescribeUsersResponse_Credential{
			Mechanism: int32(slices.Index(mechanisms, c.Mechanism)), Iterations: int32(c.Iterations),
		})
		if size += 32 + len(c.User); size > maxListed {
			return nil, kerr.Errorf(kerr.PolicyViolation, "more users than fit into an answer: ask for some by name")
		}
	}
	asked := make(map[string]bool)
	for _, name := range r.GetUsers() {
		u := known[name]
		switch {
		case asked[name] && u.GetErrorCode() == 0:
			u.Credentials, u.ErrorCode, u.ErrorMessage = nil, int32(kerr.DuplicateResource), fmt.Sprintf("Cannot describe SCRAM credentials for the same user twice in a single request: %s", name)
		case u == nil:
			u = &pb.DescribeUsersResponse_User{Name: name, ErrorCode: int32(kerr.ResourceNotFound), ErrorMessage: "Attempt to describe a user credential that does not exist: " + name}
			known[name], response.Users = u, append(response.Users, u)
		}
		asked[name] = true
	}
	return response, nil
}

// AlterQuotas sets and takes away quotas.
func (a *admin) AlterQuotas(ctx context.Context, r *pb.AlterQuotasRequest) (*pb.AlterQuotasResponse, error) {
	return atControllerSimply(ctx, a.node, r.GetTimeoutMs(), r, a.alterQuotas, pb.DRPCAdminClient.AlterQuotas)
}

func (a *admin) alterQuotas(ctx context.Context, r *pb.AlterQuotasRequest) (*pb.AlterQuotasResponse, error) {
	c := a.node.controller
	var command placement.AlterQuotas
	for _, change := range r.GetChanges() {
		command.Changes = append(command.Changes, placement.QuotaChange{
			Entity: quota.Entity{User: sideOf(change.GetEntity().GetUser()), Client: sideOf(change.GetEntity().GetClientId())},
			Set:    change.GetSet(), Remove: change.GetRemove(),
		})
	}
	if r.GetValidateOnly() {
		if err := c.CheckLeads(); err != nil {
			return nil, err
		}
		return &pb.AlterQuotasResponse{}, c.View().Check(command)
	}
	if _, err := c.Propose(ctx, command); err != nil {
		return nil, err
	}
	return &pb.AlterQuotasResponse{}, nil
}

// DescribeQuotas lists quotas from this node's copy of the metadata.
func (a *admin) DescribeQuotas(_ context.Context, r *pb.DescribeQuotasRequest) (*pb.DescribeQuotasResponse, error) {
	var user, client *quotaFilter
	for _, component := range r.GetComponents() {
		into := &user
		switch component.GetEntityType() {
		case "user":
		case "client-id":
			into = &client
		default:
			return nil, kerr.Errorf(kerr.UnsupportedVersion, "Custom entity type '%.64s' not supported: there are user and client-id", component.GetEntityType())
		}
		if *into != nil {
			return nil, kerr.Errorf(kerr.InvalidRequest, "Duplicate filter component entity type '%s'", component.GetEntityType())
		}
		if component.GetMatch() < 0 || component.GetMatch() > 2 {
			return nil, kerr.Errorf(kerr.InvalidRequest, "Unknown match type %d", component.GetMatch())
		}
		*into = &quotaFilter{component.GetMatch(), component.GetName()}
	}
	response := &pb.DescribeQuotasResponse{}
	for rule := range a.node.controller.View().Quotas().All() {
		if user.matches(rule.Entity.User, r.GetStrict()) && client.matches(rule.Entity.Client, r.GetStrict()) {
			response.Quotas = append(response.Quotas, &pb.DescribeQuotasResponse_Quota{
				Entity: &pb.QuotaEntity{User: wireSide(rule.Entity.User), ClientId: wireSide(rule.Entity.Client)}, Limits: rule.Limits,
			})
		}
	}
	return response, nil
}

// quotaFilter is what a side of an entity has to be, in Kafka's numbers: 0 the name, 1 the default, 2 anything. nil: nothing is said about it.
type quotaFilter struct {
	match int32
	name  string
}

func (f *quotaFilter) matches(s quota.Side, strict bool) bool {
	switch {
	case f == nil:
		return s.Match == quota.Any || !strict
	case f.match == 0:
		return s == quota.Named(f.name)
	case f.match == 1:
		return s.Match == quota.Default
	}
	return s.Match != quota.Any
}

func sideOf(s *pb.QuotaSide) quota.Side {
	switch {
	case s == nil:
		return quota.Side{}
	case s.GetDefault():
		return quota.Side{Match: quota.Default}
	}
	return quota.Named(s.GetName())
}

func wireSide(s quota.Side) *pb.QuotaSide {
	switch s.Match {
	case quota.Any:
		return nil
	case quota.Default:
		return &pb.QuotaSide{Default: true}
	}
	return &pb.QuotaSide{Name: s.Name}
}
