package kafka

import (
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestDescribeCluster: those that live, and a controller only among them.
func TestDescribeCluster(t *testing.T) {
	versions(t, kmsg.DescribeCluster, func(t *testing.T, version int16) {
		controller := id.Node(2)
		b := &adminBroker{operations: acl.OperationsOn(acl.Cluster), metadata: func(q broker.MetadataQuery) (*broker.Metadata, error) {
			require.Equal(t, broker.MetadataQuery{}, q)
			m := threeNodes()
			m.Controller = controller
			return m, nil
		}}
		req := kmsg.NewPtrDescribeClusterRequest()
		resp := ask[*kmsg.DescribeClusterResponse](t, b, req, version)
		require.Equal(t, []any{code(kerr.None), "cluster", int32(2)}, []any{resp.ErrorCode, resp.ClusterID, resp.ControllerID})
		require.Len(t, resp.Brokers, 2)
		require.Equal(t, []any{int32(1), "host-1", int32(9092), "r1"}, []any{resp.Brokers[0].NodeID, resp.Brokers[0].Host, resp.Brokers[0].Port, text(resp.Brokers[0].Rack)})
		require.Nil(t, resp.Brokers[1].Rack)
		require.EqualValues(t, math.MinInt32, resp.ClusterAuthorizedOperations, "not asked for")

		req.IncludeClusterAuthorizedOperations, controller = true, 3
		resp = ask[*kmsg.DescribeClusterResponse](t, b, req, version)
		require.EqualValues(t, 8096, resp.ClusterAuthorizedOperations, "all, as Kafka says it")
		require.EqualValues(t, 1, resp.ControllerID, "that is dead, and clients wait for ever for one that is not among the brokers")
		b.operations = []acl.Operation{acl.Create}
		require.Zero(t, ask[*kmsg.DescribeClusterResponse](t, b, req, version).ClusterAuthorizedOperations, "without DESCRIBE")
	})
	for endpoint, want := range map[int8]kerr.Code{2: kerr.MismatchedEndpointType, 3: kerr.UnsupportedEndpointType} {
		req := kmsg.NewPtrDescribeClusterRequest()
		req.EndpointType = endpoint
		require.Equal(t, code(want), ask[*kmsg.DescribeClusterResponse](t, &adminBroker{}, req, 1).ErrorCode)
	}
}

// electionBroker has the topics a and b; what it was asked to transfer is in asked.
func electionBroker(asked *[]string, fail error) *adminBroker {
	var mu sync.Mutex
	return &adminBroker{
		metadata: func(q broker.MetadataQuery) (*broker.Metadata, error) {
			nope := broker.Topic{Name: "nope", Err: kerr.Errorf(kerr.UnknownTopicOrPartition, "topic nope does not exist")}
			if q.All {
				return threeNodes(topicOf("a", 1, 2), topicOf("b", 1, id.NoNode)), nil
			}
			return threeNodes(topicOf("a", 1, 2), nope), nil
		},
		transfer: func(transfer broker.Transfer) error {
			mu.Lock()
			defer mu.Unlock()
			*asked = append(*asked, fmt.Sprintf("%s-%d to %d", transfer.Topic, transfer.Partition, transfer.To))
			return fail
		},
	}
}

// TestElectLeaders: only where another one leads, and each outcome for its partition.
func TestElectLeaders(t *testing.T) {
	versions(t, kmsg.ElectLeaders, func(t *testing.T, version int16) {
		var asked []string
		req := kmsg.NewPtrElectLeadersRequest()
		req.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: "a", Partitions: []int32{0, 1, 2, -1}}, {Topic: "nope", Partitions: []int32{0}}}
		resp := ask[*kmsg.ElectLeadersResponse](t, electionBroker(&asked, nil), req, version)
		require.Equal(t, []string{"a-1 to -1"}, asked)
		require.Zero(t, resp.ErrorCode)
		require.Equal(t, []any{"a", "nope"}, []any{resp.Topics[0].Topic, resp.Topics[1].Topic})
		for i, want := range []kerr.Code{kerr.ElectionNotNeeded, kerr.None, kerr.UnknownTopicOrPartition, kerr.UnknownTopicOrPartition} {
			require.Equal(t, code(want), resp.Topics[0].Partitions[i].ErrorCode, "partition %d", i)
		}
		require.Equal(t, code(kerr.UnknownTopicOrPartition), resp.Topics[1].Partitions[0].ErrorCode)

		asked = nil
		all := kmsg.NewPtrElectLeadersRequest()
		all.Topics = nil
		resp = ask[*kmsg.ElectLeadersResponse](t, electionBroker(&asked, nil), all, version)
		require.ElementsMatch(t, []string{"a-1 to -1", "b-1 to -1"}, asked)
		require.Len(t, resp.Topics, 2)
		require.Len(t, resp.Topics[0].Partitions, 1, "where none is needed nothing is said")
	})
}

