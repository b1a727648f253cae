package serving

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc/broker"
)

// TestTopicConfigs: what was set counts, then the default, under the name that it has at nodes; and each key says what it is.
func TestTopicConfigs(t *testing.T) {
	t.Parallel()
	list := topicConfigs(map[string]string{"retention.ms": "5", "of.a.later.release": "x"}, placement.SupportedLevel, 77)
	require.Len(t, list, len(placement.ConfigKeys()))
	byName := make(map[string]broker.Config)
	for i, config := range list {
		require.True(t, i == 0 || list[i-1].Name < config.Name, "sorted")
		require.NotZero(t, config.Type, config.Name)
		require.NotEmpty(t, config.Value, config.Name)
		require.NotEmpty(t, config.Documentation, config.Name)
		require.Equal(t, config.Value, config.Synonyms[0].Value, config.Name)
		last := config.Synonyms[len(config.Synonyms)-1]
		require.NotEmpty(t, last.Name, config.Name)
		require.True(t, last.Name == config.Name || strings.HasPrefix(last.Name, "log.") || last.Name == "message.max.bytes", last.Name)
		byName[config.Name] = config
	}
	own := broker.ConfigValue{Name: "retention.ms", Value: "5", Source: broker.TopicSource}
	byDefault := broker.ConfigValue{Name: "log.retention.ms", Value: "604800000", Source: broker.DefaultSource}
	require.Equal(t, own, byName["retention.ms"].ConfigValue)
	require.Equal(t, []broker.ConfigValue{own, byDefault}, byName["retention.ms"].Synonyms)
	require.Equal(t, broker.ConfigValue{Name: "segment.bytes", Value: "77", Source: broker.NodeSource}, byName["segment.bytes"].ConfigValue, "the node's own")

	usual := topicConfigs(nil, placement.SupportedLevel, usualSegmentBytes)
	require.False(t, slices.ContainsFunc(usual, func(c broker.Config) bool { return c.Source != broker.DefaultSource }), "%v", usual)
	for _, config := range topicConfigs(nil, placement.FirstLevel, 77) {
		require.NotEqual(t, "segment.ms", config.Name, "nobody can set it at that level")
	}
}
