package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

// chaosTime is how long nodes are killed: QUORUMLOG_CHAOS (a duration) or a few seconds.
func chaosTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("QUORUMLOG_CHAOS")
	if text == "" {
		return 8 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("QUORUMLOG_CHAOS: %v", err)
	}
	return d
}

// chaosSeed is QUORUMLOG_SEED or a new one, printed for the next run.
func chaosSeed(t *testing.T) uint64 {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("QUORUMLOG_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("QUORUMLOG_SEED: %v", err)
		}
	}
	t.Logf("QUORUMLOG_SEED=%d", seed)
	return seed
}

type chaosRun struct {
	t       *testing.T
	client  *client.Client
	cluster *bench.Cluster
	ledger  *bench.Ledger
	acked   atomic.Int64

	partitions int                    // 0: 4
	options    client.ProducerOptions // zero: a small buffer, and nobody waits longer than a minute
	pace       time.Duration          // 0: five records each millisecond; negative: as many as the cluster takes
	bulk       int64                  // every so manyth record is large; 0: 100
	heard      func(client.Ack)       // also told of each outcome, if set
	configs    map[string]string      // of the topic, besides the usual ones
}

const chaosTopic = "chaos"

func (d *chaosRun) createTopic(ctx context.Context) {
	d.t.Helper()
	configs := map[string]string{"min.insync.replicas": "2", "segment.bytes": "1048576"}
	maps.Copy(configs, d.configs)
	for {
		err := d.client.Admin().CreateTopic(ctx, client.TopicSpec{
			Name: chaosTopic, Partitions: cmp.Or(d.partitions, 4), ReplicationFactor: 3, Configs: configs,
		})
		if err == nil {
			return
		}
		if !notEnoughBrokers(err) {
			d.t.Fatal(err)
		}
		select {
		case <-ctx.Done():
			d.t.Fatal(err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// produce sends numbered records of mixed sizes until stop is closed, and waits for the outcome of all of them.
func (d *chaosRun) produce(ctx context.Context, stop <-chan struct{}) error {
	options := d.options
	options.BufferBytes = cmp.Or(options.BufferBytes, 2<<20)
	options.DeliveryTimeout = cmp.Or(options.DeliveryTimeout, time.Minute)
	producer, err := d.client.NewProducer(options)
	if err != nil {
		return err
	}
	value := make([]byte, 100_000)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(value)
	pace := time.NewTicker(cmp.Or(max(d.pace, 0), time.Millisecond))
	defer pace.Stop()
	due := pace.C
	if d.pace < 0 {
		always := make(chan time.Time)
		close(always)
		due = always
	}
	var failed atomic.Int64
	for n := int64(0); ; {
		select {
		case <-stop:
			if err := producer.Flush(ctx); err != nil {
				return err
			}
			if f := failed.Load(); f > 0 {
				return fmt.Errorf("%d records were not acknowledged", f)
			}
			return producer.Close(ctx)
		case <-due:
		}
		for range 5 {
			key := strconv.AppendInt(nil, n, 10)
			v := value[:100]
			if n%cmp.Or(d.bulk, 100) == 0 {
				v = value // large enough to be written straight into the segment
			}
			number := n
			d.ledger.Sent(number, bench.Sum(key, v))
			err := producer.Produce(ctx, client.Record{Topic: chaosTopic, Key: key, Value: v}, func(a client.Ack) {
				if d.heard != nil {
					d.heard(a)
				}
				if a.Err != nil {
					failed.Add(1)
					return
				}
				d.ledger.Acked(number, a.Partition, a.Offset)
				d.acked.Add(1)
			})
			if err != nil {
				return err
			}
			n++
		}
	}
}

// startProducing produces until end is called, which waits for the outcome of all records.
func (d *chaosRun) startProducing(ctx context.Context) (end func()) {
	stop, produced := make(chan struct{}), make(chan error, 1)
	go func() { produced <- d.produce(ctx, stop) }()
	return func() {
		close(stop)
		if err := <-produced; err != nil {
			d.t.Errorf("producing: %v", err)
		}
	}
}

// rounds has faults happen until the time is over, and one at least. Each waits for acknowledgements, so that it hits a cluster that works.
func (d *chaosRun) rounds(ctx context.Context, length time.Duration, acks int64, fault func(round int)) {
	deadline := time.Now().Add(length)
	n := 0
	for ; (n == 0 || time.Now().Before(deadline)) && ctx.Err() == nil; n++ {
		if !d.awaitAcks(ctx, acks) {
			d.t.Errorf("no acknowledgements after %d rounds of faults", n)
			return
		}
		fault(n)
	}
	d.t.Logf("%d rounds of faults, %d records acknowledged", n, d.acked.Load())
}

// awaitAcks waits for n more acknowledgements.
func (d *chaosRun) awaitAcks(ctx context.Context, n int64) bool {
	target := d.acked.Load() + n
	patience := time.NewTimer(40 * time.Second)
	defer patience.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for d.acked.Load() < target {
		select {
		case <-tick.C:
		case <-patience.C:
			return false
		case <-ctx.Done():
			return false
		}
	}
	return true
}

// verify reads everything back and compares it.
func (d *chaosRun) verify(ctx context.Context) {
	d.t.Helper()
	report, err := d.readBack(ctx)
	if err != nil {
		d.t.Fatal(err)
	}
	if !report.OK() || report.Acked == 0 {
		d.t.Errorf("%+v", report)
	} else {
		d.t.Logf("%+v", report)
	}
}

// readBack reads everything and returns what the comparison with the ledger says, also when it did not come to the end.
func (d *chaosRun) readBack(ctx context.Context) (bench.Report, error) {
	consumer, err := d.client.NewConsumer(client.ConsumerOptions{})
	if err != nil {
		return d.ledger.Report(), err
	}
	defer consumer.Close()
	ends, err := d.client.Admin().Offsets(ctx, chaosTopic)
	if err != nil {
		return d.ledger.Report(), err
	}
	open := make(map[id.TopicPartition]id.Offset)
	for _, r := range ends {
		if r.End > 0 {
			open[r.TopicPartition] = r.End
			if err := consumer.Assign(r.TopicPartition, client.Beginning); err != nil {
				return d.ledger.Report(), err
			}
		}
	}
	for len(open) > 0 {
		fetch, err := consumer.Poll(ctx)
		if err != nil {
			return d.ledger.Report(), fmt.Errorf("reading back, open %v: %w", open, err)
		}
		for m, err := range fetch.Records() {
			if err != nil {
				return d.ledger.Report(), err
			}
			number, err := strconv.ParseInt(string(m.Key), 10, 64)
			if err != nil {
				number = -1
			}
			d.ledger.Saw(m.TopicPartition, m.Offset, number, bench.Sum(m.Key, m.Value))
			if m.Offset+1 >= open[m.TopicPartition] {
				delete(open, m.TopicPartition)
			}
		}
	}
	return d.ledger.Report(), nil
}

// pause waits.
func (d *chaosRun) pause(ctx context.Context, length time.Duration) {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
