package acl

import (
	"cmp"
	"fmt"
	"strings"
)

// ResourceType is a kind of thing that permissions are for. All numbers here are Kafka's, as on its wire; zero is no value of any.
type ResourceType int8

// Operation is what somebody wants to do.
type Operation int8

// PatternType says which names a binding is for.
type PatternType int8

// Permission is what a binding says about it.
type Permission int8

// The types of resources. AnyType is for filters.
const (
	AnyType         ResourceType = 1
	Topic           ResourceType = 2
	Group           ResourceType = 3
	Cluster         ResourceType = 4
	TransactionalID ResourceType = 5
)

// The operations. AnyOperation is for filters, All for bindings: it covers all others.
const (
	AnyOperation    Operation = 1
	All             Operation = 2
	Read            Operation = 3
	Write           Operation = 4
	Create          Operation = 5
	Delete          Operation = 6
	Alter           Operation = 7
	Describe        Operation = 8
	ClusterAction   Operation = 9
	DescribeConfigs Operation = 10
	AlterConfigs    Operation = 11
	IdempotentWrite Operation = 12
	TwoPhaseCommit  Operation = 15
)

// The types of patterns. AnyPattern and Match are for filters: Match with a name wants all bindings that would be looked at for it.
const (
	AnyPattern PatternType = 1
	Match      PatternType = 2
	Literal    PatternType = 3 // this name, or all of them: see Wildcard
	Prefixed   PatternType = 4 // all names that begin so
)

// The permissions. AnyPermission is for filters.
const (
	AnyPermission Permission = 1
	Deny          Permission = 2
	Allow         Permission = 3
)

const (
	// Wildcard is the name of a literal pattern that is for all resources of its type, and the host of a binding that is for all hosts.
	Wildcard = "*"
	// ClusterName is the name of the only resource of type Cluster.
	ClusterName = "kafka-cluster"
	// UserType is the type of principals that are people or programs.
	UserType = "User"
)

// operations lists what may be done to resources of each type, All aside. Another one in a binding would never be asked for.
var operations = map[ResourceType][]Operation{
	Topic:           {Read, Write, Create, Delete, Alter, Describe, DescribeConfigs, AlterConfigs},
	Group:           {Read, Delete, Describe, DescribeConfigs, AlterConfigs},
	Cluster:         {Create, Alter, Describe, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite},
	TransactionalID: {Write, Describe, TwoPhaseCommit},
}

// OperationsOn returns what may be done to resources of the type, All aside.
func OperationsOn(t ResourceType) []Operation { return operations[t] }

// words is the names of the values of an enumeration, each at its number. "" is no value.
type words []string

var (
	typeWords       = words{"", "ANY", "TOPIC", "GROUP", "CLUSTER", "TRANSACTIONAL_ID"}
	patternWords    = words{"", "ANY", "MATCH", "LITERAL", "PREFIXED"}
	permissionWords = words{"", "ANY", "DENY", "ALLOW"}
	operationWords  = words{
		"", "ANY", "ALL", "READ", "WRITE", "CREATE", "DELETE", "ALTER", "DESCRIBE", "CLUSTER_ACTION", "DESCRIBE_CONFIGS", "ALTER_CONFIGS",
		"IDEMPOTENT_WRITE", "", "", "TWO_PHASE_COMMIT",
	}
)

func (w words) of(i int) string {
	if i > 0 && i < len(w) && w[i] != "" {
		return w[i]
	}
	return fmt.Sprintf("UNKNOWN(%d)", i)
}

// parse reads a name as Kafka's tools write it: DESCRIBE_CONFIGS, DescribeConfigs, describe-configs.
func (w words) parse(what, text string) (int, error) {
	plain := func(s string) string { return strings.ToUpper(strings.NewReplacer("_", "", "-", "").Replace(s)) }
	if len(text) <= 64 && text != "" {
		for i, word := range w {
			if word != "" && plain(word) == plain(text) {
				return i, nil
			}
		}
	}
	var known []string
	for _, word := range w {
		if word != "" {
			known = append(known, word)
		}
	}
	return 0, fmt.Errorf("unknown %s %.64q: it must be one of %s", what, text, strings.Join(known, ", "))
}

