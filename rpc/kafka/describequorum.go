package kafka

// DescribeQuorum 0-2, of the metadata, which is one Raft group. Offsets are Raft indexes. Deviations: where its leader cannot be
// asked how far the others are it is -1, which is not known. Replicas have no directory ids.

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// metadataTopic is the name of the only topic whose quorum can be asked for.
const metadataTopic = "__cluster_metadata"

// unknown stands for offsets and times that are not known.
const unknown = -1

func answerDescribeQuorum(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.DescribeQuorumRequest)
	resp := req.ResponseKind().(*kmsg.DescribeQuorumResponse)
	s, err := c.broker().ClusterStatus(c.ctx, c.caller)
	var m *broker.Metadata
	if err == nil { // where the nodes serve this protocol
		m, err = c.broker().Metadata(c.ctx, c.caller, broker.MetadataQuery{})
	}
	if err != nil {
		resp.ErrorCode, resp.ErrorMessage = refusal(err)
		return resp
	}
	for _, t := range req.Topics {
		topic := kmsg.NewDescribeQuorumResponseTopic()
		topic.Topic = t.Topic
		for _, p := range t.Partitions {
			answer := kmsg.NewDescribeQuorumResponseTopicPartition()
			answer.Partition = p.Partition
			if t.Topic == metadataTopic && p.Partition == 0 {
				describeQuorum(&s.Metadata, time.Now(), &answer)
			} else {
				answer.ErrorCode, answer.ErrorMessage = refusal(kerr.Errorf(kerr.UnknownTopicOrPartition, "there is the quorum of %s-0 alone", metadataTopic))
			}
			topic.Partitions = append(topic.Partitions, answer)
		}
		resp.Topics = append(resp.Topics, topic)
	}
	for i := range m.Nodes {
		if host, port, ok := endpoint(&m.Nodes[i]); ok {
			listener := kmsg.NewDescribeQuorumResponseNodeListener()
			listener.Name, listener.Host, listener.Port = "CONTROLLER", host, uint16(port)
			node := kmsg.NewDescribeQuorumResponseNode()
			node.NodeID, node.Listeners = int32(m.Nodes[i].ID), []kmsg.DescribeQuorumResponseNodeListener{listener}
			resp.Nodes = append(resp.Nodes, node)
		}
	}
	return resp
}

func describeQuorum(q *broker.Quorum, now time.Time, answer *kmsg.DescribeQuorumResponseTopicPartition) {
	answer.LeaderID, answer.LeaderEpoch, answer.HighWatermark = int32(q.Leader), int32(id.EpochOf(q.Term)), int64(q.Commit)+1
	state := func(n id.Node) kmsg.DescribeQuorumResponseTopicPartitionReplicaState {
		s := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
		s.ReplicaID, s.LogEndOffset, s.LastFetchTimestamp, s.LastCaughtUpTimestamp = int32(n), unknown, unknown, unknown
		i := slices.IndexFunc(q.Progress, func(m broker.Member) bool { return m.Node == n })
		if i < 0 {
			return s
		}
		m := &q.Progress[i]
		s.LogEndOffset = int64(m.Match) + 1
		switch {
		case n == q.Leader:
			s.LastFetchTimestamp = now.UnixMilli()
		case m.LastAck >= 0:
			s.LastFetchTimestamp = now.Add(-m.LastAck).UnixMilli()
		}
		if m.Match >= q.Commit {
			s.LastCaughtUpTimestamp = s.LastFetchTimestamp
		}
		return s
	}
	for _, n := range q.Voters {
		answer.CurrentVoters = append(answer.CurrentVoters, state(n))
	}
	for _, n := range q.Learners {
		answer.Observers = append(answer.Observers, state(n))
	}
}
