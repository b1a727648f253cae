package kafka

// ListOffsets 1-8: the ends of the log and times. Deviations: both isolation levels are alike, without transactions;
// other special timestamps are refused with UNSUPPORTED_VERSION.

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

func answerListOffsets(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.ListOffsetsRequest)
	var queries []broker.OffsetQuery
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			queries = append(queries, broker.OffsetQuery{Topic: t.Topic, Partition: id.Partition(p.Partition), Time: p.Timestamp})
		}
	}
	answers := c.broker().ListOffsets(c.ctx, c.caller, queries)
	resp := kmsg.NewPtrListOffsetsResponse()
	resp.Version = c.version
	for _, t := range req.Topics {
		topic := kmsg.NewListOffsetsResponseTopic()
		topic.Topic = t.Topic
		for _, p := range t.Partitions {
			answer := answers[0]
			answers = answers[1:]
			to := kmsg.NewListOffsetsResponseTopicPartition()
			to.Partition, to.ErrorCode = p.Partition, codeOf(answer.Err)
			if answer.Err == nil {
				to.ErrorCode = checkEpoch(p.CurrentLeaderEpoch, answer.Epoch)
			}
			if to.ErrorCode == int16(kerr.None) {
				to.Offset, to.Timestamp, to.LeaderEpoch = int64(answer.Offset), answer.Timestamp, int32(answer.Epoch)
			}
			topic.Partitions = append(topic.Partitions, to)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}

// checkEpoch compares the leader epoch that a client believes in, -1 if it does not say, with the leader's own.
func checkEpoch(believed int32, epoch id.Epoch) int16 {
	switch {
	case believed < 0 || id.Epoch(believed) == epoch:
		return int16(kerr.None)
	case id.Epoch(believed) < epoch:
		return int16(kerr.FencedLeaderEpoch)
	}
	return int16(kerr.UnknownLeaderEpoch)
}
