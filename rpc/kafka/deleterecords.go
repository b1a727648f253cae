package kafka

// DeleteRecords 0-2, on the leaders of the partitions. What is deleted stays so, whoever leads next. Deviation: an answer does not wait for all
// replicas to have done it, but for a majority to know it, which is as good.

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/wal/id"
)

func answerDeleteRecords(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.DeleteRecordsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteRecordsResponse)
	ctx, cancel := c.within(req.TimeoutMillis)
	defer cancel()
	var deletions []broker.Deletion
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			deletions = append(deletions, broker.Deletion{Topic: t.Topic, Partition: id.Partition(p.Partition), Before: id.Offset(p.Offset)})
		}
	}
	answers := c.broker().DeleteRecords(ctx, c.caller, deletions)
	for _, t := range req.Topics {
		topic := kmsg.NewDeleteRecordsResponseTopic()
		topic.Topic = t.Topic
		for i, p := range t.Partitions {
			answer := kmsg.NewDeleteRecordsResponseTopicPartition()
			answer.Partition, answer.LowWatermark, answer.ErrorCode = p.Partition, int64(answers[i].Offset), codeOf(answers[i].Err)
			topic.Partitions = append(topic.Partitions, answer)
		}
		answers = answers[len(t.Partitions):]
		resp.Topics = append(resp.Topics, topic)
	}
	return resp
}
