package wal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"sync"
	"syscall"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Condemnation says what a log cannot do any more.
type Condemnation uint8

// The kinds of condemnation, the worse one last.
const (
	// CondemnedReads: a committed entry of the log cannot be read, though it was written. Whatever else the log has is as good as
	// ever: it may follow, vote and acknowledge, and should not lead, for who needs that entry gets it elsewhere.
	CondemnedReads Condemnation = 1 + iota
	// CondemnedWrites: the log's files cannot be made. What is appended stays in memory and in cuts.
	CondemnedWrites
)

// This file is the one place that takes a log whose stored bytes cannot be trusted, or cannot be had, whoever found out: a
// consumer's read, one for a lagging follower, a look into an index, the start.
//
// A verdict is final for the process, so two things must not lead to one. A read may meet a truncation, a reset or a deletion half
// way: whatever it found is then the past, and is asked about again under the lock. And bytes may be bad in memory and good on the
// disk: each read that goes wrong is done a second time, past the row cache, of nothing but the first entry. That also serves what
// stands before the rot, and names the entry that has it.

// rotten tells whether a read that ended with err met stored bytes that are not there or not what was written. Shortage of
// descriptors or memory, a missing permission, and a log that ended or moved meanwhile, are something else.
func rotten(err error) bool {
	return errors.Is(err, ErrCorrupt) || errors.Is(err, fs.ErrNotExist) || disk.Unreadable(err) || disk.BadPath(err)
}

// shortage gives an error that is about the process, and not about what is stored, its remedy.
func shortage(err error) error {
	for _, e := range [...]error{syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, e) {
			return fmt.Errorf("%w: raise the limit of open files (ulimit -n, LimitNOFILE= of systemd) and start again: nothing is lost", err)
		}
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: give the data directory, and all that is in it, to the user of this process (chown -R), and start again: "+
			"nothing is lost", err)
	}
	if errors.Is(err, syscall.ENOMEM) {
		return fmt.Errorf("%w: give the process more memory, or a smaller cache, and start again: nothing is lost", err)
	}
	return err
}

// attempt runs a read of the view's segment which collects r.rows, first with maxBytes and then, if stored bytes were bad, once more for a
// single entry. A missing permission ends the store, as it does where files are made: others would only read about it, for ever.
func (v *segView) attempt(r *reader, maxBytes int, read func(maxBytes int) error) error {
	err := read(maxBytes)
	if errors.Is(err, fs.ErrPermission) {
		v.l.s.fail(shortage(err))
	}
	if err == nil || !rotten(err) {
		return err
	}
	v.l.s.rows.forget(v.sg)
	r.rows, r.pieces = r.rows[:0], release(r.pieces, 0)
	if err = read(0); err == nil || !rotten(err) {
		return err
	}
	at := id.Index(0)
	if len(r.rows) > 0 {
		at = r.rows[0].Index
	}
	return v.condemn(at, err)
}

// look is attempt for a look into the index.
func (v *segView) look(read func() error) error {
	var r reader
	return v.attempt(&r, 0, func(int) error { return read() })
}

// condemn takes a read of entry at (0: of the index, whose rows are all committed) that went wrong twice.
func (v *segView) condemn(at id.Index, cause error) error {
	l := v.l
	l.mu.Lock()
	deleted := l.life != alive
	past := v.sg.dropped.Load() || !slices.Contains(l.segs, v.sg)
	l.mu.Unlock()
	switch {
	case deleted:
		return fmt.Errorf("%w: %v", ErrDeleted, l)
	case past:
		return fmt.Errorf("%w: segment %v of %v was dropped meanwhile", ErrUnavailable, v.sg.key, l)
	case l.s.ended():
		return fmt.Errorf("%w: %w", ErrClosed, cause)
	case at > l.commit():
		return cause // whoever truncates it reads it again
	}
	where := path.Join(l.s.logsDir, l.dir, v.sg.key.Log())
	l.s.condemn(l, CondemnedReads, fmt.Sprintf("%s: %v", where, cause))
	if errors.Is(cause, ErrCorrupt) {
		return cause
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, cause)
}

