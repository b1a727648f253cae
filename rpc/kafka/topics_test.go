package kafka

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

func newTopicRequest(name string, partitions int32, replicas int16) kmsg.CreateTopicsRequestTopic {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, replicas
	return t
}

// TestCreateTopics: what is asked for reaches the broker, and its answers the client, in every version.
func TestCreateTopics(t *testing.T) {
	versions(t, kmsg.CreateTopics, func(t *testing.T, version int16) {
		var mu sync.Mutex
		asked := make(map[string]broker.NewTopic)
		b := &adminBroker{
			create: func(wanted broker.NewTopic) (*broker.Topic, error) {
				mu.Lock()
				defer mu.Unlock()
				asked[wanted.Name] = wanted
				if wanted.Name == "taken" {
					return nil, kerr.Errorf(kerr.TopicAlreadyExists, "Topic 'taken' already exists.")
				}
				made := topicOf(wanted.Name, 1, 2)
				return &made, nil
			},
			topicConfigs: func(topic string) ([]broker.Config, error) {
				if topic == "hidden" {
					return nil, kerr.Errorf(kerr.TopicAuthorizationFailed, "no")
				}
				return []broker.Config{{ConfigValue: broker.ConfigValue{Name: "retention.ms", Value: "5", Source: broker.TopicSource}}}, nil
			},
		}
		req := kmsg.NewPtrCreateTopicsRequest()
		orders := newTopicRequest("orders", 2, 3)
		five, config := "5", kmsg.NewCreateTopicsRequestTopicConfig()
		config.Name, config.Value = "retention.ms", &five
		orders.Configs = append(orders.Configs, config)
		req.Topics = append(req.Topics, orders, newTopicRequest("taken", -1, -1), newTopicRequest("hidden", -1, -1))
		resp := ask[*kmsg.CreateTopicsResponse](t, b, req, version)

		require.Equal(t, broker.NewTopic{Name: "orders", Partitions: 2, ReplicationFactor: 3, Configs: map[string]string{"retention.ms": "5"}}, asked["orders"])
		require.Equal(t, broker.NewTopic{Name: "taken", Configs: map[string]string{}}, asked["taken"], "the defaults")
		made, taken, hidden := resp.Topics[0], resp.Topics[1], resp.Topics[2]
		require.Equal(t, "orders", made.Topic)
		require.Zero(t, made.ErrorCode)
		require.Nil(t, made.ErrorMessage)
		require.Equal(t, code(kerr.TopicAlreadyExists), taken.ErrorCode)
		require.Equal(t, "Topic 'taken' already exists.", text(taken.ErrorMessage))
		require.Zero(t, hidden.ErrorCode)
		if version >= 5 {
			require.Equal(t, []any{int32(2), int16(3)}, []any{made.NumPartitions, made.ReplicationFactor})
			require.Equal(t, "retention.ms", made.Configs[0].Name)
			require.Equal(t, "5", text(made.Configs[0].Value))
			require.EqualValues(t, broker.TopicSource, made.Configs[0].Source)
			require.NotNil(t, taken.Configs, "some clients do not take null")
			require.Equal(t, code(kerr.TopicAuthorizationFailed), hidden.ConfigErrorCode)
			require.Equal(t, []any{int32(-1), int16(-1)}, []any{hidden.NumPartitions, hidden.ReplicationFactor})
			require.NotNil(t, hidden.Configs)
			require.Empty(t, hidden.Configs)
		}
		if version >= 7 {
			require.EqualValues(t, topicOf("orders").ID, made.TopicID)
		}
	})
}

// TestCreateTopicsValidates: what is only validated is not made.
func TestCreateTopicsValidates(t *testing.T) {
	b := &adminBroker{create: func(wanted broker.NewTopic) (*broker.Topic, error) {
		require.True(t, wanted.ValidateOnly)
		return nil, nil
	}}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.ValidateOnly, req.Topics = true, append(req.Topics, newTopicRequest("orders", 1, 1))
	resp := ask[*kmsg.CreateTopicsResponse](t, b, req, 7)
	require.Zero(t, resp.Topics[0].ErrorCode)
	require.NotNil(t, resp.Topics[0].Configs)
}

