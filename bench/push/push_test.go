package push

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/bench"
)

// start runs servers in this process and returns their addresses.
func start(t *testing.T, n int) (addresses []string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	for range n {
		ready := make(chan string, 1)
		running.Go(func() {
			if err := RunServer(ctx, func(address string) { ready <- address }); err != nil {
				t.Error(err)
			}
		})
		addresses = append(addresses, <-ready)
	}
	return addresses
}

// value is what record number i of a test holds.
func value(i int) []byte {
	b := make([]byte, 8+i*7%5000)
	binary.BigEndian.PutUint64(b, uint64(i))
	return b
}

// fill sends records round the partitions and checks the outcomes.
func fill(t *testing.T, addresses []string, partitions, records int) {
	t.Helper()
	kept := make([]uint64, partitions)
	p, err := newProducer(t.Context(), addresses, bench.Workload{Batch: 1 << 20}, partitions, func(o bench.Outcome) {
		if o.Err != nil || o.First != kept[o.Partition] || o.Offset != int64(o.First) {
			t.Errorf("%+v after %d records", o, kept[o.Partition])
		}
		kept[o.Partition] += uint64(o.Count)
	})
	if err != nil {
		t.Fatal(err)
	}
	for i := range records {
		if err := p.Send(t.Context(), i%partitions, []byte("key"), value(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(p.Flush(t.Context()), p.Close()); err != nil {
		t.Fatal(err)
	}
	for partition, n := range kept {
		if n != uint64(records/partitions) {
			t.Errorf("partition %d: %d records have an outcome", partition, n)
		}
	}
}

// TestRecordsComeBack sends records of all sizes to as many servers as there are, and one more than has a partition, and reads
// them twice.
func TestRecordsComeBack(t *testing.T) {
	t.Cleanup(leaktest.AfterTest(t)) // after the servers
	for _, partitions := range []int{1, 12} {
		records := 3000 * partitions
		addresses := start(t, servers)
		fill(t, addresses, partitions, records)
		for range 2 {
			c, err := newConsumer(t.Context(), addresses, partitions)
			if err != nil {
				t.Fatal(err)
			}
			seen := make([]int64, partitions)
			for err == nil {
				err = c.Poll(t.Context(), func(m bench.Message) {
					number := int(m.Offset)*partitions + m.Partition
					if m.Offset != seen[m.Partition] || string(m.Value) != string(value(number)) || string(m.Key) != "key" {
						t.Fatalf("partition %d, offset %d: %d bytes", m.Partition, m.Offset, len(m.Value))
					}
					seen[m.Partition]++
				})
			}
			if !errors.Is(err, io.EOF) {
				t.Errorf("the end is %v", err)
			}
			for partition, n := range seen {
				if n != int64(records/partitions) {
					t.Errorf("partition %d: %d records came back", partition, n)
				}
			}
			if err := errors.Join(c.Close(), c.Close()); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestCloseBeforeTheEnd leaves while messages wait to be visited.
func TestCloseBeforeTheEnd(t *testing.T) {
	t.Cleanup(leaktest.AfterTest(t)) // after the servers
	addresses := start(t, servers)
	fill(t, addresses, 3, 3000)
	c, err := newConsumer(t.Context(), addresses, 3)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Poll(t.Context(), func(bench.Message) {}); err != nil {
		t.Fatal(err)
	}
	_ = c.Close() // the connections may say that they were cut
	if err := c.Poll(t.Context(), func(bench.Message) { t.Error("a closed consumer visits") }); err == nil {
		t.Error("a closed consumer reads")
	}
}

func TestRefusesWhatItIsNoBoundOf(t *testing.T) {
	t.Parallel()
	for name, problem := range map[string]string{
		"max-12-partitions-1kb":          "bound of reading",
		"latency-12-partitions-1kb":      "bound of reading",
		"catchup-cold-12-partitions-1kb": "limit-pread",
	} {
		w, err := bench.WorkloadNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := (Target{}).Check(bench.Setup{Workload: w}); err == nil || !strings.Contains(err.Error(), problem) {
			t.Errorf("%s: %v", name, err)
		}
	}
	w, err := bench.WorkloadNamed("catchup-12-partitions-1kb")
	if err != nil {
		t.Fatal(err)
	}
	if err := (Target{}).Check(bench.Setup{Workload: w, Servers: []string{"x:1"}}); err == nil {
		t.Error("servers elsewhere are accepted")
	}
}
