package client

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"errors"
	"fmt"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// ACL is one permission, an ACLPattern and an ACLEntry; ACLFilter selects some.
type (
	ACL       = acl.Binding
	ACLFilter = acl.Filter
)

// CreateACLs makes permissions. Those that are there stay. It may be repeated when it failed half way.
func (a *Admin) CreateACLs(ctx context.Context, acls ...ACL) error {
	req := &pb.CreateACLsRequest{TimeoutMs: int32(a.client.opts.RequestTimeout.Milliseconds())}
	for _, b := range acls {
		req.Acls = append(req.Acls, aclToWire(b))
	}
	return a.call(ctx, "create ACLs", func(ctx context.Context, c pb.DRPCAdminClient, _ attempt) error {
		_, err := c.CreateACLs(ctx, req)
		return err
	})
}

// DeleteACLs takes away the permissions that one of the filters selects, and returns them. What an attempt whose answer got lost has taken away is
// not among them.
func (a *Admin) DeleteACLs(ctx context.Context, filters ...ACLFilter) ([]ACL, error) {
	req := &pb.DeleteACLsRequest{TimeoutMs: int32(a.client.opts.RequestTimeout.Milliseconds())}
	for _, f := range filters {
		req.Filters = append(req.Filters, filterToWire(f))
	}
	var deleted []ACL
	err := a.call(ctx, "delete ACLs", func(ctx context.Context, c pb.DRPCAdminClient, _ attempt) error {
		resp, err := c.DeleteACLs(ctx, req)
		deleted = nil
		for _, one := range resp.GetFilters() {
			for _, b := range one.GetAcls() {
				deleted = append(deleted, aclFromWire(b))
			}
		}
		return err
	})
	return deleted, err
}

// DescribeACLs returns the permissions that the filter selects, sorted: those of one pattern follow each other.
func (a *Admin) DescribeACLs(ctx context.Context, filter ACLFilter) ([]ACL, error) {
	var acls []ACL
	err := a.call(ctx, "describe ACLs", func(ctx context.Context, c pb.DRPCAdminClient, _ attempt) error {
		resp, err := c.DescribeACLs(ctx, &pb.DescribeACLsRequest{Filter: filterToWire(filter)})
		acls = nil
		for _, b := range resp.GetAcls() {
			acls = append(acls, aclFromWire(b))
		}
		return err
	})
	return acls, err
}

func aclToWire(b ACL) *pb.ACL {
	return filterToWire(ACLFilter{
		Type: b.Type, Name: b.Name, Kind: b.Kind, Principal: b.Principal.String(), Host: b.Host, Operation: b.Operation, Permission: b.Permission,
	})
}

func filterToWire(f ACLFilter) *pb.ACL {
	return &pb.ACL{
		ResourceType: int32(f.Type), Name: f.Name, PatternType: int32(f.Kind), Principal: f.Principal, Host: f.Host,
		Operation: int32(f.Operation), Permission: int32(f.Permission),
	}
}

// aclFromWire returns a permission that a node has told. One of a later release may have values without a name.
func aclFromWire(p *pb.ACL) ACL {
	principal, err := acl.ParsePrincipal(p.GetPrincipal())
	if err != nil {
		principal.Name = p.GetPrincipal()
	}
	return ACL{
		Pattern: acl.Pattern{Type: acl.ResourceType(p.GetResourceType()), Name: p.GetName(), Kind: acl.PatternType(p.GetPatternType())},
		Entry: acl.Entry{
			Principal: principal, Host: p.GetHost(), Operation: acl.Operation(p.GetOperation()), Permission: acl.Permission(p.GetPermission()),
		},
	}
}

// ScramMechanism is a way for a user to show that it knows its password, in Kafka's numbers.
type ScramMechanism int

// The mechanisms.
const (
	ScramSHA256 ScramMechanism = 1
	ScramSHA512 ScramMechanism = 2
)

// String returns the name of the mechanism in SASL.
func (m ScramMechanism) String() string {
	switch m {
	case ScramSHA256:
		return "SCRAM-SHA-256"
	case ScramSHA512:
		return "SCRAM-SHA-512"
	}
	return fmt.Sprintf("UNKNOWN(%d)", int(m))
}

// MarshalText implements encoding.TextMarshaler.
func (m ScramMechanism) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UserCredential says for what a user has a password.
type UserCredential struct {
	Mechanism  ScramMechanism `json:"mechanism"`
	Iterations int            `json:"iterations"`
}

// User is a user that has passwords.
type User struct {
	Name        string           `json:"name"`
	Credentials []UserCredential `json:"credentials"`
}

// DefaultIterations is how often a password is hashed if nobody says, as in Kafka.
const DefaultIterations = 4096

// SetPassword gives a user a password, or another one. It is hashed here: no node is told it. Iterations 0 is DefaultIterations.
func (a *Admin) SetPassword(ctx context.Context, user, password string, m ScramMechanism, iterations int) error {
	if iterations == 0 {
		iterations = DefaultIterations
	}
	credential, err := scramCredential(user, password, m, iterations)
	if err != nil {
		return err
	}
	req := &pb.AlterUsersRequest{Upsert: []*pb.ScramCredential{credential}, TimeoutMs: int32(a.client.opts.RequestTimeout.Milliseconds())}
	return a.call(ctx, fmt.Sprintf("set the password of user %q", user), func(ctx context.Context, c pb.DRPCAdminClient, _ attempt) error {
		_, err := c.AlterUsers(ctx, req)
		return err
	})
}

// mostIterations bounds what is worth computing: nodes refuse more than Kafka does.
const mostIterations = 16384

