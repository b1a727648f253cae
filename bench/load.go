package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
)

// load sends a workload's records and follows what becomes of them. All times are durations since epoch, on one clock.
type load struct {
	w       Workload
	layout  Layout
	payload *payload
	epoch   time.Time
	lanes   [][]*lane // by producer and partition

	acked    atomic.Int64 // records
	failed   atomic.Int64
	from, to atomic.Int64 // the timed part: records due in it are counted in latencies
	ack      *Latency     // from when a record was due to its acknowledgement
	late     *Latency     // from when a record was due to when it was sent: the generator's own part of ack
	gaps     []gap        // by partition

	mu    sync.Mutex
	first error // that a record ended with
}

// gap is the longest time that a partition gave no acknowledgement.
type gap struct {
	mu      sync.Mutex
	last    time.Duration
	longest time.Duration
}

func newLoad(w Workload, layout Layout) *load {
	l := &load{w: w, layout: layout, payload: newPayload(w.RecordBytes), epoch: time.Now(), ack: NewLatency(), late: NewLatency()}
	l.from.Store(int64(never))
	l.to.Store(int64(never))
	l.gaps = make([]gap, layout.Total())
	every := uint64(16) // at hundreds of thousands of records/s
	if w.Mode == ModeRate {
		every = 1
	}
	for range w.Producers {
		lanes := make([]*lane, layout.Total())
		for i := range lanes {
			lanes[i] = &lane{every: every}
		}
		l.lanes = append(l.lanes, lanes)
	}
	return l
}

const never = time.Duration(1<<63 - 1)

// now is the time since epoch.
func (l *load) now() time.Duration { return time.Since(l.epoch) }

// counts tells whether a record that was due at this time belongs to the timed part.
func (l *load) counts(due time.Duration) bool {
	return int64(due) >= l.from.Load() && int64(due) < l.to.Load()
}

// outcome takes what a producer says about records.
func (l *load) outcome(producer int, o Outcome) {
	now := l.now()
	l.lanes[producer][o.Partition].ended(o, func(due time.Duration) {
		if l.counts(due) {
			l.ack.Record(now-due, 1)
		}
	})
	if o.Err != nil {
		l.failed.Add(int64(o.Count))
		l.mu.Lock()
		if l.first == nil {
			l.first = o.Err
		}
		l.mu.Unlock()
		return
	}
	l.acked.Add(int64(o.Count))
	g := &l.gaps[o.Partition]
	g.mu.Lock()
	if l.counts(now) && l.counts(g.last) {
		g.longest = max(g.longest, now-g.last)
	}
	g.last = now
	g.mu.Unlock()
}

// longestGap is the longest time without an acknowledgement in any partition during the timed part.
func (l *load) longestGap() (longest time.Duration) {
	for i := range l.gaps {
		g := &l.gaps[i]
		g.mu.Lock()
		longest = max(longest, g.longest)
		g.mu.Unlock()
	}
	return longest
}

func (l *load) firstError() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.first
}

// chooser picks the partition and key of each record.
type chooser struct {
	partitions int
	keys       [][]byte // nil: none
	partition  []int    // of each key
	next       func() int
}

func newChooser(w Workload, partitions, producer int) *chooser {
	c := &chooser{partitions: partitions}
	if w.Keys == KeysNone {
		at := producer // producers do not walk in step
		c.next = func() int {
			if at++; at >= partitions {
				at = 0
			}
			return at
		}
		return c
	}
	for i := range w.KeySpace {
		key := fmt.Appendf(nil, "key-%012d", i)
		c.keys = append(c.keys, key)
		c.partition = append(c.partition, int(xxhash.Sum64(key)%uint64(partitions)))
	}
	r := rand.New(rand.NewPCG(1, uint64(producer)))
	switch w.Keys {
	case KeysUniform:
		c.next = func() int { return r.IntN(w.KeySpace) }
	case KeysZipf:
		z := rand.NewZipf(r, 1.1, 1, uint64(w.KeySpace-1))
		c.next = func() int { return int(z.Uint64()) }
	default:
		at := producer
		c.next = func() int { at++; return at % w.KeySpace }
	}
	return c
}

func (c *chooser) choose() (partition int, key []byte) {
	i := c.next()
	if c.keys == nil {
		return i, nil
	}
	return c.partition[i], c.keys[i]
}

// sender is one producer with its goroutine.
type sender struct {
	load     *load
	index    int
	producer Producer
	chooser  *chooser
	value    []byte
}

