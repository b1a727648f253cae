package broker

import (
	"fmt"

	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// Authorizer decides what callers may do. It is asked by whoever serves a call, never by a protocol; any number may ask at once.
type Authorizer interface {
	// Allowed tells whether the caller may do the operation on the resource. It costs no I/O, no lock and no memory.
	Allowed(c *Caller, op acl.Operation, r acl.Resource) bool
	// AllowedAny tells whether the caller may do it on any resource of the type at all.
	AllowedAny(c *Caller, op acl.Operation, t acl.ResourceType) bool
	// Denied notes that somebody was told that he may not, for whoever looks for the reason.
	Denied(c *Caller, op acl.Operation, r acl.Resource)
	// Rules returns the permissions that count now. Who keeps an answer keeps the pointer with it: another one means that answers may differ.
	Rules() *acl.Set
	// Enabled tells whether permissions count at all here.
	Enabled() bool
	// Current tells whether those of today are known. A node that has just been started goes by those of before, or none: that something is
	// not allowed is no word of it then. Once true it stays.
	Current() bool
}

// AllowAll is the authorizer of a node that has none.
type AllowAll struct{}

// Allowed implements Authorizer.
func (AllowAll) Allowed(*Caller, acl.Operation, acl.Resource) bool { return true }

// AllowedAny implements Authorizer.
func (AllowAll) AllowedAny(*Caller, acl.Operation, acl.ResourceType) bool { return true }

// Denied implements Authorizer.
func (AllowAll) Denied(*Caller, acl.Operation, acl.Resource) {}

// Rules implements Authorizer.
func (AllowAll) Rules() *acl.Set { return nil }

// Enabled implements Authorizer.
func (AllowAll) Enabled() bool { return false }

// Current implements Authorizer.
func (AllowAll) Current() bool { return true }

// Need is one permission that suffices for a call.
type Need struct {
	Operation acl.Operation
	Type      acl.ResourceType // acl.Topic: on each topic that the call names; acl.Cluster: on the cluster
	Any       bool             // on any resource of the type
}

// Needs says for each call which permissions it needs, as Kafka has it: any one of them suffices. A call that is not here is denied.
//
// What comes beside: topics that a caller may not describe are left out of lists; the configs of a topic are shown to whoever has
// DESCRIBE_CONFIGS on it; what nodes do among themselves takes a node's certificate, and is no matter of permissions.
var Needs = map[string][]Need{
	"Produce": {{Operation: acl.Write, Type: acl.Topic}},
	"Fetch":   {{Operation: acl.Read, Type: acl.Topic}},

	"Metadata":             {{Operation: acl.Describe, Type: acl.Topic}},
	"ListOffsets":          {{Operation: acl.Describe, Type: acl.Topic}},
	"PartitionStatus":      {{Operation: acl.Describe, Type: acl.Topic}},
	"OffsetForLeaderEpoch": {{Operation: acl.Describe, Type: acl.Topic}},
	"DeleteRecords":        {{Operation: acl.Delete, Type: acl.Topic}},
	"CreateTopic":          {{Operation: acl.Create, Type: acl.Cluster}, {Operation: acl.Create, Type: acl.Topic}},
	"DeleteTopic":          {{Operation: acl.Delete, Type: acl.Cluster}, {Operation: acl.Delete, Type: acl.Topic}},
	"AlterTopicConfig":     {{Operation: acl.AlterConfigs, Type: acl.Topic}},
	"InitProducerID":       {{Operation: acl.IdempotentWrite, Type: acl.Cluster}, {Operation: acl.Write, Type: acl.Topic, Any: true}},

	"TopicConfigs": {{Operation: acl.DescribeConfigs, Type: acl.Topic}},
	"NodeConfigs":  {{Operation: acl.DescribeConfigs, Type: acl.Cluster}},

	"LogDirs":        {{Operation: acl.Describe, Type: acl.Cluster}},
	"ClusterStatus":  {{Operation: acl.Describe, Type: acl.Cluster}},
	"UnregisterNode": {{Operation: acl.Alter, Type: acl.Cluster}},
	"TransferLeader": {{Operation: acl.Alter, Type: acl.Cluster}},
	"UpgradeCluster": {{Operation: acl.Alter, Type: acl.Cluster}},
	"CreateACLs":     {{Operation: acl.Alter, Type: acl.Cluster}},
	"DeleteACLs":     {{Operation: acl.Alter, Type: acl.Cluster}},
	"DescribeACLs":   {{Operation: acl.Describe, Type: acl.Cluster}},
	"AlterUsers":     {{Operation: acl.Alter, Type: acl.Cluster}},
	"DescribeUsers":  {{Operation: acl.Describe, Type: acl.Cluster}},
	"AlterQuotas":    {{Operation: acl.AlterConfigs, Type: acl.Cluster}},
	"DescribeQuotas": {{Operation: acl.DescribeConfigs, Type: acl.Cluster}},
}

// Require returns nil if the caller has one of the permissions that the call needs, on the topic if it is about one, and else what to tell him.
func Require(a Authorizer, c *Caller, call, topic string) *kerr.Error {
	needs := Needs[call]
	if len(needs) == 0 {
		return kerr.Errorf(kerr.ClusterAuthorizationFailed, "nobody may call %s", call)
	}
	current := a.Current() // before the look: what becomes known in between is not looked at
	var last acl.Resource
	for _, need := range needs {
		last = acl.TheCluster
		if need.Type != acl.Cluster {
			last = acl.Resource{Type: need.Type, Name: topic}
		}
		if need.Any && a.AllowedAny(c, need.Operation, need.Type) || !need.Any && a.Allowed(c, need.Operation, last) {
			return nil
		}
	}
	if !current {
		return ErrNotCurrent
	}
	if last.Name == "" {
		last = acl.TheCluster // the refusal is about what would have sufficed on the whole
	}
	a.Denied(c, needs[0].Operation, last)
	return refusal(c, needs, last)
}

// ErrNotCurrent is told instead of a refusal, which clients take for final.
var ErrNotCurrent = kerr.Errorf(kerr.CoordinatorLoadInProgress, "the node was just started and does not know yet who may do what: try again in a moment, or ask another one")

func refusal(c *Caller, needs []Need, r acl.Resource) *kerr.Error {
	wanted := ""
	for i, need := range needs {
		if i > 0 {
			wanted += " or "
		}
		which := "the"
		if need.Any {
			which = "any"
		}
		wanted += fmt.Sprintf("%v on %s %v", need.Operation, which, need.Type)
	}
	if r.Type == acl.Topic {
		return kerr.Errorf(kerr.TopicAuthorizationFailed, "%s is not authorized for topic %.249q: it needs %s", c.Principal, r.Name, wanted)
	}
	return kerr.Errorf(kerr.ClusterAuthorizationFailed, "%s is not authorized: it needs %s", c.Principal, wanted)
}

// permitsKept bounds the answers that one connection remembers.
const permitsKept = 1000

// Permits asks for one caller again and again, and remembers the answers until the rules change: for each batch it costs a look into a map. One
// goroutine uses it.
type Permits struct {
	authorizer Authorizer
	caller     *Caller
	rules      *acl.Set
	answers    map[topicPermit]*kerr.Error
}

type topicPermit struct{ call, topic string }

// NewPermits returns the permits of a connection.
func NewPermits(a Authorizer, c *Caller) *Permits { return &Permits{authorizer: a, caller: c} }

// Topic returns nil if the caller may make the call, which is about one topic, and else what to tell him.
func (p *Permits) Topic(call, topic string) *kerr.Error {
	if !p.authorizer.Enabled() {
		return nil
	}
	if rules := p.authorizer.Rules(); rules != p.rules || p.answers == nil || len(p.answers) >= permitsKept {
		p.rules, p.answers = rules, make(map[topicPermit]*kerr.Error)
	}
	permit := topicPermit{call, topic}
	answer, known := p.answers[permit]
	if !known {
		if answer = Require(p.authorizer, p.caller, call, topic); answer != ErrNotCurrent { // which ends without a change of the rules
			p.answers[permit] = answer
		}
	}
	return answer
}
