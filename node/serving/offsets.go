package serving

import (
	"context"

	"golang.org/x/sync/errgroup"

	"github.com/quorumlog/quorumlog/rpc/broker"
	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/wal/id"
)

// ListOffsets implements broker.Offsets.
func (b *Broker) ListOffsets(ctx context.Context, _ *broker.Caller, queries []broker.OffsetQuery) []broker.Offset {
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	answers := make([]broker.Offset, len(queries))
	var work errgroup.Group
	work.SetLimit(askParallel)
	for i, q := range queries {
		work.Go(func() error {
			answer := &answers[i]
			*answer = broker.Offset{Offset: id.NoOffset, Timestamp: broker.NoTimestamp, Leader: id.NoNode}
			if err := b.offset(ctx, q, answer); err != nil {
				answer.Err = Refusal(err)
				answer.Leader = answer.Err.Leader
			}
			return nil
		})
	}
	_ = work.Wait()
	return answers
}

func (b *Broker) offset(ctx context.Context, q broker.OffsetQuery, answer *broker.Offset) error {
	_, p, err := b.partition(q.Topic, q.Partition)
	if err != nil {
		return err
	}
	open := b.o.Replicas.Group(p.Group)
	if open == nil || !open.Group().IsLeader() {
		leader := b.o.Leaders.Leader(p)
		answer.Epoch = leader.Epoch
		return &kerr.Error{Code: kerr.NotLeaderOrFollower, Leader: leader.Node}
	}
	hw, err := open.ConfirmedHighWatermark(ctx)
	if err != nil {
		return err
	}
	_, leader, term := open.Group().Leader()
	answer.Leader, answer.Epoch = leader, id.EpochOf(term)
	switch q.Time {
	case broker.LatestTime:
		answer.Offset = hw
	case broker.EarliestTime:
		answer.Offset = open.LogStart()
	default:
		offset, timestamp, ok, err := open.Log().OffsetForTime(q.Time, hw)
		if err != nil {
			return err
		}
		if ok {
			answer.Offset, answer.Timestamp = offset, timestamp
		}
	}
	return nil
}