// TestElectLeadersFails: a refusal is one of the request, a leader that does not come one of the partition.
func TestElectLeadersFails(t *testing.T) {
	for _, tt := range []struct {
		fail      error
		election  int8
		top, part kerr.Code
	}{
		{kerr.Errorf(kerr.ClusterAuthorizationFailed, "no"), 0, kerr.ClusterAuthorizationFailed, kerr.ClusterAuthorizationFailed},
		{kerr.Errorf(kerr.Unknown, "it is behind"), 0, kerr.None, kerr.PreferredLeaderNotAvailable},
		{kerr.Errorf(kerr.RequestTimedOut, "late"), 0, kerr.None, kerr.RequestTimedOut},
		{nil, 9, kerr.None, kerr.InvalidRequest},
		{nil, 1, kerr.None, kerr.EligibleLeadersNotAvailable}, // of b-1, which has no leader; the others do not need one
	} {
		var asked []string
		req := kmsg.NewPtrElectLeadersRequest()
		req.Topics, req.ElectionType = nil, tt.election
		resp := ask[*kmsg.ElectLeadersResponse](t, electionBroker(&asked, tt.fail), req, 2)
		last := resp.Topics[len(resp.Topics)-1]
		require.Equal(t, []any{code(tt.top), "b", code(tt.part)}, []any{resp.ErrorCode, last.Topic, last.Partitions[len(last.Partitions)-1].ErrorCode}, "%+v", tt)
		if tt.election == 1 {
			require.Empty(t, asked, "there is no unclean election")
			require.Len(t, resp.Topics, 1)
		}
	}
}

