package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

const (
	demoTopic      = "demo"
	demoPartitions = 6
	// demoBuffer bounds what waits in the producer, so that the ack latency is the cluster's and not that of a long queue.
	demoBuffer = 4 << 20
)

// demo is one run. The producer's callbacks run on the client's goroutines; everything else on run's.
type demo struct {
	cluster  *bench.Cluster
	client   *client.Client
	lines    [][]byte
	records  int
	progress *progress
	ledger   *bench.Ledger

	mu        sync.Mutex
	latency   *hdrhistogram.Histogram // µs
	failed    error                   // the first record that was not acknowledged
	bytes     int64
	killed    time.Time
	recovered chan time.Time // the first ack of a record of partition 0 that was sent after the kill
	resumed   atomic.Bool
}

// demoResult is what --json writes.
type demoResult struct {
	bench.Report
	RecordsPerSecond float64        `json:"records_per_second"`
	MBPerSecond      float64        `json:"mb_per_second"`
	AckMS            latencySummary `json:"ack_ms"`
	UnavailableMS    float64        `json:"unavailable_ms"`
	Seconds          float64        `json:"seconds"`
	Killed           id.Node        `json:"killed_node"`
}

type latencySummary struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (r demoResult) ok() bool { return r.OK() }

func (d *demo) run(ctx context.Context) (demoResult, error) {
	begin := time.Now()
	c, err := client.New(client.Options{Servers: d.cluster.Servers(), ClientID: "demo"})
	if err != nil {
		return demoResult{}, err
	}
	defer c.Close()
	d.client = c
	d.latency = hdrhistogram.New(1, 120_000_000, 3)
	d.recovered = make(chan time.Time, 1)
	if err := d.createTopic(ctx); err != nil {
		return demoResult{}, err
	}
	produced := time.Now()
	outage, err := d.produce(ctx)
	if err != nil {
		return demoResult{}, err
	}
	seconds := time.Since(produced).Seconds()
	if err := d.consume(ctx); err != nil {
		return demoResult{}, err
	}
	result := demoResult{
		Report: d.ledger.Report(), Seconds: time.Since(begin).Seconds(), UnavailableMS: milliseconds(outage.duration), Killed: outage.node,
		AckMS: latencySummary{P50: d.quantile(50), P99: d.quantile(99), Max: float64(d.latency.Max()) / 1000},
	}
	result.RecordsPerSecond = float64(result.Acked) / seconds
	result.MBPerSecond = float64(d.bytes) / 1e6 / seconds
	return result, nil
}

func (d *demo) quantile(q float64) float64 { return float64(d.latency.ValueAtQuantile(q)) / 1000 }

func milliseconds(t time.Duration) float64 { return float64(t.Microseconds()) / 1000 }

