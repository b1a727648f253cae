package kafka

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestProduceVersions: a request means the same in all versions, and so does its answer.
func TestProduceVersions(t *testing.T) {
	for version := int16(leastProduce); version <= 11; version++ {
		b := newLogBroker()
		w := serve(t, b, nil).dial()
		req := produceRequest(version, -1, map[int32]batch.Batch{0: records(t, 2, 100), 3: records(t, 5, 10)})
		unknown := kmsg.NewProduceRequestTopic()
		unknown.Topic = "unknown"
		unknown.Partitions = []kmsg.ProduceRequestTopicPartition{{Partition: 1, Records: records(t, 1, 1)}}
		req.Topics = append(req.Topics, unknown)
		b.add(3, records(t, 7, 1))
		resp := w.ask(req).(*kmsg.ProduceResponse)
		require.Len(t, resp.Topics, 2)
		require.Equal(t, "t", resp.Topics[0].Topic)
		require.Equal(t, int32(3), resp.Topics[0].Partitions[1].Partition)
		require.Equal(t, int64(0), resp.Topics[0].Partitions[0].BaseOffset)
		require.Equal(t, int64(7), resp.Topics[0].Partitions[1].BaseOffset)
		require.Equal(t, "unknown", resp.Topics[1].Topic)
		require.EqualValues(t, kerr.UnknownTopicOrPartition, resp.Topics[1].Partitions[0].ErrorCode)
		require.Equal(t, int64(-1), resp.Topics[1].Partitions[0].BaseOffset)
		stored, rest, err := batch.Next(b.stored(0))
		require.NoError(t, err)
		require.Empty(t, rest)
		require.NoError(t, batch.Check(stored))
	}
}

// TestProduceRefused: what is refused is said in Kafka's words.
func TestProduceRefused(t *testing.T) {
	b := newLogBroker()
	w := serve(t, b, nil).dial()
	codeOfPart := func(req *kmsg.ProduceRequest) kmsg.ProduceResponseTopicPartition {
		return w.ask(req).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	}
	one := func(version, acks int16) *kmsg.ProduceRequest {
		return produceRequest(version, acks, map[int32]batch.Batch{0: records(t, 1, 10)})
	}
	zstd := records(t, 1, 10)
	zstd[22] |= byte(batch.Zstd)
	transactional := one(9, -1)
	transactional.TransactionID = kmsg.StringPtr("tx")
	require.EqualValues(t, kerr.UnsupportedCompression, codeOfPart(produceRequest(6, -1, map[int32]batch.Batch{0: zstd})).ErrorCode)
	require.Zero(t, codeOfPart(produceRequest(7, -1, map[int32]batch.Batch{0: zstd})).ErrorCode)
	require.EqualValues(t, kerr.UnsupportedVersion, codeOfPart(transactional).ErrorCode)
	require.EqualValues(t, kerr.InvalidRequiredAcks, codeOfPart(one(7, 2)).ErrorCode)

	for _, test := range []struct {
		err  *kerr.Error
		want kerr.Code
	}{
		{kerr.Errorf(kerr.ThrottlingQuotaExceeded, "much"), kerr.NotEnoughReplicas},
		{kerr.Errorf(kerr.NotLeaderOrFollower, "elsewhere"), kerr.NotLeaderOrFollower},
		{kerr.Errorf(kerr.InvalidTimestamp, "old"), kerr.InvalidTimestamp},
	} {
		b.taking(func(a *broker.Append) {
			a.Err, a.BaseOffset, a.Leader, a.Epoch, a.Throttle = test.err, id.NoOffset, 3, 8, time.Second
			a.Done(a)
		})
		req := one(11, -1)
		resp := w.ask(req).(*kmsg.ProduceResponse)
		part := resp.Topics[0].Partitions[0]
		require.EqualValues(t, test.want, part.ErrorCode)
		require.Equal(t, test.err.Message, *part.ErrorMessage)
		require.EqualValues(t, 1000, resp.ThrottleMillis)
		if test.want == kerr.NotLeaderOrFollower {
			require.Equal(t, int32(3), part.CurrentLeader.LeaderID)
			require.Equal(t, int32(8), part.CurrentLeader.LeaderEpoch)
		}
	}
}

// TestProduceRecreated: a topic that was made again is found under its new id with the next request.
func TestProduceRecreated(t *testing.T) {
	b := newLogBroker()
	var current atomic.Pointer[id.Topic]
	current.Store(&id.Topic{1})
	b.metadata = func(broker.MetadataQuery) (*broker.Metadata, error) {
		return &broker.Metadata{Topics: []broker.Topic{{Name: "t", ID: *current.Load()}}}, nil
	}
	b.take = func(a *broker.Append) {
		a.Err = nil
		if a.Topic != *current.Load() {
			a.Err = kerr.Errorf(kerr.UnknownTopicOrPartition, "gone")
		}
		a.Done(a)
	}
	w := serve(t, b, nil).dial()
	var codes []int16
	for i := range 3 {
		if i == 1 {
			current.Store(&id.Topic{2})
		}
		codes = append(codes, w.ask(produceRequest(7, -1, map[int32]batch.Batch{0: records(t, 1, 1)})).(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode)
	}
	require.Equal(t, []int16{0, int16(kerr.UnknownTopicOrPartition), 0}, codes)
}

// TestProduceUnacknowledged: without acks there is no answer, and what is refused ends the connection.
func TestProduceUnacknowledged(t *testing.T) {
	b := newLogBroker()
	w := serve(t, b, nil).dial()
	w.send(1, produceRequest(7, 0, map[int32]batch.Batch{0: records(t, 1, 10)}))
	req := kmsg.NewPtrApiVersionsRequest()
	w.send(2, req)
	w.answer(2, req)
	require.NotEmpty(t, b.stored(0))
}

func TestProduceUnacknowledgedRefused(t *testing.T) {
	b := newLogBroker()
	b.take = func(a *broker.Append) {
		a.Err = kerr.Errorf(kerr.NotLeaderOrFollower, "elsewhere")
		a.Done(a)
	}
	w := serve(t, b, nil).dial()
	w.send(1, produceRequest(7, 0, map[int32]batch.Batch{0: records(t, 1, 10)}))
	w.closed()
}

// FuzzProduce: whatever comes, what is parsed lies in the request.
func FuzzProduce(f *testing.F) {
	for _, version := range []int16{3, 8, 9, 11} {
		frame := frameOf(1, produceRequest(version, -1, map[int32]batch.Batch{0: records(f, 1, 10), 1: records(f, 2, 3)}))[4:]
		_, r, _ := parseHeader(frame)
		f.Add(version, r.Src)
	}
	f.Fuzz(func(t *testing.T, version int16, body []byte) {
		if version < 0 || version > 11 {
			return
		}
		var p produce
		if p.parse(version, &kbin.Reader{Src: body}) != nil {
			return
		}
		total, parts := 0, 0
		for _, topic := range p.topics {
			total += len(topic.name)
			parts += topic.number
			require.LessOrEqual(t, topic.first+topic.number, len(p.parts))
		}
		for i := range p.parts {
			total += len(p.parts[i].Batch)
		}
		require.Equal(t, len(p.parts), parts)
		require.LessOrEqual(t, total, len(body))
	})
}
