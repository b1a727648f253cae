package kafka

// DescribeAcls 1-3, grouped by resource pattern. Deviation: an empty name, principal or host, which would select nothing, is refused.

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

func answerDescribeAcls(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.DescribeACLsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeACLsResponse)
	filter, err := aclFilter(kmsg.DeleteACLsRequestFilter{
		ResourceType: req.ResourceType, ResourceName: req.ResourceName, ResourcePatternType: req.ResourcePatternType,
		Principal: req.Principal, Host: req.Host, Operation: req.Operation, PermissionType: req.PermissionType,
	})
	var bindings []acl.Binding
	if err == nil {
		bindings, err = c.broker().DescribeACLs(c.ctx, c.caller, filter)
	}
	resp.ErrorCode, resp.ErrorMessage = refusal(err)
	for i, b := range bindings {
		if i == 0 || bindings[i-1].Pattern != b.Pattern { // they are sorted
			of := kmsg.NewDescribeACLsResponseResource()
			of.ResourceType, of.ResourceName = kmsg.ACLResourceType(b.Type), b.Name
			of.ResourcePatternType = kmsg.ACLResourcePatternType(b.Kind)
			resp.Resources = append(resp.Resources, of)
		}
		entry := kmsg.NewDescribeACLsResponseResourceACL()
		entry.Principal, entry.Host = b.Principal.String(), b.Host
		entry.Operation, entry.PermissionType = kmsg.ACLOperation(b.Operation), kmsg.ACLPermissionType(b.Permission)
		of := &resp.Resources[len(resp.Resources)-1]
		of.ACLs = append(of.ACLs, entry)
	}
	return resp
}

// aclFilter returns what a filter selects. The broker's filters take what is empty for all.
func aclFilter(f kmsg.DeleteACLsRequestFilter) (acl.Filter, error) {
	filter := acl.Filter{
		Type: acl.ResourceType(f.ResourceType), Kind: acl.PatternType(f.ResourcePatternType),
		Operation: acl.Operation(f.Operation), Permission: acl.Permission(f.PermissionType),
	}
	for _, field := range []struct {
		what string
		from *string
		to   *string
	}{{"resource name", f.ResourceName, &filter.Name}, {"principal", f.Principal, &filter.Principal}, {"host", f.Host, &filter.Host}} {
		switch {
		case field.from == nil:
		case *field.from == "":
			return filter, kerr.Errorf(kerr.InvalidRequest, "The filter has an empty %s, which selects nothing", field.what)
		default:
			*field.to = *field.from
		}
	}
	for _, field := range []struct {
		what  string
		value int8
	}{
		{"resource type", int8(filter.Type)}, {"pattern type", int8(filter.Kind)}, {"operation", int8(filter.Operation)}, {"permission type", int8(filter.Permission)},
	} {
		if field.value == 0 { // for Kafka one that is not known, for the broker all
			return filter, kerr.Errorf(kerr.InvalidRequest, "The filter has an unknown %s", field.what)
		}
	}
	if err := filter.Check(); err != nil {
		return filter, kerr.Errorf(kerr.InvalidRequest, "%v", err)
	}
	return filter, nil
}
