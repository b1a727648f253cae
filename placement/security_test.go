package placement

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/quorumlog/quorumlog/placement/quota"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
)

func credential(user string, change ...func(*Credential)) *Credential {
	c := &Credential{CredentialKey{user, ScramSHA256}, MinIterations, []byte("01234567"), make([]byte, 32), make([]byte, 32)}
	for _, f := range change {
		f(c)
	}
	return c
}

// goldenSecurity is what the snapshot of a table at the first level has of ACLs, users and quotas.
const goldenSecurity = `"topics":[],"acls":[["TOPIC","LITERAL","a","User:alice","*","READ","ALLOW"]],` +
	`"users":[{"user":"alice","mechanism":"SCRAM-SHA-512","iterations":4096,"salt":"MDEyMzQ1Njc=","stored_key":"AQ==","server_key":"Ag=="}],` +
	`"quotas":[{"entity":{"user":null},"limits":{"producer_byte_rate":1024}},{"entity":{"user":"alice","client_id":"app"},"limits":{"consumer_byte_rate":1e+21}}]}`

// TestSecurityInSnapshot: what is kept comes back, in this form, and in no other.
func TestSecurityInSnapshot(t *testing.T) {
	tab := clusterOf(t, 1)
	apply(t, tab, CreateACLs{[]acl.Binding{allow(acl.Topic, "a", "alice", acl.Read), allow(acl.Topic, "b", "bob", acl.Write)}})
	apply(t, tab, CreateACLs{[]acl.Binding{allow(acl.Topic, "a", "alice", acl.Read)}}) // a retry
	if gone := apply(t, tab, DeleteACLs{[]acl.Binding{allow(acl.Topic, "b", "bob", acl.Write), allow(acl.Group, "b", "bob", acl.Read)}}).([]acl.Binding); len(gone) != 1 {
		t.Errorf("gone: %v", gone)
	}
	apply(t, tab, AlterUsers{Set: []*Credential{
		{CredentialKey{"alice", ScramSHA512}, MinIterations, []byte("01234567"), []byte{1}, []byte{2}}, credential("bob"),
	}})
	apply(t, tab, AlterUsers{Delete: []CredentialKey{{"bob", ScramSHA256}}})
	both := quota.Entity{User: quota.Named("alice"), Client: quota.Named("app")}
	apply(t, tab, AlterQuotas{[]QuotaChange{
		{Entity: both, Set: map[string]float64{"consumer_byte_rate": 1e21, "request_percentage": 5}},
		{Entity: quota.Entity{User: quota.Side{Match: quota.Default}}, Set: map[string]float64{"producer_byte_rate": 1024}},
		{Entity: quota.Entity{Client: quota.Named("x")}, Remove: []string{"producer_byte_rate"}},
	}})
	apply(t, tab, AlterQuotas{[]QuotaChange{{Entity: both, Remove: []string{"request_percentage"}}}})
	snapshot := tab.Snapshot(nil)
	if !strings.HasSuffix(string(snapshot), goldenSecurity) {
		t.Errorf("got  %s\nwant %s", snapshot, goldenSecurity)
	}
	restored := NewTable()
	if err := restored.Restore(snapshot); err != nil || !bytes.Equal(restored.Snapshot(nil), snapshot) {
		t.Fatalf("restored: %v", err)
	}
	v := restored.View()
	if l, ok := v.Quotas().Find(quota.ConsumerByteRate, "alice", "app"); !ok || l.Value != 1e21 {
		t.Errorf("quota %+v, %v", l, ok)
	}
	if v.Credential(CredentialKey{"alice", ScramSHA512}) == nil || v.Credential(CredentialKey{"alice", ScramSHA256}) != nil || v.ACLs().Len() != 1 {
		t.Errorf("restored %+v", v)
	}
	body := string(snapshot[snapshotHeader:])
	for _, broken := range []struct{ old, by string }{
		{`"User:alice","*"`, `"alice","*"`},
		{`[["TOPIC"`, `[["TOPIC","LITERAL","b","User:alice","*","READ","ALLOW"],["TOPIC"`},
		{`"users":[`, `"users":[null,`},
		{`"quotas":[`, `"quotas":[null,`},
		{`"limits":{"producer_byte_rate":1024}`, `"limits":{}`},
		{`"entity":{"user":null}`, `"entity":{"user":"zoe"}`},
	} {
		changed := strings.Replace(body, broken.old, broken.by, 1)
		if err := NewTable().Restore(sealed(FirstLevel, changed)); changed == body || err == nil {
			t.Errorf("%s in the place of %s is taken", broken.by, broken.old)
		}
	}
}

