package kafka

// DeleteTopics 1-6, by name and, from 6 on, by id. Deviation: a topic without DESCRIBE that does not exist is told apart by nobody, one that is
// asked for by id is deleted under the name that it had when it was looked up.

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

func answerDeleteTopics(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.DeleteTopicsRequest)
	resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
	ctx, cancel := c.within(req.TimeoutMillis)
	defer cancel()
	for i := range req.TopicNames { // what versions below 6 have
		req.Topics = append(req.Topics, kmsg.DeleteTopicsRequestTopic{Topic: &req.TopicNames[i]})
	}
	type named struct {
		name string
		id   id.Topic
	}
	times := occurrences(req.Topics, func(t *kmsg.DeleteTopicsRequestTopic) named {
		if t.Topic != nil {
			return named{name: *t.Topic}
		}
		return named{id: t.TopicID}
	})
	resp.Topics = make([]kmsg.DeleteTopicsResponseTopic, len(req.Topics))
	each(len(req.Topics), func(i int) {
		t, answer := &req.Topics[i], &resp.Topics[i]
		answer.Topic, answer.TopicID = t.Topic, t.TopicID
		byID, byName := !id.Topic(t.TopicID).IsZero(), t.Topic != nil
		var err error
		switch {
		case byID && byName:
			err = kerr.Errorf(kerr.InvalidRequest, "You may not specify both topic name and topic id.")
		case !byID && !byName:
			err = kerr.Errorf(kerr.InvalidRequest, "Neither topic name nor id were specified.")
		case byName && times[named{name: *t.Topic}] > 1:
			err = kerr.Errorf(kerr.InvalidRequest, "Duplicate topic name.")
		case byID && times[named{id: t.TopicID}] > 1:
			err = kerr.Errorf(kerr.InvalidRequest, "Duplicate topic id.")
		default:
			err = c.deleteTopic(ctx, answer)
		}
		answer.ErrorCode, answer.ErrorMessage = refusal(err)
	})
	return resp
}

// deleteTopic deletes the topic that the answer has the name or the id of, and puts in the other one.
func (c *call) deleteTopic(ctx context.Context, answer *kmsg.DeleteTopicsResponseTopic) error {
	if answer.Topic == nil {
		m, err := c.broker().Metadata(ctx, c.caller, broker.MetadataQuery{IDs: []id.Topic{answer.TopicID}})
		if err != nil {
			return err
		}
		for i := range m.Topics {
			if m.Topics[i].Err != nil {
				return m.Topics[i].Err
			}
			answer.Topic = &m.Topics[i].Name
		}
	}
	if answer.Topic == nil { // deleted in between
		return kerr.Errorf(kerr.UnknownTopicID, "This server does not host this topic ID.")
	}
	topic, err := c.broker().DeleteTopic(ctx, c.caller, *answer.Topic)
	if err == nil {
		answer.TopicID = topic
	}
	return err
}