// createTopic waits for three nodes to be usable first: a cluster that has just been started is still growing.
func (d *demo) createTopic(ctx context.Context) error {
	for {
		err := d.client.Admin().CreateTopic(ctx, client.TopicSpec{
			Name: demoTopic, Partitions: demoPartitions, ReplicationFactor: 3, Configs: map[string]string{"min.insync.replicas": "2"},
		})
		if err == nil {
			d.progress.say("topic %q has %d partitions, 3 replicas each, min.insync.replicas=2", demoTopic, demoPartitions)
			return nil
		}
		if !notEnoughBrokers(err) || ctx.Err() != nil {
			return fmt.Errorf("cannot create the topic: %w", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// outage is how long partition 0 took no records, and whose death caused it.
type outage struct {
	node     id.Node
	duration time.Duration
}

// produce sends all records, and kills and restarts a node meanwhile.
func (d *demo) produce(ctx context.Context) (outage, error) {
	producer, err := d.client.NewProducer(client.ProducerOptions{Linger: 5 * time.Millisecond, BufferBytes: demoBuffer})
	if err != nil {
		return outage{}, err
	}
	bar := d.progress.bar("produce", int64(d.records))
	var out outage
	killing := make(chan error, 1)
	for n := range d.records {
		if n == d.records/2 {
			victim, err := d.killLeader(ctx)
			if err != nil {
				return outage{}, err
			}
			out.node = victim.ID
			go func() { killing <- d.revive(ctx, victim, &out) }()
		}
		if err := d.send(ctx, producer, n, bar); err != nil {
			return outage{}, err
		}
	}
	if err := producer.Flush(ctx); err != nil {
		return outage{}, fmt.Errorf("not everything was acknowledged: %w", err)
	}
	if err := d.awaitRecovery(ctx, producer); err != nil {
		return outage{}, err
	}
	if err := <-killing; err != nil {
		return outage{}, err
	}
	bar.done()
	d.mu.Lock()
	defer d.mu.Unlock()
	return out, d.failed
}

func (d *demo) send(ctx context.Context, producer *client.Producer, n int, bar *bar) error {
	key := strconv.AppendInt(nil, int64(n), 10)
	value := d.lines[n%len(d.lines)]
	d.ledger.Sent(int64(n), bench.Sum(key, value))
	sent := time.Now()
	size := int64(len(key) + len(value))
	err := producer.Produce(ctx, client.Record{Topic: demoTopic, Key: key, Value: value}, func(a client.Ack) {
		d.acked(n, size, sent, a)
		bar.add(1)
	})
	if err != nil {
		return fmt.Errorf("cannot produce record %d: %w", n, err)
	}
	return nil
}

// acked takes the outcome of a record.
func (d *demo) acked(n int, size int64, sent time.Time, a client.Ack) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if a.Err != nil {
		if d.failed == nil {
			d.failed = fmt.Errorf("record %d was not acknowledged: %w", n, a.Err)
		}
		return
	}
	d.ledger.Acked(int64(n), a.Partition, a.Offset)
	d.bytes += size
	_ = d.latency.RecordValue(max(1, now.Sub(sent).Microseconds()))
	if a.Partition == 0 && !d.killed.IsZero() && sent.After(d.killed) && d.resumed.CompareAndSwap(false, true) {
		d.recovered <- now
	}
}

// killLeader kills the node that leads partition 0.
func (d *demo) killLeader(ctx context.Context) (*bench.Process, error) {
	topics, err := d.client.Admin().DescribeTopics(ctx, demoTopic)
	if err != nil {
		return nil, fmt.Errorf("cannot find the leader of partition 0: %w", err)
	}
	victim := d.cluster.Node(topics[0].Partitions[0].Leader)
	if victim == nil {
		return nil, fmt.Errorf("partition 0 is led by node %d, which is none of the demo's", topics[0].Partitions[0].Leader)
	}
	d.mu.Lock()
	d.killed = time.Now()
	d.mu.Unlock()
	if err := victim.Kill(); err != nil {
		return nil, err
	}
	d.progress.say("node %d, the leader of partition 0, was killed", victim.ID)
	return victim, nil
}

// revive restarts the node once partition 0 takes records again.
func (d *demo) revive(ctx context.Context, victim *bench.Process, out *outage) error {
	select {
	case <-ctx.Done():
		return fmt.Errorf("partition 0 took no records after its leader was killed: %w", ctx.Err())
	case at := <-d.recovered:
		out.duration = at.Sub(d.killed)
	}
	d.progress.say("partition 0 took records again after %v; node %d is restarted", out.duration.Round(time.Millisecond), victim.ID)
	return victim.Start(ctx)
}

// awaitRecovery sees to it that some record of partition 0 is sent after the kill: with few records all of them may have gone
// elsewhere.
func (d *demo) awaitRecovery(ctx context.Context, producer *client.Producer) error {
	if d.resumed.Load() {
		return nil
	}
	sent := time.Now()
	done := make(chan error, 1)
	err := producer.Produce(ctx, client.Record{Topic: demoTopic, Partition: client.At(0), Key: []byte("probe")}, func(a client.Ack) {
		if a.Err == nil && d.resumed.CompareAndSwap(false, true) {
			d.recovered <- time.Now()
		}
		done <- a.Err
	})
	if err != nil {
		return err
	}
	if err := producer.Flush(ctx); err != nil {
		return err
	}
	if err := <-done; err != nil {
		return fmt.Errorf("partition 0 took no record %v after its leader was killed: %w", time.Since(sent), err)
	}
	return producer.Close(ctx)
}

// consume reads every partition to the end and compares.
func (d *demo) consume(ctx context.Context) error {
	ends, err := d.client.Admin().Offsets(ctx, demoTopic)
	if err != nil {
		return fmt.Errorf("cannot find the end of the topic: %w", err)
	}
	consumer, err := d.client.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		return err
	}
	defer consumer.Close()
	var total int64
	open := make(map[id.TopicPartition]id.Offset)
	for _, r := range ends {
		if r.End > r.Start {
			open[r.TopicPartition] = r.End
			total += int64(r.End - r.Start)
			if err := consumer.Assign(r.TopicPartition, client.Beginning); err != nil {
				return err
			}
		}
	}
	bar := d.progress.bar("consume", total)
	for len(open) > 0 {
		fetch, err := consumer.Poll(ctx)
		if err != nil {
			return fmt.Errorf("cannot read the topic back: %w", err)
		}
		for m, err := range fetch.Records() {
			if err != nil {
				return fmt.Errorf("cannot read the topic back: %w", err)
			}
			bar.add(1)
			if m.Offset+1 >= open[m.TopicPartition] {
				delete(open, m.TopicPartition)
			}
			if string(m.Key) == "probe" {
				continue
			}
			number, err := strconv.ParseInt(string(m.Key), 10, 64)
			if err != nil {
				number = -1
			}
			d.ledger.Saw(m.TopicPartition, m.Offset, number, bench.Sum(m.Key, m.Value))
		}
	}
	bar.done()
	return nil
}

func (r demoResult) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 8, 2, ' ', tabwriter.AlignRight)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\t\n", name, fmt.Sprintf(format, args...))
	}
	row("records acknowledged", "%d", r.Acked)
	row("records read", "%d", r.Read)
	row("throughput", "%.0f records/s, %.1f MB/s", r.RecordsPerSecond, r.MBPerSecond)
	row("ack latency p50 / p99 / max", "%.1f / %.1f / %.1f ms", r.AckMS.P50, r.AckMS.P99, r.AckMS.Max)
	row(fmt.Sprintf("partition 0 took no acks (node %d killed)", r.Killed), "%.0f ms", r.UnavailableMS)
	row("lost / duplicated / reordered", "%d / %d / %d", r.Lost, r.Duplicated, r.Reordered)
	row("content checksum", "%s", map[bool]string{true: "equal", false: "DIFFERS"}[r.ChecksumOK])
	row("time", "%.1f s", r.Seconds)
	t.Flush()
}

// notEnoughBrokers tells whether a topic was refused because too few nodes are up.
func notEnoughBrokers(err error) bool { return errors.Is(err, client.ErrInvalidReplicationFactor) }
