package broker

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"hash"

	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// Security is who may do what, which passwords prove who somebody is, and how much he may use.
type Security interface {
	SecurityChanges
	// DescribeACLs lists the permissions that the filter selects, sorted, from this node's copy of the metadata.
	DescribeACLs(ctx context.Context, c *Caller, f acl.Filter) ([]acl.Binding, error)
	// AuthorizedOperations returns what the caller may do with a resource, of what there is to do with one of its type.
	AuthorizedOperations(c *Caller, r acl.Resource) []acl.Operation
	// DescribeUsers lists users, all if none is named. Nothing of what proves a password is told.
	DescribeUsers(ctx context.Context, c *Caller, names []string) ([]User, error)
	// DescribeQuotas lists quotas.
	DescribeQuotas(ctx context.Context, c *Caller, f QuotaFilter) ([]Quota, error)
}

// SecurityChanges are the changes of it. Any node takes them; one that is not the controller passes them on.
type SecurityChanges interface {
	// CreateACLs makes permissions. Those that are there stay. When it fails, the first of them may have been made.
	CreateACLs(ctx context.Context, c *Caller, bindings []acl.Binding) error
	// DeleteACLs takes away what the filters select, and returns for each what it was that those before it had not.
	DeleteACLs(ctx context.Context, c *Caller, filters []acl.Filter) ([][]acl.Binding, error)
	// AlterUsers sets and takes away what is known of passwords: all of it, or nothing.
	AlterUsers(ctx context.Context, c *Caller, change UserChange) error
	// AlterQuotas sets and takes away quotas: all of it, or nothing.
	AlterQuotas(ctx context.Context, c *Caller, change QuotaChange) error
}

// ScramMechanism is a way to show that one knows a password, in Kafka's numbers.
type ScramMechanism int8

// The mechanisms.
const (
	ScramSHA256 ScramMechanism = 1
	ScramSHA512 ScramMechanism = 2
)

// Hash is the hash function of the mechanism; nil: there is no such mechanism.
func (m ScramMechanism) Hash() func() hash.Hash {
	switch m {
	case ScramSHA256:
		return sha256.New
	case ScramSHA512:
		return sha512.New
	}
	return nil
}

// ScramKeys makes of a salted password what is known of it (RFC 5802, section 3), with the hash function of the mechanism.
func ScramKeys(salted []byte, newHash func() hash.Hash) (storedKey, serverKey []byte) {
	keyed := func(text string) []byte {
		mac := hmac.New(newHash, salted)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	stored := newHash()
	stored.Write(keyed("Client Key"))
	return stored.Sum(nil), keyed("Server Key")
}

// UserChange changes what is known of passwords.
type UserChange struct {
	Delete []UserCredential // their Iterations do not matter
	Upsert []ScramCredential
}

// UserCredential says that a user has a password for a mechanism.
type UserCredential struct {
	User       string
	Mechanism  ScramMechanism
	Iterations int
}

// ScramCredential is what is known of a password (RFC 5802): enough to tell whether somebody knows it.
type ScramCredential struct {
	UserCredential
	Salt, StoredKey, ServerKey []byte
}

// User is a user with what he has passwords for, or an Err: there is none of that name, or he was asked for twice.
type User struct {
	Name        string
	Credentials []UserCredential
	Err         *kerr.Error
}

// QuotaSide is one side of whom a quota is for. The zero value: whoever it is.
type QuotaSide struct {
	Match QuotaMatch
	Name  string // of QuotaName
}

// QuotaMatch is how a side matches.
type QuotaMatch int8

// The ways to match: anything, all that have no quota of their own, one name.
const (
	QuotaAnything QuotaMatch = iota
	QuotaDefault
	QuotaName
)

// QuotaEntity is whom a quota is for.
type QuotaEntity struct{ User, ClientID QuotaSide }

// Quota is the quotas of an entity, by Kafka's names. They are shared and must not be changed.
type Quota struct {
	Entity QuotaEntity
	Limits map[string]float64
}

// QuotaChange changes quotas.
type QuotaChange struct {
	Changes      []QuotaEntityChange
	ValidateOnly bool // check everything, change nothing
}

// QuotaEntityChange changes quotas of one entity. The others of it stay.
type QuotaEntityChange struct {
	Entity QuotaEntity
	Set    map[string]float64
	Remove []string
}

// QuotaFilter selects quotas by their entities. A side that is nil may be anything, and with Strict has to be QuotaAnything.
type QuotaFilter struct {
	User, ClientID *QuotaSideFilter
	Strict         bool
}

// QuotaSideFilter selects sides: those that match as QuotaName or QuotaDefault says, or, with QuotaAnything, all that match something.
type QuotaSideFilter QuotaSide
