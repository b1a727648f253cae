package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/rpc/kerr"
	"github.com/quorumlog/quorumlog/rpc/pb"
)

// Offsets returns what the partitions of a topic hold, in the order of the partitions.
func (a *Admin) Offsets(ctx context.Context, topic string) ([]OffsetRange, error) {
	return ofEachPartition(ctx, a, topic, a.client.listOffsets)
}

// TimeOffset is the first record of a partition that is not older than some time.
type TimeOffset struct {
	TopicPartition
	Offset    Offset // End if there is none
	Timestamp int64  // of the record, Unix milliseconds; -1 if there is none
}

// String returns the partition and the offset: orders-3@42.
func (o TimeOffset) String() string {
	if o.Offset == End {
		return o.TopicPartition.String() + ": no record that young"
	}
	return fmt.Sprintf("%s@%d", o.TopicPartition, o.Offset)
}

// OffsetsForTime returns for each partition of a topic, in their order, the first record whose timestamp is t or later, to the millisecond.
// Timestamps are the producers' to set: older records may follow it. The Offset is one that Consumer.Assign takes, also where there is no
// such record; Consumer.AssignAtTime does both.
func (a *Admin) OffsetsForTime(ctx context.Context, topic string, t time.Time) ([]TimeOffset, error) {
	ask := func(ctx context.Context, tps []TopicPartition) (map[TopicPartition]TimeOffset, map[TopicPartition]error) {
		times := make(map[TopicPartition]int64, len(tps))
		for _, tp := range tps {
			times[tp] = millis(t)
		}
		return a.client.offsetsForTimes(ctx, times)
	}
	return ofEachPartition(ctx, a, topic, ask)
}

// millis is a time as it is asked for. Negative numbers are not times to ListOffsets.
func millis(t time.Time) int64 { return max(t.UnixMilli(), 0) }

// ofEachPartition asks for something about each partition of a topic until it is answered for all, or refused for good for one.
func ofEachPartition[T any](ctx context.Context, a *Admin, topic string,
	ask func(context.Context, []TopicPartition) (map[TopicPartition]T, map[TopicPartition]error),
) ([]T, error) {
	topics, err := a.DescribeTopics(ctx, topic)
	if err != nil {
		return nil, err
	}
	if _, err := a.client.cache.topic(ctx, topic); err != nil {
		return nil, err
	}
	all := make([]TopicPartition, len(topics[0].Partitions))
	for i := range all {
		all[i] = TopicPartition{Topic: topic, Partition: topics[0].Partitions[i].Partition}
	}
	out := make([]T, len(all))
	open := slices.Clone(all)
	for backoff := adminBackoff; ; backoff = min(2*backoff, adminBackoffMax) {
		found, failed := ask(ctx, open)
		for i, tp := range all {
			if v, ok := found[tp]; ok {
				out[i] = v
			}
		}
		open = slices.DeleteFunc(open, func(tp TopicPartition) bool { _, ok := found[tp]; return ok })
		if len(open) == 0 {
			return out, nil
		}
		for tp, cause := range failed {
			if isFinal(cause) {
				return nil, fmt.Errorf("client: offsets of %s: %w", tp, cause)
			}
		}
		a.client.cache.requestFor(topic)
		if err := pause(ctx, backoff); err != nil {
			return nil, fmt.Errorf("client: offsets of %s: %w", open[0], errors.Join(err, failed[open[0]]))
		}
	}
}

// What ListOffsets takes in the place of a time.
const (
	latest   = -1
	earliest = -2
)

// offsetQuery asks for the first offset of a time, or of what stands for one. The answer is an offset or an error.
type offsetQuery struct {
	tp TopicPartition
	at int64

	offset    Offset
	timestamp int64
	err       error
}

