package kafka

// DescribeClientQuotas 0-1, of users and client ids. Deviation: there are no quotas of IP addresses (UNSUPPORTED_VERSION).

import (
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// The types of the sides of a quota's entity.
const (
	userSide   = "user"
	clientSide = "client-id"
)

func answerDescribeQuotas(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.DescribeClientQuotasRequest)
	resp := req.ResponseKind().(*kmsg.DescribeClientQuotasResponse)
	filter, err := quotaFilter(req)
	var quotas []broker.Quota
	if err == nil {
		quotas, err = c.broker().DescribeQuotas(c.ctx, c.caller, filter)
	}
	if err != nil {
		resp.ErrorCode, resp.ErrorMessage = refusal(err)
		return resp // with null for the entries
	}
	resp.Entries = []kmsg.DescribeClientQuotasResponseEntry{}
	for _, q := range quotas {
		entry := kmsg.NewDescribeClientQuotasResponseEntry()
		for _, side := range []struct {
			of string
			broker.QuotaSide
		}{{userSide, q.Entity.User}, {clientSide, q.Entity.ClientID}} {
			if side.Match == broker.QuotaAnything {
				continue
			}
			part := kmsg.NewDescribeClientQuotasResponseEntryEntity()
			part.Type = side.of
			if side.Match == broker.QuotaName {
				part.Name = &side.Name
			}
			entry.Entity = append(entry.Entity, part)
		}
		for _, key := range slices.Sorted(maps.Keys(q.Limits)) {
			value := kmsg.NewDescribeClientQuotasResponseEntryValue()
			value.Key, value.Value = key, q.Limits[key]
			entry.Values = append(entry.Values, value)
		}
		resp.Entries = append(resp.Entries, entry)
	}
	return resp
}

func quotaFilter(req *kmsg.DescribeClientQuotasRequest) (broker.QuotaFilter, error) {
	filter := broker.QuotaFilter{Strict: req.Strict}
	for _, component := range req.Components {
		side := &filter.User
		switch component.EntityType {
		case userSide:
		case clientSide:
			side = &filter.ClientID
		default:
			return filter, kerr.Errorf(kerr.UnsupportedVersion, "Custom entity type '%.64s' not supported: there are user and client-id", component.EntityType)
		}
		if *side != nil {
			return filter, kerr.Errorf(kerr.InvalidRequest, "Duplicate filter component entity type '%s'", component.EntityType)
		}
		*side = &broker.QuotaSideFilter{}
		exact := component.MatchType == kmsg.QuotasMatchTypeExact
		switch component.MatchType {
		case kmsg.QuotasMatchTypeExact:
			(*side).Match = broker.QuotaName
		case kmsg.QuotasMatchTypeDefault:
			(*side).Match = broker.QuotaDefault
		case kmsg.QuotasMatchTypeAny:
		default:
			return filter, kerr.Errorf(kerr.InvalidRequest, "Unknown match type %d", component.MatchType)
		}
		switch {
		case exact && component.Match == nil:
			return filter, kerr.Errorf(kerr.InvalidRequest, "Request specified MATCH_TYPE_EXACT, but set match to null")
		case !exact && component.Match != nil:
			return filter, kerr.Errorf(kerr.InvalidRequest, "Request specified a match type that takes no name, but did set one")
		case exact:
			(*side).Name = *component.Match
		}
	}
	return filter, nil
}
