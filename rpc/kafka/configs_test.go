package kafka

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

func configsOfATopic(topic string) ([]broker.Config, error) {
	if topic != "orders" {
		return nil, kerr.Errorf(kerr.UnknownTopicOrPartition, "Topic '%s' does not exist.", topic)
	}
	own := broker.ConfigValue{Name: "retention.ms", Value: "5", Source: broker.TopicSource}
	byDefault := broker.ConfigValue{Name: "log.retention.ms", Value: "604800000", Source: broker.DefaultSource}
	policy := broker.ConfigValue{Name: "cleanup.policy", Value: "delete", Source: broker.DefaultSource}
	return []broker.Config{
		{ConfigValue: policy, Type: broker.ListConfig, Documentation: "only delete"},
		{ConfigValue: own, Type: broker.LongConfig, Documentation: "an integer", Synonyms: []broker.ConfigValue{own, byDefault}},
	}, nil
}

func configsOfTheNode() ([]broker.Config, error) {
	return []broker.Config{{ConfigValue: broker.ConfigValue{Name: "node.id", Value: "1", Source: broker.NodeSource}, Type: broker.IntConfig}}, nil
}

func resourceOf(typed kmsg.ConfigResourceType, name string, keys ...string) kmsg.DescribeConfigsRequestResource {
	return kmsg.DescribeConfigsRequestResource{ResourceType: typed, ResourceName: name, ConfigNames: keys}
}

// TestDescribeConfigs: synonyms, documentation and types where a version has them and they are asked for.
func TestDescribeConfigs(t *testing.T) {
	b := &adminBroker{topicConfigs: configsOfATopic, nodeConfigs: configsOfTheNode}
	versions(t, kmsg.DescribeConfigs, func(t *testing.T, version int16) {
		req := kmsg.NewPtrDescribeConfigsRequest()
		req.IncludeSynonyms, req.IncludeDocumentation = true, true
		orders := resourceOf(kmsg.ConfigResourceTypeTopic, "orders")
		req.Resources = []kmsg.DescribeConfigsRequestResource{orders, orders, resourceOf(kmsg.ConfigResourceTypeBroker, "1")}
		resp := ask[*kmsg.DescribeConfigsResponse](t, b, req, version)
		require.Len(t, resp.Resources, 2, "each once")
		require.Len(t, resp.Resources[0].Configs, 2)
		retention := resp.Resources[0].Configs[1]
		require.Equal(t, []any{"retention.ms", "5", false, false, kmsg.ConfigSourceDynamicTopicConfig},
			[]any{retention.Name, text(retention.Value), retention.ReadOnly, retention.IsSensitive, retention.Source})
		require.Len(t, retention.ConfigSynonyms, 2)
		require.Equal(t, []any{"log.retention.ms", "604800000", kmsg.ConfigSourceDefaultConfig},
			[]any{retention.ConfigSynonyms[1].Name, text(retention.ConfigSynonyms[1].Value), retention.ConfigSynonyms[1].Source})
		if version >= 3 {
			require.Equal(t, kmsg.ConfigTypeLong, retention.ConfigType)
			require.Equal(t, "an integer", text(retention.Documentation))
		}
		node := resp.Resources[1].Configs[0]
		require.Equal(t, []any{"node.id", true, kmsg.ConfigSourceStaticBrokerConfig}, []any{node.Name, node.ReadOnly, node.Source})
	})
}

// TestDescribeConfigsOf: some keys, what is not there, and resources without configs.
func TestDescribeConfigsOf(t *testing.T) {
	b := &adminBroker{topicConfigs: configsOfATopic, nodeConfigs: configsOfTheNode}
	for _, tt := range []struct {
		of   kmsg.DescribeConfigsRequestResource
		code kerr.Code
		text string
		keys []string
	}{
		{resourceOf(kmsg.ConfigResourceTypeTopic, "orders", "cleanup.policy", "nosuch"), kerr.None, "null", []string{"cleanup.policy"}},
		{resourceOf(kmsg.ConfigResourceTypeTopic, "nope"), kerr.UnknownTopicOrPartition, "Topic 'nope' does not exist.", nil},
		{resourceOf(kmsg.ConfigResourceTypeBroker, ""), kerr.None, "null", nil},
		{resourceOf(kmsg.ConfigResourceTypeBroker, "2"), kerr.InvalidRequest, "Unexpected broker id, expected 1 or empty string, but received 2", nil},
		{resourceOf(kmsg.ConfigResourceTypeGroupConfig, "g"), kerr.InvalidRequest, "Configs of the resource type GROUP_CONFIG are not supported: there are those of TOPIC and BROKER", nil},
	} {
		req := kmsg.NewPtrDescribeConfigsRequest()
		req.Resources = append(req.Resources, tt.of)
		answer := ask[*kmsg.DescribeConfigsResponse](t, b, req, 4).Resources[0]
		var keys []string
		for _, config := range answer.Configs {
			keys = append(keys, config.Name)
			require.Nil(t, config.Documentation, "not asked for")
			require.Empty(t, config.ConfigSynonyms, "not asked for")
		}
		require.Equal(t, []any{code(tt.code), tt.text, tt.keys}, []any{answer.ErrorCode, text(answer.ErrorMessage), keys})
	}
}

