package kafka

// CreateAcls 1-3. What is wrong with one binding says nothing about the others. Deviations: hosts are IP addresses, written as they are compared;
// operations that nobody asks for on a type of resources are refused.

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

func answerCreateAcls(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.CreateACLsRequest)
	resp := req.ResponseKind().(*kmsg.CreateACLsResponse)
	ctx, cancel := c.within(0)
	defer cancel()
	resp.Results = make([]kmsg.CreateACLsResponseResult, len(req.Creations))
	var bindings []acl.Binding
	for i := range req.Creations {
		binding, err := aclBinding(&req.Creations[i])
		if err != nil {
			resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = refusal(kerr.Errorf(kerr.InvalidRequest, "%v", err))
			continue
		}
		bindings = append(bindings, binding)
	}
	code, message := refusal(c.broker().CreateACLs(ctx, c.caller, bindings)) // also of none: who may not is told so
	for i := range resp.Results {
		if answer := &resp.Results[i]; answer.ErrorCode == int16(kerr.None) {
			answer.ErrorCode, answer.ErrorMessage = code, message
		}
	}
	return resp
}

func aclBinding(a *kmsg.CreateACLsRequestCreation) (acl.Binding, error) {
	principal, err := acl.ParsePrincipal(a.Principal)
	binding := acl.Binding{
		Pattern: acl.Pattern{Type: acl.ResourceType(a.ResourceType), Name: a.ResourceName, Kind: acl.PatternType(a.ResourcePatternType)},
		Entry:   acl.Entry{Principal: principal, Host: a.Host, Operation: acl.Operation(a.Operation), Permission: acl.Permission(a.PermissionType)},
	}
	if err != nil {
		return binding, err
	}
	return binding, binding.Check()
}
