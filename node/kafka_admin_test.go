package node_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/node/nodetest"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// TestKafkaAdmin: whichever node is asked, a topic that was made is there with its leaders when it is said to be, has its configs, and goes by
// its id.
func TestKafkaAdmin(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, 3, withKafka())
	for i, address := range brokers(c) {
		client, err := kgo.NewClient(kgo.SeedBrokers(address))
		require.NoError(t, err)
		t.Cleanup(client.Close)
		at := client.SeedBrokers()[0]
		name := []string{"a", "b", "c"}[i]
		five := "5"

		create := kmsg.NewPtrCreateTopicsRequest()
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, 3, -1
		topic.Configs = []kmsg.CreateTopicsRequestTopicConfig{{Name: "retention.ms", Value: &five}}
		create.Topics, create.TimeoutMillis = append(create.Topics, topic), 10_000
		response, err := at.Request(c.Context(), create)
		require.NoError(t, err)
		made := response.(*kmsg.CreateTopicsResponse).Topics[0]
		require.Zero(t, made.ErrorCode)
		require.EqualValues(t, 3, made.ReplicationFactor)
		require.NotEmpty(t, made.Configs)

		response, err = at.Request(c.Context(), kmsg.NewPtrDescribeTopicPartitionsRequest())
		require.NoError(t, err)
		all := response.(*kmsg.DescribeTopicPartitionsResponse).Topics
		described := all[len(all)-1]
		require.Equal(t, []any{name, made.TopicID}, []any{*described.Topic, described.TopicID})
		require.Len(t, described.Partitions, 3)
		for _, p := range described.Partitions {
			require.Positive(t, p.LeaderID)
		}

		configs := kmsg.NewPtrDescribeConfigsRequest()
		configs.Resources = []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: name, ConfigNames: []string{"retention.ms"}}}
		response, err = at.Request(c.Context(), configs)
		require.NoError(t, err)
		require.Equal(t, "5", *response.(*kmsg.DescribeConfigsResponse).Resources[0].Configs[0].Value)

		quorum := kmsg.NewPtrDescribeQuorumRequest()
		quorum.Topics = []kmsg.DescribeQuorumRequestTopic{{Topic: "__cluster_metadata", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{}}}}
		response, err = at.Request(c.Context(), quorum)
		require.NoError(t, err)
		metadata := response.(*kmsg.DescribeQuorumResponse).Topics[0].Partitions[0]
		require.Zero(t, metadata.ErrorCode)
		for _, replica := range append(metadata.CurrentVoters, metadata.Observers...) {
			require.Positive(t, replica.LogEndOffset, "of node %d, asked on node %d", replica.ReplicaID, i+1)
		}

		remove := kmsg.NewPtrDeleteTopicsRequest()
		remove.Topics, remove.TimeoutMillis = []kmsg.DeleteTopicsRequestTopic{{TopicID: made.TopicID}}, 10_000
		response, err = at.Request(c.Context(), remove)
		require.NoError(t, err)
		gone := response.(*kmsg.DeleteTopicsResponse).Topics[0]
		require.Equal(t, []any{int16(kerr.None), name}, []any{gone.ErrorCode, *gone.Topic})
	}
}
