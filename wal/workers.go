package wal

import "sync"

// ioWorkers is how many writes and syncs of segments are under way at once.
const ioWorkers = 16

// workers runs functions on a fixed number of goroutines.
type workers struct {
	jobs chan func()
	wg   sync.WaitGroup
}

func (w *workers) start(n int) {
	w.jobs = make(chan func(), n)
	for range n {
		w.wg.Go(func() {
			for job := range w.jobs {
				job()
			}
		})
	}
}

// do has a worker run job; it waits while all are busy.
func (w *workers) do(job func()) { w.jobs <- job }

func (w *workers) stop() {
	if w.jobs != nil {
		close(w.jobs)
		w.wg.Wait()
		w.jobs = nil
	}
}
