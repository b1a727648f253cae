package wal

import (
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// benchWriter keeps depth appends of one batch each in flight on one log.
type benchWriter struct {
	s     *Store
	l     *Log
	index id.Index
	next  id.Offset
	batch []byte
	free  chan *Append
}

func newBenchWriter(s *Store, l *Log, size, depth int) *benchWriter {
	w := &benchWriter{s: s, l: l, index: l.LastIndex(), next: l.NextOffset(), batch: testBatch(0, 1, 1, size, 1, 1), free: make(chan *Append, depth)}
	for range depth {
		a := &Append{Log: l, Entries: make([]Entry, 1)}
		a.Done = func(a *Append) { w.l.SetCommit(a.Entries[0].Index); w.free <- a }
		w.free <- a
	}
	return w
}

func (w *benchWriter) submit(scratch []*Append) {
	a := <-w.free
	w.index++
	for i := range 8 {
		w.batch[i] = byte(uint64(w.next) >> (56 - 8*i))
	}
	w.next++
	a.Entries[0] = Entry{Index: w.index, Term: 1, Kind: KindBatch, Data: w.batch}
	scratch[0] = a
	w.s.Submit(scratch)
}

func (w *benchWriter) drain() {
	for range cap(w.free) {
		<-w.free
	}
}

// BenchmarkAppend writes batches into a number of logs for the benchtime, one goroutine for each log.
func BenchmarkAppend(b *testing.B) {
	poisonFreed = false
	defer func() { poisonFreed = true }()
	for _, size := range []int{1 << 10, 64 << 10} {
		for _, logs := range []int{1, 12, 120} {
			b.Run(fmt.Sprintf("%dKiB/%d", size>>10, logs), func(b *testing.B) {
				s := mustOpen(b, Options{Dir: b.TempDir()})
				defer func() { _ = s.Close() }()
				depth := max(64/logs, 4)
				ws := make([]*benchWriter, logs)
				for i := range ws {
					ws[i] = newBenchWriter(s, mustCreate(b, s, i+1), size, depth)
				}
				b.SetBytes(int64(size))
				b.ReportAllocs()
				b.ResetTimer()
				var n atomic.Int64
				var wg sync.WaitGroup
				for _, w := range ws {
					wg.Go(func() {
						scratch := make([]*Append, 1)
						for n.Add(1) <= int64(b.N) {
							w.submit(scratch)
						}
						w.drain()
					})
				}
				wg.Wait()
				b.StopTimer()
				m := s.Metrics()
				b.ReportMetric(float64(m.JournalBytes+m.SegmentBytes+m.IndexBytes)/float64(m.AppendedBytes), "disk/byte")
				b.ReportMetric(float64(m.Appends)/float64(max(m.Rounds, 1)), "appends/round")
			})
		}
	}
}

// bareAppend is the bound: group commits of size bytes into preallocated O_DIRECT files, one writer for each file.
func bareAppend(b *testing.B, fs disk.FS, dir string, files, size int, total int64) time.Duration {
	perFile := total / int64(files)
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range files {
		wg.Go(func() {
			f, err := fs.Create(filepath.Join(dir, fmt.Sprint("bare", i)))
			if err != nil {
				b.Error(err)
				return
			}
			defer func() { _ = f.Close() }()
			group := max(64/files, 4) * size
			buf := disk.AlignedBytes(group)
			for at := 0; at < group; at += size { // zeros may be cheaper to the disk
				copy(buf[at:], testBatch(0, 1, 1, size, 1, byte(at/size)))
			}
			for at := int64(0); at < perFile; at += int64(group) {
				if at%(64<<20) == 0 {
					if err := f.Preallocate(at + 64<<20); err != nil {
						b.Error(err)
						return
					}
				}
				if _, err := f.WriteAt(buf, at); err != nil {
					b.Error(err)
				}
				if err := f.Sync(); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(begin)
}

// BenchmarkAgainstBare writes 64 KiB batches and then as many bytes with bare O_DIRECT writers, and reports the ratio.
func BenchmarkAgainstBare(b *testing.B) {
	const size, total = 64 << 10, 1 << 30
	poisonFreed = false
	defer func() { poisonFreed = true }()
	for _, logs := range []int{1, 12, 120} {
		b.Run(fmt.Sprint(logs), func(b *testing.B) {
			for range b.N {
				dir := b.TempDir()
				bare := bareAppend(b, disk.NewDirect(), dir, logs, size, total)
				s := mustOpen(b, Options{Dir: filepath.Join(dir, "wal")})
				begin := time.Now()
				var wg sync.WaitGroup
				for i := range logs {
					w := newBenchWriter(s, mustCreate(b, s, i+1), size, max(64/logs, 4))
					wg.Go(func() {
						scratch := make([]*Append, 1)
						for range total / size / logs {
							w.submit(scratch)
						}
						w.drain()
					})
				}
				wg.Wait()
				took := time.Since(begin)
				m := s.Metrics()
				b.ReportMetric(float64(total)/took.Seconds()/1e6, "MB/s")
				b.ReportMetric(float64(total)/bare.Seconds()/1e6, "bare-MB/s")
				b.ReportMetric(bare.Seconds()/took.Seconds(), "ratio")
				b.ReportMetric(float64(m.JournalBytes+m.SegmentBytes+m.IndexBytes)/float64(m.AppendedBytes), "disk/byte")
				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkOpen10k opens a store with 10,000 logs that each have a little in the journal, as after a kill: logs from their beginning on, and
// logs whose start has moved over a segment.
func BenchmarkOpen10k(b *testing.B) {
	b.Run("whole", func(b *testing.B) {
		benchmarkOpen10k(b, func(d *driver) {
			d.submit(d.batchEntry(500))
			d.wait(1)
		})
	})
	b.Run("trimmed", func(b *testing.B) {
		benchmarkOpen10k(b, func(d *driver) {
			for n := range 3 {
				if n > 0 {
					d.l.Roll()
				}
				d.submit(d.batchEntry(500))
				d.wait(1)
				d.commitAll()
			}
			d.l.TakeCut(State{Applied: d.last()})
			d.l.Trim(d.next - 1)
			d.cut()
			d.l.Trim(0) // the owner's turn
			if d.l.StartOffset() == 0 {
				d.t.Error("the start has not moved")
			}
			d.submit(d.batchEntry(500))
			d.wait(1)
		})
	})
}

func benchmarkOpen10k(b *testing.B, fill func(*driver)) {
	poisonFreed = false
	defer func() { poisonFreed = true }()
	const logs = 10000
	sim := disksim.New(disksim.Options{Seed: 1})
	o := Options{Dir: "/data", FS: sim, PebbleFS: sim.Pebble(), CheckpointInterval: time.Hour, trimInterval: time.Hour} // by hand
	s := mustOpen(b, o)
	for i := range logs {
		fill(newDriver(b, s, mustCreate(b, s, i+1)))
	}
	sim.Halt()
	_ = s.Close()
	var mem runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&mem)
	before := mem.HeapAlloc
	b.ResetTimer()
	for range b.N {
		sim = sim.Crash(disksim.Kill)
		o.FS, o.PebbleFS = sim, sim.Pebble()
		s = mustOpen(b, o)
		if len(s.Logs()) != logs {
			b.Fatalf("%d logs", len(s.Logs()))
		}
		b.StopTimer()
		runtime.GC()
		runtime.ReadMemStats(&mem)
		b.ReportMetric((float64(mem.HeapAlloc)-float64(before)+float64(s.memory.used.Load()))/logs, "bytes/log")
		sim.Halt()
		_ = s.Close()
		b.StartTimer()
	}
}
