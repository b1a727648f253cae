package kafka

// OffsetForLeaderEpoch 2-4, on the leaders of the partitions. Who says which epoch the leader is in by what he knows is told when it is another
// one, after it was looked up.

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

func answerOffsetForLeaderEpoch(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.OffsetForLeaderEpochRequest)
	resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	var queries []broker.EpochQuery
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			queries = append(queries, broker.EpochQuery{Topic: t.Topic, Partition: id.Partition(p.Partition), Epoch: id.Epoch(p.LeaderEpoch)})
		}
	}
	ends := c.broker().OffsetForLeaderEpoch(c.ctx, c.caller, queries)
	for _, t := range req.Topics {
		topic := kmsg.NewOffsetForLeaderEpochResponseTopic()
		topic.Topic = t.Topic
		for i, p := range t.Partitions {
			topic.Partitions = append(topic.Partitions, epochEnd(p.Partition, p.CurrentLeaderEpoch, &ends[i]))
		}
		ends = ends[len(t.Partitions):]
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}

func epochEnd(partition, current int32, end *broker.EpochEnd) kmsg.OffsetForLeaderEpochResponseTopicPartition {
	answer := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
	answer.Partition, answer.LeaderEpoch, answer.EndOffset = partition, int32(broker.NoEpoch), int64(id.NoOffset)
	if answer.ErrorCode = codeOf(end.Err); end.Err == nil {
		answer.ErrorCode = checkEpoch(current, end.LeaderEpoch)
	}
	if answer.ErrorCode == int16(kerr.None) {
		answer.LeaderEpoch, answer.EndOffset = int32(end.Epoch), int64(end.End)
	}
	return answer
}
