package wal

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/journal"
)

// lastTries is how often a round is tried on a full disk once the store is being closed.
const lastTries = 5

// sealAfter is how long the journal is idle before the last round is vouched for by an empty frame.
const sealAfter = 10 * time.Millisecond

// committer runs commit rounds, one after the other, in its own goroutine. While a round is in flight submissions gather;
// that is the group commit.
type committer struct {
	s *Store

	mu      sync.Mutex
	queue   []*Append
	closing bool

	wake  chan struct{} // capacity 1: the queue or what it waits for changed
	taken []*Append     // scratch of take
	round round
	wg    sync.WaitGroup

	done      func(Pace)  // called after the Dones of a round; may be nil
	completed journal.Seq // last completed round; the goroutine's own
	unsealed  bool        // nothing vouches for it yet

	opened time.Time    // what began counts from: a clock that is set must not look like a disk that hangs
	began  atomic.Int64 // when the write under way began, in nanoseconds since opened; 0: there is none
}

// Stalled returns for how long the commit round in flight has been waiting for the disk; 0 while there is none.
func (s *Store) Stalled() time.Duration {
	c := &s.commits
	began := c.began.Load()
	if began == 0 {
		return 0
	}
	return time.Since(c.opened) - time.Duration(began)
}

// begin and end mark what Stalled measures.
func (c *committer) begin() { c.began.Store(max(1, int64(time.Since(c.opened)))) }
func (c *committer) end()   { c.began.Store(0) }

// add queues appends for the next round.
func (c *committer) add(appends []*Append) {
	if c.s.failed() {
		for _, a := range appends {
			a.plan.clear()
		}
		return
	}
	c.mu.Lock()
	c.queue = append(c.queue, appends...)
	c.mu.Unlock()
	c.kick()
}

func (c *committer) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run is the committer's goroutine. It ends when the queue is empty and the committer is closing, or the store failed.
func (c *committer) run() {
	c.round.s = c.s
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for !c.s.failed() {
		if c.take() {
			small := c.round.bytes <= smallRound
			if c.commit() && c.done != nil { // no lock is held
				c.done(c.pace(small))
			}
			continue
		}
		c.mu.Lock()
		done := c.closing && len(c.queue) == 0
		c.mu.Unlock()
		if done {
			return
		}
		if c.unsealed {
			timer.Reset(sealAfter)
		}
		select {
		case <-c.wake:
		case <-c.s.failure:
		case <-timer.C:
			if c.unsealed {
				c.seal()
			}
		}
	}
}

// take moves what the next round can have from the queue. A truncation or reset waits until writes to its log's segments have
// returned, and what was submitted to the log behind it waits with it.
func (c *committer) take() bool {
	r := &c.round
	c.mu.Lock()
	defer c.mu.Unlock()
	rest := c.taken[:0]
	held := 0
	for i, a := range c.queue {
		if r.bytes >= c.s.maxRound {
			rest = append(rest, c.queue[i:]...)
			break
		}
		l := a.Log
		l.mu.Lock()
		deleted := l.life != alive
		wait := a.plan.blocks && l.doing(flushWork) && !c.s.o.off.truncateWaits
		l.mu.Unlock()
		switch {
		case deleted:
			a.plan.clear()
		case wait || held > 0 && holds(rest, l):
			rest = append(rest, a)
			held++
		default:
			r.add(a)
		}
	}
	clear(c.queue)
	c.taken, c.queue = c.queue[:0], rest
	return len(r.appends) > 0
}

// holds tells whether an append to l is among those held back.
func holds(appends []*Append, l *Log) bool {
	for _, a := range appends {
		if a.Log == l {
			return true
		}
	}
	return false
}

// smallRound is the size up to which a round counts as small: at higher rates the next one should not wait for others' work.
const smallRound = 64 * kib

func (c *committer) pace(small bool) Pace {
	c.mu.Lock()
	defer c.mu.Unlock()
	if small && len(c.queue) == 0 {
		return PaceLeisurely
	}
	return PaceBusy
}

