package client

import "github.com/quorumlog/quorumlog/rpc/broker/acl"

// The words of permissions, which are Kafka's.
type (
	// ACLPattern says what an ACL is for: the fields Type, Name and Kind.
	ACLPattern = acl.Pattern
	// ACLEntry says who may do what, or may not: the fields Principal, Host (an IP address, or "*"), Operation and Permission.
	ACLEntry = acl.Entry
	// Principal is who a client is: the fields Type ("User") and Name. With a certificate the name is its subject, such as CN=alice.
	Principal = acl.Principal
	// ResourceType, PatternType, Operation and Permission are the kinds of words in ACLs.
	ResourceType = acl.ResourceType
	PatternType  = acl.PatternType
	Operation    = acl.Operation
	Permission   = acl.Permission
)

// What an ACL is for. AnyResource and those like it are for filters alone.
const (
	AnyResource             ResourceType = acl.AnyType
	TopicResource           ResourceType = acl.Topic
	GroupResource           ResourceType = acl.Group
	ClusterResource         ResourceType = acl.Cluster // its name is ClusterName
	TransactionalIDResource ResourceType = acl.TransactionalID

	AnyPattern      PatternType = acl.AnyPattern
	MatchPattern    PatternType = acl.Match    // all that counts for a name
	LiteralPattern  PatternType = acl.Literal  // this name; "*" is all of them
	PrefixedPattern PatternType = acl.Prefixed // all names that begin so

	ClusterName = acl.ClusterName
)

// What an ACL says.
const (
	AnyOperation             Operation = acl.AnyOperation
	AllOperations            Operation = acl.All
	ReadOperation            Operation = acl.Read
	WriteOperation           Operation = acl.Write
	CreateOperation          Operation = acl.Create
	DeleteOperation          Operation = acl.Delete
	AlterOperation           Operation = acl.Alter
	DescribeOperation        Operation = acl.Describe
	ClusterActionOperation   Operation = acl.ClusterAction
	DescribeConfigsOperation Operation = acl.DescribeConfigs
	AlterConfigsOperation    Operation = acl.AlterConfigs
	IdempotentWriteOperation Operation = acl.IdempotentWrite
	TwoPhaseCommitOperation  Operation = acl.TwoPhaseCommit

	AnyPermission Permission = acl.AnyPermission
	Deny          Permission = acl.Deny
	Allow         Permission = acl.Allow
)

// UserPrincipal returns the principal of a user: UserPrincipal("CN=alice") is User:CN=alice.
func UserPrincipal(name string) Principal { return Principal{Type: acl.UserType, Name: name} }