// ended tells whether the store closes or has failed: nothing that is found from then on counts.
func (s *Store) ended() bool {
	select {
	case <-s.closing:
		return true
	default:
		return s.failed()
	}
}

// condemn says once that a log is condemned, and once more if it gets worse, and has it reported. It does not block.
func (s *Store) condemn(l *Log, kind Condemnation, reason string) {
	before := l.Condemned()
	for before < kind && !l.condemned.CompareAndSwap(uint32(before), uint32(kind)) {
		before = l.Condemned()
	}
	if before >= kind {
		return
	}
	if before == 0 {
		s.metrics.condemned.Add(1)
	}
	l.wantState() // a start that has to read what rotted, to apply it again, would refuse a replica that may be the only one
	s.checkpoints.force()
	s.o.Logger.Error("a log is condemned: it cannot be trusted with what it holds, and its replica has to be replaced", "log", l.String(),
		"reason", reason)
	s.condemned.add(verdict{l, kind, Refusal{l.group, l.replica, l.name, reason}})
}

// condemnPath takes an error of making files for a log. It tells whether it was about their names alone, so that others can go on.
func (s *Store) condemnPath(l *Log, err error) bool {
	if !disk.BadPath(err) {
		return false
	}
	s.condemn(l, CondemnedWrites, fmt.Sprintf("its files cannot be made: %v", err))
	return true
}

// verdict is a condemnation on its way to Options.OnCondemned.
type verdict struct {
	l    *Log
	kind Condemnation
	Refusal
}

// verdicts pass what was found on to the goroutine that reports it: whoever found it may hold a worker's turn.
type verdicts struct {
	mu    sync.Mutex
	queue []verdict
	wake  chan struct{} // capacity 1
}

func (q *verdicts) add(v verdict) {
	q.mu.Lock()
	q.queue = append(q.queue, v)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// report is the goroutine that calls Options.OnCondemned; without one it refuses what was condemned.
func (s *Store) report() {
	for {
		select {
		case <-s.closing:
			return
		case <-s.failure:
			return
		case <-s.condemned.wake:
		}
		s.condemned.mu.Lock()
		queue := s.condemned.queue
		s.condemned.queue = nil
		s.condemned.mu.Unlock()
		for _, v := range queue {
			if s.o.OnCondemned != nil {
				s.o.OnCondemned(v.l, v.kind, v.Refusal)
			} else if err := s.Refuse(context.Background(), v.l, v.Reason); err != nil {
				s.o.Logger.Error("a condemned replica was not refused", "log", v.l.String(), "error", err)
			}
		}
	}
}

// Condemned returns what the log was condemned for since the store was opened; 0: nothing.
func (l *Log) Condemned() Condemnation { return Condemnation(l.condemned.Load()) }

// Refuse is Store.Refuse, for the log's owner.
func (l *Log) Refuse(ctx context.Context, reason string) error { return l.s.Refuse(ctx, l, reason) }

// Refuse takes a replica out for good: when it returns that is durable, and no later start opens the log. The log stays open, for its
// owner to stop submitting to it; its files stay until it is deleted.
func (s *Store) Refuse(ctx context.Context, l *Log, reason string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	if l.life == forgotten {
		return fmt.Errorf("wal: refuse %v: %w", l, ErrDeleted)
	}
	if err := s.metaSet(refusalKey(l.group, l.replica), []byte(reason)); err != nil {
		return fmt.Errorf("wal: refuse %v: %w", l, err)
	}
	l.mu.Lock()
	l.refused = true
	l.mu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused[logKey{l.group, l.replica}] = &refusedLog{Refusal{l.group, l.replica, l.name, reason}, l.dir}
	return nil
}
