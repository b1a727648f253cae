package limit

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lni/goutils/leaktest"

	"github.com/quorumlog/quorumlog/bench"
)

// start runs two followers and a leader in this process and returns the leader's address and directory.
func start(t *testing.T, layout Layout, partitions int) (address, dir string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	var followers []string
	for i := range 3 {
		dir = filepath.Join(t.TempDir(), fmt.Sprint(i))
		o := NodeOptions{Dir: dir, Layout: layout, Partitions: partitions}
		if i == 2 {
			o.Followers = followers
		}
		ready := make(chan string, 1)
		o.Ready = func(address string) { ready <- address }
		failed := make(chan error, 1)
		running.Go(func() {
			if err := RunNode(ctx, o); err != nil && ctx.Err() == nil {
				failed <- err
				t.Errorf("node %d: %v", i, err)
			}
		})
		select {
		case address = <-ready:
		case err := <-failed:
			t.Fatal(err)
		}
		followers = append(followers, address)
	}
	return address, dir
}

// TestRecordsComeBack sends records of all sizes, and reads them as they are committed and from the leader's files.
func TestRecordsComeBack(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the bounds are written for Linux")
	}
	defer leaktest.AfterTest(t)()
	for _, layout := range []Layout{Journal, Log} {
		t.Run(string(layout), func(t *testing.T) {
			const partitions, records = 3, 4000
			address, dir := start(t, layout, partitions)
			live, err := subscribe(address, partitions)
			if err != nil {
				t.Fatal(err)
			}
			defer live.Close()
			var acked [partitions]atomic.Int64
			w := bench.Workload{InFlight: 1 << 20, Linger: time.Millisecond}
			p, err := newProducer(address, w, layout, partitions, func(o bench.Outcome) {
				if o.Err != nil || o.Offset != int64(o.First) {
					t.Errorf("%+v", o)
				}
				acked[o.Partition].Add(int64(o.Count))
			})
			if err != nil {
				t.Fatal(err)
			}
			for i := range records {
				value := make([]byte, 8+i*7%5000)
				binary.BigEndian.PutUint64(value, uint64(i))
				if err := p.Send(t.Context(), i%partitions, []byte("key"), value); err != nil {
					t.Fatal(err)
				}
			}
			if err := p.Flush(t.Context()); err != nil {
				t.Fatal(err)
			}
			for i := range acked {
				if n := acked[i].Load(); n < records/partitions {
					t.Errorf("partition %d: %d records were acknowledged", i, n)
				}
			}
			read := func(c bench.Consumer) {
				seen := make([]int64, partitions)
				for total := 0; total < records; {
					if err := c.Poll(t.Context(), func(m bench.Message) {
						number := int(binary.BigEndian.Uint64(m.Value))
						if m.Offset != seen[m.Partition] || number != int(m.Offset)*partitions+m.Partition || len(m.Value) != 8+number*7%5000 || string(m.Key) != "key" {
							t.Fatalf("partition %d, offset %d: record %d of %d bytes", m.Partition, m.Offset, number, len(m.Value))
						}
						seen[m.Partition]++
						total++
					}); err != nil {
						t.Fatal(err)
					}
				}
			}
			read(live)
			files := &fileConsumer{layout: layout, dir: dir, files: layout.filesOf(partitions), offsets: make([]int64, partitions), frame: make([]byte, frameBytes)}
			read(files)
			for err = nil; err == nil; {
				err = files.Poll(t.Context(), func(m bench.Message) { t.Fatalf("one more record: %+v", m) })
			}
			if !errors.Is(err, io.EOF) {
				t.Errorf("the end of the files is %v", err)
			}
			if err := p.Close(); err != nil {
				t.Error(err)
			}
			if err := p.Send(t.Context(), 0, nil, []byte("late")); err == nil {
				t.Error("a closed producer takes a record")
			}
		})
	}
}

func TestRefusesWhatABoundCannotDo(t *testing.T) {
	t.Parallel()
	named := func(name string) bench.Workload {
		w, err := bench.WorkloadNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	two := named("max-12-partitions-1kb")
	two.Producers = 2
	for _, setup := range []bench.Setup{
		{Workload: named("max-12-partitions-1kb"), Servers: []string{"x:1"}},
		{Workload: named("catchup-12-partitions-1kb")},
		{Workload: named("leader-kill-12-partitions-1kb")},
		{Workload: two},
	} {
		if err := (Target{Layout: Log}).Check(setup); err == nil {
			t.Errorf("%+v is accepted", setup)
		}
	}
}