// TestSecurityIsImmutable: who holds a view sees no change, and what did not change is the same set.
func TestSecurityIsImmutable(t *testing.T) {
	tab := clusterOf(t, 1)
	apply(t, tab, CreateACLs{[]acl.Binding{allow(acl.Topic, "a", "alice", acl.Read)}})
	apply(t, tab, AlterUsers{Set: []*Credential{credential("bob")}})
	before := tab.View()
	apply(t, tab, AlterUsers{Set: []*Credential{credential("alice"), credential("bob", func(c *Credential) { c.Iterations++ })}})
	if len(before.Credentials()) != 1 || before.Credentials()[0].Iterations != MinIterations || len(tab.View().Credentials()) != 2 {
		t.Errorf("before %v, after %v", before.Credentials(), tab.View().Credentials())
	}
	if tab.View().ACLs() != before.ACLs() || tab.View().Quotas() != before.Quotas() {
		t.Error("a change of users is one of ACLs or quotas")
	}
	apply(t, tab, DeleteACLs{slices.Collect(before.ACLs().All())})
	if before.ACLs().Len() != 1 || tab.View().ACLs().Len() != 0 || tab.View().ACLs() == before.ACLs() {
		t.Error("the ACLs of the view before have changed, or those after have not")
	}
}

// TestSecurityRules: what is not proposed, with Kafka's words. What is in the log already is carried out all the same.
func TestSecurityRules(t *testing.T) {
	tab := clusterOf(t, 1)
	user := func(change func(*Credential)) AlterUsers {
		return AlterUsers{Set: []*Credential{credential("alice", change)}}
	}
	one := func(e quota.Entity, name string, value float64) AlterQuotas {
		return AlterQuotas{[]QuotaChange{{Entity: e, Set: map[string]float64{name: value}}}}
	}
	alice := quota.Entity{User: quota.Named("alice")}
	long := strings.Repeat("x", 256)
	for _, tc := range []struct {
		command Command
		reason  error
		want    string
	}{
		{CreateACLs{[]acl.Binding{allow(acl.Cluster, "mine", "alice", acl.Alter)}}, ErrInvalidRequest, "The only valid name for the CLUSTER resource is kafka-cluster"},
		{CreateACLs{[]acl.Binding{allow(acl.Topic, long, "alice", acl.Read)}}, ErrInvalidRequest, "at most 255"},
		{CreateACLs{[]acl.Binding{allow(acl.Topic, "a", "a\x07", acl.Read)}}, ErrInvalidRequest, "cannot be printed"},
		{CreateACLs{make([]acl.Binding, MaxBindingsAtOnce+1)}, ErrInvalidRequest, "251 ACLs at once"},
		{AlterUsers{Delete: []CredentialKey{{"alice", ScramSHA256}}}, ErrUnknownUser, "has no credential"},
		{AlterUsers{Set: []*Credential{credential("a"), credential("a", func(c *Credential) {
			c.Mechanism = ScramSHA512
			c.StoredKey, c.ServerKey = make([]byte, 64), make([]byte, 64)
		})}},
			ErrDuplicateUser, "A user credential cannot be altered twice in the same request"},
		{AlterUsers{Delete: []CredentialKey{{"a", ScramSHA256}}, Set: []*Credential{credential("a")}}, ErrDuplicateUser, "twice"},
		{AlterUsers{Set: []*Credential{nil}}, ErrInvalidRequest, "none"},
		{user(func(c *Credential) { c.Iterations = MinIterations - 1 }), ErrUnacceptableCredential, "Too few iterations"},
		{user(func(c *Credential) { c.Iterations = MaxIterations + 1 }), ErrUnacceptableCredential, "Too many iterations"},
		{user(func(c *Credential) { c.Mechanism = "PLAIN" }), ErrUnknownMechanism, "Unknown SCRAM mechanism"},
		{user(func(c *Credential) { c.Mechanism = ScramSHA512 }), ErrUnacceptableCredential, "have 64 bytes"},
		{user(func(c *Credential) { c.Salt = nil }), ErrUnacceptableCredential, "salt of 0 bytes"},
		{user(func(c *Credential) { c.User = "" }), ErrInvalidRequest, "user name is empty"},
		{user(func(c *Credential) { c.User = long }), ErrInvalidRequest, "at most 255"},
		{one(alice, "nosuch", 1), ErrInvalidRequest, `Invalid configuration key "nosuch"`},
		{one(alice, "producer_byte_rate", 1.5), ErrInvalidRequest, "producer_byte_rate cannot be a fractional value."},
		{one(alice, "producer_byte_rate", 0), ErrInvalidRequest, "more than 0"},
		{one(alice, "producer_byte_rate", -1), ErrInvalidRequest, "more than 0"},
		{one(alice, "producer_byte_rate", 1e30), ErrInvalidRequest, "at most"},
		{one(alice, "request_percentage", math.Inf(1)), ErrInvalidRequest, "more than 0"},
		{one(alice, "request_percentage", math.NaN()), ErrInvalidRequest, "more than 0"},
		{one(quota.Entity{}, "producer_byte_rate", 1), ErrInvalidRequest, "empty client quota entity"},
		{one(quota.Entity{User: quota.Named("")}, "producer_byte_rate", 1), ErrInvalidRequest, "the user is empty"},
		{AlterQuotas{[]QuotaChange{{Entity: alice}, {Entity: alice}}}, ErrInvalidRequest, "is there twice"},
		{AlterQuotas{[]QuotaChange{{Entity: alice, Remove: []string{"nosuch"}}}}, ErrInvalidRequest, "Invalid configuration key"},
	} {
		if err := tab.View().Check(tc.command); !errors.Is(err, tc.reason) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: got %v, want %s", tc.command, err, tc.want)
		}
	}
	for _, c := range []Command{
		CreateACLs{[]acl.Binding{allow(acl.Topic, strings.Repeat("x", 249), "alice", acl.Read)}}, user(func(*Credential) {}),
		one(alice, "producer_byte_rate", 1<<40), one(quota.Entity{Client: quota.Side{Match: quota.Default}}, "request_percentage", 0.1),
		AlterQuotas{[]QuotaChange{{Entity: alice, Remove: []string{"producer_byte_rate"}}}},
	} {
		if err := tab.View().Check(c); err != nil {
			t.Errorf("%+v: %v", c, err)
		}
	}
	apply(t, tab, one(alice, "of a later release", -1))
	apply(t, tab, user(func(c *Credential) { c.Mechanism, c.Iterations = "of a later release", 1 }))
}

