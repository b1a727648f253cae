package journal

import (
	"cmp"
	"fmt"
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

// bareCommitter is the bound: the payloads go into a file that is overwritten again and again, with no checksums and no way
// to read them back. A plain one gathers them in a buffer and writes that; a vectored one writes them from where they are,
// which only works for payloads that are aligned by chance.
type bareCommitter struct {
	file     disk.File
	size, at int64
	buf      []byte // nil: vectored
}

func (c *bareCommitter) commit(payloads [][]byte) error {
	n := int64(0)
	for _, p := range payloads {
		if c.buf != nil {
			copy(c.buf[n:], p)
		}
		n += int64(len(p))
	}
	if c.at+n > c.size {
		c.at = 0
	}
	at := c.at
	c.at += n
	if c.buf == nil {
		if err := c.file.WritevAt(payloads, at); err != nil {
			return err
		}
	} else if _, err := c.file.WriteAt(c.buf[:n], at); err != nil {
		return err
	}
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

// BenchmarkGroupCommit measures the journal against bare committers, taking turns, so that all see the same disk. The ratios
// are the medians of those of neighbouring turns. Run it with -benchtime 10x, and read the ratios only when the machine has
// nothing else to do.
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
	const bareBytes = 256 << 20
	d := directory{fs: fs, name: dir, fileBytes: bareBytes}
	f, err := d.create(bareBytes, nil)
	if err != nil {
		b.Skip(err)
	}
	defer f.Close()

	o := newOwner(b, fs)
	o.opts.FileBytes = 0
	o.mustOpen()
	defer o.close()
	o.awaitSpare()
	jc := &journalCommitter{o: o}
	writers(b, jc, n, size, 640<<20/int64(64<<10/size)) // fills the pool: the steady state is recycling
	o.awaitSpare()

	turns := []struct {
		name string
		c    committer
		took []time.Duration
		cpu  time.Duration
	}{
		{name: "journal", c: jc},
		{name: "bare", c: &bareCommitter{file: f, size: bareBytes, buf: disk.AlignedBytes(n * size)}},
		{name: "vectored", c: &bareCommitter{file: f, size: bareBytes}},
	}
	b.ResetTimer()
	for range b.N {
		for i := range turns {
			t := &turns[i]
			start, before := time.Now(), cpu()
			writers(b, t.c, n, size, total)
			t.took = append(t.took, time.Since(start))
			t.cpu += cpu() - before
		}
	}
	b.StopTimer()
	mb := float64(total) / 1e6
	for _, t := range turns {
		b.ReportMetric(mb/median(t.took).Seconds(), t.name+"-MB/s")
		b.ReportMetric(t.cpu.Seconds()*1e3/mb/float64(b.N), t.name+"-CPUms/MB")
		if t.c == jc {
			continue
		}
		ratios := make([]float64, b.N)
		for i := range ratios {
			ratios[i] = t.took[i].Seconds() / turns[0].took[i].Seconds()
		}
		b.ReportMetric(median(ratios), "of-"+t.name)
	}
	b.ReportMetric(0, "ns/op")
}

func median[T cmp.Ordered](v []T) T {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
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
