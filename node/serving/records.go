package serving

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/placement"
	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// DeleteRecords implements broker.Records.
func (b *Broker) DeleteRecords(ctx context.Context, _ *broker.Caller, deletions []broker.Deletion) []broker.LowWatermark {
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	answers := make([]broker.LowWatermark, len(deletions))
	var work errgroup.Group
	work.SetLimit(askParallel)
	for i, d := range deletions {
		work.Go(func() error {
			low, err := b.deleteRecords(ctx, d)
			answers[i] = broker.LowWatermark{Offset: low, Leader: b.o.Node}
			if err != nil {
				refusal := Refusal(err)
				answers[i] = broker.LowWatermark{Offset: id.NoOffset, Leader: refusal.Leader, Err: refusal}
			}
			return nil
		})
	}
	_ = work.Wait()
	return answers
}

func (b *Broker) deleteRecords(ctx context.Context, d broker.Deletion) (id.Offset, error) {
	if placement.IsInternal(d.Topic) {
		return id.NoOffset, kerr.Errorf(kerr.InvalidTopic, "topic %q is the system's: its records are not to be deleted", d.Topic)
	}
	open, t, _, err := b.led(d.Topic, d.Partition)
	if err != nil {
		return id.NoOffset, err
	}
	if !d.TopicID.IsZero() && d.TopicID != t.ID {
		return id.NoOffset, kerr.Errorf(kerr.UnknownTopicID, "topic %q has id %v, not %v", d.Topic, t.ID, d.TopicID)
	}
	if d.Before < broker.ToHighWatermark { // before anybody takes another negative number for something
		return id.NoOffset, kerr.Errorf(kerr.OffsetOutOfRange, "offset %d: records are deleted below an offset of at least 0, or below %d, the high watermark",
			d.Before, broker.ToHighWatermark)
	}
	return open.DeleteRecords(ctx, d.Before)
}

// led returns the replica of a partition that this node leads, or an error that names who does, with the epoch.
func (b *Broker) led(topic string, number id.Partition) (*partition.Partition, *placement.Topic, id.Epoch, error) {
	t, p, err := b.partition(topic, number)
	if err != nil {
		return nil, nil, 0, err
	}
	open := b.o.Replicas.Group(p.Group)
	if open == nil || !open.Group().IsLeader() {
		leader := b.o.Leaders.Leader(p)
		return nil, t, leader.Epoch, &kerr.Error{Code: kerr.NotLeaderOrFollower, Leader: leader.Node}
	}
	return open, t, 0, nil
}
