package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// kept is how much of a partition a topic keeps.
type kept struct{ retention, segment int64 }

// keepLittle has the topic keep so little that segments go all the time, and makes the ledger. A run of a minute or more has as much load
// as the cluster takes, and larger segments, each of which goes after seconds; a short one has what a test may cost.
func (d *chaosRun) keepLittle(length time.Duration) kept {
	k := kept{retention: 1 << 20, segment: 512 << 10}
	records := 1 << 22
	if length >= time.Minute {
		k = kept{retention: 64 << 20, segment: 32 << 20}
		d.pace, d.bulk = -1, 10
		records = 40_000 * int(length.Seconds())
		d.options.BufferBytes = 16 << 20
	}
	d.ledger = bench.NewLedger(records)
	d.configs = map[string]string{"segment.bytes": strconv.FormatInt(k.segment, 10), "retention.bytes": strconv.FormatInt(k.retention, 10)}
	return k
}

// readAlongThrough produces while faults happen, and looks for every acknowledged record while the log goes away behind those who read.
func (d *chaosRun) readAlongThrough(ctx context.Context, seed uint64, faults func()) {
	d.createTopic(ctx)
	readers := d.readAlong(ctx, seed)
	endProducing := d.startProducing(ctx)
	faults()
	endProducing()
	readers.finish()
}

// wereBehind requires that a replica, or some, were away until the log began behind what they had, by what the nodes print.
func (d *chaosRun) wereBehind(logs string) {
	n := strings.Count(logs, beginsAnew)
	if n == 0 {
		d.t.Error("no replica was ever behind the log start: the test shows less than it should")
	}
	d.t.Logf("%d times a log began anew behind what a replica had", n)
}

// beginsAnew is what a node prints when it gives up a log that is behind the start of all others.
const beginsAnew = "log begins anew"

// ends is where the partitions end.
func (d *chaosRun) ends(ctx context.Context) map[id.Partition]id.Offset {
	d.t.Helper()
	ranges, err := d.client.Admin().Offsets(ctx, chaosTopic)
	if err != nil {
		d.t.Fatal(err)
	}
	ends := make(map[id.Partition]id.Offset)
	for _, o := range ranges {
		ends[o.Partition] = o.End
	}
	return ends
}

// awaitGone waits until nobody has any file of a partition any more that begins at or below where it ended. A log start behind that would
// not do: the log lets go of segments up to a second later, and who leads meanwhile still has what the one who is away lacks. files lists
// those of all who run.
func (d *chaosRun) awaitGone(ends map[id.Partition]id.Offset, files func() []string) {
	d.t.Helper()
	eventually(d.t, "the segments to go in which the one who is away ends", func() bool {
		first := make(map[id.Partition]id.Offset)
		for _, f := range files() {
			p, key := d.segmentOf(f)
			if o, ok := first[p]; !ok || key.Base < o {
				first[p] = key.Base
			}
		}
		for p, o := range first {
			if o > ends[p] {
				return true
			}
		}
		return false
	})
}

// segmentOf says of what a file in the directory of a replica of the topic is, TOPIC-PARTITION.REPLICA/NAME.
func (d *chaosRun) segmentOf(file string) (id.Partition, segment.Key) {
	d.t.Helper()
	partition, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(filepath.Dir(file)), chaosTopic+"-"), ".")
	p, err := strconv.Atoi(partition)
	key, ok := segment.ParseName(filepath.Base(file))
	if err != nil || !ok {
		d.t.Fatalf("%s is no file of a segment: %v", file, err)
	}
	return id.Partition(p), key
}

// readers read while records are written and their log goes away behind them.
type readers struct {
	d    *chaosRun
	ctx  context.Context
	seed uint64

	mu     sync.Mutex
	starts map[id.TopicPartition]id.Offset // the largest log start that anybody was told of
	next   map[id.TopicPartition]id.Offset // of the one who follows

	wg     sync.WaitGroup
	stop   context.CancelFunc // of the one who wanders
	ends   atomic.Pointer[map[id.TopicPartition]id.Offset]
	looked atomic.Int64 // records that the wanderer compared
	told   atomic.Int64 // how often anybody was told that an offset is out of range
}

