package kafka

// IncrementalAlterConfigs 0-1, for topics: SET and DELETE. Deviations: APPEND and SUBTRACT are refused by the name of the key, since no list can
// have more than one value (INVALID_CONFIG); so is DELETE of a key that nobody knows. Nodes have no dynamic configs: each that is named is
// refused by its name.

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

func answerIncrementalAlterConfigs(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.IncrementalAlterConfigsRequest)
	resp := req.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
	ctx, cancel := c.within(0)
	defer cancel()
	of := func(r *kmsg.IncrementalAlterConfigsRequestResource) resource {
		return resource{r.ResourceType, r.ResourceName}
	}
	times := occurrences(req.Resources, of)
	resp.Resources = make([]kmsg.IncrementalAlterConfigsResponseResource, len(req.Resources))
	each(len(req.Resources), func(i int) {
		asked, answer := &req.Resources[i], &resp.Resources[i]
		answer.ResourceType, answer.ResourceName = asked.ResourceType, asked.ResourceName
		names := make([]string, len(asked.Configs))
		for i, config := range asked.Configs {
			names[i] = config.Name
		}
		err := checkAlter(of(asked), times, names)
		if err == nil {
			err = c.changeConfigs(ctx, asked, req.ValidateOnly)
		}
		answer.ErrorCode, answer.ErrorMessage = refusal(err)
	})
	return resp
}

func (c *call) changeConfigs(ctx context.Context, asked *kmsg.IncrementalAlterConfigsRequestResource, validateOnly bool) error {
	change := broker.ConfigChange{Topic: asked.ResourceName, Set: make(map[string]string), ValidateOnly: validateOnly}
	for _, config := range asked.Configs {
		switch config.Op {
		case kmsg.IncrementalAlterConfigOpDelete:
			change.Remove = append(change.Remove, config.Name)
		case kmsg.IncrementalAlterConfigOpSet:
			if config.Value == nil {
				return nullValue(config.Name)
			}
			change.Set[config.Name] = *config.Value
		case kmsg.IncrementalAlterConfigOpAppend, kmsg.IncrementalAlterConfigOpSubtract:
			return kerr.Errorf(kerr.InvalidConfig, "Can't %v to key %.249s: no config is a list of several values here, set it", config.Op, config.Name)
		default:
			return kerr.Errorf(kerr.InvalidRequest, "Unknown operation %d for config %.249s", config.Op, config.Name)
		}
	}
	_, err := c.broker().AlterTopicConfig(ctx, c.caller, change)
	return err
}