// TestCreateTopicsRefuses: what the broker would take for something else does not reach it.
func TestCreateTopicsRefuses(t *testing.T) {
	byHand := newTopicRequest("by-hand", -1, -1)
	byHand.ReplicaAssignment = append(byHand.ReplicaAssignment, kmsg.NewCreateTopicsRequestTopicReplicaAssignment())
	null := newTopicRequest("null", 1, 1)
	null.Configs = append(null.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: "retention.ms"})
	for _, tt := range []struct {
		topics []kmsg.CreateTopicsRequestTopic
		code   kerr.Code
		text   string
	}{
		{[]kmsg.CreateTopicsRequestTopic{byHand}, kerr.InvalidReplicaAssignment, "manual partition assignment"},
		{[]kmsg.CreateTopicsRequestTopic{null}, kerr.InvalidConfig, "Null value not supported for topic configs: retention.ms"},
		{[]kmsg.CreateTopicsRequestTopic{newTopicRequest("a", 0, 1)}, kerr.InvalidPartitions, "non-positive"},
		{[]kmsg.CreateTopicsRequestTopic{newTopicRequest("a", -2, 1)}, kerr.InvalidPartitions, "non-positive"},
		{[]kmsg.CreateTopicsRequestTopic{newTopicRequest("a", 1, 0)}, kerr.InvalidReplicationFactor, "larger than 0"},
		{[]kmsg.CreateTopicsRequestTopic{newTopicRequest("a", 1, 1), newTopicRequest("a", 1, 1)}, kerr.InvalidRequest, "Duplicate topic name."},
		{[]kmsg.CreateTopicsRequestTopic{newTopicRequest("a", 5001, 1), newTopicRequest("b", 5000, 1)}, kerr.PolicyViolation, "Excessively large"},
	} {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.Topics = tt.topics
		for _, answer := range ask[*kmsg.CreateTopicsResponse](t, &adminBroker{}, req, 7).Topics {
			require.Equal(t, code(tt.code), answer.ErrorCode, "%+v", tt)
			require.Contains(t, text(answer.ErrorMessage), tt.text)
		}
	}
}

// TestDeleteTopics: by name in each version.
func TestDeleteTopics(t *testing.T) {
	versions(t, kmsg.DeleteTopics, func(t *testing.T, version int16) {
		b := &adminBroker{remove: func(name string) (id.Topic, error) {
			if name != "orders" {
				return id.Topic{}, kerr.Errorf(kerr.UnknownTopicOrPartition, "Topic '%s' does not exist.", name)
			}
			return id.Topic{7}, nil
		}}
		req := kmsg.NewPtrDeleteTopicsRequest()
		for _, name := range []string{"orders", "nope"} {
			req.TopicNames = append(req.TopicNames, name)
			req.Topics = append(req.Topics, kmsg.DeleteTopicsRequestTopic{Topic: &name})
		}
		resp := ask[*kmsg.DeleteTopicsResponse](t, b, req, version)
		require.Len(t, resp.Topics, 2)
		require.Equal(t, "orders", text(resp.Topics[0].Topic))
		require.Zero(t, resp.Topics[0].ErrorCode)
		require.Equal(t, code(kerr.UnknownTopicOrPartition), resp.Topics[1].ErrorCode)
		if version >= 6 {
			require.EqualValues(t, id.Topic{7}, resp.Topics[0].TopicID)
		}
	})
}

// TestDeleteTopicsByID: and what is wrong with a request.
func TestDeleteTopicsByID(t *testing.T) {
	b := &adminBroker{
		metadata: func(q broker.MetadataQuery) (*broker.Metadata, error) {
			switch q.IDs[0] {
			case id.Topic{7}:
				return threeNodes(broker.Topic{Name: "orders", ID: id.Topic{7}}), nil
			case id.Topic{8}:
				return threeNodes(broker.Topic{ID: id.Topic{8}, Err: kerr.Errorf(kerr.TopicAuthorizationFailed, "not for you")}), nil
			}
			return threeNodes(broker.Topic{ID: q.IDs[0], Err: kerr.Errorf(kerr.UnknownTopicID, "no topic has it")}), nil
		},
		remove: func(name string) (id.Topic, error) {
			require.Equal(t, "orders", name)
			return id.Topic{7}, nil
		},
	}
	name := "a"
	for _, tt := range []struct {
		topics []kmsg.DeleteTopicsRequestTopic
		code   kerr.Code
		name   string
	}{
		{[]kmsg.DeleteTopicsRequestTopic{{TopicID: id.Topic{7}}}, kerr.None, "orders"},
		{[]kmsg.DeleteTopicsRequestTopic{{TopicID: id.Topic{8}}}, kerr.TopicAuthorizationFailed, "null"},
		{[]kmsg.DeleteTopicsRequestTopic{{TopicID: id.Topic{9}}}, kerr.UnknownTopicID, "null"},
		{[]kmsg.DeleteTopicsRequestTopic{{}}, kerr.InvalidRequest, "null"},
		{[]kmsg.DeleteTopicsRequestTopic{{Topic: &name, TopicID: id.Topic{9}}}, kerr.InvalidRequest, "a"},
		{[]kmsg.DeleteTopicsRequestTopic{{Topic: &name}, {Topic: &name}}, kerr.InvalidRequest, "a"},
		{[]kmsg.DeleteTopicsRequestTopic{{TopicID: id.Topic{7}}, {TopicID: id.Topic{7}}}, kerr.InvalidRequest, "null"},
	} {
		req := kmsg.NewPtrDeleteTopicsRequest()
		req.Topics = tt.topics
		for _, answer := range ask[*kmsg.DeleteTopicsResponse](t, b, req, 6).Topics {
			require.Equal(t, code(tt.code), answer.ErrorCode, "%+v", tt)
			require.Equal(t, tt.name, text(answer.Topic), "%+v", tt)
		}
	}
}