// listOffsets asks the leaders for the ranges of partitions. Each is in one of the results.
func (c *Client) listOffsets(ctx context.Context, tps []TopicPartition) (found map[TopicPartition]OffsetRange, failed map[TopicPartition]error) {
	queries := make([]offsetQuery, 0, 2*len(tps))
	for _, tp := range tps {
		queries = append(queries, offsetQuery{tp: tp, at: earliest}, offsetQuery{tp: tp, at: latest})
	}
	c.askOffsets(ctx, queries)
	found, failed = make(map[TopicPartition]OffsetRange, len(tps)), make(map[TopicPartition]error)
	for i, tp := range tps {
		start, end := &queries[2*i], &queries[2*i+1]
		if err := errors.Join(start.err, end.err); err != nil {
			failed[tp] = err
			continue
		}
		found[tp] = OffsetRange{TopicPartition: tp, Start: start.offset, End: end.offset}
	}
	return found, failed
}

// offsetsForTimes asks the leaders for the offsets of times. Each is in one of the results.
func (c *Client) offsetsForTimes(ctx context.Context, times map[TopicPartition]int64) (found map[TopicPartition]TimeOffset, failed map[TopicPartition]error) {
	queries := make([]offsetQuery, 0, len(times))
	for tp, at := range times {
		queries = append(queries, offsetQuery{tp: tp, at: at})
	}
	c.askOffsets(ctx, queries)
	found, failed = make(map[TopicPartition]TimeOffset, len(times)), make(map[TopicPartition]error)
	for i := range queries {
		if q := &queries[i]; q.err != nil {
			failed[q.tp] = q.err
		} else if q.offset < 0 {
			found[q.tp] = TimeOffset{TopicPartition: q.tp, Offset: End, Timestamp: -1}
		} else {
			found[q.tp] = TimeOffset{TopicPartition: q.tp, Offset: q.offset, Timestamp: q.timestamp}
		}
	}
	return found, failed
}

// askOffsets has queries answered, each leader asked once, all at the same time.
func (c *Client) askOffsets(ctx context.Context, queries []offsetQuery) {
	known := c.cache.current.Load()
	byLeader := make(map[string][]*offsetQuery)
	for i := range queries {
		q := &queries[i]
		l, ok := known.leader(q.tp)
		if !ok {
			q.err = &kerr.Error{Code: kerr.LeaderNotAvailable, Message: fmt.Sprintf("%s has no known leader", q.tp), Leader: NoNode}
			continue
		}
		byLeader[l.addr] = append(byLeader[l.addr], q)
	}
	var asked sync.WaitGroup
	for addr, queries := range byLeader {
		asked.Go(func() {
			if err := c.askOffsetsAt(ctx, addr, queries); err != nil {
				for _, q := range queries {
					q.err = fmt.Errorf("%s: %w", addr, err)
				}
			}
		})
	}
	asked.Wait()
}

// askOffsetsAt has queries answered by one node. An error is that of all of them.
func (c *Client) askOffsetsAt(ctx context.Context, addr string, queries []*offsetQuery) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	req := new(pb.ListOffsetsRequest)
	for _, q := range queries {
		req.Partitions = append(req.Partitions, &pb.ListOffsetsRequest_Partition{Topic: q.tp.Topic, Partition: int32(q.tp.Partition), Timestamp: q.at})
	}
	resp, err := c.dialer.Admin(addr).ListOffsets(ctx, req)
	if err != nil {
		return err
	}
	if len(resp.Partitions) != len(queries) {
		return fmt.Errorf("client: answered %d of %d offsets", len(resp.Partitions), len(queries))
	}
	for i, answer := range resp.Partitions {
		q := queries[i]
		q.offset, q.timestamp = Offset(answer.Offset), answer.Timestamp
		if code := kerr.Code(answer.ErrorCode); code != kerr.None {
			// The leader that it names is not taken over: it may be that of an older topic of this name, with an epoch that the new one never has.
			q.err = &kerr.Error{Code: code, Message: answer.ErrorMessage, Leader: NodeID(answer.Leader)}
		}
	}
	return nil
}