// exact reads a name as it is stored, of a value that a binding may have: numbers from first on.
func (w words) exact(what string, text []byte, first int) (int, error) {
	for i := first; i < len(w); i++ {
		if w[i] != "" && w[i] == string(text) {
			return i, nil
		}
	}
	return 0, fmt.Errorf("unknown %s %.64q", what, text)
}

func (w words) valid(i, first int) bool { return i >= first && i < len(w) && w[i] != "" }

// String returns Kafka's name.
func (t ResourceType) String() string { return typeWords.of(int(t)) }

// String returns Kafka's name.
func (o Operation) String() string { return operationWords.of(int(o)) }

// String returns Kafka's name.
func (p PatternType) String() string { return patternWords.of(int(p)) }

// String returns Kafka's name.
func (p Permission) String() string { return permissionWords.of(int(p)) }

// UnmarshalText implements encoding.TextUnmarshaler, for what a binding may have: nothing that only filters have.
func (t *ResourceType) UnmarshalText(text []byte) error {
	i, err := typeWords.exact("resource type", text, int(Topic))
	*t = ResourceType(i)
	return err
}

// UnmarshalText implements encoding.TextUnmarshaler, for what a binding may have: nothing that only filters have.
func (o *Operation) UnmarshalText(text []byte) error {
	i, err := operationWords.exact("operation", text, int(All))
	*o = Operation(i)
	return err
}

// UnmarshalText implements encoding.TextUnmarshaler, for what a binding may have: nothing that only filters have.
func (p *PatternType) UnmarshalText(text []byte) error {
	i, err := patternWords.exact("pattern type", text, int(Literal))
	*p = PatternType(i)
	return err
}

// UnmarshalText implements encoding.TextUnmarshaler, for what a binding may have: nothing that only filters have.
func (p *Permission) UnmarshalText(text []byte) error {
	i, err := permissionWords.exact("permission", text, int(Deny))
	*p = Permission(i)
	return err
}

// ParseResourceType reads the name of a type of resources, in any of the spellings of Kafka's tools.
func ParseResourceType(text string) (ResourceType, error) {
	i, err := typeWords.parse("resource type", text)
	return ResourceType(i), err
}

// ParseOperation reads the name of an operation, in any of the spellings of Kafka's tools.
func ParseOperation(text string) (Operation, error) {
	i, err := operationWords.parse("operation", text)
	return Operation(i), err
}

// ParsePatternType reads the name of a type of patterns.
func ParsePatternType(text string) (PatternType, error) {
	i, err := patternWords.parse("pattern type", text)
	return PatternType(i), err
}

// ParsePermission reads the name of a permission.
func ParsePermission(text string) (Permission, error) {
	i, err := permissionWords.parse("permission", text)
	return Permission(i), err
}

// Principal is who a binding is for, or who asks. Of one who asks, it is what he has shown to be.
type Principal struct{ Type, Name string }

// Everybody is the principal of bindings that are for all principals.
var Everybody = Principal{UserType, Wildcard}

// ParsePrincipal reads Type:Name.
func ParsePrincipal(text string) (Principal, error) {
	kind, name, ok := strings.Cut(text, ":")
	if !ok {
		return Principal{}, fmt.Errorf("Could not parse principal from `%.256s` (no colon is present separating the principal type from the principal name)", text)
	}
	return Principal{kind, name}, nil
}

// String returns Type:Name.
func (p Principal) String() string { return p.Type + ":" + p.Name }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Principal) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePrincipal(string(text))
	return err
}

func (p Principal) compare(o Principal) int {
	return cmp.Or(strings.Compare(p.Type, o.Type), strings.Compare(p.Name, o.Name))
}