// TestDeleteRecords: answers are those of the partitions that they are for, across topics.
func TestDeleteRecords(t *testing.T) {
	versions(t, kmsg.DeleteRecords, func(t *testing.T, version int16) {
		b := &adminBroker{low: func(asked []broker.Deletion) []broker.LowWatermark {
			require.Equal(t, []broker.Deletion{
				{Topic: "a", Partition: 0, Before: 10}, {Topic: "a", Partition: 1, Before: broker.ToHighWatermark}, {Topic: "b", Partition: 0, Before: 5},
			}, asked)
			return []broker.LowWatermark{{Offset: 10}, {Offset: id.NoOffset, Err: kerr.Errorf(kerr.OffsetOutOfRange, "no")}, {Offset: 6}}
		}}
		req := kmsg.NewPtrDeleteRecordsRequest()
		req.Topics = []kmsg.DeleteRecordsRequestTopic{
			{Topic: "a", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 0, Offset: 10}, {Partition: 1, Offset: -1}}},
			{Topic: "b", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Partition: 0, Offset: 5}}},
		}
		resp := ask[*kmsg.DeleteRecordsResponse](t, b, req, version)
		require.EqualValues(t, 10, resp.Topics[0].Partitions[0].LowWatermark)
		require.Equal(t, []any{int64(-1), code(kerr.OffsetOutOfRange)}, []any{resp.Topics[0].Partitions[1].LowWatermark, resp.Topics[0].Partitions[1].ErrorCode})
		require.EqualValues(t, 6, resp.Topics[1].Partitions[0].LowWatermark)
	})
}

// TestOffsetForLeaderEpoch: who believes another epoch to be the leader's is told so.
func TestOffsetForLeaderEpoch(t *testing.T) {
	versions(t, kmsg.OffsetForLeaderEpoch, func(t *testing.T, version int16) {
		b := &adminBroker{ends: func(asked []broker.EpochQuery) []broker.EpochEnd {
			ends := make([]broker.EpochEnd, len(asked))
			for i, q := range asked {
				require.Equal(t, broker.EpochQuery{Topic: "a", Partition: id.Partition(i), Epoch: 3}, q)
				ends[i] = broker.EpochEnd{Epoch: 2, End: 100, Leader: 1, LeaderEpoch: 5}
			}
			ends[4] = broker.EpochEnd{Epoch: broker.NoEpoch, End: id.NoOffset, LeaderEpoch: broker.NoEpoch, Err: kerr.Errorf(kerr.NotLeaderOrFollower, "no")}
			return ends
		}}
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		topic := kmsg.NewOffsetForLeaderEpochRequestTopic()
		topic.Topic = "a"
		for i, current := range []int32{-1, 5, 4, 6, 7} {
			topic.Partitions = append(topic.Partitions, kmsg.OffsetForLeaderEpochRequestTopicPartition{Partition: int32(i), CurrentLeaderEpoch: current, LeaderEpoch: 3})
		}
		req.Topics = append(req.Topics, topic)
		answers := ask[*kmsg.OffsetForLeaderEpochResponse](t, b, req, version).Topics[0].Partitions
		for i, want := range []struct {
			code  kerr.Code
			epoch int32
			end   int64
		}{{kerr.None, 2, 100}, {kerr.None, 2, 100}, {kerr.FencedLeaderEpoch, -1, -1}, {kerr.UnknownLeaderEpoch, -1, -1}, {kerr.NotLeaderOrFollower, -1, -1}} {
			require.Equal(t, []any{int32(i), code(want.code), want.epoch, want.end},
				[]any{answers[i].Partition, answers[i].ErrorCode, answers[i].LeaderEpoch, answers[i].EndOffset})
		}
	})
}