// readAlong starts two readers. One follows all partitions from offset 0 and enters into the ledger what it reads, and what was gone before
// it came. The other one begins anywhere, all the time, and compares what it is given.
func (d *chaosRun) readAlong(ctx context.Context, seed uint64) *readers {
	r := &readers{d: d, ctx: ctx, seed: seed, starts: make(map[id.TopicPartition]id.Offset), next: make(map[id.TopicPartition]id.Offset)}
	wandering, stop := context.WithCancel(ctx)
	r.stop = stop
	d.t.Cleanup(stop)
	r.wg.Go(func() { r.must("the reader who follows", r.follow(ctx)) })
	r.wg.Go(func() { r.must("the reader who wanders", r.wander(wandering)) })
	return r
}

func (r *readers) must(who string, err error) {
	if err != nil {
		r.d.t.Errorf("%s: %v", who, err)
	}
}

// finish lets the readers come to the end of what was written, and compares.
func (r *readers) finish() {
	t := r.d.t
	ranges, err := r.d.client.Admin().Offsets(r.ctx, chaosTopic)
	if err != nil {
		t.Errorf("where the partitions end: %v", err)
	}
	ends := make(map[id.TopicPartition]id.Offset)
	for _, o := range ranges {
		ends[o.TopicPartition] = o.End
	}
	r.ends.Store(&ends)
	r.stop()
	r.wg.Wait()
	r.mu.Lock()
	for _, o := range ranges {
		if told := r.starts[o.TopicPartition]; told > o.Start {
			t.Errorf("%v begins at %d, but somebody was told %d", o.TopicPartition, o.Start, told)
		}
	}
	r.mu.Unlock()
	report := r.d.ledger.Report()
	t.Logf("%+v; %d records compared out of order, %d times out of range", report, r.looked.Load(), r.told.Load())
	if !report.OK() || report.Acked == 0 || report.Read == 0 || r.looked.Load() == 0 {
		t.Error("this is not what was acknowledged")
	}
}

// done tells whether the one who follows has come to the ends.
func (r *readers) done() bool {
	ends := r.ends.Load()
	if ends == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for tp, end := range *ends {
		if r.next[tp] < end {
			return false
		}
	}
	return true
}

func (r *readers) follow(ctx context.Context) error {
	consumer, err := r.d.client.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		return err
	}
	defer consumer.Close()
	for p := range id.Partition(4) {
		tp := id.TopicPartition{Topic: chaosTopic, Partition: p}
		r.next[tp] = 0
		if err := consumer.Assign(tp, 0); err != nil {
			return err
		}
	}
	for !r.done() {
		err := r.followOnce(ctx, consumer)
		if errors.Is(err, client.ErrNoNodeReachable) || errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *readers) followOnce(ctx context.Context, consumer *client.Consumer) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second) // the ends may have become known
	defer cancel()
	fetch, err := consumer.Poll(ctx)
	if out := (*client.OutOfRangeError)(nil); errors.As(err, &out) {
		if err := r.outOfRange(out); err != nil {
			return err
		}
		if next := r.nextOf(out.TopicPartition); out.Offset != next {
			return fmt.Errorf("%w; the next offset is %d", out, next)
		}
		r.d.ledger.Skipped(out.TopicPartition, out.Offset, out.Start)
		r.setNext(out.TopicPartition, out.Start)
		return consumer.Assign(out.TopicPartition, out.Start)
	}
	if tp, dead := ofCrashed(err); dead {
		return consumer.Assign(tp, r.nextOf(tp))
	}
	if err != nil {
		return err
	}
	next := r.nextOf(fetch.TopicPartition)
	for m, err := range fetch.Records() {
		if err != nil {
			return err
		}
		if m.Offset != next {
			return fmt.Errorf("%v: offset %d was read where %d comes next", m.TopicPartition, m.Offset, next)
		}
		next++
		r.d.ledger.Saw(m.TopicPartition, m.Offset, number(m.Key), bench.Sum(m.Key, m.Value))
	}
	r.setNext(fetch.TopicPartition, next)
	return nil
}

