package raftgroup

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/wal"
)

// refuser has the refusals of replicas stored that lost what they had acknowledged. Storing waits for the disk, so it has a goroutine of
// its own. A replica is mute from the moment at which it finds out, and is reported when its refusal is durable and not before: whoever
// hears of it may count on it that no later start brings the replica back. A process that ends in between has told nobody, and finds out
// again.
type refuser struct {
	wake chan struct{} // capacity 1
	stop chan struct{} // closed by Host.Close, when no worker runs any more
	done chan struct{}

	mu    sync.Mutex
	queue []refusal
}

type refusal struct {
	group  *group
	cause  error
	stored func() // called then
	said   bool   // that it could not be stored
}

// refuseRetry is how long after an attempt to store a refusal failed the next one follows.
const refuseRetry = time.Second

func newRefuser() *refuser {
	r := &refuser{wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go r.run()
	return r
}

// close returns when each refusal that waited was tried once more.
func (r *refuser) close() {
	close(r.stop)
	<-r.done
}

func (r *refuser) add(f refusal) {
	r.mu.Lock()
	r.queue = append(r.queue, f)
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *refuser) run() {
	defer close(r.done)
	retry := time.NewTimer(0)
	defer retry.Stop()
	var waiting []refusal
	for closing := false; !closing; {
		select {
		case <-r.wake:
		case <-retry.C:
		case <-r.stop:
			closing = true
		}
		r.mu.Lock()
		waiting = append(waiting, r.queue...)
		r.queue = nil
		r.mu.Unlock()
		waiting = slices.DeleteFunc(waiting, func(f refusal) bool { return f.store() })
		for i := range waiting {
			waiting[i].said = true
		}
		if len(waiting) > 0 {
			retry.Reset(refuseRetry)
		}
	}
}

// store tells whether nothing is left to do.
func (f refusal) store() bool {
	g := f.group
	switch err := g.log.Refuse(context.Background(), f.cause.Error()); {
	case errors.Is(err, wal.ErrDeleted):
		return true // it does not come back either
	case err != nil:
		if !f.said {
			g.env.o.Logger.Error("a replica lost what it had acknowledged, and that cannot be stored: it stays mute, and it is tried again",
				"group", uint64(g.id), "replica", uint64(g.replica), "lost", f.cause, "error", err)
		}
		return false
	}
	f.stored()
	return true
}
