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
	if q.Time < broker.EarliestTime {
		return kerr.Errorf(kerr.UnsupportedVersion, "no offset is looked up by %d: only by %d (end), %d (start), or milliseconds since 1970",
			q.Time, broker.LatestTime, broker.EarliestTime)
	}
	open, _, epoch, err := b.led(q.Topic, q.Partition)
	if err != nil {
		answer.Epoch = epoch
		return err
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
		offset, timestamp, ok, err := open.Log().OffsetForTime(ctx, q.Time, open.LogStart(), hw)
		if err != nil {
			return err
		}
		if ok {
			answer.Offset, answer.Timestamp = offset, timestamp
		}
	}
	return nil
}

// OffsetForLeaderEpoch implements broker.Offsets.
func (b *Broker) OffsetForLeaderEpoch(ctx context.Context, _ *broker.Caller, queries []broker.EpochQuery) []broker.EpochEnd {
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	answers := make([]broker.EpochEnd, len(queries))
	var work errgroup.Group
	work.SetLimit(askParallel)
	for i, q := range queries {
		work.Go(func() error {
			end, err := b.epochEnd(ctx, q)
			if err != nil {
				refusal := Refusal(err)
				end = broker.EpochEnd{Epoch: broker.NoEpoch, End: id.NoOffset, Leader: refusal.Leader, LeaderEpoch: broker.NoEpoch, Err: refusal}
			}
			answers[i] = end
			return nil
		})
	}
	_ = work.Wait()
	return answers
}

func (b *Broker) epochEnd(ctx context.Context, q broker.EpochQuery) (broker.EpochEnd, error) {
	open, _, _, err := b.led(q.Topic, q.Partition)
	if err != nil {
		return broker.EpochEnd{}, err
	}
	_, _, term := open.Group().Leader()
	answer := broker.EpochEnd{Epoch: broker.NoEpoch, End: id.NoOffset, Leader: b.o.Node, LeaderEpoch: id.EpochOf(term)}
	// Who was deposed without knowing would answer with the end of a log that others have gone on with differently.
	if _, err := open.ConfirmedHighWatermark(ctx); err != nil {
		return broker.EpochEnd{}, err
	}
	epoch, end, ok, err := open.Log().EpochEnd(q.Epoch)
	if err != nil {
		return broker.EpochEnd{}, err
	}
	if ok {
		answer.Epoch, answer.End = visibleEnd(q.Epoch, epoch, end, open.LogStart())
	}
	return answer, nil
}

// visibleEnd is the answer about an epoch of which the log has found and its end. What lies below the log start is not known any more, as in
// Kafka: which epochs a replica still has on its disk there differs, and the next leader would answer with others.
func visibleEnd(asked, found id.Epoch, end, start id.Offset) (id.Epoch, id.Offset) {
	if end <= start {
		return asked, start
	}
	return found, end
}
