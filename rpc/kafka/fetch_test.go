package kafka

import (
	"encoding/hex"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestFetchVersions: an answer means the same in all versions, as somebody else's decoder sees it.
func TestFetchVersions(t *testing.T) {
	b := newLogBroker()
	for range 3 {
		b.add(0, records(t, 2, 100))
		b.add(1, records(t, 1, 10))
	}
	w := serve(t, b, nil).dial()
	for version := int16(4); version <= 16; version++ {
		req := fetchRequest(version, 1<<20, 1, 0, 2)
		req.Topics[0].Partitions[0].FetchOffset = 1
		unknown := kmsg.NewFetchRequestTopic()
		unknown.Topic, unknown.TopicID = "unknown", [16]byte{9}
		unknown.Partitions = []kmsg.FetchRequestTopicPartition{{Partition: 5}}
		req.Topics = append(req.Topics, unknown)
		resp := w.ask(req).(*kmsg.FetchResponse)
		require.Zero(t, resp.ErrorCode)
		require.Zero(t, resp.SessionID)
		require.Len(t, resp.Topics, 2)
		if version >= topicIDFetch {
			require.Equal(t, [16]byte(topicT), resp.Topics[0].TopicID)
		} else {
			require.Equal(t, "t", resp.Topics[0].Topic)
		}
		parts := resp.Topics[0].Partitions
		require.Len(t, parts, 3)
		require.Equal(t, []int32{1, 0, 2}, []int32{parts[0].Partition, parts[1].Partition, parts[2].Partition})
		require.Equal(t, []int64{3, 6, 0}, []int64{parts[0].HighWatermark, parts[1].HighWatermark, parts[2].LastStableOffset})
		require.Equal(t, b.logs[1][len(b.logs[1])/3:], parts[0].RecordBatches)
		require.Equal(t, b.logs[0], parts[1].RecordBatches)
		require.NotNil(t, parts[2].RecordBatches)
		require.Empty(t, parts[2].RecordBatches)
		require.EqualValues(t, kerr.UnknownTopicOrPartition, resp.Topics[1].Partitions[0].ErrorCode)
	}
}

// TestFetchGolden has the bytes of an answer with one batch, in the oldest and the newest version.
func TestFetchGolden(t *testing.T) {
	part := fetched{partition: 2, hw: 9, logStart: 4, pieces: [][]byte{{0xaa, 0xbb}, {0xcc}}, bytes: 3}
	moved := fetched{partition: 3, hw: -1, logStart: -1, err: kerr.Errorf(kerr.NotLeaderOrFollower, ""), leader: 7, epoch: 8}
	topic := kmsg.FetchRequestTopic{Topic: "t", TopicID: [16]byte{1}, Partitions: make([]kmsg.FetchRequestTopicPartition, 2)}
	for _, test := range []struct {
		version int16
		want    string
	}{
		{4, "0001 74 00000002" +
			"00000002 0000 0000000000000009 0000000000000009 ffffffff 00000003 aabbcc" +
			"00000003 0006 ffffffffffffffff ffffffffffffffff ffffffff 00000000"},
		{16, "01000000000000000000000000000000 03" +
			"00000002 0000 0000000000000009 0000000000000009 0000000000000004 00 ffffffff 04 aabbcc 00" +
			"00000003 0006 ffffffffffffffff ffffffffffffffff ffffffffffffffff 00 ffffffff 01 01 01 09 00000007 00000008 00"},
	} {
		e := fetchEncoder{version: test.version}
		e.topic(&topic)
		e.partition(&part)
		e.partition(&moved)
		pieces, size := e.pieces()
		var got []byte
		for _, p := range pieces {
			got = append(got, p...)
		}
		require.Equal(t, unspaced(test.want), hex.EncodeToString(got))
		require.Equal(t, len(got), size)
	}
}

// TestFetchLimits: an answer has no more bytes than it may, but one batch at least.
func TestFetchLimits(t *testing.T) {
	b := newLogBroker()
	for range 4 {
		b.add(0, records(t, 1, 1000))
		b.add(1, records(t, 1, 1000))
	}
	size := len(b.logs[0]) / 4
	w := serve(t, b, nil).dial()
	for _, test := range []struct {
		name       string
		most, each int
		want       int // batches
	}{
		{"too little for one", 10, 1 << 20, 1},
		{"exactly one", size, 1 << 20, 1},
		{"nearly two", 2*size - 1, 1 << 20, 1},
		{"two", 2 * size, 1 << 20, 2},
		{"five", 5*size + 1, 1 << 20, 5},
		{"all", 1 << 20, 1 << 20, 8},
		{"little of each", 1 << 20, 1, 2},
	} {
		req := fetchRequest(11, int32(test.most), 0, 1)
		for i := range req.Topics[0].Partitions {
			req.Topics[0].Partitions[i].PartitionMaxBytes = int32(test.each)
		}
		got := 0
		for _, p := range w.ask(req).(*kmsg.FetchResponse).Topics[0].Partitions {
			for rest := p.RecordBatches; len(rest) > 0; got++ {
				var err error
				_, rest, err = batch.Next(rest)
				require.NoError(t, err, test.name)
			}
		}
		require.Equal(t, test.want, got, test.name)
	}
}

// TestFetchWaits: a poll waits until there is enough, or its time is over.
func TestFetchWaits(t *testing.T) {
	b := newLogBroker()
	s := serve(t, b, nil)
	w := s.dial()
	req := fetchRequest(11, 1<<20, 0)
	size := len(records(t, 1, 10))
	req.MinBytes = int32(size + 1)
	w.send(1, req)
	producer := s.dial()
	for range 2 { // one is not enough
		producer.ask(produceRequest(7, -1, map[int32]batch.Batch{0: records(t, 1, 10)}))
	}
	require.Len(t, w.answer(1, req).(*kmsg.FetchResponse).Topics[0].Partitions[0].RecordBatches, 2*size)

	req.Topics[0].Partitions[0].FetchOffset, req.MaxWaitMillis = 2, 30
	begin := time.Now()
	part := w.ask(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]
	require.GreaterOrEqual(t, time.Since(begin), 30*time.Millisecond)
	require.Empty(t, part.RecordBatches)
	require.Equal(t, int64(2), part.HighWatermark)

	req.MaxWaitMillis, req.MinBytes = 0, 1<<20
	require.Zero(t, w.ask(req).(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode)
}

// TestFetchSession: nobody was ever given a session.
func TestFetchSession(t *testing.T) {
	w := serve(t, newLogBroker(), nil).dial()
	for _, version := range []int16{7, 12, 16} {
		req := fetchRequest(version, 1<<20, 0)
		req.SessionID, req.SessionEpoch = 5, 1
		require.EqualValues(t, kerr.FetchSessionIDNotFound, w.ask(req).(*kmsg.FetchResponse).ErrorCode)
	}
}

// TestMetadataVersions: who leads, and where the brokers are.
func TestMetadataVersions(t *testing.T) {
	w := serve(t, newLogBroker(), nil).dial()
	for version := int16(0); version <= 12; version++ {
		req := kmsg.NewPtrMetadataRequest()
		req.Version = version
		resp := w.ask(req).(*kmsg.MetadataResponse)
		require.Len(t, resp.Brokers, 2)
		require.Equal(t, "two", resp.Brokers[1].Host)
		require.Equal(t, int32(9093), resp.Brokers[1].Port)
		require.Len(t, resp.Topics, 1)
		parts := resp.Topics[0].Partitions
		require.Equal(t, int32(1), parts[0].Leader)
		require.Equal(t, []int32{1, 2, 3}, parts[0].Replicas)
		require.Equal(t, int32(-1), parts[1].Leader)
		require.EqualValues(t, kerr.LeaderNotAvailable, parts[1].ErrorCode)
		if version >= 5 {
			require.Equal(t, []int32{3}, parts[0].OfflineReplicas)
		}
		if version >= 10 {
			require.Equal(t, [16]byte(topicT), resp.Topics[0].TopicID)
		}
		if version == 0 {
			continue
		}
		req.Topics = []kmsg.MetadataRequestTopic{} // none
		require.Empty(t, w.ask(req).(*kmsg.MetadataResponse).Topics)
		for _, name := range []string{"t", "unknown"} {
			req.Topics = append(req.Topics, kmsg.MetadataRequestTopic{Topic: &name})
		}
		resp = w.ask(req).(*kmsg.MetadataResponse)
		require.Len(t, resp.Topics, 2)
		require.EqualValues(t, kerr.UnknownTopicOrPartition, resp.Topics[1].ErrorCode)
		require.Equal(t, "unknown", *resp.Topics[1].Topic)
	}
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 12
	req.Topics = []kmsg.MetadataRequestTopic{{TopicID: topicT}, {TopicID: [16]byte{8}}}
	resp := w.ask(req).(*kmsg.MetadataResponse)
	require.Len(t, resp.Topics, 2)
	require.Equal(t, "t", *resp.Topics[0].Topic)
	require.EqualValues(t, kerr.UnknownTopicID, resp.Topics[1].ErrorCode)
}

// TestListOffsets: ends and times, and who is behind or ahead of the leader's epoch.
func TestListOffsets(t *testing.T) {
	w := serve(t, newLogBroker(), nil).dial()
	for version := int16(1); version <= 8; version++ {
		req := kmsg.NewPtrListOffsetsRequest()
		req.Version = version
		for _, name := range []string{"t", "unknown"} {
			topic := kmsg.NewListOffsetsRequestTopic()
			topic.Topic = name
			for i, epoch := range []int32{-1, 5, 4, 6} {
				p := kmsg.NewListOffsetsRequestTopicPartition()
				p.Partition, p.Timestamp, p.CurrentLeaderEpoch = int32(i), -2, epoch
				topic.Partitions = append(topic.Partitions, p)
			}
			req.Topics = append(req.Topics, topic)
		}
		resp := w.ask(req).(*kmsg.ListOffsetsResponse)
		require.Len(t, resp.Topics, 2)
		want := []kerr.Code{kerr.None, kerr.None, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch}
		for i, p := range resp.Topics[0].Partitions {
			if version < 4 {
				want[i] = kerr.None
			}
			require.EqualValues(t, want[i], p.ErrorCode)
			if want[i] == kerr.None {
				require.Equal(t, int64(100+i), p.Offset)
			}
		}
		require.EqualValues(t, kerr.UnknownTopicOrPartition, resp.Topics[1].Partitions[0].ErrorCode)
		require.EqualValues(t, id.NoOffset, resp.Topics[1].Partitions[0].Offset)
	}
}

// TestProducerIDs: idempotent producers get one, transactional ones are told that there are no transactions.
func TestProducerIDs(t *testing.T) {
	w := serve(t, newLogBroker(), nil).dial()
	for version := int16(0); version <= 4; version++ {
		req := kmsg.NewPtrInitProducerIDRequest()
		req.Version = version
		resp := w.ask(req).(*kmsg.InitProducerIDResponse)
		require.Equal(t, int64(77), resp.ProducerID)
		require.Zero(t, resp.ProducerEpoch)
		req.TransactionalID = kmsg.StringPtr("tx")
		require.EqualValues(t, kerr.UnsupportedVersion, w.ask(req).(*kmsg.InitProducerIDResponse).ErrorCode)

		find := kmsg.NewPtrFindCoordinatorRequest()
		find.Version, find.CoordinatorKey, find.CoordinatorKeys = version, "g", []string{"g"}
		found := w.ask(find).(*kmsg.FindCoordinatorResponse)
		code := found.ErrorCode
		if version == 4 {
			code = found.Coordinators[0].ErrorCode
		}
		require.EqualValues(t, kerr.CoordinatorNotAvailable, code)
	}
}
