package partition

import "sync/atomic"

// Watcher is somebody who waits for a partition to have something new: records below the high watermark, another leader, or its
// end. Many partitions may share one wake channel; Ready tells which of them it was.
type Watcher struct {
	wake  chan<- struct{} // capacity 1: a wake-up that is already pending is enough
	ready atomic.Bool
}

// NewWatcher returns a watcher that sends to wake, which must have a capacity of 1. It starts ready.
func NewWatcher(wake chan<- struct{}) *Watcher {
	w := &Watcher{wake: wake}
	w.ready.Store(true)
	return w
}

// Ready tells whether the partition had news since the last call, and forgets them. The caller looks at the partition
// afterwards: news that come in between set it again.
func (w *Watcher) Ready() bool { return w.ready.Swap(false) }

// Rouse marks the watcher ready, as news do.
func (w *Watcher) Rouse() {
	if w.ready.Swap(true) {
		return
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Watch has w roused by news of p until Unwatch.
func (p *Partition) Watch(w *Watcher) {
	p.watch.Lock()
	defer p.watch.Unlock()
	p.watch.watchers[w] = struct{}{}
	p.watching.Store(int32(len(p.watch.watchers)))
}

// Unwatch ends Watch.
func (p *Partition) Unwatch(w *Watcher) {
	p.watch.Lock()
	defer p.watch.Unlock()
	delete(p.watch.watchers, w)
	p.watching.Store(int32(len(p.watch.watchers)))
}

// wake rouses every watcher. It takes no lock when there is none: the order "store the news, then load the count" here against
// "add the watcher, then look at the news" in Watch's callers leaves no gap.
func (p *Partition) wake() {
	if p.watching.Load() == 0 {
		return
	}
	p.watch.Lock()
	defer p.watch.Unlock()
	for w := range p.watch.watchers {
		w.Rouse()
	}
}
