package native

import (
	"context"

	"github.com/quorumlog/quorumlog/rpc"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// The calls for permissions, users and quotas, on both sides: as a node serves them, and as it passes them on.

// CreateACLs implements pb.DRPCAdminServer.
func (a *admin) CreateACLs(ctx context.Context, r *pb.CreateACLsRequest) (*pb.CreateACLsResponse, error) {
	ctx, cancel := withTimeout(ctx, r.GetTimeoutMs())
	defer cancel()
	bindings, err := fromACLs(r.GetAcls())
	if err != nil {
		return nil, err
	}
	return &pb.CreateACLsResponse{}, a.broker.CreateACLs(ctx, rpc.CallerOf(ctx), bindings)
}

// CreateACLs implements broker.SecurityChanges.
func (r remote) CreateACLs(ctx context.Context, c *broker.Caller, bindings []acl.Binding) error {
	_, err := r.calls.CreateACLs(rpc.PassOn(ctx, c), &pb.CreateACLsRequest{Acls: toACLs(bindings), TimeoutMs: timeLeft(ctx)})
	return err
}

// DeleteACLs implements pb.DRPCAdminServer.
func (a *admin) DeleteACLs(ctx context.Context, r *pb.DeleteACLsRequest) (*pb.DeleteACLsResponse, error) {
	ctx, cancel := withTimeout(ctx, r.GetTimeoutMs())
	defer cancel()
	filters := make([]acl.Filter, len(r.GetFilters()))
	for i, f := range r.GetFilters() {
		filters[i] = fromFilter(f)
	}
	deleted, err := a.broker.DeleteACLs(ctx, rpc.CallerOf(ctx), filters)
	if err != nil {
		return nil, err
	}
	response := &pb.DeleteACLsResponse{}
	for _, bindings := range deleted {
		response.Filters = append(response.Filters, &pb.DeleteACLsResponse_Deleted{Acls: toACLs(bindings)})
	}
	return response, nil
}

// DeleteACLs implements broker.SecurityChanges.
func (r remote) DeleteACLs(ctx context.Context, c *broker.Caller, filters []acl.Filter) ([][]acl.Binding, error) {
	request := &pb.DeleteACLsRequest{TimeoutMs: timeLeft(ctx)}
	for _, f := range filters {
		request.Filters = append(request.Filters, toFilter(f))
	}
	response, err := r.calls.DeleteACLs(rpc.PassOn(ctx, c), request)
	if err != nil {
		return nil, err
	}
	deleted := make([][]acl.Binding, len(response.GetFilters()))
	for i, d := range response.GetFilters() {
		if deleted[i], err = fromACLs(d.GetAcls()); err != nil {
			return nil, err
		}
	}
	return deleted, nil
}

// DescribeACLs implements pb.DRPCAdminServer.
func (a *admin) DescribeACLs(ctx context.Context, r *pb.DescribeACLsRequest) (*pb.DescribeACLsResponse, error) {
	bindings, err := a.broker.DescribeACLs(ctx, rpc.CallerOf(ctx), fromFilter(r.GetFilter()))
	return &pb.DescribeACLsResponse{Acls: toACLs(bindings)}, err
}

func fromACLs(list []*pb.ACL) ([]acl.Binding, error) {
	bindings := make([]acl.Binding, len(list))
	for i, p := range list {
		principal, err := acl.ParsePrincipal(p.GetPrincipal())
		if err != nil {
			return nil, kerr.Errorf(kerr.InvalidRequest, "%v", err)
		}
		f := fromFilter(p)
		bindings[i] = acl.Binding{
			Pattern: acl.Pattern{Type: f.Type, Name: f.Name, Kind: f.Kind},
			Entry:   acl.Entry{Principal: principal, Host: f.Host, Operation: f.Operation, Permission: f.Permission},
		}
	}
	return bindings, nil
}

func toACLs(bindings []acl.Binding) []*pb.ACL {
	list := make([]*pb.ACL, len(bindings))
	for i, b := range bindings {
		list[i] = toFilter(acl.Filter{
			Type: b.Type, Name: b.Name, Kind: b.Kind, Principal: b.Principal.String(), Host: b.Host, Operation: b.Operation, Permission: b.Permission,
		})
	}
	return list
}

func fromFilter(p *pb.ACL) acl.Filter {
	return acl.Filter{
		Type: small[acl.ResourceType](p.GetResourceType()), Name: p.GetName(), Kind: small[acl.PatternType](p.GetPatternType()),
		Principal: p.GetPrincipal(), Host: p.GetHost(),
		Operation: small[acl.Operation](p.GetOperation()), Permission: small[acl.Permission](p.GetPermission()),
	}
}

func toFilter(f acl.Filter) *pb.ACL {
	return &pb.ACL{
		ResourceType: int32(f.Type), Name: f.Name, PatternType: int32(f.Kind), Principal: f.Principal, Host: f.Host,
		Operation: int32(f.Operation), Permission: int32(f.Permission),
	}
}

// small makes a number off the wire one of an enumeration. What does not fit becomes -1, which is none: 259 is not 3.
func small[T ~int8](n int32) T {
	if n != int32(int8(n)) {
		return -1
	}
	return T(n)
}

// AlterUsers implements pb.DRPCAdminServer.
func (a *admin) AlterUsers(ctx context.Context, r *pb.AlterUsersRequest) (*pb.AlterUsersResponse, error) {
	ctx, cancel := withTimeout(ctx, r.GetTimeoutMs())
	defer cancel()
	var change broker.UserChange
	for _, d := range r.GetDelete() {
		change.Delete = append(change.Delete, broker.UserCredential{User: d.GetUser(), Mechanism: small[broker.ScramMechanism](d.GetMechanism())})
	}
	for _, u := range r.GetUpsert() {
		change.Upsert = append(change.Upsert, broker.ScramCredential{
			UserCredential: broker.UserCredential{User: u.GetUser(), Mechanism: small[broker.ScramMechanism](u.GetMechanism()), Iterations: int(u.GetIterations())},
			Salt:           u.GetSalt(), StoredKey: u.GetStoredKey(), ServerKey: u.GetServerKey(),
		})
	}
	return &pb.AlterUsersResponse{}, a.broker.AlterUsers(ctx, rpc.CallerOf(ctx), change)
}

// AlterUsers implements broker.SecurityChanges.
func (r remote) AlterUsers(ctx context.Context, c *broker.Caller, change broker.UserChange) error {
	request := &pb.AlterUsersRequest{TimeoutMs: timeLeft(ctx)}
	for _, d := range change.Delete {
		request.Delete = append(request.Delete, &pb.AlterUsersRequest_Deletion{User: d.User, Mechanism: int32(d.Mechanism)})
	}
	for _, u := range change.Upsert {
		request.Upsert = append(request.Upsert, &pb.ScramCredential{
			User: u.User, Mechanism: int32(u.Mechanism), Iterations: int32(u.Iterations), Salt: u.Salt, StoredKey: u.StoredKey, ServerKey: u.ServerKey,
		})
	}
	_, err := r.calls.AlterUsers(rpc.PassOn(ctx, c), request)
	return err
}

// DescribeUsers implements pb.DRPCAdminServer.
func (a *admin) DescribeUsers(ctx context.Context, r *pb.DescribeUsersRequest) (*pb.DescribeUsersResponse, error) {
	users, err := a.broker.DescribeUsers(ctx, rpc.CallerOf(ctx), r.GetUsers())
	response := &pb.DescribeUsersResponse{}
	for _, u := range users {
		described := &pb.DescribeUsersResponse_User{Name: u.Name}
		if u.Err != nil {
			described.ErrorCode, described.ErrorMessage = int32(u.Err.Code), u.Err.Error()
		}
		for _, c := range u.Credentials {
			described.Credentials = append(described.Credentials, &pb.DescribeUsersResponse_Credential{Mechanism: int32(c.Mechanism), Iterations: int32(c.Iterations)})
		}
		response.Users = append(response.Users, described)
	}
	return response, err
}

// AlterQuotas implements pb.DRPCAdminServer.
func (a *admin) AlterQuotas(ctx context.Context, r *pb.AlterQuotasRequest) (*pb.AlterQuotasResponse, error) {
	ctx, cancel := withTimeout(ctx, r.GetTimeoutMs())
	defer cancel()
	change := broker.QuotaChange{ValidateOnly: r.GetValidateOnly()}
	for _, one := range r.GetChanges() {
		change.Changes = append(change.Changes, broker.QuotaEntityChange{
			Entity: broker.QuotaEntity{User: fromSide(one.GetEntity().GetUser()), ClientID: fromSide(one.GetEntity().GetClientId())},
			Set:    one.GetSet(), Remove: one.GetRemove(),
		})
	}
	return &pb.AlterQuotasResponse{}, a.broker.AlterQuotas(ctx, rpc.CallerOf(ctx), change)
}

// AlterQuotas implements broker.SecurityChanges.
func (r remote) AlterQuotas(ctx context.Context, c *broker.Caller, change broker.QuotaChange) error {
	request := &pb.AlterQuotasRequest{ValidateOnly: change.ValidateOnly, TimeoutMs: timeLeft(ctx)}
	for _, one := range change.Changes {
		request.Changes = append(request.Changes, &pb.AlterQuotasRequest_Change{Entity: toEntity(one.Entity), Set: one.Set, Remove: one.Remove})
	}
	_, err := r.calls.AlterQuotas(rpc.PassOn(ctx, c), request)
	return err
}

// DescribeQuotas implements pb.DRPCAdminServer.
func (a *admin) DescribeQuotas(ctx context.Context, r *pb.DescribeQuotasRequest) (*pb.DescribeQuotasResponse, error) {
	filter := broker.QuotaFilter{Strict: r.GetStrict()}
	for _, component := range r.GetComponents() {
		side := &filter.User
		switch component.GetEntityType() {
		case "user":
		case "client-id":
			side = &filter.ClientID
		default:
			return nil, kerr.Errorf(kerr.UnsupportedVersion, "Custom entity type '%.64s' not supported: there are user and client-id", component.GetEntityType())
		}
		if *side != nil {
			return nil, kerr.Errorf(kerr.InvalidRequest, "Duplicate filter component entity type '%s'", component.GetEntityType())
		}
		match, ok := map[int32]broker.QuotaMatch{0: broker.QuotaName, 1: broker.QuotaDefault, 2: broker.QuotaAnything}[component.GetMatch()]
		if !ok {
			return nil, kerr.Errorf(kerr.InvalidRequest, "Unknown match type %d", component.GetMatch())
		}
		*side = &broker.QuotaSideFilter{Match: match}
		if match == broker.QuotaName {
			(*side).Name = component.GetName()
		}
	}
	quotas, err := a.broker.DescribeQuotas(ctx, rpc.CallerOf(ctx), filter)
	response := &pb.DescribeQuotasResponse{}
	for _, q := range quotas {
		response.Quotas = append(response.Quotas, &pb.DescribeQuotasResponse_Quota{Entity: toEntity(q.Entity), Limits: q.Limits})
	}
	return response, err
}

func fromSide(s *pb.QuotaSide) broker.QuotaSide {
	switch {
	case s == nil:
		return broker.QuotaSide{}
	case s.GetDefault():
		return broker.QuotaSide{Match: broker.QuotaDefault}
	}
	return broker.QuotaSide{Match: broker.QuotaName, Name: s.GetName()}
}

func toEntity(e broker.QuotaEntity) *pb.QuotaEntity {
	return &pb.QuotaEntity{User: toSide(e.User), ClientId: toSide(e.ClientID)}
}

func toSide(s broker.QuotaSide) *pb.QuotaSide {
	switch s.Match {
	case broker.QuotaName:
		return &pb.QuotaSide{Name: s.Name}
	case broker.QuotaDefault:
		return &pb.QuotaSide{Default: true}
	}
	return nil
}
