package kafka

import (
	"context"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/quorumlog/quorumlog/bench"
)

// clients are franz-go's.
type clients struct {
	options  []kgo.Opt // how the brokers are reached
	workload bench.Workload
}

// producer is a franz-go client. Its promises are called one at a time, and for each partition in the order of its records.
type producer struct {
	client *kgo.Client
	layout bench.Layout
	ended  func(bench.Outcome)
	next   []uint64  // number of the first record without outcome, by partition; of the promises' goroutine
	free   sync.Pool // *kgo.Record with the memory of their values
}

// NewProducer implements bench.Clients.
func (c clients) NewProducer(_ context.Context, l bench.Layout, ended func(bench.Outcome)) (bench.Producer, error) {
	client, err := kgo.NewClient(append(c.options[:len(c.options):len(c.options)],
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(c.workload.Linger),
		kgo.ProducerBatchMaxBytes(int32(c.workload.Batch)),
		kgo.MaxBufferedBytes(int(c.workload.InFlight)),
		kgo.MaxBufferedRecords(1<<30), // the bytes are the bound
		kgo.ProducerBatchCompression(kgo.NoCompression()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)...)
	if err != nil {
		return nil, err
	}
	return &producer{
		client: client, layout: l, ended: ended, next: make([]uint64, l.Total()),
		free: sync.Pool{New: func() any { return new(kgo.Record) }},
	}, nil
}

// Send implements bench.Producer.
func (p *producer) Send(ctx context.Context, partition int, key, value []byte) error {
	r := p.free.Get().(*kgo.Record)
	k, v := r.Key[:0], r.Value[:0]
	*r = kgo.Record{Value: append(v, value...)}
	if key != nil {
		r.Key = append(k, key...)
	}
	r.Topic, r.Partition = p.layout.At(partition)
	p.client.Produce(ctx, r, p.done)
	return ctx.Err()
}

func (p *producer) done(r *kgo.Record, err error) {
	partition := p.layout.Index(r.Topic, r.Partition)
	first := p.next[partition]
	p.next[partition]++
	p.ended(bench.Outcome{Partition: partition, First: first, Count: 1, Offset: r.Offset, Err: err})
	p.free.Put(r)
}

// Flush implements bench.Producer.
func (p *producer) Flush(ctx context.Context) error { return p.client.Flush(ctx) }

// Close implements bench.Producer.
func (p *producer) Close() error {
	p.client.Close()
	return nil
}

type consumer struct {
	client *kgo.Client
	layout bench.Layout
}

// NewConsumer implements bench.Clients.
func (c clients) NewConsumer(_ context.Context, l bench.Layout) (bench.Consumer, error) {
	from := make(map[string]map[int32]kgo.Offset)
	for _, topic := range l.Topics {
		from[topic] = make(map[int32]kgo.Offset)
		for i := range l.Partitions {
			from[topic][int32(i)] = kgo.NewOffset().AtStart()
		}
	}
	client, err := kgo.NewClient(append(c.options[:len(c.options):len(c.options)], kgo.ConsumePartitions(from), kgo.FetchMaxPartitionBytes(4<<20))...)
	if err != nil {
		return nil, err
	}
	return &consumer{client, l}, nil
}

// Poll implements bench.Consumer.
func (c *consumer) Poll(ctx context.Context, visit func(bench.Message)) error {
	fetches := c.client.PollFetches(ctx)
	if err := fetches.Err(); err != nil {
		return err
	}
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		index := c.layout.Index(p.Topic, p.Partition)
		p.EachRecord(func(r *kgo.Record) {
			visit(bench.Message{Partition: index, Offset: r.Offset, Key: r.Key, Value: r.Value})
		})
	})
	return nil
}

// Close implements bench.Consumer.
func (c *consumer) Close() error {
	c.client.Close()
	return nil
}