// ofCrashed tells whether an error about a partition is what a node says whose simulated machine has crashed. It lives on for a moment, its
// disk gives it nothing any more, and it tells those who read; a real one would be silent.
func ofCrashed(err error) (tp id.TopicPartition, dead bool) {
	var refused *client.PartitionError
	if !errors.As(err, &refused) || !strings.HasSuffix(refused.Error(), disksim.ErrHalted.Error()) {
		return id.TopicPartition{}, false
	}
	return refused.TopicPartition, true
}

func (r *readers) nextOf(tp id.TopicPartition) id.Offset {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.next[tp]
}

func (r *readers) setNext(tp id.TopicPartition, next id.Offset) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.next[tp] = next
}

// outOfRange notes the start that somebody was told of. The answer is true only if the offset is below it.
func (r *readers) outOfRange(out *client.OutOfRangeError) error {
	r.told.Add(1)
	if out.Start <= out.Offset || out.End < out.Start {
		return fmt.Errorf("this cannot be: %w", out)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.starts[out.TopicPartition] = max(r.starts[out.TopicPartition], out.Start)
	return nil
}

// number is that of the record with this key; -1: it is none of ours.
func number(key []byte) int64 {
	n, err := strconv.ParseInt(string(key), 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// wander reads a few records here and there.
func (r *readers) wander(ctx context.Context) error {
	consumer, err := r.d.client.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		return err
	}
	defer consumer.Close()
	random := rand.New(rand.NewPCG(r.seed, 3))
	for ctx.Err() == nil {
		tp := id.TopicPartition{Topic: chaosTopic, Partition: id.Partition(random.IntN(4))}
		r.mu.Lock()
		start, next := r.starts[tp], r.next[tp]
		r.mu.Unlock()
		from := start
		if next > start { // anywhere, and mostly where the log may just be going
			from = max(start-100, 0) + id.Offset(random.Int64N(int64(next-start)/(1+random.Int64N(20))+200))
		}
		if from > next {
			from = next
		}
		if err := r.look(ctx, consumer, tp, from, start); err != nil {
			return err
		}
		r.d.pause(ctx, time.Duration(random.IntN(100))*time.Millisecond)
	}
	return nil
}

// look reads what is at an offset, and no more than two fetches.
func (r *readers) look(ctx context.Context, consumer *client.Consumer, tp id.TopicPartition, from, start id.Offset) error {
	if err := consumer.Assign(tp, from); err != nil {
		return err
	}
	defer consumer.Unassign(tp)
	next := from
	for range 2 {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		fetch, err := consumer.Poll(ctx)
		cancel()
		if out := (*client.OutOfRangeError)(nil); errors.As(err, &out) {
			if out.Start < start {
				return fmt.Errorf("%w, but before the log began at %d", out, start)
			}
			return r.outOfRange(out)
		}
		if _, dead := ofCrashed(err); dead {
			return nil
		}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, client.ErrNoNodeReachable) {
			return nil
		}
		if err != nil {
			return err
		}
		if next == from && fetch.Bytes() > 0 && from < start {
			return fmt.Errorf("%v: offset %d was read after the log began at %d", tp, from, start)
		}
		for m, err := range fetch.Records() {
			if err != nil {
				return err
			}
			if m.Offset != next {
				return fmt.Errorf("%v: offset %d was read where %d comes next", tp, m.Offset, next)
			}
			next++
			if err := r.d.ledger.Check(tp, m.Offset, number(m.Key), bench.Sum(m.Key, m.Value)); err != nil {
				return err
			}
			r.looked.Add(1)
		}
	}
	return nil
}