func (l *load) newSender(ctx context.Context, s System, index int) (*sender, error) {
	p, err := s.NewProducer(ctx, l.layout, func(o Outcome) { l.outcome(index, o) })
	if err != nil {
		return nil, fmt.Errorf("cannot make a producer: %w", err)
	}
	return &sender{load: l, index: index, producer: p, chooser: newChooser(l.w, l.layout.Total(), index), value: make([]byte, l.w.RecordBytes)}, nil
}

// send sends one record that was due at this time.
func (s *sender) send(ctx context.Context, partition int, key []byte, due time.Duration) error {
	lane := s.load.lanes[s.index][partition]
	number := lane.take(due)
	s.load.payload.fill(s.value, identity{uint32(s.index*s.load.layout.Total() + partition), number, due})
	if err := s.producer.Send(ctx, partition, key, s.value); err != nil {
		lane.untake()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return fmt.Errorf("cannot send a record: %w", err)
	}
	return nil
}

// maximum sends as fast as the producer takes records, until stop.
func (s *sender) maximum(ctx context.Context, stop <-chan struct{}) error {
	now := s.load.now()
	for n := 0; ; n++ {
		partition, key := s.chooser.choose()
		if s.load.lanes[s.index][partition].timesNext() {
			now = s.load.now()
			select {
			case <-stop:
				return nil
			default:
			}
		}
		if err := s.send(ctx, partition, key, now); err != nil {
			return err
		}
	}
}

// volume sends that many records as fast as it can.
func (s *sender) volume(ctx context.Context, records int64) error {
	for range records {
		partition, key := s.chooser.choose()
		if err := s.send(ctx, partition, key, s.load.now()); err != nil {
			return err
		}
	}
	return nil
}

// paced sends a record each interval, from begin on until stop, however late it is: a record that waits behind a slow one is as
// late as it looks to whoever wanted to send it. That is what makes the loop open.
func (s *sender) paced(ctx context.Context, begin, interval time.Duration, stop <-chan struct{}) error {
	sleep, done := newSleeper()
	defer done()
	for due := begin; ; due += interval {
		for now := s.load.now(); now < due; now = s.load.now() {
			sleep(due - now)
		}
		select {
		case <-stop:
			return nil
		default:
		}
		if s.load.counts(due) {
			s.load.late.Record(s.load.now()-due, 1)
		}
		partition, key := s.chooser.choose()
		if err := s.send(ctx, partition, key, due); err != nil {
			return err
		}
	}
}

// start starts the senders of all producers; finish stops them and returns when every record has its outcome.
func (l *load) start(ctx context.Context, system System) (finish func() error, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := make(chan struct{})
	var running sync.WaitGroup
	var senders []*sender
	for i := range l.w.Producers {
		s, err := l.newSender(ctx, system, i)
		if err != nil {
			cancel(err)
			return nil, errors.Join(err, closeAll(senders))
		}
		senders = append(senders, s)
	}
	begin := l.now() + 10*time.Millisecond
	for i, s := range senders {
		running.Go(func() {
			var err error
			if l.w.Mode == ModeRate {
				interval := time.Duration(float64(time.Second) * float64(l.w.Producers) / l.w.Rate)
				err = s.paced(ctx, begin+interval*time.Duration(i)/time.Duration(l.w.Producers), interval, stop)
			} else {
				err = s.maximum(ctx, stop)
			}
			if err != nil {
				cancel(err)
			}
		})
	}
	return func() error {
		close(stop)
		late := time.AfterFunc(flushTimeout, func() { cancel(errors.New("a producer blocks for ever: the target takes no records")) })
		running.Wait()
		late.Stop()
		err := context.Cause(ctx)
		for _, s := range senders {
			if err == nil {
				err = flush(ctx, s.producer)
			}
		}
		cancel(nil)
		return errors.Join(err, closeAll(senders))
	}, nil
}

// fill writes a backlog of records.
func (l *load) fill(ctx context.Context, system System, records int64) error {
	s, err := l.newSender(ctx, system, 0)
	if err != nil {
		return err
	}
	if err = s.volume(ctx, records); err == nil {
		err = flush(ctx, s.producer)
	}
	return errors.Join(err, s.producer.Close())
}

// flushTimeout bounds the wait for the last outcomes.
const flushTimeout = time.Minute

func flush(ctx context.Context, p Producer) error {
	ctx, cancel := context.WithTimeout(ctx, flushTimeout)
	defer cancel()
	if err := p.Flush(ctx); err != nil {
		return fmt.Errorf("records are left without an outcome: %w", err)
	}
	return nil
}

func closeAll(senders []*sender) (err error) {
	for _, s := range senders {
		err = errors.Join(err, s.producer.Close())
	}
	return err
}