// commit runs the round that take gathered. False: the store has failed.
func (c *committer) commit() bool {
	r := &c.round
	defer r.clear()
	defer r.release()
	if r.sync {
		c.begin()
		err := c.write()
		c.end()
		if err != nil {
			c.s.fail(err)
			return false
		}
	}
	c.s.ending.Lock() // nothing completes once the store has failed
	defer c.s.ending.Unlock()
	if c.s.failed() {
		return false
	}
	for _, rl := range r.logs {
		rl.complete(c.completed)
	}
	c.s.completed.Store(uint64(c.completed))
	c.s.metrics.appends.Add(uint64(len(r.appends)))
	for i, a := range r.appends {
		r.appends[i] = nil
		a.plan.clear()
		if a.Done != nil {
			a.Done(a)
		}
	}
	c.s.checkpoints.roundDone()
	return true
}

// write makes the round durable: frame and segments are written together and synced at the same time.
func (c *committer) write() error {
	r := &c.round
	r.plan()
	err := r.build()
	for _, rl := range r.direct {
		c.wg.Add(1)
		c.s.io.do(func() {
			defer c.wg.Done()
			rl.err = rl.write(c.s)
		})
	}
	var w journal.Written
	if err == nil {
		w, err = c.writeFrame()
	}
	c.wg.Wait()
	for _, rl := range r.direct {
		err = errors.Join(err, rl.err)
		rl.pieces = release(rl.pieces, 0)
	}
	if err != nil {
		return err
	}
	c.completed, c.unsealed = w.Seq, true
	c.s.metrics.rounds.Add(1)
	return nil
}

// writeFrame writes and syncs the frame. Without space it waits for the checkpointer to free journal files, but not for long when the
// store is being closed.
func (c *committer) writeFrame() (journal.Written, error) {
	for last := lastTries; ; {
		w, err := c.s.journal.WriteSync(&c.round.frame, c.completed)
		if err == nil {
			c.s.metrics.journalBytes.Add(uint64(w.Bytes))
			c.s.checkpoints.wrote(int64(w.Bytes))
			return w, nil
		}
		if !errors.Is(err, disk.ErrNoSpace) {
			return w, err
		}
		c.s.space.shortage(err)
		if c.s.isStopping() {
			last--
		}
		if last == 0 || !c.s.checkpoints.waitForSpace() {
			return w, fmt.Errorf("wal: the disk is full: a round was not written: %w", err)
		}
	}
}

// complete moves the log's watermark and durable state.
func (rl *roundLog) complete(seq journal.Seq) {
	l := rl.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if rl.sg != nil {
		rl.sg.w = rl.to
		l.end(roundWork)
	}
	for _, a := range rl.appends {
		p := &a.plan
		if p.blocks {
			l.blocked--
			if p.cutAt != nil {
				p.cutAt.w = min(p.cutAt.w, p.cutW)
			}
		}
		if p.reset {
			l.doneIndex, l.doneEnd = p.start.Index, 0
			l.doneHS.Commit = p.start.Index
		}
		if n := len(p.runs); n > 0 {
			l.doneIndex, l.doneEnd = p.runs[n-1].last, p.runs[n-1].to
		}
		if p.hasHS {
			l.doneHS = p.hs
		}
		l.doneHS.Commit = max(l.doneHS.Commit, min(p.commit, l.doneIndex))
	}
	if rl.records {
		l.doneSeq = seq
		if l.dirty == 0 {
			l.dirty = seq
		}
	}
	if l.drops() {
		l.wantTrim()
	}
	l.idle.Broadcast()
}

// seal vouches for the last round. It is synced, so that a later frame in another file cannot outlive it.
func (c *committer) seal() {
	c.round.frame.Reset()
	c.begin()
	w, err := c.s.journal.WriteSync(&c.round.frame, c.completed)
	c.end()
	c.unsealed = false
	switch {
	case errors.Is(err, disk.ErrNoSpace): // the next round vouches
	case err != nil:
		c.s.fail(err)
	default:
		c.completed = w.Seq
		c.s.completed.Store(uint64(w.Seq))
		c.s.metrics.journalBytes.Add(uint64(w.Bytes))
	}
}

// drop gives up what is queued after the committer's goroutine has ended.
func (c *committer) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, a := range c.queue {
		a.plan.clear()
	}
	c.queue = nil
}

// close waits until everything submitted is complete.
func (c *committer) close() {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.kick()
}
