package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
	"github.com/quorumlog/quorumlog/wal/id"
)

// DeletedRecords is what became of the deletion of a partition's records.
type DeletedRecords struct {
	TopicPartition
	LowWatermark Offset // the first offset that is left; -1 with an error
	Err          error  // see Admin.DeleteRecords
}

// String returns the partition and what is left of it.
func (d DeletedRecords) String() string {
	if d.Err != nil {
		return fmt.Sprintf("%s: %v", d.TopicPartition, d.Err)
	}
	return fmt.Sprintf("%s begins at %d", d.TopicPartition, d.LowWatermark)
}

// DeleteRecords deletes the records of partitions below an offset each, for good. End stands for the high watermark: everything that is committed
// when DeleteRecords is called. Each partition's leader is asked, another one if it moves, until all are answered or ctx ends. The answers are
// sorted by topic and partition, one for each. The error, if any, joins a PartitionError for each partition that has one.
//
// ErrOffsetOutOfRange says that the offset is above the high watermark, or negative. After any error that is no refusal the records may be
// deleted all the same; asking again does no harm.
func (a *Admin) DeleteRecords(ctx context.Context, before map[TopicPartition]Offset) ([]DeletedRecords, error) {
	work := make([]*deletion, 0, len(before))
	for tp, offset := range before {
		work = append(work, &deletion{tp: tp, before: offset})
	}
	slices.SortFunc(work, func(a, b *deletion) int {
		return cmp.Or(strings.Compare(a.tp.Topic, b.tp.Topic), cmp.Compare(a.tp.Partition, b.tp.Partition))
	})
	a.findTopics(ctx, work)
	for backoff := adminBackoff; ; backoff = min(2*backoff, adminBackoffMax) {
		open := slices.DeleteFunc(slices.Clone(work), func(d *deletion) bool { return d.done })
		if len(open) == 0 {
			break
		}
		a.deleteOnce(ctx, open)
		for _, d := range open {
			if !d.done {
				a.client.cache.requestFor(d.tp.Topic)
			}
		}
		if slices.ContainsFunc(open, func(d *deletion) bool { return !d.done }) {
			if err := pause(ctx, backoff); err != nil {
				giveUp(open, err)
			}
		}
	}
	out := make([]DeletedRecords, len(work))
	var failed []error
	for i, d := range work {
		out[i] = DeletedRecords{TopicPartition: d.tp, LowWatermark: d.low, Err: d.err}
		if d.err != nil {
			out[i].LowWatermark = id.NoOffset
			failed = append(failed, &PartitionError{d.tp, d.err})
		}
	}
	return out, errors.Join(failed...)
}

// deletion is a partition's under way.
type deletion struct {
	tp     TopicPartition
	topic  TopicID // that was meant when it began: a topic that is created again under the name keeps its records
	before Offset

	low  Offset
	err  error // the last one
	done bool
}

func (d *deletion) end(err error) { d.err, d.done = err, true }

func giveUp(open []*deletion, ended error) {
	for _, d := range open {
		if !d.done {
			d.end(errors.Join(ended, d.err))
		}
	}
}

// findTopics finds out which topics are meant.
func (a *Admin) findTopics(ctx context.Context, work []*deletion) {
	for i, d := range work {
		if i > 0 && work[i-1].tp.Topic == d.tp.Topic {
			if d.topic = work[i-1].topic; d.topic.IsZero() { // the error is about the topic; else it is about that partition alone
				d.end(work[i-1].err)
			}
		} else if topics, err := a.DescribeTopics(ctx, d.tp.Topic); err != nil {
			d.end(err)
		} else {
			d.topic = topics[0].ID
		}
		switch {
		case d.done:
		case d.before < End:
			d.end(fmt.Errorf("%w: %d: records are deleted below an offset of at least 0, or below End", ErrOffsetOutOfRange, d.before))
		default:
			if t, err := a.client.cache.topic(ctx, d.tp.Topic); err != nil {
				d.end(err)
			} else if t.id == d.topic && (d.tp.Partition < 0 || int(d.tp.Partition) >= len(t.partitions)) {
				d.end(fmt.Errorf("%w: the topic has %d", ErrUnknownPartition, len(t.partitions)))
			}
		}
	}
}

