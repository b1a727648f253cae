package placement

import (
	"math"

	"github.com/quorumlog/quorumlog/placement/quota"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
)

// MaxACLs, MaxCredentials and MaxQuotas bound what the table holds of each: all of it is in memory, on every node, and in each snapshot.
const (
	MaxACLs        = 100_000
	MaxCredentials = 100_000
	MaxQuotas      = 10_000
)

// most is these bounds; tests have smaller ones.
var most = struct{ acls, credentials, quotas int }{MaxACLs, MaxCredentials, MaxQuotas}

// What one command may hold of each, so that the longest fits into a record.
const (
	MaxBindingsAtOnce    = 250
	MaxCredentialsAtOnce = 250
	MaxQuotasAtOnce      = 250
)

// The iterations of a SCRAM credential: fewer are no protection, more let whoever wants to log in keep a client busy. As in Kafka.
const (
	MinIterations = 4096
	MaxIterations = 16384
)

func checkCount(n, most int, what string) error {
	if n > most {
		return refuse(ErrInvalidRequest, "%d %s at once: at most %d are allowed", n, what, most)
	}
	return nil
}

func (v *View) allowedACLs(c CreateACLs) error {
	if err := checkCount(len(c.Bindings), MaxBindingsAtOnce, "ACLs"); err != nil {
		return err
	}
	if n := v.acls.Len(); n+len(c.Bindings) > most.acls && v.acls.With(c.Bindings...).Len() > most.acls {
		return refuse(ErrTooMany, "There are %d ACLs, and %d more would be more than %d: remove some, or use prefixed patterns", n, len(c.Bindings), most.acls)
	}
	for _, b := range c.Bindings {
		if err := CheckACL(b); err != nil {
			return err
		}
	}
	return nil
}

// CheckACL tells whether a binding may be had.
func CheckACL(b acl.Binding) error {
	if err := b.Check(); err != nil {
		return refuse(ErrInvalidRequest, "%v", err)
	}
	return checkTexts(text{"resource name", b.Name, 1}, text{"type of the principal", b.Principal.Type, 1}, text{"name of the principal", b.Principal.Name, 1})
}

func (v *View) allowedUsers(c AlterUsers) error {
	if err := checkCount(len(c.Set)+len(c.Delete), MaxCredentialsAtOnce, "credentials"); err != nil {
		return err
	}
	named := make(map[string]bool)
	for _, k := range c.Delete {
		if named[k.User] {
			return namedTwice(k.User)
		}
		named[k.User] = true
	}
	n := len(v.users) - len(c.Delete)
	for _, credential := range c.Set {
		if err := checkCredential(credential); err != nil {
			return err
		}
		if named[credential.User] {
			return namedTwice(credential.User)
		}
		named[credential.User] = true
		if v.Credential(credential.CredentialKey) == nil {
			n++
		}
	}
	if n > most.credentials && n > len(v.users) {
		return refuse(ErrTooMany, "There are %d credentials of users, at most %d are allowed: remove some", len(v.users), most.credentials)
	}
	return nil
}

func namedTwice(user string) error {
	return refuse(ErrDuplicateUser, "A user credential cannot be altered twice in the same request: %s", quote(user))
}

func checkCredential(c *Credential) error {
	if c == nil {
		return refuse(ErrInvalidRequest, "a credential that is none")
	}
	size := 0
	switch c.Mechanism {
	case ScramSHA256:
		size = 32
	case ScramSHA512:
		size = 64
	default:
		return refuse(ErrUnknownMechanism, "Unknown SCRAM mechanism %s: there are %s and %s", quote(string(c.Mechanism)), ScramSHA256, ScramSHA512)
	}
	if err := checkTexts(text{"user name", c.User, 1}); err != nil {
		return err
	}
	switch {
	case c.Iterations < MinIterations:
		return refuse(ErrUnacceptableCredential, "Too few iterations: %d, at least %d are needed", c.Iterations, MinIterations)
	case c.Iterations > MaxIterations:
		return refuse(ErrUnacceptableCredential, "Too many iterations: %d, at most %d are allowed", c.Iterations, MaxIterations)
	case len(c.Salt) < 8 || len(c.Salt) > 255:
		return refuse(ErrUnacceptableCredential, "A salt of %d bytes is not allowed: it must have 8 to 255", len(c.Salt))
	case len(c.StoredKey) != size || len(c.ServerKey) != size:
		return refuse(ErrUnacceptableCredential, "The keys of %s have %d bytes, not %d and %d", c.Mechanism, size, len(c.StoredKey), len(c.ServerKey))
	}
	return nil
}

func (v *View) allowedQuotas(c AlterQuotas) error {
	if err := checkCount(len(c.Changes), MaxQuotasAtOnce, "quotas"); err != nil {
		return err
	}
	seen := make(map[quota.Entity]bool)
	for _, change := range c.Changes {
		if seen[change.Entity] {
			return refuse(ErrInvalidRequest, "a quota entity is there twice: %s", describeEntity(change.Entity))
		}
		seen[change.Entity] = true
		if err := checkQuota(change, v.quotas.Of(change.Entity)); err != nil {
			return err
		}
	}
	if n := v.quotas.With(c.rules(v.quotas)...).Len(); n > most.quotas && n > v.quotas.Len() {
		return refuse(ErrTooMany, "There are quotas of %d entities, at most %d are allowed: use the defaults for all others", v.quotas.Len(), most.quotas)
	}
	return nil
}

func checkQuota(c QuotaChange, old *quota.Rule) error {
	if c.Entity == (quota.Entity{}) {
		return refuse(ErrInvalidRequest, "Invalid empty client quota entity: name a user, a client id, or both")
	}
	for _, side := range []struct {
		what string
		quota.Side
	}{{"user", c.Entity.User}, {"client id", c.Entity.Client}} {
		if side.Match != quota.Exact {
			continue
		}
		if err := checkTexts(text{side.what, side.Name, 1}); err != nil {
			return err
		}
	}
	for _, name := range c.Remove {
		if _, known := quota.ParseKey(name); !known && (old == nil || !hasLimit(old, name)) { // taking back what a later release set does no harm
			return unknownQuota(name)
		}
		if _, both := c.Set[name]; both {
			return refuse(ErrInvalidRequest, "quota %s is both set and removed", name)
		}
	}
	for name, value := range c.Set {
		key, known := quota.ParseKey(name)
		switch {
		case !known:
			return unknownQuota(name)
		case math.IsNaN(value) || math.IsInf(value, 0) || value <= 0:
			return refuse(ErrInvalidRequest, "%s must be more than 0, not %v", name, value)
		case key.Integral() && value != math.Trunc(value):
			return refuse(ErrInvalidRequest, "%s cannot be a fractional value.", name)
		case key.Integral() && value > math.MaxInt64:
			return refuse(ErrInvalidRequest, "%s must be at most %d", name, int64(math.MaxInt64))
		}
	}
	return nil
}

func hasLimit(r *quota.Rule, name string) bool {
	_, ok := r.Limits[name]
	return ok
}

func unknownQuota(name string) error {
	return refuse(ErrInvalidRequest, "Invalid configuration key %s: quotas are %v", quote(name), quota.Keys())
}

func describeEntity(e quota.Entity) string {
	side := func(what string, s quota.Side) string {
		switch s.Match {
		case quota.Exact:
			return what + " " + quote(s.Name)
		case quota.Default:
			return "default " + what
		}
		return "any " + what
	}
	return side("user", e.User) + ", " + side("client id", e.Client)
}
