package authorizer

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// behind is what a guard stands in front of: it answers whoever gets so far.
type behind struct {
	broker.Broker
	topics []broker.Topic
}

func (b behind) Metadata(context.Context, *broker.Caller, broker.MetadataQuery) (*broker.Metadata, error) {
	return &broker.Metadata{Topics: slices.Clone(b.topics)}, nil // it is the caller's
}

func (b behind) TopicConfigs(context.Context, *broker.Caller, string) ([]broker.Config, error) {
	return []broker.Config{{}}, nil
}

func (b behind) NodeConfigs(context.Context, *broker.Caller) ([]broker.Config, error) {
	return []broker.Config{{}}, nil
}

func (b behind) LogDirs(context.Context, *broker.Caller) ([]broker.LogDir, error) {
	return []broker.LogDir{{}}, nil
}

// TestMetadataByID: who may not describe a topic is refused by its id, and is not told its name; who asks for all does not hear of it.
func TestMetadataByID(t *testing.T) {
	mine, other, none := id.Topic{1}, id.Topic{2}, id.Topic{3}
	unknown := kerr.Errorf(kerr.UnknownTopicID, "none has it")
	b := behind{topics: []broker.Topic{{Name: "mine", ID: mine}, {Name: "other", ID: other}, {ID: none, Err: unknown}}}
	g := Guard(b, newAuthorizer(new(bytes.Buffer), DenyMissing, binding(acl.Topic, "mine", "alice", acl.Describe, acl.Allow)))
	m, err := g.Metadata(context.Background(), caller("alice"), broker.MetadataQuery{IDs: []id.Topic{mine, other, none}})
	require.NoError(t, err)
	byID := make(map[id.Topic]broker.Topic)
	for _, topic := range m.Topics {
		byID[topic.ID] = topic
	}
	require.Len(t, byID, 3)
	require.Equal(t, "mine", byID[mine].Name)
	require.Nil(t, byID[mine].Err)
	require.Empty(t, byID[other].Name)
	require.Equal(t, kerr.TopicAuthorizationFailed, byID[other].Err.Code)
	require.NotContains(t, byID[other].Err.Message, `"other"`)
	require.Equal(t, unknown, byID[none].Err)

	b.topics = b.topics[:2]
	m, err = Guard(b, newAuthorizer(new(bytes.Buffer), DenyMissing)).Metadata(context.Background(), caller("alice"), broker.MetadataQuery{All: true})
	require.NoError(t, err)
	require.Empty(t, m.Topics)
}

// TestConfigsAndDirectories: each with the one permission that suffices, and not with another one.
func TestConfigsAndDirectories(t *testing.T) {
	ctx, alice := context.Background(), caller("alice")
	for name, tt := range map[string]struct {
		enough, another acl.Binding
		code            kerr.Code
		call            func(broker.Broker) error
	}{
		"TopicConfigs": {
			binding(acl.Topic, "t", "alice", acl.DescribeConfigs, acl.Allow), binding(acl.Topic, "t", "alice", acl.Describe, acl.Allow),
			kerr.TopicAuthorizationFailed, func(b broker.Broker) error {
				_, err := b.TopicConfigs(ctx, alice, "t")
				return err
			},
		},
		"NodeConfigs": {
			binding(acl.Cluster, acl.ClusterName, "alice", acl.DescribeConfigs, acl.Allow), binding(acl.Cluster, acl.ClusterName, "alice", acl.Describe, acl.Allow),
			kerr.ClusterAuthorizationFailed, func(b broker.Broker) error {
				_, err := b.NodeConfigs(ctx, alice)
				return err
			},
		},
		"LogDirs": {
			binding(acl.Cluster, acl.ClusterName, "alice", acl.Describe, acl.Allow), binding(acl.Cluster, acl.ClusterName, "alice", acl.DescribeConfigs, acl.Allow),
			kerr.ClusterAuthorizationFailed, func(b broker.Broker) error {
				_, err := b.LogDirs(ctx, alice)
				return err
			},
		},
	} {
		require.NoError(t, tt.call(Guard(behind{}, newAuthorizer(new(bytes.Buffer), DenyMissing, tt.enough))), name)
		require.Equal(t, tt.code, kerr.CodeOf(tt.call(Guard(behind{}, newAuthorizer(new(bytes.Buffer), DenyMissing, tt.another)))), name)
	}
}
