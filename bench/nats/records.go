package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/quorumlog/quorumlog/bench"
)

// ackTimeout is when a message without an acknowledgement is given up: JetStream does not tell of those that it drops.
const ackTimeout = 15 * time.Second

// producer publishes with a reply subject that names the record, which is what JetStream's own asynchronous publish does, and
// so learns which one an acknowledgement is for:  PREFIX.partition.number
type producer struct {
	system   *system
	ended    func(bench.Outcome)
	prefix   string
	subjects []string
	next     []uint64
	window   chan struct{} // a token for each message in flight
	reply    []byte
	subs     []*nats.Subscription
	stop     chan struct{}
	sweeping sync.WaitGroup

	mu      sync.Mutex
	pending []map[uint64]time.Time // by partition: when it was sent
}

// NewProducer implements bench.System.
func (s *system) NewProducer(_ context.Context, l bench.Layout, ended func(bench.Outcome)) (bench.Producer, error) {
	p := &producer{
		system: s, ended: ended, prefix: nats.NewInbox(), next: make([]uint64, l.Total()), window: make(chan struct{}, s.window()),
		stop: make(chan struct{}), pending: make([]map[uint64]time.Time, l.Total()),
	}
	for i := range l.Total() {
		_, subject := streamOf(l, i)
		p.subjects = append(p.subjects, subject)
		p.pending[i] = make(map[uint64]time.Time)
	}
	for _, c := range s.conns {
		sub, err := c.Subscribe(p.prefix+".*.*", p.answer)
		if err == nil {
			err = errors.Join(sub.SetPendingLimits(-1, -1), c.Flush())
		}
		if err != nil {
			return nil, err
		}
		p.subs = append(p.subs, sub)
	}
	p.sweeping.Go(p.sweep)
	return p, nil
}

// Send implements bench.Producer. Keys are left out: a stream has none.
func (p *producer) Send(ctx context.Context, partition int, _, value []byte) error {
	select {
	case p.window <- struct{}{}:
	default:
		select {
		case p.window <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	number := p.next[partition]
	p.next[partition]++
	p.mu.Lock()
	p.pending[partition][number] = time.Now()
	p.mu.Unlock()
	p.reply = append(append(p.reply[:0], p.prefix...), '.')
	p.reply = append(strconv.AppendInt(p.reply, int64(partition), 10), '.')
	p.reply = strconv.AppendUint(p.reply, number, 10)
	if err := p.system.leaders[partition].PublishRequest(p.subjects[partition], string(p.reply), value); err != nil {
		p.finish(partition, number, -1, err)
	}
	return nil
}

// acknowledgement is JetStream's answer.
type acknowledgement struct {
	Sequence uint64 `json:"seq"`
	Error    *struct {
		Code        int    `json:"code"`
		Description string `json:"description"`
	} `json:"error"`
}

func (p *producer) answer(m *nats.Msg) {
	place, numberText, _ := strings.Cut(m.Subject[len(p.prefix)+1:], ".")
	partition, err1 := strconv.Atoi(place)
	number, err2 := strconv.ParseUint(numberText, 10, 64)
	if err1 != nil || err2 != nil {
		return
	}
	var a acknowledgement
	err := error(nil)
	switch {
	case m.Header.Get("Status") == "503":
		err = nats.ErrNoResponders
	default:
		if err = json.Unmarshal(m.Data, &a); err == nil && a.Error != nil {
			err = fmt.Errorf("JetStream refused a message: %s (%d)", a.Error.Description, a.Error.Code)
		}
	}
	p.finish(partition, number, int64(a.Sequence)-1, err)
}

func (p *producer) finish(partition int, number uint64, offset int64, err error) {
	p.mu.Lock()
	_, ok := p.pending[partition][number]
	delete(p.pending[partition], number)
	p.mu.Unlock()
	if !ok {
		return // given up before
	}
	p.ended(bench.Outcome{Partition: partition, First: number, Count: 1, Offset: offset, Err: err})
	<-p.window
}

// sweep gives up what has no acknowledgement for too long.
func (p *producer) sweep() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-tick.C:
			for partition, pending := range p.pending {
				var late []uint64
				p.mu.Lock()
				for number, sent := range pending {
					if now.Sub(sent) > ackTimeout {
						late = append(late, number)
					}
				}
				p.mu.Unlock()
				for _, number := range late {
					p.finish(partition, number, -1, fmt.Errorf("no acknowledgement within %v", ackTimeout))
				}
			}
		}
	}
}

// Flush implements bench.Producer.
func (p *producer) Flush(ctx context.Context) error {
	for taken := range cap(p.window) {
		select {
		case p.window <- struct{}{}:
		case <-ctx.Done():
			return fmt.Errorf("%d messages are in flight: %w", cap(p.window)-taken, ctx.Err())
		}
	}
	for range cap(p.window) {
		<-p.window
	}
	return nil
}

// Close implements bench.Producer.
func (p *producer) Close() error {
	close(p.stop)
	p.sweeping.Wait()
	var errs []error
	for _, s := range p.subs {
		errs = append(errs, s.Unsubscribe())
	}
	return errors.Join(errs...)
}

// consumer reads each stream with an ordered consumer.
type consumer struct {
	subs     []*nats.Subscription
	messages chan bench.Message
	closed   chan struct{}
	failed   chan error
}

// NewConsumer implements bench.System.
func (s *system) NewConsumer(_ context.Context, l bench.Layout) (bench.Consumer, error) {
	c := &consumer{messages: make(chan bench.Message, 4096), closed: make(chan struct{}), failed: make(chan error, 1)}
	for i := range l.Total() {
		_, subject := streamOf(l, i)
		js, err := s.leaders[i].JetStream(nats.MaxWait(startTimeout))
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		sub, err := js.Subscribe(subject, func(m *nats.Msg) { c.take(i, m) }, nats.OrderedConsumer(), nats.DeliverAll())
		if err != nil {
			return nil, errors.Join(err, c.Close())
		}
		c.subs = append(c.subs, sub)
	}
	return c, nil
}

func (c *consumer) take(partition int, m *nats.Msg) {
	about, err := m.Metadata()
	if err != nil {
		select {
		case c.failed <- err:
		default:
		}
		return
	}
	select {
	case c.messages <- bench.Message{Partition: partition, Offset: int64(about.Sequence.Stream) - 1, Value: m.Data}:
	case <-c.closed:
	}
}

// Poll implements bench.Consumer.
func (c *consumer) Poll(ctx context.Context, visit func(bench.Message)) error {
	select {
	case m := <-c.messages:
		visit(m)
	case err := <-c.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
	for range cap(c.messages) {
		select {
		case m := <-c.messages:
			visit(m)
		default:
			return nil
		}
	}
	return nil
}

// Close implements bench.Consumer.
func (c *consumer) Close() error {
	close(c.closed)
	var errs []error
	for _, s := range c.subs {
		errs = append(errs, s.Unsubscribe())
	}
	return errors.Join(errs...)
}