// TestIncrementalAlterConfigs: what is set and what goes back to its default.
func TestIncrementalAlterConfigs(t *testing.T) {
	versions(t, kmsg.IncrementalAlterConfigs, func(t *testing.T, version int16) {
		var asked broker.ConfigChange
		b := &adminBroker{alter: func(change broker.ConfigChange) error {
			asked = change
			return nil
		}}
		one := "1"
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.ValidateOnly = true
		req.Resources = []kmsg.IncrementalAlterConfigsRequestResource{{
			ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "orders", Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{
				{Name: "retention.ms", Op: kmsg.IncrementalAlterConfigOpSet, Value: &one}, {Name: "segment.ms", Op: kmsg.IncrementalAlterConfigOpDelete},
			},
		}}
		answer := ask[*kmsg.IncrementalAlterConfigsResponse](t, b, req, version).Resources[0]
		require.Equal(t, []any{code(kerr.None), kmsg.ConfigResourceTypeTopic, "orders"}, []any{answer.ErrorCode, answer.ResourceType, answer.ResourceName})
		require.Equal(t, broker.ConfigChange{Topic: "orders", Set: map[string]string{"retention.ms": "1"}, Remove: []string{"segment.ms"}, ValidateOnly: true}, asked)
	})
}

// TestIncrementalAlterConfigsRefuses: by name, whatever would be ignored.
func TestIncrementalAlterConfigsRefuses(t *testing.T) {
	one := "1"
	set := func(name string, value *string, op kmsg.IncrementalAlterConfigOp) kmsg.IncrementalAlterConfigsRequestResourceConfig {
		return kmsg.IncrementalAlterConfigsRequestResourceConfig{Name: name, Op: op, Value: value}
	}
	type resources = []kmsg.IncrementalAlterConfigsRequestResource
	of := func(typed kmsg.ConfigResourceType, configs ...kmsg.IncrementalAlterConfigsRequestResourceConfig) kmsg.IncrementalAlterConfigsRequestResource {
		return kmsg.IncrementalAlterConfigsRequestResource{ResourceType: typed, ResourceName: "1", Configs: configs}
	}
	const topic, node = kmsg.ConfigResourceTypeTopic, kmsg.ConfigResourceTypeBroker
	for _, tt := range []struct {
		resources
		code kerr.Code
		text string
	}{
		{resources{of(topic, set("cleanup.policy", &one, kmsg.IncrementalAlterConfigOpAppend))}, kerr.InvalidConfig, "Can't APPEND to key cleanup.policy"},
		{resources{of(topic, set("cleanup.policy", &one, kmsg.IncrementalAlterConfigOpSubtract))}, kerr.InvalidConfig, "Can't SUBTRACT to key cleanup.policy"},
		{resources{of(topic, set("retention.ms", nil, kmsg.IncrementalAlterConfigOpSet))}, kerr.InvalidRequest, "Null value not supported for : retention.ms"},
		{resources{of(topic, set("retention.ms", &one, 9))}, kerr.InvalidRequest, "Unknown operation 9"},
		{resources{of(topic, set("a", &one, 0), set("a", &one, 0))}, kerr.InvalidRequest, "duplicate config keys"},
		{resources{of(topic), of(topic)}, kerr.InvalidRequest, "Each resource must appear at most once."},
		{resources{of(node, set("num.partitions", &one, 0))}, kerr.InvalidRequest, "Cannot update these configs dynamically: [num.partitions]"},
		{resources{of(node)}, kerr.InvalidRequest, "Nodes have no configs"},
		{resources{of(kmsg.ConfigResourceTypeClientMetrics)}, kerr.InvalidRequest, "not supported"},
	} {
		req := kmsg.NewPtrIncrementalAlterConfigsRequest()
		req.Resources = tt.resources
		for _, answer := range ask[*kmsg.IncrementalAlterConfigsResponse](t, &adminBroker{}, req, 1).Resources {
			require.Equal(t, code(tt.code), answer.ErrorCode, "%+v", tt)
			require.Contains(t, text(answer.ErrorMessage), tt.text)
		}
	}
}

// TestAlterConfigs: what is not named goes back to its default.
func TestAlterConfigs(t *testing.T) {
	versions(t, kmsg.AlterConfigs, func(t *testing.T, version int16) {
		var asked broker.ConfigChange
		b := &adminBroker{topicConfigs: configsOfATopic, alter: func(change broker.ConfigChange) error {
			asked = change
			return kerr.Errorf(kerr.InvalidConfig, "no")
		}}
		one := "1"
		req := kmsg.NewPtrAlterConfigsRequest()
		req.Resources = []kmsg.AlterConfigsRequestResource{
			{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "orders", Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: "retention.ms", Value: &one}}},
			{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "nope"},
			{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "null", Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: "retention.ms"}}},
			{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: "1", Configs: []kmsg.AlterConfigsRequestResourceConfig{{Name: "log.retention.ms", Value: &one}}},
		}
		answers := ask[*kmsg.AlterConfigsResponse](t, b, req, version).Resources
		require.Equal(t, broker.ConfigChange{Topic: "orders", Set: map[string]string{"retention.ms": "1"}, Remove: []string{"cleanup.policy"}}, asked)
		for i, want := range []kerr.Code{kerr.InvalidConfig, kerr.UnknownTopicOrPartition, kerr.InvalidRequest, kerr.InvalidRequest} {
			require.Equal(t, code(want), answers[i].ErrorCode, "%v", text(answers[i].ErrorMessage))
		}
		require.Contains(t, text(answers[3].ErrorMessage), "[log.retention.ms]")
	})
}
