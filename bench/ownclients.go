package bench

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

// ownClients are those of package client.
type ownClients struct {
	client   *client.Client
	workload Workload
}

// ownProducer counts the records of each partition as their batches end: the client calls back in their order.
type ownProducer struct {
	layout   Layout
	producer *client.Producer
	ended    func(Outcome)

	mu   sync.Mutex
	next []uint64 // number of the first record without outcome, by partition
}

// NewProducer implements Clients.
func (c ownClients) NewProducer(_ context.Context, l Layout, ended func(Outcome)) (Producer, error) {
	p := &ownProducer{layout: l, ended: ended, next: make([]uint64, l.Total())}
	var err error
	p.producer, err = c.client.NewProducer(client.ProducerOptions{
		Linger: c.workload.Linger, BatchBytes: int(c.workload.Batch), BufferBytes: int64(c.workload.InFlight), OnBatch: p.batch,
	})
	return p, err
}

func (p *ownProducer) batch(b client.BatchAck) {
	index := p.layout.Index(b.Topic, int32(b.Partition))
	p.mu.Lock()
	first := p.next[index]
	p.next[index] += uint64(b.Count)
	p.mu.Unlock()
	p.ended(Outcome{Partition: index, First: first, Count: b.Count, Offset: int64(b.BaseOffset), Err: b.Err})
}

// Send implements Producer.
func (p *ownProducer) Send(ctx context.Context, partition int, key, value []byte) error {
	topic, n := p.layout.At(partition)
	return p.producer.Produce(ctx, client.Record{Topic: topic, Partition: client.At(id.Partition(n)), Key: key, Value: value}, nil)
}

// Flush implements Producer.
func (p *ownProducer) Flush(ctx context.Context) error { return p.producer.Flush(ctx) }

// Close implements Producer.
func (p *ownProducer) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	return p.producer.Close(ctx)
}

type ownConsumer struct {
	layout   Layout
	consumer *client.Consumer
}

// NewConsumer implements Clients.
func (o ownClients) NewConsumer(_ context.Context, l Layout) (Consumer, error) {
	c, err := o.client.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		return nil, err
	}
	for i := range l.Total() {
		topic, n := l.At(i)
		if err := c.Assign(id.TopicPartition{Topic: topic, Partition: id.Partition(n)}, client.Beginning); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return &ownConsumer{l, c}, nil
}

// Poll implements Consumer.
func (c *ownConsumer) Poll(ctx context.Context, visit func(Message)) error {
	fetch, err := c.consumer.Poll(ctx)
	if err != nil {
		return err
	}
	index := c.layout.Index(fetch.Topic, int32(fetch.Partition))
	for m, err := range fetch.Records() {
		if err != nil {
			return err
		}
		visit(Message{Partition: index, Offset: int64(m.Offset), Key: m.Key, Value: m.Value})
	}
	return nil
}

// Close implements Consumer.
func (c *ownConsumer) Close() error { return c.consumer.Close() }