// deleteOnce asks each leader once, all at the same time.
func (a *Admin) deleteOnce(ctx context.Context, open []*deletion) {
	a.findEnds(ctx, open)
	known := a.client.cache.current.Load()
	byLeader := make(map[string][]*deletion)
	for _, d := range open {
		l, ok := known.leader(d.tp)
		switch {
		case d.done || d.before == End:
		case !ok:
			d.err = kerr.Errorf(kerr.LeaderNotAvailable, "%s has no known leader", d.tp)
		default:
			byLeader[l.addr] = append(byLeader[l.addr], d)
		}
	}
	var asked sync.WaitGroup
	for addr, deletions := range byLeader {
		asked.Go(func() {
			err := a.try(ctx, addr, func(ctx context.Context, c pb.DRPCAdminClient) error { return a.deleteAt(ctx, c, deletions) })
			for _, d := range deletions {
				switch {
				case err == nil || d.done:
				case a.client.ctx.Err() != nil:
					d.end(ErrClosed)
				case isFinal(err):
					d.end(err)
				default:
					d.err = at(addr, err)
				}
			}
		})
	}
	asked.Wait()
}

// findEnds replaces End by what it is now. A leader that found it out itself would find a later one when it is asked again, and delete what was
// written since.
func (a *Admin) findEnds(ctx context.Context, open []*deletion) {
	var tps []TopicPartition
	for _, d := range open {
		if !d.done && d.before == End {
			tps = append(tps, d.tp)
		}
	}
	if len(tps) == 0 {
		return
	}
	found, failed := a.client.listOffsets(ctx, tps)
	for _, d := range open {
		if r, ok := found[d.tp]; ok && d.before == End {
			d.before = r.End
		} else if err := failed[d.tp]; err != nil {
			if d.err = err; isFinal(err) {
				d.end(err)
			}
		}
	}
}

// deleteAt asks one node.
func (a *Admin) deleteAt(ctx context.Context, c pb.DRPCAdminClient, deletions []*deletion) error {
	req := &pb.DeleteRecordsRequest{TimeoutMs: int32(a.client.opts.RequestTimeout.Milliseconds())}
	for _, d := range deletions {
		req.Partitions = append(req.Partitions, &pb.DeleteRecordsRequest_Partition{
			Topic: d.tp.Topic, Partition: int32(d.tp.Partition), Offset: int64(d.before), TopicId: d.topic[:],
		})
	}
	resp, err := c.DeleteRecords(ctx, req)
	if err != nil {
		return err
	}
	if len(resp.Partitions) != len(deletions) {
		return fmt.Errorf("client: answered %d of %d partitions", len(resp.Partitions), len(deletions))
	}
	for i, answer := range resp.Partitions {
		d := deletions[i]
		code := kerr.Code(answer.ErrorCode)
		if code == kerr.None {
			d.low = Offset(answer.LowWatermark)
			d.end(nil)
			continue
		}
		refused := &kerr.Error{Code: code, Message: answer.ErrorMessage, Leader: NodeID(answer.Leader)}
		if d.err = refused; isFinal(refused) {
			d.end(refused)
		} else if t := a.client.cache.current.Load().topics[d.tp.Topic]; code == kerr.UnknownTopicID && t != nil && t.id != d.topic {
			d.end(ErrTopicRecreated)
		} else if code == kerr.UnknownTopicOrPartition {
			a.checkTopic(ctx, d)
		}
	}
	return nil
}

// checkTopic ends the deletion if the topic is gone.
func (a *Admin) checkTopic(ctx context.Context, d *deletion) {
	if _, err := a.DescribeTopics(ctx, d.tp.Topic); errors.Is(err, ErrUnknownTopic) {
		d.end(err)
	}
}
