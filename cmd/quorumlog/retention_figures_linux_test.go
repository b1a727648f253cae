package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/bench"
	"github.com/quorumlog/quorumlog/client"
	"github.com/quorumlog/quorumlog/wal/id"
)

// TestLatencyWhileSegmentsGo measures what producers notice of retention: windows in which segments go all the time and windows in which
// nothing does take turns, on the same cluster and at the same rate. It prints figures, and is run by hand, with QUORUMLOG_FIGURES set to the
// length of a window.
func TestLatencyWhileSegmentsGo(t *testing.T) {
	window, err := time.ParseDuration(os.Getenv("QUORUMLOG_FIGURES"))
	if err != nil {
		t.Skip("measures: set QUORUMLOG_FIGURES=20s")
	}
	const (
		rounds, settle = 4, 5 * time.Second
		segment        = 4 << 20
		perTick        = 40 // records of 1 KiB every 2 ms: 20 MiB/s
	)
	ctx, cancel := context.WithTimeout(context.Background(), 2*rounds*(window+settle)+2*time.Minute)
	defer cancel()
	cluster, err := bench.StartCluster(ctx, bench.ClusterOptions{Binary: binaryUnderTest(t), Dir: t.TempDir(), Nodes: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	c := newClient(t, cluster.Servers()...)
	d := &chaosRun{t: t, client: c, configs: map[string]string{"segment.bytes": strconv.Itoa(segment), "retention.bytes": "-1"}}
	d.createTopic(ctx)
	producer, err := c.NewProducer(client.ProducerOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var latency atomic.Pointer[bench.Latency]
	latency.Store(bench.NewLatency())
	producing, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		value := make([]byte, 1<<10)
		for n := 0; ; {
			select {
			case <-producing.Done():
				ended <- producer.Close(ctx)
				return
			case due := <-tick.C:
				for range perTick {
					n++
					r := client.Record{Topic: chaosTopic, Key: strconv.AppendInt(nil, int64(n), 10), Value: value}
					if err := producer.Produce(ctx, r, func(a client.Ack) {
						if a.Err != nil {
							t.Error(a.Err)
						}
						latency.Load().Record(time.Since(due), 1)
					}); err != nil {
						ended <- err
						return
					}
				}
			}
		}
	}()
	measure := func(keep int) (*bench.Percentiles, []client.OffsetRange) {
		if _, err := c.Admin().AlterConfig(ctx, chaosTopic, map[string]string{"retention.bytes": strconv.Itoa(keep)}, nil); err != nil {
			t.Fatal(err)
		}
		d.pause(ctx, settle)
		l := bench.NewLatency()
		latency.Store(l)
		d.pause(ctx, window)
		latency.Store(bench.NewLatency())
		ranges, err := c.Admin().Offsets(ctx, chaosTopic)
		if err != nil {
			t.Fatal(err)
		}
		return l.Percentiles(), ranges
	}
	var p99 [2]float64
	for round := range rounds {
		for i, keep := range []int{-1, 2 * segment} {
			p, ranges := measure(keep)
			p99[i] += p.P99 / rounds
			t.Logf("round %d, retention.bytes=%d: %s; partition 0 begins at %d", round, keep, percentiles(p), ranges[0].Start)
		}
	}
	t.Logf("p99, mean of the windows: %.1f ms while nothing goes, %.1f ms while segments go: %.2f times as much", p99[0], p99[1], p99[1]/p99[0])
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func percentiles(p *bench.Percentiles) string {
	return fmt.Sprintf("%d records, p50 %.1f ms, p99 %.1f ms, p99.9 %.1f ms, at most %.1f ms", p.N, p.P50, p.P99, p.P999, p.Max)
}

// TestRefillFollower measures how long a replica takes that was away until the log began behind what it has: to give that up, and to have all
// of what the others keep. QUORUMLOG_REFILL says how much they keep, in bytes; the disk needs four times as much.
func TestRefillFollower(t *testing.T) {
	keep, err := strconv.ParseInt(os.Getenv("QUORUMLOG_REFILL"), 10, 64)
	if err != nil {
		t.Skip("measures: set QUORUMLOG_REFILL=1000000000")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	dir := t.TempDir()
	cluster, err := bench.StartCluster(ctx, bench.ClusterOptions{Binary: binaryUnderTest(t), Dir: dir, Nodes: 3})
	if err != nil {
		t.Fatal(err)
	}
	defer cluster.Close()
	c := newClient(t, cluster.Servers()...)
	d := &chaosRun{t: t, client: c, configs: map[string]string{"retention.bytes": strconv.FormatInt(keep/4, 10), "segment.bytes": strconv.Itoa(256 << 20)}}
	d.createTopic(ctx)
	producer, err := c.NewProducer(client.ProducerOptions{BufferBytes: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer producer.Close(ctx)
	value := make([]byte, 10<<10)
	random := rand.NewChaCha8([32]byte{1})
	write := func(bytes int64) {
		for n := int64(0); n < bytes; n += int64(len(value)) {
			_, _ = random.Read(value[:100])
			r := client.Record{Topic: chaosTopic, Partition: client.At(id.Partition(n / int64(len(value)) % 4)), Value: value}
			if err := producer.Produce(ctx, r, func(a client.Ack) {
				if a.Err != nil {
					t.Error(a.Err)
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := producer.Flush(ctx); err != nil {
			t.Fatal(err)
		}
	}
	write(1 << 20)
	victim := cluster.Nodes()[2]
	if err := victim.Kill(); err != nil {
		t.Fatal(err)
	}
	write(keep + keep/5 + 4*256<<20)
	eventually(t, "the log to begin later", func() bool {
		ranges, err := c.Admin().Offsets(ctx, chaosTopic)
		return err == nil && !slices.ContainsFunc(ranges, func(r client.OffsetRange) bool { return r.Start == 0 })
	})
	begin := time.Now()
	if err := victim.Start(ctx); err != nil {
		t.Fatal(err)
	}
	serving := time.Since(begin)
	for done := false; !done; {
		d.pause(ctx, 50*time.Millisecond)
		if ctx.Err() != nil {
			t.Fatal("it does not get in sync")
		}
		topics, err := c.Admin().DescribeTopics(ctx, chaosTopic)
		done = err == nil && !slices.ContainsFunc(topics[0].Partitions, func(p client.Partition) bool { return len(p.ISR) < 3 })
	}
	took := time.Since(begin)
	var bytes int64
	for _, f := range logFiles(victim) {
		if st, err := os.Stat(f); err == nil {
			bytes += st.Size()
		}
	}
	t.Logf("started in %.1f s; in sync after %.1f s, with %.2f GB: %.0f MB/s; %d logs began anew", serving.Seconds(), took.Seconds(), float64(bytes)/1e9,
		float64(bytes)/1e6/took.Seconds(), strings.Count(logsOf(t, cluster), beginsAnew))
}