// TestDescribeQuorum: who leads the metadata, and how far the others are as far as it is known.
func TestDescribeQuorum(t *testing.T) {
	status := &broker.ClusterStatus{Metadata: broker.Quorum{
		Leader: 1, Term: 7, Commit: 99, Voters: []id.Node{1, 2}, Learners: []id.Node{3}, Progress: []broker.Member{
			{Node: 1, Match: 100}, {Node: 2, Match: 90, LastAck: 3 * time.Second}, {Node: 3, Match: 0, LastAck: -1},
		},
	}}
	b := &adminBroker{
		status:   func() (*broker.ClusterStatus, error) { return status, nil },
		metadata: func(broker.MetadataQuery) (*broker.Metadata, error) { return threeNodes(), nil },
	}
	versions(t, kmsg.DescribeQuorum, func(t *testing.T, version int16) {
		req := kmsg.NewPtrDescribeQuorumRequest()
		req.Topics = []kmsg.DescribeQuorumRequestTopic{
			{Topic: metadataTopic, Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{Partition: 0}, {Partition: 1}}},
			{Topic: "orders", Partitions: []kmsg.DescribeQuorumRequestTopicPartition{{Partition: 0}}},
		}
		resp := ask[*kmsg.DescribeQuorumResponse](t, b, req, version)
		p := resp.Topics[0].Partitions[0]
		require.Equal(t, []any{code(kerr.None), int32(1), int32(7), int64(100)}, []any{p.ErrorCode, p.LeaderID, p.LeaderEpoch, p.HighWatermark})
		require.Equal(t, []any{int32(1), int64(101)}, []any{p.CurrentVoters[0].ReplicaID, p.CurrentVoters[0].LogEndOffset})
		require.Equal(t, []any{int32(2), int64(91), int64(-1)}, []any{p.CurrentVoters[1].ReplicaID, p.CurrentVoters[1].LogEndOffset, p.CurrentVoters[1].LastCaughtUpTimestamp})
		if version >= 1 {
			require.EqualValues(t, 3000, p.CurrentVoters[0].LastFetchTimestamp-p.CurrentVoters[1].LastFetchTimestamp)
			require.Equal(t, p.CurrentVoters[0].LastFetchTimestamp, p.CurrentVoters[0].LastCaughtUpTimestamp)
		}
		require.Equal(t, []any{int32(3), int64(-1)}, []any{p.Observers[0].ReplicaID, p.Observers[0].LastFetchTimestamp})
		require.Equal(t, code(kerr.UnknownTopicOrPartition), resp.Topics[0].Partitions[1].ErrorCode)
		require.Equal(t, code(kerr.UnknownTopicOrPartition), resp.Topics[1].Partitions[0].ErrorCode)
		if version >= 2 {
			require.Len(t, resp.Nodes, 3)
			require.Equal(t, []any{"host-3", uint16(9092)}, []any{resp.Nodes[2].Listeners[0].Host, resp.Nodes[2].Listeners[0].Port})
		}
	})
	b.status = func() (*broker.ClusterStatus, error) { return nil, kerr.Errorf(kerr.ClusterAuthorizationFailed, "no") }
	require.Equal(t, code(kerr.ClusterAuthorizationFailed), ask[*kmsg.DescribeQuorumResponse](t, b, kmsg.NewPtrDescribeQuorumRequest(), 2).ErrorCode)
	elsewhere := kmsg.NewDescribeQuorumResponseTopicPartition()
	describeQuorum(&broker.Quorum{Leader: 2, Voters: []id.Node{1, 2}}, time.Now(), &elsewhere)
	require.EqualValues(t, -1, elsewhere.CurrentVoters[1].LogEndOffset, "not known where the metadata is not led")
}

// TestDescribeTopicPartitions: pages that together are all there is, each no larger than asked for.
func TestDescribeTopicPartitions(t *testing.T) {
	b := &adminBroker{operations: acl.OperationsOn(acl.Topic), metadata: func(q broker.MetadataQuery) (*broker.Metadata, error) {
		require.True(t, q.All)
		return threeNodes(topicOf("b", 1, 2, 3), topicOf("a", 1, id.NoNode), topicOf("__c", 1)), nil
	}}
	for limit := int32(1); limit <= 7; limit++ {
		var got []string
		req := kmsg.NewPtrDescribeTopicPartitionsRequest()
		req.ResponsePartitionLimit = limit
		for pages := 0; ; pages++ {
			require.Less(t, pages, 7)
			resp := ask[*kmsg.DescribeTopicPartitionsResponse](t, b, req, 0)
			described := 0
			for _, topic := range resp.Topics {
				require.EqualValues(t, 3576, topic.AuthorizedOperations, "all, as Kafka says it")
				require.Equal(t, text(topic.Topic) == "__c", topic.IsInternal)
				for _, p := range topic.Partitions {
					got = append(got, fmt.Sprintf("%s-%d at %d of %v, %v, without %v", text(topic.Topic), p.Partition, p.LeaderID, p.Replicas, p.ISR, p.OfflineReplicas))
					require.NotNil(t, p.EligibleLeaderReplicas)
					require.NotNil(t, p.LastKnownELR)
					described++
				}
			}
			require.LessOrEqual(t, described, int(limit))
			if resp.NextCursor == nil {
				break
			}
			cursor := kmsg.NewDescribeTopicPartitionsRequestCursor()
			cursor.Topic, cursor.Partition = resp.NextCursor.Topic, resp.NextCursor.Partition
			req.Cursor = &cursor
		}
		const rest = " of [1 2 3], [1 2], without [3]"
		require.Equal(t, []string{"__c-0 at 1" + rest, "a-0 at 1" + rest, "a-1 at -1" + rest, "b-0 at 1" + rest, "b-1 at 2" + rest, "b-2 at 3" + rest}, got, "limit %d", limit)
	}
}

