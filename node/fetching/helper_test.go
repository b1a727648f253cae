package fetching

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/quorumlog/quorumlog/node/partition"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// replica is a partition whose batches have one record each.
type replica struct {
	partition.Waiters
	batch batch.Batch

	closed, follows atomic.Bool
	start, hw       atomic.Int64
	named           atomic.Int64 // a log start about which only a quorum knows
	confirm         func(context.Context) (id.Offset, error)
	reading         func()
}

func newReplica(t require.TestingT, valueBytes int) *replica {
	var b batch.Builder
	b.Append(batch.Record{Value: make([]byte, valueBytes)})
	made, err := b.Finish(nil, batch.Plain(batch.None))
	require.NoError(t, err)
	r := &replica{batch: made}
	r.confirm = func(context.Context) (id.Offset, error) { return r.HighWatermark(), nil }
	return r
}

func (r *replica) Closed() bool        { return r.closed.Load() }
func (r *replica) Leads() bool         { return !r.follows.Load() }
func (r *replica) LogStart() id.Offset { return id.Offset(r.start.Load()) }
func (r *replica) ShownStart() id.Offset {
	if start := r.LogStart(); r.named.Load() <= int64(start) {
		return start
	}
	return id.NoOffset
}
func (r *replica) HighWatermark() id.Offset            { return id.Offset(r.hw.Load()) }
func (r *replica) Limit(partition.ReadLimit) id.Offset { return r.HighWatermark() }

func (r *replica) ConfirmedHighWatermark(ctx context.Context) (id.Offset, error) {
	return r.confirm(ctx)
}

func (r *replica) Read(dst []byte, from id.Offset, _ partition.ReadLimit, maxBytes int) ([]byte, id.Offset, error) {
	if r.reading != nil {
		r.reading()
	}
	hw := r.HighWatermark()
	if from < id.Offset(r.named.Load()) {
		return dst, hw, partition.ErrUnsettled
	}
	for n := 0; from < hw && (n == 0 || n+len(r.batch) <= maxBytes); n += len(r.batch) {
		dst = append(dst, r.batch...)
		batch.Batch(dst[len(dst)-len(r.batch):]).Stamp(from, 1)
		from++
	}
	return dst, hw, nil
}

// commit is a turn in which the high watermark moves.
func (r *replica) commit(n int64) {
	r.hw.Add(n)
	r.Advanced(partition.ToHighWatermark)
}

func (r *replica) move(leads bool) {
	r.follows.Store(!leads)
	r.Moved()
}

func (r *replica) close() {
	r.closed.Store(true)
	r.Moved()
}

// said is an event with the records that came with it.
type said struct {
	Event
	next  id.Offset // after the records; id.NoOffset: there are none
	bytes int
}

// recorder is a sink that remembers.
type recorder struct{ said []said }

func (r *recorder) Append(e Event) error {
	r.said = append(r.said, said{Event: e, next: id.NoOffset})
	return nil
}

func (r *recorder) AppendRead(e Event, read func([]byte) ([]byte, error)) error {
	b, err := read(nil)
	if err != nil {
		return err
	}
	next, err := partition.NextOffset(b)
	r.said = append(r.said, said{Event: e, next: next, bytes: len(b)})
	return err
}

// drain serves until nothing is ready, and returns what was said.
func drain(t require.TestingT, s *Session) []said {
	var r recorder
	for {
		served, err := s.Serve(&r)
		require.NoError(t, err)
		if !served {
			return r.said
		}
	}
}

// woken tells whether somebody who waits would have been woken, who is not any more then.
func woken(s *Session) bool {
	select {
	case <-s.wake:
		return true
	default:
		return false
	}
}

func newHub(t testing.TB, o Options) *Hub {
	h := NewHub(o)
	t.Cleanup(h.Close)
	return h
}
