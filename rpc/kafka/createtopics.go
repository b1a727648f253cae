package kafka

// CreateTopics 2-7. A topic is there, with leaders, when it is answered for; -1 stands for the defaults in every version. Deviations: replicas
// are not assigned by hand (INVALID_REPLICA_ASSIGNMENT); what is only validated is answered without configs, counts and an id.

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
)

// maxNewPartitions bounds the partitions that one request makes, as Kafka does.
const maxNewPartitions = 10_000

func answerCreateTopics(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.CreateTopicsRequest)
	resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
	ctx, cancel := c.within(req.TimeoutMillis)
	defer cancel()
	resp.Topics = make([]kmsg.CreateTopicsResponseTopic, len(req.Topics))
	named := occurrences(req.Topics, func(t *kmsg.CreateTopicsRequestTopic) string { return t.Topic })
	partitions := 0
	for i := range req.Topics {
		partitions += max(int(req.Topics[i].NumPartitions), 1)
	}
	each(len(req.Topics), func(i int) {
		t, answer := &req.Topics[i], &resp.Topics[i]
		*answer = kmsg.NewCreateTopicsResponseTopic()
		answer.Topic = t.Topic
		answer.Configs = []kmsg.CreateTopicsResponseTopicConfig{} // some clients do not take null
		var err error
		switch {
		case partitions > maxNewPartitions:
			err = kerr.Errorf(kerr.PolicyViolation, "Excessively large number of partitions per request.")
		case named[t.Topic] > 1:
			err = kerr.Errorf(kerr.InvalidRequest, "Duplicate topic name.")
		default:
			err = c.createTopic(ctx, t, req.ValidateOnly, answer)
		}
		answer.ErrorCode, answer.ErrorMessage = refusal(err)
	})
	return resp
}

func (c *call) createTopic(ctx context.Context, t *kmsg.CreateTopicsRequestTopic, validateOnly bool, answer *kmsg.CreateTopicsResponseTopic) error {
	wanted, err := newTopic(t)
	if err != nil {
		return err
	}
	wanted.ValidateOnly = validateOnly
	topic, err := c.broker().CreateTopic(ctx, c.caller, wanted)
	if err != nil || topic == nil {
		return err
	}
	answer.TopicID = topic.ID
	if answer.ConfigErrorCode = c.newConfigs(ctx, t.Topic, answer); answer.ConfigErrorCode == int16(kerr.None) {
		answer.NumPartitions, answer.ReplicationFactor = int32(len(topic.Partitions)), int16(topic.ReplicationFactor)
	}
	return nil
}

// newTopic returns what a request asks for. What would be taken for a default by the broker is refused here.
func newTopic(t *kmsg.CreateTopicsRequestTopic) (broker.NewTopic, error) {
	wanted := broker.NewTopic{Name: t.Topic, Configs: make(map[string]string, len(t.Configs))}
	switch {
	case len(t.ReplicaAssignment) > 0:
		return wanted, kerr.Errorf(kerr.InvalidReplicaAssignment, "A manual partition assignment was specified, which is not supported: "+
			"say how many partitions and replicas there are to be, and they are put on nodes evenly")
	case t.NumPartitions == 0 || t.NumPartitions < -1:
		return wanted, kerr.Errorf(kerr.InvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	case t.ReplicationFactor == 0 || t.ReplicationFactor < -1:
		return wanted, kerr.Errorf(kerr.InvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	}
	wanted.Partitions, wanted.ReplicationFactor = max(int(t.NumPartitions), 0), max(int(t.ReplicationFactor), 0)
	for _, config := range t.Configs {
		if config.Value == nil {
			return wanted, kerr.Errorf(kerr.InvalidConfig, "Null value not supported for topic configs: %.249s", config.Name)
		}
		wanted.Configs[config.Name] = *config.Value
	}
	return wanted, nil
}

// newConfigs puts the configs of a new topic into the answer, or returns why they are not there.
func (c *call) newConfigs(ctx context.Context, topic string, answer *kmsg.CreateTopicsResponseTopic) int16 {
	configs, err := c.broker().TopicConfigs(ctx, c.caller, topic)
	if err != nil {
		return int16(kerr.CodeOf(err))
	}
	for i := range configs {
		config := kmsg.NewCreateTopicsResponseTopicConfig()
		config.Name, config.Value, config.Source = configs[i].Name, &configs[i].Value, int8(configs[i].Source)
		answer.Configs = append(answer.Configs, config)
	}
	return int16(kerr.None)
}
