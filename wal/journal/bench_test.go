package journal

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
)

// committer writes and syncs the payloads of one round.
type committer interface {
	commit(payloads [][]byte) error
}

// bareCommitter is the bound: the payloads go from where they are into a file that is overwritten again and again. No
// copies, no checksums, no way to read it back.
type bareCommitter struct {
	file disk.File
	size int64
	at   int64
}

func (c *bareCommitter) commit(payloads [][]byte) error {
	n := int64(0)
	for _, p := range payloads {
		n += disk.RoundUp(int64(len(p)))
	}
	if c.at+n > c.size {
		c.at = 0
	}
	if err := c.file.WritevAt(payloads, c.at); err != nil {
		return err
	}
	c.at += n
	return c.file.Sync()
}

// journalCommitter retires what was written whenever four files are full.
type journalCommitter struct {
	o     *owner
	frame Frame
	prev  Seq
	file  uint64
}

func (c *journalCommitter) commit(payloads [][]byte) error {
	c.frame.Reset()
	for i, p := range payloads {
		head := c.frame.Scratch(40)
		clear(head)
		c.frame.Add(KindEntry, id.Group(i), 1, head, p)
	}
	w, err := c.o.j.Write(&c.frame, c.prev)
	if err == nil {
		err = c.o.j.Sync()
	}
	c.prev = w.Seq
	if w.File >= c.file+4 {
		c.file = w.File
		c.o.retire(w.Seq)
	}
	return err
}

// writers has each of n goroutines commit payloads of size bytes one after the other, rounds being whatever has come
// together in the meantime, until total bytes are written.
func writers(b *testing.B, c committer, n, size int, total int64) {
	type request struct {
		payload []byte
		done    chan struct{}
	}
	queue := make(chan request, n)
	var wg sync.WaitGroup
	each := int(total) / size / n
	for range n {
		wg.Go(func() {
			r := request{payload: disk.AlignedBytes(size), done: make(chan struct{}, 1)}
			for i := range each {
				r.payload[0] = byte(i)
				queue <- r
				<-r.done
			}
		})
	}
	go func() {
		wg.Wait()
		close(queue)
	}()
	var round []request
	var payloads [][]byte
	for r := range queue {
		round, payloads = append(round[:0], r), append(payloads[:0], r.payload)
		for len(queue) > 0 {
			r := <-queue
			round, payloads = append(round, r), append(payloads, r.payload)
		}
		if err := c.commit(payloads); err != nil {
			b.Fatal(err)
		}
		for _, r := range round {
			r.done <- struct{}{}
		}
	}
}

func cpu() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkGroupCommit measures the journal against the bare committer, taking turns, so that both see the same disk. ratio
// is the median of the ratios of neighbouring turns. Run it with -benchtime 10x.
func BenchmarkGroupCommit(b *testing.B) {
	for _, fs := range []struct {
		name string
		fs   disk.FS
	}{{"buffered", disk.NewBuffered()}, {"direct", disk.NewDirect()}} {
		for _, c := range []struct{ writers, size int }{{64, 64 << 10}, {64, 4 << 10}, {1, 64 << 10}} {
			b.Run(fmt.Sprintf("%s/%dx%dKiB", fs.name, c.writers, c.size>>10), func(b *testing.B) {
				total := int64(256 << 20)
				if c.writers*c.size < 1<<20 {
					total = 32 << 20
				}
				groupCommit(b, fs.fs, c.writers, c.size, total)
			})
		}
	}
}

func groupCommit(b *testing.B, fs disk.FS, n, size int, total int64) {
	dir := b.TempDir()
	b.Chdir(dir)
	bare := &bareCommitter{size: 256 << 20}
	d := directory{fs: fs, name: dir, fileBytes: bare.size}
	f, err := d.create(bare.size, nil)
	if err != nil {
		b.Skip(err)
	}
	defer f.Close()
	bare.file = f

	o := newOwner(b, fs)
	o.opts.FileBytes = 0
	o.mustOpen()
	defer o.close()
	o.awaitSpare()
	jc := &journalCommitter{o: o}
	writers(b, jc, n, size, 384<<20/int64(64<<10/size)) // fills the pool: the steady state is recycling
	o.awaitSpare()

	var ratios []float64
	var took, used [2]time.Duration
	b.ResetTimer()
	for range b.N {
		var turn [2]time.Duration
		for i, c := range []committer{bare, jc} {
			start, before := time.Now(), cpu()
			writers(b, c, n, size, total)
			turn[i] = time.Since(start)
			took[i] += turn[i]
			used[i] += cpu() - before
		}
		ratios = append(ratios, turn[0].Seconds()/turn[1].Seconds())
	}
	b.StopTimer()
	slices.Sort(ratios)
	mb := float64(total) * float64(b.N) / 1e6
	b.ReportMetric(mb/took[0].Seconds(), "bare-MB/s")
	b.ReportMetric(mb/took[1].Seconds(), "journal-MB/s")
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
	b.ReportMetric(used[0].Seconds()*1e3/mb, "bare-CPUms/MB")
	b.ReportMetric(used[1].Seconds()*1e3/mb, "journal-CPUms/MB")
	b.ReportMetric(0, "ns/op")
	names, _ := filepath.Glob("journal/*")
	b.Logf("%d files, GOMAXPROCS %d", len(names), runtime.GOMAXPROCS(0))
}

// BenchmarkBuild is what the journal adds to a round before it can be written: one copy and the checksums.
func BenchmarkBuild(b *testing.B) {
	for _, size := range []int{100, 4 << 10, 64 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var payloads [64][]byte
			for i := range payloads {
				payloads[i] = disk.AlignedBytes(size)
			}
			var f Frame
			b.SetBytes(int64(len(payloads) * size))
			for b.Loop() {
				f.Reset()
				for i, p := range payloads {
					f.Add(KindEntry, id.Group(i), 1, f.Scratch(40), p)
				}
				if err := f.Build(); err != nil {
					b.Fatal(err)
				}
				f.finish(1, 2, 1)
			}
		})
	}
}
