package placement

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/quorumlog/quorumlog/placement/quota"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
)

// Who may do what, with which password, and how much of it: what the table keeps of it, and the commands that change it.

// CreateACLs adds bindings. Those that are there stay.
type CreateACLs struct {
	Bindings []acl.Binding `json:"bindings"`
}

// DeleteACLs takes bindings away. Those that are not there are not missed. Its result is the bindings that were there, []acl.Binding.
// The proposer has found out which bindings a filter selects: what a filter means is not a matter of the log.
type DeleteACLs struct {
	Bindings []acl.Binding `json:"bindings"`
}

// Mechanism is a way in which a client shows who it is.
type Mechanism string

// The mechanisms for which there are credentials, under their names in SASL.
const (
	ScramSHA256 Mechanism = "SCRAM-SHA-256"
	ScramSHA512 Mechanism = "SCRAM-SHA-512"
)

// CredentialKey names a credential.
type CredentialKey struct {
	User      string    `json:"user"`
	Mechanism Mechanism `json:"mechanism"`
}

// Credential is what the cluster knows of a user's password: enough to tell whether somebody knows it, not enough to be somebody who does
// (RFC 5802). It is immutable.
type Credential struct {
	CredentialKey
	Iterations int    `json:"iterations"`
	Salt       []byte `json:"salt"`
	StoredKey  []byte `json:"stored_key"`
	ServerKey  []byte `json:"server_key"`
}

// AlterUsers takes credentials away, which must be there, and sets others.
type AlterUsers struct {
	Delete []CredentialKey `json:"delete,omitempty"`
	Set    []*Credential   `json:"set,omitempty"`
}

// AlterQuotas sets quotas and takes others away.
type AlterQuotas struct {
	Changes []QuotaChange `json:"changes"`
}

// QuotaChange changes the quotas of one entity. The others of it stay.
type QuotaChange struct {
	Entity quota.Entity       `json:"entity"`
	Set    map[string]float64 `json:"set,omitempty"`
	Remove []string           `json:"remove,omitempty"`
}

func (CreateACLs) command() (string, FeatureLevel)  { return "CreateACLs", 1 }
func (DeleteACLs) command() (string, FeatureLevel)  { return "DeleteACLs", 1 }
func (AlterUsers) command() (string, FeatureLevel)  { return "AlterUsers", 1 }
func (AlterQuotas) command() (string, FeatureLevel) { return "AlterQuotas", 1 }

// ACLs returns the permissions. A change of them is another *acl.Set, and nothing else is.
func (v *View) ACLs() *acl.Set { return v.acls }

// Quotas returns the quotas. A change of them is another *quota.Set, and nothing else is.
func (v *View) Quotas() *quota.Set { return v.quotas }

// Credentials returns what is known of all users' passwords, by user and mechanism.
func (v *View) Credentials() []*Credential { return v.users }

// Credential returns what is known of a user's password, nil if there is none for the mechanism.
func (v *View) Credential(k CredentialKey) *Credential {
	if i, ok := findCredential(v.users, k); ok {
		return v.users[i]
	}
	return nil
}

func findCredential(users []*Credential, k CredentialKey) (int, bool) {
	return slices.BinarySearchFunc(users, k, func(c *Credential, k CredentialKey) int { return compareCredentials(c.CredentialKey, k) })
}

func compareCredentials(a, b CredentialKey) int {
	return cmp.Or(strings.Compare(a.User, b.User), cmp.Compare(a.Mechanism, b.Mechanism))
}

func (v *View) alterUsers(c AlterUsers) error {
	users := slices.Clone(v.users)
	for _, k := range c.Delete {
		i, ok := findCredential(users, k)
		if !ok {
			return refuse(ErrUnknownUser, "User %s has no credential for %s", quote(k.User), quote(string(k.Mechanism)))
		}
		users = slices.Delete(users, i, i+1)
	}
	for _, credential := range c.Set {
		if credential == nil {
			return refuse(ErrInvalidRequest, "a credential that is none")
		}
		if i, ok := findCredential(users, credential.CredentialKey); ok {
			users[i] = credential
		} else {
			users = slices.Insert(users, i, credential)
		}
	}
	v.users = users
	return nil
}

// rules returns what the entities have after the command.
func (c AlterQuotas) rules(before *quota.Set) []*quota.Rule {
	var rules []*quota.Rule
	for _, change := range c.Changes {
		limits := make(map[string]float64)
		if old := before.Of(change.Entity); old != nil {
			limits = maps.Clone(old.Limits)
		}
		for _, name := range change.Remove {
			delete(limits, name)
		}
		maps.Copy(limits, change.Set)
		rules = append(rules, &quota.Rule{Entity: change.Entity, Limits: limits})
	}
	return rules
}

// validSecurity checks that what a snapshot has of it is in the order in which it is written.
func (s *savedTable) validSecurity() error {
	switch {
	case !ascending(s.ACLs, acl.Compare):
		return errors.New("ACLs are not sorted")
	case slices.Contains(s.Users, nil) || !ascending(s.Users, func(a, b *Credential) int { return compareCredentials(a.CredentialKey, b.CredentialKey) }):
		return errors.New("credentials of users are not sorted")
	case slices.Contains(s.Quotas, nil) || !ascending(s.Quotas, func(a, b *quota.Rule) int { return quota.Compare(a.Entity, b.Entity) }):
		return errors.New("quotas are not sorted by entity")
	}
	for _, r := range s.Quotas {
		if len(r.Limits) == 0 {
			return errors.New("quotas of an entity that has none")
		}
	}
	return nil
}
