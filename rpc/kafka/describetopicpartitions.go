package kafka

// DescribeTopicPartitions 0, sorted by name, in pages. Deviations: there are no eligible leader replicas, a majority decides. A cursor that
// is refused is refused in each topic that is named: the API has no other place for it.

import (
	"cmp"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/broker/acl"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// mostDescribed bounds the partitions of one answer: Kafka's max.request.partition.size.limit.
const mostDescribed = 2000

func answerDescribeTopicPartitions(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.DescribeTopicPartitionsRequest)
	resp := req.ResponseKind().(*kmsg.DescribeTopicPartitionsResponse)
	q := broker.MetadataQuery{All: len(req.Topics) == 0}
	for _, t := range req.Topics {
		q.Topics = append(q.Topics, t.Topic)
	}
	slices.Sort(q.Topics)
	q.Topics = slices.Compact(q.Topics)
	err := checkCursor(req.Cursor, q)
	if err == nil && req.Cursor != nil {
		q.Topics = slices.DeleteFunc(q.Topics, func(name string) bool { return name < req.Cursor.Topic })
	}
	var m *broker.Metadata
	if err == nil {
		m, err = c.broker().Metadata(c.ctx, c.caller, q)
	}
	if err != nil {
		for _, name := range q.Topics {
			t := describedTopic(name)
			t.ErrorCode, _ = refusal(err)
			resp.Topics = append(resp.Topics, t)
		}
		return resp
	}
	slices.SortFunc(m.Topics, func(a, b broker.Topic) int { return cmp.Compare(a.Name, b.Name) })
	c.describePage(resp, m, req.Cursor, max(1, min(int(req.ResponsePartitionLimit), mostDescribed)))
	return resp
}

// checkCursor refuses a place that the request does not ask for.
func checkCursor(cursor *kmsg.DescribeTopicPartitionsRequestCursor, q broker.MetadataQuery) error {
	switch {
	case cursor == nil:
		return nil
	case cursor.Partition < 0:
		return kerr.Errorf(kerr.InvalidRequest, "DescribeTopicPartitionsRequest cursor partition must be valid: %d", cursor.Partition)
	case !q.All && !slices.Contains(q.Topics, cursor.Topic):
		return kerr.Errorf(kerr.InvalidRequest, "DescribeTopicPartitionsRequest topic list should contain the cursor topic: %.249s", cursor.Topic)
	}
	return nil
}

// describePage describes topics, which are sorted, from the cursor on, until there are as many partitions as fit.
func (c *call) describePage(resp *kmsg.DescribeTopicPartitionsResponse, m *broker.Metadata, cursor *kmsg.DescribeTopicPartitionsRequestCursor, fit int) {
	for i := range m.Topics {
		t, first := &m.Topics[i], 0
		if cursor != nil && t.Name < cursor.Topic {
			continue
		}
		if cursor != nil && t.Name == cursor.Topic {
			first = min(int(cursor.Partition), len(t.Partitions))
		}
		if fit == 0 {
			resp.NextCursor = nextPage(t.Name, first)
			return
		}
		described := describedTopic(t.Name)
		described.ErrorCode = codeOf(t.Err)
		if t.Err == nil {
			described.TopicID = t.ID
			described.AuthorizedOperations = c.operations(acl.Resource{Type: acl.Topic, Name: t.Name})
		}
		end := min(first+fit, len(t.Partitions))
		for k := first; k < end; k++ {
			described.Partitions = append(described.Partitions, describedPartition(m.Nodes, &t.Partitions[k]))
		}
		fit -= end - first
		resp.Topics = append(resp.Topics, described)
		if end < len(t.Partitions) {
			resp.NextCursor = nextPage(t.Name, end)
			return
		}
	}
}

func nextPage(topic string, partition int) *kmsg.DescribeTopicPartitionsResponseNextCursor {
	next := kmsg.NewDescribeTopicPartitionsResponseNextCursor()
	next.Topic, next.Partition = topic, int32(partition)
	return &next
}

func describedTopic(name string) kmsg.DescribeTopicPartitionsResponseTopic {
	t := kmsg.NewDescribeTopicPartitionsResponseTopic()
	t.Topic, t.IsInternal = &name, internal(name)
	return t
}

func describedPartition(nodes []broker.Node, p *broker.Partition) kmsg.DescribeTopicPartitionsResponseTopicPartition {
	described := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
	described.Partition, described.LeaderID, described.LeaderEpoch = int32(p.ID), int32(p.Leader), int32(p.Epoch)
	if p.Leader == id.NoNode {
		described.LeaderID = unknown
	}
	described.Replicas, described.ISR, described.OfflineReplicas = idsOf(p.Replicas), idsOf(p.ISR), offline(nodes, p.Replicas)
	described.EligibleLeaderReplicas, described.LastKnownELR = []int32{}, []int32{}
	return described
}