// scramCredential makes of a password what a node keeps of it (RFC 5802, section 3). As in Kafka the password is taken as it is, without SASLprep.
func scramCredential(user, password string, m ScramMechanism, iterations int) (*pb.ScramCredential, error) {
	if password == "" {
		return nil, errors.New("client: the password is empty")
	}
	if iterations < 1 || iterations > mostIterations {
		return nil, fmt.Errorf("client: %d iterations: from %d to %d", iterations, DefaultIterations, mostIterations)
	}
	newHash := broker.ScramMechanism(m).Hash()
	if newHash == nil {
		return nil, fmt.Errorf("client: unknown SCRAM mechanism %v", m)
	}
	salt := make([]byte, 24)
	_, _ = rand.Read(salt) // never fails
	salted, err := pbkdf2.Key(newHash, password, salt, iterations, newHash().Size())
	if err != nil {
		return nil, fmt.Errorf("client: hash the password: %w", err)
	}
	storedKey, serverKey := broker.ScramKeys(salted, newHash)
	return &pb.ScramCredential{
		User: user, Mechanism: int32(m), Iterations: int32(iterations), Salt: salt, StoredKey: storedKey, ServerKey: serverKey,
	}, nil
}

// DeletePassword takes a user's password for the mechanism away. Who is connected stays so.
func (a *Admin) DeletePassword(ctx context.Context, user string, m ScramMechanism) error {
	req := &pb.AlterUsersRequest{
		Delete: []*pb.AlterUsersRequest_Deletion{{User: user, Mechanism: int32(m)}}, TimeoutMs: int32(a.client.opts.RequestTimeout.Milliseconds()),
	}
	return a.call(ctx, fmt.Sprintf("delete the password of user %q", user), func(ctx context.Context, c pb.DRPCAdminClient, past attempt) error {
		_, err := c.AlterUsers(ctx, req)
		if past.maybeDone && kerr.CodeOf(err) == kerr.ResourceNotFound {
			return nil // by an earlier attempt of this call, whose answer got lost
		}
		return err
	})
}

// DescribeUsers returns the users that have passwords: those named, or all. One that does not exist is an error.
func (a *Admin) DescribeUsers(ctx context.Context, names ...string) ([]User, error) {
	users := []User{}
	err := a.call(ctx, "describe users", func(ctx context.Context, c pb.DRPCAdminClient, _ attempt) error {
		resp, err := c.DescribeUsers(ctx, &pb.DescribeUsersRequest{Users: names})
		users = []User{}
		for _, u := range resp.GetUsers() {
			if code := kerr.Code(u.GetErrorCode()); code != kerr.None {
				return kerr.Errorf(code, "%s", u.GetErrorMessage())
			}
			user := User{Name: u.GetName()}
			for _, c := range u.GetCredentials() {
				user.Credentials = append(user.Credentials, UserCredential{ScramMechanism(c.GetMechanism()), int(c.GetIterations())})
			}
			users = append(users, user)
		}
		return err
	})
	return users, err
}

// QuotaName is one side of whom a quota is for. nil: whoever it is.
type QuotaName struct {
	Default bool   `json:"default,omitempty"` // all that have no quota of their own; Name is empty
	Name    string `json:"name,omitempty"`
}

// QuotaEntity is whom a quota is for: a user, a client id, or both.
type QuotaEntity struct {
	User     *QuotaName `json:"user,omitempty"`
	ClientID *QuotaName `json:"client_id,omitempty"`
}

// Quota is the quotas of an entity: producer_byte_rate, consumer_byte_rate, request_percentage.
type Quota struct {
	QuotaEntity
	Limits map[string]float64 `json:"limits"`
}

// AlterQuota sets quotas of an entity and takes others away, in one step. The others of it stay.
func (a *Admin) AlterQuota(ctx context.Context, e QuotaEntity, set map[string]float64, remove []string) error {
	req := &pb.AlterQuotasRequest{
		Changes:   []*pb.AlterQuotasRequest_Change{{Entity: &pb.QuotaEntity{User: sideToWire(e.User), ClientId: sideToWire(e.ClientID)}, Set: set, Remove: remove}},
		TimeoutMs: int32(a.client.opts.RequestTimeout.Milliseconds()),
	}
	return a.call(ctx, "alter quotas", func(ctx context.Context, c pb.DRPCAdminClient, _ attempt) error {
		_, err := c.AlterQuotas(ctx, req)
		return err
	})
}

// DescribeQuotas returns all quotas, sorted by entity.
func (a *Admin) DescribeQuotas(ctx context.Context) ([]Quota, error) {
	quotas := []Quota{}
	err := a.call(ctx, "describe quotas", func(ctx context.Context, c pb.DRPCAdminClient, _ attempt) error {
		resp, err := c.DescribeQuotas(ctx, &pb.DescribeQuotasRequest{})
		quotas = []Quota{}
		for _, q := range resp.GetQuotas() {
			e := QuotaEntity{User: sideFromWire(q.GetEntity().GetUser()), ClientID: sideFromWire(q.GetEntity().GetClientId())}
			quotas = append(quotas, Quota{e, q.GetLimits()})
		}
		return err
	})
	return quotas, err
}

func sideToWire(n *QuotaName) *pb.QuotaSide {
	if n == nil {
		return nil
	}
	return &pb.QuotaSide{Default: n.Default, Name: n.Name}
}

func sideFromWire(s *pb.QuotaSide) *QuotaName {
	if s == nil {
		return nil
	}
	return &QuotaName{Default: s.GetDefault(), Name: s.GetName()}
}
