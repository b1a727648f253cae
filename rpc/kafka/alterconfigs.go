package kafka

// AlterConfigs 0-2, for topics: those configs count that are in the request, all others go back to their defaults. Deviation: nodes have no
// dynamic configs; each that is named is refused by its name.

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// resource is whose configs are meant.
type resource struct {
	typed kmsg.ConfigResourceType
	name  string
}

func answerAlterConfigs(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.AlterConfigsRequest)
	resp := req.ResponseKind().(*kmsg.AlterConfigsResponse)
	ctx, cancel := c.within(0)
	defer cancel()
	of := func(r *kmsg.AlterConfigsRequestResource) resource { return resource{r.ResourceType, r.ResourceName} }
	times := occurrences(req.Resources, of)
	resp.Resources = make([]kmsg.AlterConfigsResponseResource, len(req.Resources))
	each(len(req.Resources), func(i int) {
		asked, answer := &req.Resources[i], &resp.Resources[i]
		answer.ResourceType, answer.ResourceName = asked.ResourceType, asked.ResourceName
		names := make([]string, len(asked.Configs))
		for i, config := range asked.Configs {
			names[i] = config.Name
		}
		err := checkAlter(of(asked), times, names)
		if err == nil {
			err = c.replaceConfigs(ctx, asked, req.ValidateOnly)
		}
		answer.ErrorCode, answer.ErrorMessage = refusal(err)
	})
	return resp
}

// replaceConfigs has a topic have the configs that are asked for, and no other ones.
func (c *call) replaceConfigs(ctx context.Context, asked *kmsg.AlterConfigsRequestResource, validateOnly bool) error {
	change := broker.ConfigChange{Topic: asked.ResourceName, Set: make(map[string]string), ValidateOnly: validateOnly}
	for _, config := range asked.Configs {
		if config.Value == nil {
			return nullValue(config.Name)
		}
		change.Set[config.Name] = *config.Value
	}
	all, err := c.broker().TopicConfigs(ctx, c.caller, asked.ResourceName)
	if err != nil {
		return err
	}
	for _, config := range all { // all that there are, not those that are set now: somebody may set one in between
		if _, set := change.Set[config.Name]; !set {
			change.Remove = append(change.Remove, config.Name)
		}
	}
	_, err = c.broker().AlterTopicConfig(ctx, c.caller, change)
	return err
}

// checkAlter refuses what cannot be meant, and all that is not about a topic.
func checkAlter(r resource, times map[resource]int, names []string) error {
	slices.Sort(names)
	switch {
	case times[r] > 1:
		return kerr.Errorf(kerr.InvalidRequest, "Each resource must appear at most once.")
	case len(slices.Compact(slices.Clone(names))) < len(names):
		return kerr.Errorf(kerr.InvalidRequest, "Error due to duplicate config keys")
	case r.typed == kmsg.ConfigResourceTypeBroker && len(names) > 0:
		return kerr.Errorf(kerr.InvalidRequest, "Cannot update these configs dynamically: [%.1000s]: nodes take them from their flags at their start",
			strings.Join(names, ", "))
	case r.typed == kmsg.ConfigResourceTypeBroker: // nothing is asked for
		return kerr.Errorf(kerr.InvalidRequest, "Nodes have no configs that can be changed while they run")
	case r.typed != kmsg.ConfigResourceTypeTopic:
		return noConfigs(r.typed)
	}
	return nil
}

func nullValue(name string) *kerr.Error {
	return kerr.Errorf(kerr.InvalidRequest, "Null value not supported for : %.249s", name)
}
