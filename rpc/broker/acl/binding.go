package acl

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Resource is one thing that somebody wants to do something to.
type Resource struct {
	Type ResourceType
	Name string
}

// TheCluster is the only resource of its type.
var TheCluster = Resource{Cluster, ClusterName}

// Pattern is the resources that a binding is for.
type Pattern struct {
	Type ResourceType
	Name string
	Kind PatternType
}

// Entry is what a binding says about its resources.
type Entry struct {
	Principal  Principal // or Everybody
	Host       string    // an IP address, or Wildcard
	Operation  Operation // or All
	Permission Permission
}

// Binding is one rule: Kafka's AclBinding.
type Binding struct {
	Pattern
	Entry
}

// Check returns what is wrong with a binding that somebody wants to have, in Kafka's words where it has some.
func (b Binding) Check() error {
	switch {
	case !typeWords.valid(int(b.Type), int(Topic)):
		return fmt.Errorf("Invalid resource type %v", b.Type)
	case !patternWords.valid(int(b.Kind), int(Literal)):
		return fmt.Errorf("Invalid resource pattern type %v: it must be LITERAL or PREFIXED", b.Kind)
	case !permissionWords.valid(int(b.Permission), int(Deny)):
		return fmt.Errorf("Invalid permission type %v: it must be ALLOW or DENY", b.Permission)
	case !operationWords.valid(int(b.Operation), int(All)):
		return fmt.Errorf("Invalid operation %v", b.Operation)
	case b.Operation != All && !slices.Contains(operations[b.Type], b.Operation):
		return fmt.Errorf("Invalid operation %v: nobody asks for it on a %v, but for ALL or one of %v", b.Operation, b.Type, operations[b.Type])
	case b.Name == "":
		return fmt.Errorf("Invalid empty resource name")
	case b.Type == Cluster && b.Name != ClusterName:
		return fmt.Errorf("The only valid name for the CLUSTER resource is %s", ClusterName)
	case b.Principal.Type == "" || b.Principal.Name == "":
		return fmt.Errorf("Invalid principal %.256q: it must be Type:Name, such as User:alice", b.Principal.String())
	}
	if b.Host == Wildcard {
		return nil
	}
	a, err := netip.ParseAddr(b.Host)
	switch {
	case err != nil || a.Zone() != "":
		return fmt.Errorf("Invalid host %.256q: it must be an IP address, or * for all; names are not looked up", b.Host)
	case a.Unmap().String() != b.Host:
		return fmt.Errorf("Invalid host %q: write it %s, as it is compared", b.Host, a.Unmap())
	}
	return nil
}

// String is how Kafka's tools write a pattern.
func (p Pattern) String() string {
	return fmt.Sprintf("ResourcePattern(resourceType=%v, name=%s, patternType=%v)", p.Type, p.Name, p.Kind)
}

// String is how Kafka's tools write an entry.
func (e Entry) String() string {
	return fmt.Sprintf("(principal=%v, host=%s, operation=%v, permissionType=%v)", e.Principal, e.Host, e.Operation, e.Permission)
}

// String is the pattern and the entry.
func (b Binding) String() string { return b.Pattern.String() + " " + b.Entry.String() }

// Compare orders bindings: by type, kind of pattern, name, principal, host, operation, permission.
func Compare(a, b Binding) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Kind, b.Kind), strings.Compare(a.Name, b.Name), compareEntries(a.Entry, b.Entry))
}

func compareEntries(a, b Entry) int {
	return cmp.Or(a.Principal.compare(b.Principal), strings.Compare(a.Host, b.Host), cmp.Compare(a.Operation, b.Operation),
		cmp.Compare(a.Permission, b.Permission))
}

// Filter selects bindings. Its zero value selects all. A value of Any… selects as the zero value does.
type Filter struct {
	Type       ResourceType
	Name       string      // "": all
	Kind       PatternType // with a name: AnyPattern either kind, Match all that would be looked at for the name
	Principal  string      // "": all
	Host       string      // "": all
	Operation  Operation
	Permission Permission
}

// Check returns what is wrong with a filter.
func (f Filter) Check() error {
	for _, field := range []struct {
		what  string
		words words
		value int
	}{
		{"resource type", typeWords, int(f.Type)}, {"pattern type", patternWords, int(f.Kind)},
		{"operation", operationWords, int(f.Operation)}, {"permission type", permissionWords, int(f.Permission)},
	} {
		if field.value != 0 && !field.words.valid(field.value, 1) {
			return fmt.Errorf("The filter has an unknown %s: %d", field.what, field.value)
		}
	}
	return nil
}

// Matches tells whether the filter selects the binding.
func (f Filter) Matches(b Binding) bool {
	return isAny(f.Type, b.Type) && isAny(f.Operation, b.Operation) && isAny(f.Permission, b.Permission) && f.matchesName(b.Pattern) &&
		(f.Principal == "" || f.Principal == b.Principal.String()) && (f.Host == "" || f.Host == b.Host)
}

// isAny compares with a filter's value: zero and one, which is Any… of each type, stand for all.
func isAny[T ~int8](want, have T) bool { return want <= 1 || want == have }

func (f Filter) matchesName(p Pattern) bool {
	switch {
	case f.Kind == Match && f.Name != "":
		return p.Kind == Literal && (p.Name == f.Name || p.Name == Wildcard) || p.Kind == Prefixed && strings.HasPrefix(f.Name, p.Name)
	case f.Kind == Match:
		return true
	}
	return isAny(f.Kind, p.Kind) && (f.Name == "" || f.Name == p.Name)
}

// MarshalJSON implements json.Marshaler: a row of type, kind of pattern, name, principal, host, operation and permission. A hundred thousand of
// them are in one document.
func (b Binding) MarshalJSON() ([]byte, error) {
	return json.Marshal([...]string{
		b.Type.String(), b.Kind.String(), b.Name, b.Principal.String(), b.Host, b.Operation.String(), b.Permission.String(),
	})
}

// UnmarshalJSON implements json.Unmarshaler. It takes only what a binding may have, and nothing of a later release.
func (b *Binding) UnmarshalJSON(data []byte) error {
	var row []string
	if err := json.Unmarshal(data, &row); err != nil {
		return err
	}
	if len(row) != 7 {
		return fmt.Errorf("a binding of %d words, there should be 7", len(row))
	}
	b.Name, b.Host = row[2], row[4]
	return errors.Join(b.Type.UnmarshalText([]byte(row[0])), b.Kind.UnmarshalText([]byte(row[1])), b.Principal.UnmarshalText([]byte(row[3])),
		b.Operation.UnmarshalText([]byte(row[5])), b.Permission.UnmarshalText([]byte(row[6])))
}
