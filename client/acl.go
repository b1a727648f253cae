package client

import "github.com/quorumlog/quorumlog/rpc/broker/acl"

// The words of permissions, in Kafka's terms: ACL is one permission, an ACLPattern (for which resources) with an ACLEntry (who may, or may not, do
// what from where). ACLFilter selects some; its zero fields select all.
type (
	ACL             = acl.Binding
	ACLFilter       = acl.Filter
	ACLPattern      = acl.Pattern
	ACLEntry        = acl.Entry
	ACLResourceType = acl.ResourceType
	ACLPatternType  = acl.PatternType
	ACLOperation    = acl.Operation
	ACLPermission   = acl.Permission
	Principal       = acl.Principal
)

// The types of resources, and the name of the only one of type Cluster. ACLAnyResource is for filters.
const (
	ACLAnyResource     ACLResourceType = acl.AnyType
	ACLTopic           ACLResourceType = acl.Topic
	ACLGroup           ACLResourceType = acl.Group
	ACLCluster         ACLResourceType = acl.Cluster
	ACLTransactionalID ACLResourceType = acl.TransactionalID
	ACLClusterName                     = acl.ClusterName
)

// The operations. ACLAnyOperation is for filters, ACLAll for permissions: it covers all others.
const (
	ACLAnyOperation    ACLOperation = acl.AnyOperation
	ACLAll             ACLOperation = acl.All
	ACLRead            ACLOperation = acl.Read
	ACLWrite           ACLOperation = acl.Write
	ACLCreate          ACLOperation = acl.Create
	ACLDelete          ACLOperation = acl.Delete
	ACLAlter           ACLOperation = acl.Alter
	ACLDescribe        ACLOperation = acl.Describe
	ACLClusterAction   ACLOperation = acl.ClusterAction
	ACLDescribeConfigs ACLOperation = acl.DescribeConfigs
	ACLAlterConfigs    ACLOperation = acl.AlterConfigs
	ACLIdempotentWrite ACLOperation = acl.IdempotentWrite
	ACLTwoPhaseCommit  ACLOperation = acl.TwoPhaseCommit
)

// The types of patterns. ACLAnyPattern and ACLMatch are for filters: ACLMatch with a name selects all that would be looked at for it. ACLWildcard is
// the name of a literal pattern for all resources of its type, and the host of a permission from anywhere.
const (
	ACLAnyPattern ACLPatternType = acl.AnyPattern
	ACLMatch      ACLPatternType = acl.Match
	ACLLiteral    ACLPatternType = acl.Literal
	ACLPrefixed   ACLPatternType = acl.Prefixed
	ACLWildcard                  = acl.Wildcard
)

// The permissions. ACLAnyPermission is for filters.
const (
	ACLAnyPermission ACLPermission = acl.AnyPermission
	ACLDeny          ACLPermission = acl.Deny
	ACLAllow         ACLPermission = acl.Allow
)

// ParsePrincipal reads a principal as it is written: User:alice, User:CN=alice, User:*.
func ParsePrincipal(s string) (Principal, error) { return acl.ParsePrincipal(s) }