// TestSecurityBounds: the table does not grow beyond what is meant, and what is at the bound can still be changed.
func TestSecurityBounds(t *testing.T) {
	real := most
	defer func() { most = real }()
	most.acls, most.credentials, most.quotas = 50, 40, 30
	v := *clusterOf(t, 1).View()
	bindings := make([]acl.Binding, most.acls)
	for i := range bindings {
		bindings[i] = allow(acl.Topic, fmt.Sprint("topic-", i), "alice", acl.Read)
	}
	v.acls = acl.SetOf(bindings...)
	more := allow(acl.Topic, "another", "alice", acl.Read)
	if err := v.Check(CreateACLs{[]acl.Binding{more}}); !errors.Is(err, ErrTooMany) {
		t.Errorf("an ACL more: %v", err)
	}
	if err := v.Check(CreateACLs{bindings[:3]}); err != nil {
		t.Errorf("ACLs that are there: %v", err)
	}
	for i := range most.credentials {
		v.users = append(v.users, credential(fmt.Sprintf("user-%06d", i)))
	}
	if err := v.Check(AlterUsers{Set: []*Credential{credential("another")}}); !errors.Is(err, ErrTooMany) {
		t.Errorf("a user more: %v", err)
	}
	if err := v.Check(AlterUsers{Delete: []CredentialKey{{"user-000007", ScramSHA256}}}); err != nil {
		t.Errorf("a user less: %v", err)
	}
	if err := v.Check(AlterUsers{Set: []*Credential{credential("user-000007")}}); err != nil {
		t.Errorf("another password of a user: %v", err)
	}
	rules := make([]*quota.Rule, most.quotas)
	for i := range rules {
		rules[i] = &quota.Rule{Entity: quota.Entity{User: quota.Named(fmt.Sprintf("user-%06d", i))}, Limits: map[string]float64{"producer_byte_rate": 1}}
	}
	v.quotas = quota.SetOf(rules...)
	if err := v.Check(AlterQuotas{[]QuotaChange{{Entity: quota.Entity{User: quota.Named("another")}, Set: map[string]float64{"producer_byte_rate": 1}}}}); !errors.Is(err, ErrTooMany) {
		t.Errorf("quotas of an entity more: %v", err)
	}
	if err := v.Check(AlterQuotas{[]QuotaChange{{Entity: rules[0].Entity, Set: map[string]float64{"producer_byte_rate": 2}}}}); err != nil {
		t.Errorf("another quota for an entity that has one: %v", err)
	}
	longest := CreateACLs{}
	for range MaxBindingsAtOnce {
		worst := strings.Repeat("<", 255) // six bytes each in JSON
		longest.Bindings = append(longest.Bindings, acl.Binding{
			Pattern: acl.Pattern{Type: acl.TransactionalID, Name: worst, Kind: acl.Prefixed},
			Entry:   acl.Entry{Principal: acl.Principal{Type: "User", Name: worst}, Host: strings.Repeat("f", 39), Operation: acl.DescribeConfigs, Permission: acl.Allow},
		})
	}
	if _, _, err := Encode(longest, FirstLevel); err != nil {
		t.Errorf("the longest command: %v", err)
	}
}
