package kafka

// AlterClientQuotas 0-1, of users and client ids. Each entity is changed for itself, in the order in which they are named. Deviation: there are
// no quotas of IP addresses (INVALID_REQUEST).

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

func answerAlterQuotas(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.AlterClientQuotasRequest)
	resp := req.ResponseKind().(*kmsg.AlterClientQuotasResponse)
	ctx, cancel := c.within(0)
	defer cancel()
	for i := range req.Entries {
		entry := &req.Entries[i]
		answer := kmsg.NewAlterClientQuotasResponseEntry()
		answer.ErrorCode, answer.ErrorMessage = refusal(c.alterQuota(ctx, entry, req.ValidateOnly))
		for _, part := range entry.Entity {
			same := kmsg.NewAlterClientQuotasResponseEntryEntity()
			same.Type, same.Name = part.Type, part.Name
			answer.Entity = append(answer.Entity, same)
		}
		resp.Entries = append(resp.Entries, answer)
	}
	return resp
}

func (c *call) alterQuota(ctx context.Context, entry *kmsg.AlterClientQuotasRequestEntry, validateOnly bool) error {
	change := broker.QuotaEntityChange{Set: make(map[string]float64)}
	for _, part := range entry.Entity {
		side := &change.Entity.User
		switch part.Type {
		case userSide:
		case clientSide:
			side = &change.Entity.ClientID
		default:
			return kerr.Errorf(kerr.InvalidRequest, "Unhandled client quota entity type: %.64s: there are user and client-id", part.Type)
		}
		switch {
		case side.Match != broker.QuotaAnything:
			return kerr.Errorf(kerr.InvalidRequest, "Invalid client quota entity, contains duplicate entity type '%s'", part.Type)
		case part.Name == nil:
			side.Match = broker.QuotaDefault
		default:
			side.Match, side.Name = broker.QuotaName, *part.Name
		}
	}
	for _, op := range entry.Ops {
		if op.Remove {
			change.Remove = append(change.Remove, op.Key)
		} else {
			change.Set[op.Key] = op.Value
		}
	}
	return c.broker().AlterQuotas(ctx, c.caller, broker.QuotaChange{Changes: []broker.QuotaEntityChange{change}, ValidateOnly: validateOnly})
}