// TestDescribeTopicPartitionsByName: each once, with what is wrong with it; and cursors that nobody gave.
func TestDescribeTopicPartitionsByName(t *testing.T) {
	b := &adminBroker{metadata: func(q broker.MetadataQuery) (*broker.Metadata, error) {
		require.Equal(t, []string{"a", "nope"}, q.Topics)
		return threeNodes(topicOf("a", 1), broker.Topic{Name: "nope", Err: kerr.Errorf(kerr.UnknownTopicOrPartition, "no")}), nil
	}}
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	for _, name := range []string{"nope", "a", "a"} {
		req.Topics = append(req.Topics, kmsg.DescribeTopicPartitionsRequestTopic{Topic: name})
	}
	resp := ask[*kmsg.DescribeTopicPartitionsResponse](t, b, req, 0)
	require.Len(t, resp.Topics, 2)
	require.Equal(t, []any{"a", code(kerr.None)}, []any{text(resp.Topics[0].Topic), resp.Topics[0].ErrorCode})
	require.Equal(t, []any{"nope", code(kerr.UnknownTopicOrPartition), [16]byte{}}, []any{text(resp.Topics[1].Topic), resp.Topics[1].ErrorCode, resp.Topics[1].TopicID})
	for _, cursor := range []kmsg.DescribeTopicPartitionsRequestCursor{{Topic: "a", Partition: -1}, {Topic: "b"}} {
		req.Cursor = &cursor
		for _, topic := range ask[*kmsg.DescribeTopicPartitionsResponse](t, b, req, 0).Topics {
			require.Equal(t, code(kerr.InvalidRequest), topic.ErrorCode)
		}
	}
}

// TestDescribeLogDirs: all replicas, or those that are asked for.
func TestDescribeLogDirs(t *testing.T) {
	b := &adminBroker{dirs: func() ([]broker.LogDir, error) {
		return []broker.LogDir{{Path: "/d1", Replicas: []broker.LogDirReplica{{Topic: "a", Bytes: 10}, {Topic: "a", Partition: 1, Bytes: 20, Lag: 3}, {Topic: "b", Bytes: 30}}}, {Path: "/d2"}}, nil
	}}
	versions(t, kmsg.DescribeLogDirs, func(t *testing.T, version int16) {
		req := kmsg.NewPtrDescribeLogDirsRequest()
		req.Topics = nil
		resp := ask[*kmsg.DescribeLogDirsResponse](t, b, req, version)
		require.Equal(t, []any{"/d1", "/d2"}, []any{resp.Dirs[0].Dir, resp.Dirs[1].Dir})
		require.Len(t, resp.Dirs[0].Topics, 2)
		p := resp.Dirs[0].Topics[0].Partitions[1]
		require.Equal(t, []any{int32(1), int64(20), int64(3), false}, []any{p.Partition, p.Size, p.OffsetLag, p.IsFuture})

		req.Topics = []kmsg.DescribeLogDirsRequestTopic{{Topic: "a", Partitions: []int32{1, 5}}, {Topic: "nope", Partitions: []int32{0}}}
		resp = ask[*kmsg.DescribeLogDirsResponse](t, b, req, version)
		require.Len(t, resp.Dirs, 2)
		require.Len(t, resp.Dirs[0].Topics, 1)
		require.Len(t, resp.Dirs[0].Topics[0].Partitions, 1)
	})
	b.dirs = func() ([]broker.LogDir, error) { return nil, kerr.Errorf(kerr.ClusterAuthorizationFailed, "no") }
	require.Equal(t, code(kerr.ClusterAuthorizationFailed), ask[*kmsg.DescribeLogDirsResponse](t, b, kmsg.NewPtrDescribeLogDirsRequest(), 4).ErrorCode)
}

