package kafka

// DescribeConfigs 1-4, for topics and for the node that is asked, whose configs are all read-only. Names that nobody knows are left out.
// Deviations: there are no dynamic configs of nodes, so the resource of their defaults is empty; loggers, groups and client metrics have no
// configs (INVALID_REQUEST).

import (
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

func answerDescribeConfigs(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.DescribeConfigsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
	answered := make(map[resource]bool)
	for i := range req.Resources {
		asked := &req.Resources[i]
		of := resource{asked.ResourceType, asked.ResourceName}
		if answered[of] {
			continue // it would be the same, and is larger than the question
		}
		answered[of] = true
		answer := kmsg.NewDescribeConfigsResponseResource()
		answer.ResourceType, answer.ResourceName = asked.ResourceType, asked.ResourceName
		configs, err := c.configsOf(asked)
		answer.ErrorCode, answer.ErrorMessage = refusal(err)
		for _, config := range configs {
			if len(asked.ConfigNames) == 0 || slices.Contains(asked.ConfigNames, config.Name) {
				answer.Configs = append(answer.Configs, describedConfig(req, asked.ResourceType, &config))
			}
		}
		resp.Resources = append(resp.Resources, answer)
	}
	return resp
}

// configsOf returns the configs of a resource.
func (c *call) configsOf(asked *kmsg.DescribeConfigsRequestResource) ([]broker.Config, error) {
	switch asked.ResourceType {
	case kmsg.ConfigResourceTypeTopic:
		return c.broker().TopicConfigs(c.ctx, c.caller, asked.ResourceName)
	case kmsg.ConfigResourceTypeBroker:
		configs, err := c.broker().NodeConfigs(c.ctx, c.caller)
		if err != nil || asked.ResourceName == "" { // the dynamic defaults of all nodes: there are none
			return nil, err
		}
		if node := strconv.Itoa(int(c.server.options.Node)); asked.ResourceName != node {
			return nil, kerr.Errorf(kerr.InvalidRequest, "Unexpected broker id, expected %s or empty string, but received %.64s", node, asked.ResourceName)
		}
		return configs, nil
	}
	return nil, noConfigs(asked.ResourceType)
}

func noConfigs(t kmsg.ConfigResourceType) *kerr.Error {
	return kerr.Errorf(kerr.InvalidRequest, "Configs of the resource type %v are not supported: there are those of TOPIC and BROKER", t)
}

func describedConfig(req *kmsg.DescribeConfigsRequest, of kmsg.ConfigResourceType, config *broker.Config) kmsg.DescribeConfigsResponseResourceConfig {
	described := kmsg.NewDescribeConfigsResponseResourceConfig()
	described.Name, described.Value = config.Name, &config.Value
	described.ReadOnly = of == kmsg.ConfigResourceTypeBroker
	described.Source, described.ConfigType = kmsg.ConfigSource(config.Source), kmsg.ConfigType(config.Type)
	if req.IncludeDocumentation {
		described.Documentation = &config.Documentation
	}
	if !req.IncludeSynonyms {
		return described
	}
	for i := range config.Synonyms {
		synonym := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
		synonym.Name, synonym.Value, synonym.Source = config.Synonyms[i].Name, &config.Synonyms[i].Value, kmsg.ConfigSource(config.Synonyms[i].Source)
		described.ConfigSynonyms = append(described.ConfigSynonyms, synonym)
	}
	return described
}
