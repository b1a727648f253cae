package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// readBack reads everything that the partitions hold and compares it with what was sent.
type readBack struct {
	load  *load
	ends  []int64
	open  int // partitions that are not read to their end
	at    []int64
	audit Audit

	records atomic.Int64 // so far, for progress
}

func newReadBack(ctx context.Context, l *load, s System) (*readBack, error) {
	ends, err := s.Ends(ctx, l.layout)
	if err != nil {
		return nil, fmt.Errorf("cannot find the ends of the partitions: %w", err)
	}
	if len(ends) != l.layout.Total() {
		return nil, fmt.Errorf("the target named the ends of %d partitions of %d", len(ends), l.layout.Total())
	}
	r := &readBack{load: l, ends: ends, at: make([]int64, len(ends))}
	for _, end := range ends {
		if end > 0 {
			r.open++
		}
	}
	return r, nil
}

// run reads to the ends.
func (r *readBack) run(ctx context.Context, s System) (Audit, error) {
	if r.open > 0 {
		if err := r.consume(ctx, s); err != nil {
			return Audit{}, fmt.Errorf("cannot read everything back: %w", err)
		}
	}
	for _, lanes := range r.load.lanes {
		for _, l := range lanes {
			l.finish(&r.audit)
		}
	}
	return r.audit, nil
}

func (r *readBack) consume(ctx context.Context, s System) error {
	c, err := s.NewConsumer(ctx, r.load.layout)
	if err != nil {
		return err
	}
	defer c.Close()
	for r.open > 0 {
		patience, cancel := context.WithTimeout(ctx, pollPatience)
		err := c.Poll(patience, r.visit)
		cancel()
		if err != nil {
			if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
				err = fmt.Errorf("no record came for %v with %d partitions unfinished, e.g. %s", pollPatience, r.open, r.unfinished())
			}
			return errors.Join(err, c.Close())
		}
	}
	return nil
}

// pollPatience bounds the wait for the next records while there must be some.
const pollPatience = 30 * time.Second

func (r *readBack) unfinished() string {
	for p, end := range r.ends {
		if r.at[p] < end {
			return fmt.Sprintf("partition %d at offset %d of %d", p, r.at[p], end)
		}
	}
	return "none"
}

// visit compares one record.
func (r *readBack) visit(m Message) {
	if m.Offset >= r.ends[m.Partition] {
		return
	}
	r.records.Add(1)
	if m.Offset < r.at[m.Partition] {
		r.audit.problem(&r.audit.Duplicated, "partition %d: offset %d was read again", m.Partition, m.Offset)
	} else {
		r.at[m.Partition] = m.Offset + 1
		if r.at[m.Partition] == r.ends[m.Partition] {
			r.open--
		}
	}
	i, ok := r.load.payload.parse(m.Value)
	producer, partition := int(i.lane)/r.load.layout.Total(), int(i.lane)%r.load.layout.Total()
	switch {
	case !ok:
		r.audit.problem(&r.audit.Changed, "partition %d: the value at offset %d is none that was sent", m.Partition, m.Offset)
	case producer >= len(r.load.lanes) || partition != m.Partition:
		r.audit.problem(&r.audit.Foreign, "partition %d: the record at offset %d was sent to partition %d", m.Partition, m.Offset, partition)
	default:
		r.load.lanes[producer][partition].saw(i.number, m.Offset, &r.audit)
	}
}

// follower is a consumer that reads along, for the latency from end to end.
type follower struct {
	load     *load
	endToEnd *Latency
	records  atomic.Int64
	cancel   context.CancelFunc
	done     sync.WaitGroup
	err      error
}

// follow starts a consumer of all partitions.
func (l *load) follow(ctx context.Context, s System, endToEnd *Latency) (*follower, error) {
	c, err := s.NewConsumer(ctx, l.layout)
	if err != nil {
		return nil, fmt.Errorf("cannot make a consumer: %w", err)
	}
	f := &follower{load: l, endToEnd: endToEnd}
	ctx, f.cancel = context.WithCancel(ctx)
	f.done.Go(func() {
		defer c.Close()
		for {
			if err := c.Poll(ctx, f.visit); err != nil {
				if ctx.Err() == nil {
					f.err = fmt.Errorf("a consumer that read along failed: %w", err)
				}
				return
			}
		}
	})
	return f, nil
}

func (f *follower) visit(m Message) {
	f.records.Add(1)
	if i, ok := f.load.payload.parse(m.Value); ok && f.load.counts(i.due) {
		f.endToEnd.Record(f.load.now()-i.due, 1)
	}
}

// stop ends the consumer.
func (f *follower) stop() error {
	f.cancel()
	f.done.Wait()
	return f.err
}
