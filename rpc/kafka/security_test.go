package kafka

import (
	"crypto/hmac"
	"crypto/sha256"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

func allow(topic, user string, op acl.Operation) acl.Binding {
	return acl.Binding{
		Pattern: acl.Pattern{Type: acl.Topic, Name: topic, Kind: acl.Literal},
		Entry:   acl.Entry{Principal: acl.Principal{Type: acl.UserType, Name: user}, Host: acl.Wildcard, Operation: op, Permission: acl.Allow},
	}
}

// anyFilter selects all.
func anyFilter() kmsg.DeleteACLsRequestFilter {
	return kmsg.DeleteACLsRequestFilter{
		ResourceType: kmsg.ACLResourceTypeAny, ResourcePatternType: kmsg.ACLResourcePatternTypeAny, Operation: kmsg.ACLOperationAny,
		PermissionType: kmsg.ACLPermissionTypeAny,
	}
}

var anything = acl.Filter{Type: acl.AnyType, Kind: acl.AnyPattern, Operation: acl.AnyOperation, Permission: acl.AnyPermission}

// TestDescribeAcls: what is said about one pattern is together.
func TestDescribeAcls(t *testing.T) {
	var asked acl.Filter
	b := &adminBroker{bindings: func(f acl.Filter) ([]acl.Binding, error) {
		asked = f
		return []acl.Binding{allow("a", "alice", acl.Read), allow("a", "bob", acl.Write), allow("b", "bob", acl.Write)}, nil
	}}
	versions(t, kmsg.DescribeACLs, func(t *testing.T, version int16) {
		req := kmsg.NewPtrDescribeACLsRequest()
		bob := "User:bob"
		req.ResourceType, req.ResourcePatternType, req.Operation, req.PermissionType, req.Principal = 2, 3, 1, 1, &bob
		resp := ask[*kmsg.DescribeACLsResponse](t, b, req, version)
		require.Equal(t, acl.Filter{Type: acl.Topic, Kind: acl.Literal, Principal: bob, Operation: acl.AnyOperation, Permission: acl.AnyPermission}, asked)
		require.Zero(t, resp.ErrorCode)
		require.Len(t, resp.Resources, 2)
		a := resp.Resources[0]
		require.Equal(t, []any{kmsg.ACLResourceTypeTopic, "a", kmsg.ACLResourcePatternTypeLiteral}, []any{a.ResourceType, a.ResourceName, a.ResourcePatternType})
		require.Equal(t, []any{"User:bob", "*", kmsg.ACLOperationWrite, kmsg.ACLPermissionTypeAllow},
			[]any{a.ACLs[1].Principal, a.ACLs[1].Host, a.ACLs[1].Operation, a.ACLs[1].PermissionType})
		require.Len(t, resp.Resources[1].ACLs, 1)
	})
	b.bindings = func(acl.Filter) ([]acl.Binding, error) { return nil, kerr.Errorf(kerr.SecurityDisabled, "none here") }
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType, req.ResourcePatternType, req.Operation, req.PermissionType = 1, 1, 1, 1
	resp := ask[*kmsg.DescribeACLsResponse](t, b, req, 3)
	require.Equal(t, []any{code(kerr.SecurityDisabled), "none here"}, []any{resp.ErrorCode, text(resp.ErrorMessage)})
}

// TestCreateAcls: what is wrong with one binding is told of that one, and the others are made.
func TestCreateAcls(t *testing.T) {
	versions(t, kmsg.CreateACLs, func(t *testing.T, version int16) {
		var asked []acl.Binding
		var fail error
		b := &adminBroker{createACLs: func(list []acl.Binding) error {
			asked = list
			return fail
		}}
		binding := kmsg.CreateACLsRequestCreation{
			ResourceType: 2, ResourceName: "a", ResourcePatternType: 3, Principal: "User:alice", Host: "*", Operation: kmsg.ACLOperationRead, PermissionType: 3,
		}
		noColon, empty, second := binding, binding, binding
		noColon.Principal, empty.ResourceName, second.ResourceName = "bob", "", "b"
		req := kmsg.NewPtrCreateACLsRequest()
		req.Creations = []kmsg.CreateACLsRequestCreation{binding, noColon, empty, second}
		resp := ask[*kmsg.CreateACLsResponse](t, b, req, version)
		require.Equal(t, []acl.Binding{allow("a", "alice", acl.Read), allow("b", "alice", acl.Read)}, asked)
		for i, want := range []kerr.Code{kerr.None, kerr.InvalidRequest, kerr.InvalidRequest, kerr.None} {
			require.Equal(t, code(want), resp.Results[i].ErrorCode)
		}
		require.Contains(t, text(resp.Results[1].ErrorMessage), "no colon is present")
		require.Equal(t, "Invalid empty resource name", text(resp.Results[2].ErrorMessage))
		fail = kerr.Errorf(kerr.ClusterAuthorizationFailed, "no")
		resp = ask[*kmsg.CreateACLsResponse](t, b, req, version)
		require.Equal(t, code(kerr.ClusterAuthorizationFailed), resp.Results[3].ErrorCode)
	})
}

// TestDeleteAcls: each filter has what it selected, whatever is wrong with the one before it; and what is empty does not stand for all.
func TestDeleteAcls(t *testing.T) {
	versions(t, kmsg.DeleteACLs, func(t *testing.T, version int16) {
		b := &adminBroker{deleteACLs: func(filters []acl.Filter) ([][]acl.Binding, error) {
			one := anything
			one.Name = "a"
			require.Equal(t, []acl.Filter{one, anything}, filters)
			return [][]acl.Binding{{allow("a", "alice", acl.Read)}, nil}, nil
		}}
		empty, name := "", "a"
		named, unnamed, noHost, unknownType, strange := anyFilter(), anyFilter(), anyFilter(), anyFilter(), anyFilter()
		named.ResourceName, unnamed.ResourceName, noHost.Host, unknownType.ResourceType, strange.Operation = &name, &empty, &empty, 0, 99
		req := kmsg.NewPtrDeleteACLsRequest()
		req.Filters = []kmsg.DeleteACLsRequestFilter{unnamed, named, noHost, unknownType, strange, anyFilter()}
		resp := ask[*kmsg.DeleteACLsResponse](t, b, req, version)
		for i, want := range []kerr.Code{kerr.InvalidRequest, kerr.None, kerr.InvalidRequest, kerr.InvalidRequest, kerr.InvalidRequest, kerr.None} {
			require.Equal(t, code(want), resp.Results[i].ErrorCode, "filter %d", i)
		}
		require.Len(t, resp.Results[1].MatchingACLs, 1)
		gone := resp.Results[1].MatchingACLs[0]
		require.Equal(t, []any{"a", "User:alice", kmsg.ACLOperationRead}, []any{gone.ResourceName, gone.Principal, gone.Operation})
		require.Empty(t, resp.Results[5].MatchingACLs)
	})
}

// TestDescribeScram: users with what is known of their passwords.
func TestDescribeScram(t *testing.T) {
	b := &adminBroker{users: func(names []string) ([]broker.User, error) {
		require.Equal(t, []string{"alice", "nobody"}, names)
		return []broker.User{
			{Name: "alice", Credentials: []broker.UserCredential{{User: "alice", Mechanism: broker.ScramSHA512, Iterations: 8192}}},
			{Name: "nobody", Err: kerr.Errorf(kerr.ResourceNotFound, "there is none")},
		}, nil
	}}
	req := kmsg.NewPtrDescribeUserSCRAMCredentialsRequest()
	req.Users = []kmsg.DescribeUserSCRAMCredentialsRequestUser{{Name: "alice"}, {Name: "nobody"}}
	resp := ask[*kmsg.DescribeUserSCRAMCredentialsResponse](t, b, req, 0)
	require.Zero(t, resp.ErrorCode)
	info := resp.Results[0].CredentialInfos[0]
	require.Equal(t, []any{int8(2), int32(8192)}, []any{info.Mechanism, info.Iterations})
	require.Equal(t, []any{"nobody", code(kerr.ResourceNotFound), "there is none"}, []any{resp.Results[1].User, resp.Results[1].ErrorCode, text(resp.Results[1].ErrorMessage)})
}

// TestAlterScram: each user for himself; what is kept of a salted password can tell a proof by RFC 5802.
func TestAlterScram(t *testing.T) {
	asked := make(map[string]broker.UserChange)
	b := &adminBroker{alterUsers: func(change broker.UserChange) error {
		for _, d := range change.Delete {
			asked[d.User] = change
			return kerr.Errorf(kerr.ResourceNotFound, "there is none")
		}
		asked[change.Upsert[0].User] = change
		return nil
	}}
	salted := make([]byte, sha256.Size)
	salted[3] = 9
	upsert := func(user string, mechanism int8, salted []byte) kmsg.AlterUserSCRAMCredentialsRequestUpsertion {
		return kmsg.AlterUserSCRAMCredentialsRequestUpsertion{Name: user, Mechanism: mechanism, Iterations: 8192, Salt: []byte("12345678"), SaltedPassword: salted}
	}
	req := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	req.Deletions = []kmsg.AlterUserSCRAMCredentialsRequestDeletion{{Name: "gone", Mechanism: 1}, {Name: "twice", Mechanism: 1}}
	req.Upsertions = []kmsg.AlterUserSCRAMCredentialsRequestUpsertion{
		upsert("alice", 1, salted), upsert("twice", 2, salted), upsert("strange", 7, salted), upsert("short", 2, salted),
	}
	resp := ask[*kmsg.AlterUserSCRAMCredentialsResponse](t, b, req, 0)
	got := make(map[string]kerr.Code)
	for _, result := range resp.Results {
		got[result.User] = kerr.Code(result.ErrorCode)
	}
	require.Len(t, resp.Results, 5)
	require.Equal(t, map[string]kerr.Code{
		"gone": kerr.ResourceNotFound, "twice": kerr.DuplicateResource, "alice": kerr.None, "strange": kerr.UnsupportedSASLMechanism, "short": kerr.UnacceptableCredential,
	}, got)
	require.Len(t, asked, 2)
	require.Equal(t, []broker.UserCredential{{User: "gone", Mechanism: broker.ScramSHA256}}, asked["gone"].Delete)

	kept := asked["alice"].Upsert[0]
	require.Equal(t, broker.UserCredential{User: "alice", Mechanism: broker.ScramSHA256, Iterations: 8192}, kept.UserCredential)
	keyed := func(key []byte, text string) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	stored := sha256.Sum256(keyed(salted, "Client Key"))
	require.Equal(t, stored[:], kept.StoredKey)
	require.Equal(t, keyed(salted, "Server Key"), kept.ServerKey)
	require.Equal(t, []byte("12345678"), kept.Salt)
}

// TestDescribeQuotas: sides as Kafka names them.
func TestDescribeQuotas(t *testing.T) {
	versions(t, kmsg.DescribeClientQuotas, func(t *testing.T, version int16) {
		var asked broker.QuotaFilter
		b := &adminBroker{quotas: func(f broker.QuotaFilter) ([]broker.Quota, error) {
			asked = f
			return []broker.Quota{{
				Entity: broker.QuotaEntity{User: broker.QuotaSide{Match: broker.QuotaName, Name: "u1"}, ClientID: broker.QuotaSide{Match: broker.QuotaDefault}},
				Limits: map[string]float64{"producer_byte_rate": 1000, "consumer_byte_rate": 5},
			}}, nil
		}}
		u1 := "u1"
		req := kmsg.NewPtrDescribeClientQuotasRequest()
		req.Strict = true
		req.Components = []kmsg.DescribeClientQuotasRequestComponent{
			{EntityType: "user", MatchType: kmsg.QuotasMatchTypeExact, Match: &u1}, {EntityType: "client-id", MatchType: kmsg.QuotasMatchTypeDefault},
		}
		resp := ask[*kmsg.DescribeClientQuotasResponse](t, b, req, version)
		require.Equal(t, broker.QuotaFilter{
			User: &broker.QuotaSideFilter{Match: broker.QuotaName, Name: "u1"}, ClientID: &broker.QuotaSideFilter{Match: broker.QuotaDefault}, Strict: true,
		}, asked)
		entry := resp.Entries[0]
		require.Equal(t, []any{"user", "u1", "client-id", "null"}, []any{entry.Entity[0].Type, text(entry.Entity[0].Name), entry.Entity[1].Type, text(entry.Entity[1].Name)})
		require.Equal(t, []kmsg.DescribeClientQuotasResponseEntryValue{{Key: "consumer_byte_rate", Value: 5}, {Key: "producer_byte_rate", Value: 1000}}, entry.Values)
		b.quotas = func(broker.QuotaFilter) ([]broker.Quota, error) { return nil, nil }
		require.NotNil(t, ask[*kmsg.DescribeClientQuotasResponse](t, b, req, version).Entries, "none is not null")
	})
}

// TestDescribeQuotasRefuses: filters that mean nothing.
func TestDescribeQuotasRefuses(t *testing.T) {
	name := "n"
	type components = []kmsg.DescribeClientQuotasRequestComponent
	for _, tt := range []struct {
		components
		code kerr.Code
	}{
		{components{{EntityType: "ip", MatchType: 2}}, kerr.UnsupportedVersion},
		{components{{EntityType: "user", MatchType: 2}, {EntityType: "user", MatchType: 2}}, kerr.InvalidRequest},
		{components{{EntityType: "user", MatchType: 3}}, kerr.InvalidRequest},
		{components{{EntityType: "user", MatchType: 0}}, kerr.InvalidRequest},
		{components{{EntityType: "user", MatchType: 2, Match: &name}}, kerr.InvalidRequest},
	} {
		req := kmsg.NewPtrDescribeClientQuotasRequest()
		req.Components = tt.components
		resp := ask[*kmsg.DescribeClientQuotasResponse](t, &adminBroker{}, req, 1)
		require.Equal(t, code(tt.code), resp.ErrorCode, "%+v", tt)
		require.NotEqual(t, "null", text(resp.ErrorMessage))
	}
}

// TestAlterQuotas: each entity for itself.
func TestAlterQuotas(t *testing.T) {
	versions(t, kmsg.AlterClientQuotas, func(t *testing.T, version int16) {
		var asked []broker.QuotaChange
		b := &adminBroker{alterQuotas: func(change broker.QuotaChange) error {
			asked = append(asked, change)
			return nil
		}}
		u1 := "u1"
		type entity = []kmsg.AlterClientQuotasRequestEntryEntity
		req := kmsg.NewPtrAlterClientQuotasRequest()
		req.ValidateOnly = true
		req.Entries = []kmsg.AlterClientQuotasRequestEntry{
			{Entity: entity{{Type: "user", Name: &u1}, {Type: "client-id"}}, Ops: []kmsg.AlterClientQuotasRequestEntryOp{
				{Key: "producer_byte_rate", Value: 1000}, {Key: "consumer_byte_rate", Remove: true},
			}},
			{Entity: entity{{Type: "ip", Name: &u1}}},
			{Entity: entity{{Type: "user", Name: &u1}, {Type: "user", Name: &u1}}},
		}
		resp := ask[*kmsg.AlterClientQuotasResponse](t, b, req, version)
		require.Equal(t, []broker.QuotaChange{{ValidateOnly: true, Changes: []broker.QuotaEntityChange{{
			Entity: broker.QuotaEntity{User: broker.QuotaSide{Match: broker.QuotaName, Name: "u1"}, ClientID: broker.QuotaSide{Match: broker.QuotaDefault}},
			Set:    map[string]float64{"producer_byte_rate": 1000}, Remove: []string{"consumer_byte_rate"},
		}}}}, asked)
		for i, want := range []kerr.Code{kerr.None, kerr.InvalidRequest, kerr.InvalidRequest} {
			require.Equal(t, code(want), resp.Entries[i].ErrorCode)
			require.Equal(t, req.Entries[i].Entity[0].Type, resp.Entries[i].Entity[0].Type)
		}
	})
}
