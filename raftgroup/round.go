package raftgroup

import (
	"sync"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// round is what commit rounds of the store have completed so far. A store on several disks has several under way: what one has completed
// may leave with the end of another, which is no harm, for it is durable.
type round struct {
	env     *env
	workers []*worker

	mu   sync.Mutex  // no lock is taken under it but an inbox's, and nothing waited for
	sent bool        // responses went to the transport
	jobs []completed // by worker
}

type completed struct {
	jobs   []*appendJob
	urgent bool // not all of them are lazy
}

// stored runs on the store's goroutine: a, and all that was submitted for its group before, is durable. Responses for
// others leave when the store is done with the round.
func (r *round) stored(a *wal.Append) {
	j := a.Owner.(*appendJob)
	g := j.group
	sent := false
	for _, m := range j.responses {
		if id.Replica(m.GetTo()) != g.replica && !g.mute.Load() && !g.failed.Load() && g.send(m, nil) {
			sent = true
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = r.sent || sent
	done := &r.jobs[g.worker]
	done.jobs = append(done.jobs, j)
	done.urgent = done.urgent || !j.lazy || j.first > 0 && j.first <= g.Commit() // what is committed and stored is applied
}

// end runs on the store's goroutine, after stored for all appends of a round: one flush, and one turn of each worker that has
// to know at once. A store at leisure lends its goroutine for that.
func (r *round) end(pace wal.Pace) {
	if r.takeSent() {
		r.env.o.Transport.Flush()
	}
	for i, w := range r.workers {
		some, urgent := r.hand(i)
		switch {
		case !some:
		case !urgent && w.draining.Load() == 0: // there is another turn soon, with the next tick at the latest
		case pace == wal.PaceLeisurely:
			w.visit()
		default:
			w.nudge()
		}
	}
}

func (r *round) takeSent() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	sent := r.sent
	r.sent = false
	return sent
}

// hand gives a worker what is completed for it.
func (r *round) hand(worker int) (some, urgent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	done := &r.jobs[worker]
	if len(done.jobs) == 0 {
		return false, false
	}
	r.workers[worker].in.completed(done.jobs)
	clear(done.jobs)
	urgent = done.urgent
	done.jobs, done.urgent = done.jobs[:0], false
	return true, urgent
}

// TargetOf returns the log that an append is for: what a LogStore that is not wal's asks, whose logs do not fit Append.Log.
func TargetOf(a *wal.Append) Log { return a.Owner.(*appendJob).group.log }
