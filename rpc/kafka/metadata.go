package kafka

// Metadata 0-12. Deviations: topics are never made by asking for them; the brokers are the nodes that seem to be alive and serve Kafka's
// protocol, and the controller is any of them if it is none of those; a leader that nobody can reach is none; no authorized operations.

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

func answerMetadata(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.MetadataRequest)
	resp := kmsg.NewPtrMetadataResponse()
	resp.Version = c.version
	query := broker.MetadataQuery{All: req.Topics == nil || c.version == 0 && len(req.Topics) == 0}
	ids := make(map[id.Topic]bool)
	for _, t := range req.Topics {
		if t.Topic == nil {
			ids[t.TopicID] = true
		} else if !slices.Contains(query.Topics, *t.Topic) {
			query.Topics = append(query.Topics, *t.Topic)
		}
	}
	m, err := c.broker().Metadata(c.ctx, c.caller, query)
	if err != nil { // Metadata has no room for an error of its own
		return nil
	}
	brokers := c.describeBrokers(m, resp)
	for i := range m.Topics {
		resp.Topics = append(resp.Topics, describeTopic(&m.Topics[i], brokers))
	}
	return c.addByID(resp, ids, brokers)
}

// addByID adds the topics that were asked for by their ids.
func (c *call) addByID(resp *kmsg.MetadataResponse, ids map[id.Topic]bool, brokers map[id.Node]bool) kmsg.Response {
	if len(ids) == 0 {
		return resp
	}
	m, err := c.broker().Metadata(c.ctx, c.caller, broker.MetadataQuery{All: true})
	if err != nil {
		return nil
	}
	for i := range m.Topics {
		if t := &m.Topics[i]; ids[t.ID] {
			delete(ids, t.ID)
			resp.Topics = append(resp.Topics, describeTopic(t, brokers))
		}
	}
	for unknown := range ids {
		t := kmsg.NewMetadataResponseTopic()
		t.ErrorCode, t.TopicID = int16(kerr.UnknownTopicID), unknown
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

// describeBrokers tells which nodes there are, and returns those that clients can reach.
func (c *call) describeBrokers(m *broker.Metadata, resp *kmsg.MetadataResponse) map[id.Node]bool {
	resp.ClusterID = &m.ClusterID
	brokers := make(map[id.Node]bool)
	for _, n := range m.Nodes {
		host, port, ok := endpoint(&n)
		if !ok || !n.Alive {
			continue
		}
		b := kmsg.NewMetadataResponseBroker()
		b.NodeID, b.Host, b.Port = int32(n.ID), host, port
		if n.Rack != "" {
			b.Rack = &n.Rack
		}
		resp.Brokers = append(resp.Brokers, b)
		brokers[n.ID] = true
	}
	resp.ControllerID = int32(m.Controller)
	if !brokers[m.Controller] {
		resp.ControllerID = int32(c.server.options.Node) // any node takes what is meant for the controller
	}
	return brokers
}

func describeTopic(t *broker.Topic, brokers map[id.Node]bool) kmsg.MetadataResponseTopic {
	out := kmsg.NewMetadataResponseTopic()
	out.Topic, out.TopicID, out.ErrorCode = &t.Name, t.ID, codeOf(t.Err)
	out.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(t.Partitions))
	for i := range t.Partitions {
		p, to := &t.Partitions[i], &out.Partitions[i]
		to.Default()
		to.Partition, to.Leader, to.LeaderEpoch = int32(p.ID), int32(p.Leader), int32(p.Epoch)
		if !brokers[p.Leader] {
			to.Leader, to.ErrorCode = int32(id.NoNode), int16(kerr.LeaderNotAvailable)
		}
		to.Replicas, to.ISR = idsOf(p.Replicas), idsOf(p.ISR)
		for _, n := range p.Replicas {
			if !brokers[n] {
				to.OfflineReplicas = append(to.OfflineReplicas, int32(n))
			}
		}
	}
	return out
}

func idsOf(nodes []id.Node) []int32 {
	out := make([]int32, len(nodes))
	for i, n := range nodes {
		out[i] = int32(n)
	}
	return out
}
