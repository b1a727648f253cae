package kafka

// DeleteAcls 1-3: for each filter, what it selected that those before it had not. Deviation: an empty name, principal or host, which would
// select nothing, is refused.

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

func answerDeleteAcls(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.DeleteACLsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteACLsResponse)
	ctx, cancel := c.within(0)
	defer cancel()
	resp.Results = make([]kmsg.DeleteACLsResponseResult, len(req.Filters))
	var filters []acl.Filter
	for i, f := range req.Filters {
		filter, err := aclFilter(f)
		resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = refusal(err)
		if err == nil {
			filters = append(filters, filter)
		}
	}
	deleted, err := c.broker().DeleteACLs(ctx, c.caller, filters)
	for i := range resp.Results {
		answer := &resp.Results[i]
		switch {
		case answer.ErrorCode != int16(kerr.None):
		case err != nil:
			answer.ErrorCode, answer.ErrorMessage = refusal(err)
		default:
			for _, b := range deleted[0] {
				answer.MatchingACLs = append(answer.MatchingACLs, deletedACL(b))
			}
			deleted = deleted[1:]
		}
	}
	return resp
}

func deletedACL(b acl.Binding) kmsg.DeleteACLsResponseResultMatchingACL {
	gone := kmsg.NewDeleteACLsResponseResultMatchingACL()
	gone.ResourceType, gone.ResourceName, gone.ResourcePatternType = kmsg.ACLResourceType(b.Type), b.Name, kmsg.ACLResourcePatternType(b.Kind)
	gone.Principal, gone.Host = b.Principal.String(), b.Host
	gone.Operation, gone.PermissionType = kmsg.ACLOperation(b.Operation), kmsg.ACLPermissionType(b.Permission)
	return gone
}
