package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"
)

// progress shows how long work goes on: bars on a terminal, a plain line now and then elsewhere.
type progress struct {
	out  io.Writer
	bars *mpb.Progress // nil when out is no terminal

	mu    sync.Mutex
	begin time.Time
}

func newProgress(out *os.File) *progress {
	p := &progress{out: out, begin: time.Now()}
	if term.IsTerminal(int(out.Fd())) {
		p.bars = mpb.New(mpb.WithOutput(out), mpb.WithWidth(48))
	}
	return p
}

// say prints a line, above the bars if there are any.
func (p *progress) say(format string, args ...any) {
	line := fmt.Sprintf("%6.1fs  %s\n", time.Since(p.begin).Seconds(), fmt.Sprintf(format, args...))
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bars != nil {
		fmt.Fprint(p.bars, line)
		return
	}
	fmt.Fprint(p.out, line)
}

// close ends all bars.
func (p *progress) close() {
	if p.bars != nil {
		p.bars.Shutdown()
	}
}

// bar is the progress of one piece of work.
type bar struct {
	progress *progress
	name     string
	total    int64
	count    atomic.Int64
	printed  atomic.Int64 // tenths
	bar      *mpb.Bar
}

func (p *progress) bar(name string, total int64) *bar {
	b := &bar{progress: p, name: name, total: total}
	if p.bars != nil {
		b.bar = p.bars.AddBar(total, mpb.PrependDecorators(decor.Name(name, decor.WCSyncSpaceR), decor.CountersNoUnit("%d / %d")),
			mpb.AppendDecorators(decor.Percentage(decor.WCSyncSpace), decor.Elapsed(decor.ET_STYLE_GO, decor.WCSyncSpace)))
	}
	return b
}

// add counts n more.
func (b *bar) add(n int) {
	done := b.count.Add(int64(n))
	if b.bar != nil {
		b.bar.IncrBy(n)
		return
	}
	if tenth := done * 10 / max(1, b.total); tenth > b.printed.Load() && b.printed.CompareAndSwap(tenth-1, tenth) && tenth%2 == 0 {
		b.progress.say("%s: %d of %d", b.name, done, b.total)
	}
}

// done completes the bar.
func (b *bar) done() {
	if b.bar != nil {
		b.bar.SetTotal(-1, true)
	}
}
