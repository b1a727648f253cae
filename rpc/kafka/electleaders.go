package kafka

// ElectLeaders 0-2: the preferred replica, which is the first one, gets the leadership. Deviation: a replica that misses acknowledged records is
// never elected, so the unclean election is needed nowhere (ELECTION_NOT_NEEDED), or finds nobody (ELIGIBLE_LEADERS_NOT_AVAILABLE).

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// The types of elections.
const (
	preferredElection = 0 // also in version 0, which does not say
	uncleanElection   = 1
)

func answerElectLeaders(c *call, r kmsg.Request) kmsg.Response {
	req := r.(*kmsg.ElectLeadersRequest)
	resp := req.ResponseKind().(*kmsg.ElectLeadersResponse)
	ctx, cancel := c.within(req.TimeoutMillis)
	defer cancel()
	elections, err := c.elections(ctx, req)
	if err != nil {
		resp.ErrorCode, _ = refusal(err)
		return resp
	}
	each(len(elections), func(i int) {
		if e := &elections[i]; e.err == nil {
			e.err = c.elect(ctx, req.ElectionType, e.topic, e.partition)
		}
	})
	places := make(map[string]int)
	for _, e := range elections {
		code, message := refusal(e.err)
		switch kerr.Code(code) {
		case kerr.ElectionNotNeeded:
			if req.Topics == nil {
				continue
			}
		case kerr.ClusterAuthorizationFailed: // it is one of the request
			resp.ErrorCode = code
		}
		place, ok := places[e.topic]
		if !ok {
			place = len(resp.Topics)
			places[e.topic] = place
			topic := kmsg.NewElectLeadersResponseTopic()
			topic.Topic = e.topic
			resp.Topics = append(resp.Topics, topic)
		}
		answer := kmsg.NewElectLeadersResponseTopicPartition()
		answer.Partition, answer.ErrorCode, answer.ErrorMessage = int32(e.number), code, message
		resp.Topics[place].Partitions = append(resp.Topics[place].Partitions, answer)
	}
	return resp
}

// election is one partition that is to be led by somebody else.
type election struct {
	topic     string
	number    id.Partition
	partition *broker.Partition
	err       error // there is no such partition; and the outcome
}

// elections returns those that are asked for: of all partitions if none is named.
func (c *call) elections(ctx context.Context, req *kmsg.ElectLeadersRequest) (list []election, err error) {
	q := broker.MetadataQuery{All: req.Topics == nil}
	for _, t := range req.Topics {
		q.Topics = append(q.Topics, t.Topic)
	}
	m, err := c.broker().Metadata(ctx, c.caller, q)
	if err != nil {
		return nil, err
	}
	topics := make(map[string]*broker.Topic)
	for i := range m.Topics {
		t := &m.Topics[i]
		topics[t.Name] = t
		for k := range t.Partitions {
			if q.All {
				list = append(list, election{t.Name, t.Partitions[k].ID, &t.Partitions[k], nil})
			}
		}
	}
	for _, asked := range req.Topics {
		for _, number := range asked.Partitions {
			e := election{topic: asked.Topic, number: id.Partition(number)}
			switch t := topics[asked.Topic]; {
			case t == nil || t.Err == nil && (number < 0 || int(number) >= len(t.Partitions)):
				e.err = kerr.Errorf(kerr.UnknownTopicOrPartition, "No such partition as %.249s-%d", asked.Topic, number)
			case t.Err != nil:
				e.err = t.Err
			default:
				e.partition = &t.Partitions[number]
			}
			list = append(list, e)
		}
	}
	return list, nil
}

// elect hands one leadership over.
func (c *call) elect(ctx context.Context, election int8, topic string, p *broker.Partition) error {
	switch {
	case election != preferredElection && election != uncleanElection:
		return kerr.Errorf(kerr.InvalidRequest, "Unknown election type %d", election)
	case election == uncleanElection && p.Leader == id.NoNode:
		return kerr.Errorf(kerr.EligibleLeadersNotAvailable, "%s-%d has no leader, for want of a majority of its replicas: start their nodes. "+
			"A replica that misses acknowledged records is never elected", topic, p.ID)
	case election == uncleanElection:
		return kerr.Errorf(kerr.ElectionNotNeeded, "Leader election not needed for %s-%d: node %d leads it", topic, p.ID, p.Leader)
	case len(p.Replicas) > 0 && p.Leader == p.Replicas[0]:
		return kerr.Errorf(kerr.ElectionNotNeeded, "Leader election not needed for %s-%d: the preferred leader, node %d, leads it", topic, p.ID, p.Leader)
	}
	_, _, err := c.broker().TransferLeader(ctx, c.caller, broker.Transfer{Topic: topic, Partition: p.ID, To: id.NoNode})
	if kerr.CodeOf(err) == kerr.Unknown {
		return kerr.Errorf(kerr.PreferredLeaderNotAvailable, "The preferred leader of %s-%d does not take over: %v", topic, p.ID, err)
	}
	return err
}