// TestUpdateFeatures: the level goes up, and nothing else goes anywhere.
func TestUpdateFeatures(t *testing.T) {
	versions(t, kmsg.UpdateFeatures, func(t *testing.T, version int16) {
		level := broker.FeatureLevel(0)
		b := &adminBroker{upgrade: func(l broker.FeatureLevel) error {
			if l > 2 {
				return kerr.Errorf(kerr.UnsupportedVersion, "node 3 does not know it")
			}
			level = l
			return nil
		}}
		update := func(feature string, level int16) kmsg.UpdateFeaturesRequestFeatureUpdate {
			u := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
			u.Feature, u.MaxVersionLevel, u.UpgradeType = feature, level, upgrade
			return u
		}
		down, down1 := update(levelFeature, 1), update(levelFeature, 1)
		down.AllowDowngrade, down1.UpgradeType = true, 3
		type updates = []kmsg.UpdateFeaturesRequestFeatureUpdate
		for _, tt := range []struct {
			updates
			code  kerr.Code
			level broker.FeatureLevel
		}{
			{updates{update(levelFeature, 2)}, kerr.None, 2},
			{updates{update(levelFeature, 3)}, kerr.InvalidUpdateVersion, 0},
			{updates{update(levelFeature, 0)}, kerr.InvalidUpdateVersion, 0},
			{updates{update(levelFeature, 2), update("metadata.version", 2)}, kerr.InvalidUpdateVersion, 0},
			{updates{update(levelFeature, 2), update(levelFeature, 2)}, kerr.InvalidRequest, 0},
			{nil, kerr.InvalidRequest, 0},
			{updates{map[bool]kmsg.UpdateFeaturesRequestFeatureUpdate{false: down, true: down1}[version > 0]}, kerr.InvalidUpdateVersion, 0},
		} {
			level = 0
			req := kmsg.NewPtrUpdateFeaturesRequest()
			req.FeatureUpdates = tt.updates
			resp := ask[*kmsg.UpdateFeaturesResponse](t, b, req, version)
			require.Equal(t, []any{code(tt.code), tt.level}, []any{resp.ErrorCode, level}, "%+v", tt)
			require.Len(t, resp.Results, len(tt.updates))
		}
	})
	req := kmsg.NewPtrUpdateFeaturesRequest()
	u := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
	u.Feature, u.MaxVersionLevel, u.UpgradeType = levelFeature, 2, upgrade
	req.ValidateOnly, req.FeatureUpdates = true, append(req.FeatureUpdates, u)
	require.Equal(t, code(kerr.InvalidRequest), ask[*kmsg.UpdateFeaturesResponse](t, &adminBroker{}, req, 1).ErrorCode)
}

// TestNothingThere: what there is none of is told as such, and nobody is asked.
func TestNothingThere(t *testing.T) {
	b := &adminBroker{}
	versions(t, kmsg.ListTransactions, func(t *testing.T, version int16) {
		req := kmsg.NewPtrListTransactionsRequest()
		req.StateFilters = []string{"Ongoing", "Sleeping"}
		resp := ask[*kmsg.ListTransactionsResponse](t, b, req, version)
		require.Zero(t, resp.ErrorCode)
		require.Empty(t, resp.TransactionStates)
		require.Equal(t, []string{"Sleeping"}, resp.UnknownStateFilters)
	})
	describe := kmsg.NewPtrDescribeTransactionsRequest()
	describe.TransactionalIDs = []string{"tx"}
	state := ask[*kmsg.DescribeTransactionsResponse](t, b, describe, 0).TransactionStates[0]
	require.Equal(t, []any{"tx", code(kerr.TransactionalIDNotFound)}, []any{state.TransactionalID, state.ErrorCode})
	moves := ask[*kmsg.ListPartitionReassignmentsResponse](t, b, kmsg.NewPtrListPartitionReassignmentsRequest(), 0)
	require.Zero(t, moves.ErrorCode)
	require.Empty(t, moves.Topics)
}
