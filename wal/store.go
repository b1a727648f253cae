package wal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/journal"
)

// Store is a node's logs on one disk.
type Store struct {
	o        Options
	fs       disk.FS
	unsynced *unsynced // nil: syncs are not dropped
	logsDir  string
	lock     io.Closer
	meta     *pebble.DB
	guard    guard
	metaMu   sync.Mutex // orders the storing of cuts and their deletion
	journal  *journal.Journal

	memory      memory
	lru         evictor
	rows        rowCache
	files       files
	preparer    preparer
	commits     committer
	checkpoints checkpointer
	condemned   verdicts
	space       space
	scrub       scrubber
	io          workers
	metrics     counters

	completed atomic.Uint64 // sequence of the last completed round

	mu      sync.Mutex
	logs    map[logKey]*Log
	dirs    map[string]bool // directories in use
	refused map[logKey]*refusedLog
	deleted tombstones

	elsewhere elsewhere // where the metadata is

	maxRound  int64
	stopping  chan struct{} // nobody waits for space any more
	stopOnce  sync.Once
	closing   chan struct{}
	closeOnce sync.Once
	failure   chan struct{}
	ending    sync.Mutex // held while a round completes, and to fail
	failOnce  sync.Once
	failCause error          // readable when failure is closed
	running   sync.WaitGroup // checkpointer and preparer
	commitRun sync.WaitGroup
}

type logKey struct {
	group   id.Group
	replica id.Replica
}

type refusedLog struct {
	Refusal
	dir string
}

// Open opens the store in o.Dir, creating it when there is none, and recovers every log. Work is proportional to the
// journal, not to the data. Everything that is acknowledged after it returns, or was before, survives any crash (with FsyncAll).
func Open(ctx context.Context, o Options) (_ *Store, err error) {
	if o.Dir == "" {
		return nil, errors.New("wal: Options.Dir is empty")
	}
	o = o.withDefaults()
	if o.MaxOpenFiles < LeastOpenFiles {
		return nil, fmt.Errorf("wal: Options.MaxOpenFiles is %d: at least %d are needed", o.MaxOpenFiles, LeastOpenFiles)
	}
	s := newStore(o)
	defer func() {
		if err != nil {
			s.stop() // the journal's preparer, or Pebble, may wait for space
			err = errors.Join(err, s.release(), s.unlock())
		}
	}()
	release := context.AfterFunc(ctx, s.stop) // a start may wait for space
	defer release()
	if err := s.openDirs(); err != nil {
		return nil, err
	}
	if s.o.Fsync == FsyncNone {
		s.dropSyncs()
	}
	if err := s.openMeta(); err != nil {
		return nil, err
	}
	if err := s.recover(ctx); err != nil {
		return nil, err
	}
	if err := s.checkpoints.first(); err != nil {
		return nil, err
	}
	if !release() {
		return nil, errors.Join(ctx.Err(), s.cause())
	}
	s.start()
	return s, nil
}

func newStore(o Options) *Store {
	s := &Store{
		o: o, fs: o.FS, logsDir: path.Join(o.Dir, "logs"),
		logs: make(map[logKey]*Log), dirs: make(map[string]bool), refused: make(map[logKey]*refusedLog), deleted: make(tombstones),
		stopping: make(chan struct{}), closing: make(chan struct{}), failure: make(chan struct{}),
	}
	s.files.s, s.commits.s, s.checkpoints.s, s.guard.s = s, s, s, s
	s.files.most = o.openSegments()
	s.preparer.wake = make(chan struct{}, 1)
	s.commits.wake = make(chan struct{}, 1)
	s.condemned.wake = make(chan struct{}, 1)
	s.checkpoints.wake, s.checkpoints.given = make(chan struct{}, 1), make(chan struct{}, 1)
	s.checkpoints.done = make(chan struct{})
	return s
}

// openDirs makes the directories durable and takes the lock.
func (s *Store) openDirs() (err error) {
	if s.fs == nil {
		if err := disk.NewBuffered().MkdirAll(s.o.Dir); err != nil {
			return err
		}
		if s.fs, err = disk.NewOS(s.o.Dir); err != nil {
			return err
		}
	}
	s.space.init(s)
	s.fs = reliefFS{s.fs, s}
	s.space.look()
	err = s.space.insist("make "+s.logsDir, leastGiven, func() error { return s.fs.MkdirAll(s.logsDir) })
	if err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	for _, dir := range []string{s.o.Dir, path.Dir(s.o.Dir)} {
		if err := s.fs.SyncDir(dir); err != nil {
			return fmt.Errorf("wal: %w", err)
		}
	}
	if s.lock, err = s.fs.Lock(path.Join(s.o.Dir, "wal.lock")); err != nil {
		return fmt.Errorf("wal: %w", err)
	}
	return nil
}

// start begins the goroutines.
func (s *Store) start() {
	s.io.start(ioWorkers)
	s.maxRound = s.o.roundBytes()
	s.commits.completed, s.commits.opened = journal.Seq(s.completed.Load()), time.Now()
	s.shareMemory()
	s.commitRun.Go(s.commits.run)
	s.running.Go(s.checkpoints.run)
	s.running.Go(s.space.run)
	for range preparers {
		s.running.Go(s.runPreparer)
	}
	s.running.Go(s.wakeOnFailure)
	s.running.Go(s.report)
	if s.o.ScrubRate > 0 {
		s.scrub.init(s)
		s.running.Go(s.scrub.run)
	}
	if s.o.CacheBytes >= 4*arenaBytes { // a smaller cache is there at once
		s.memory.hungry = make(chan struct{}, 1)
		s.memory.hungry <- struct{}{}
		s.running.Go(func() { s.memory.prepareAhead(s.closing, s.o.CacheBytes) })
	}
}

// wakeOnFailure is the goroutine that wakes those who wait for writes which will not return now.
func (s *Store) wakeOnFailure() {
	select {
	case <-s.closing: // the committer is done; whoever else writes says himself that he is
		if !s.failed() {
			return
		}
	case <-s.failure:
	}
	for _, l := range s.Logs() {
		l.wake()
	}
}

// Close completes the rounds in flight, checkpoints and closes. Logs must not be used any more. After nil everything is durable,
// also with FsyncNone. On a full disk it does not wait for space: its error says what was not stored, and nothing that was acknowledged is
// lost.
func (s *Store) Close() error {
	var err error
	s.closeOnce.Do(func() {
		s.stop()
		s.commits.close()
		s.commitRun.Wait()
		close(s.closing)
		s.running.Wait()
		if !s.failed() {
			s.checkpoints.taker.Store(nil)
			if err = s.checkpoints.checkpoint(); err == nil {
				err = s.markStopped()
				s.tidy()
			}
		}
		err = errors.Join(err, s.release()) // Pebble writes until it is closed, and hears of no failure
		if err = errors.Join(err, s.cause()); err == nil {
			err = s.syncLate()
		}
		err = errors.Join(err, s.unlock())
	})
	return err
}

// release gives back what Open took, but for the lock.
func (s *Store) release() error {
	var err error
	s.io.stop()
	s.commits.drop()
	if s.journal != nil {
		err = errors.Join(err, s.journal.Close())
	}
	s.files.closeAll()
	if s.meta != nil {
		err = errors.Join(err, s.meta.Close())
	}
	err = errors.Join(err, s.guard.close())
	for _, l := range s.Logs() {
		l.mu.Lock()
		for _, sg := range l.segs {
			sg.tail.clear()
		}
		for _, c := range l.lent {
			c.release()
		}
		l.lent = nil
		l.life = max(l.life, ending)
		l.mu.Unlock()
	}
	s.memory.close()
	return err
}

func (s *Store) unlock() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// fail stops the store for good: nothing completes afterwards.
func (s *Store) fail(err error) {
	s.failOnce.Do(func() {
		s.ending.Lock()
		s.failCause = err
		close(s.failure)
		s.ending.Unlock()
		if isNoSpace(err) && s.isStopping() { // Close says so: a full disk is no reason to end the process
			s.o.Logger.Warn("the log store is closed on a full disk: the next start recovers it", "error", err)
			return
		}
		s.o.Logger.Error("the log store failed: nothing is acknowledged any more", "error", err)
		s.o.OnFatal(err)
	})
}

func (s *Store) failed() bool {
	select {
	case <-s.failure:
		return true
	default:
		return false
	}
}

// broken is the error of a broken invariant that was found where stopping is better than panicking.
func (s *Store) broken(l *Log, what string) error {
	return fmt.Errorf("wal: %v: broken invariant: %s", l, what)
}

// now is the time in milliseconds.
func (s *Store) now() int64 { return s.o.Clock().UnixMilli() }

// Logs returns every open log, in no order.
func (s *Store) Logs() []*Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	logs := make([]*Log, 0, len(s.logs))
	for _, l := range s.logs {
		if l != nil {
			logs = append(logs, l)
		}
	}
	return logs
}

// Refused returns the replicas that recovery could not vouch for, and those that were refused since.
func (s *Store) Refused() []Refusal {
	s.mu.Lock()
	defer s.mu.Unlock()
	var refused []Refusal
	for _, r := range s.refused {
		refused = append(refused, r.Refusal)
	}
	return refused
}

// SetCutTaker has the checkpointer ask take for a cut of a log, instead of cutting with the State it was last given. take
// must not block: it passes the request to the log's owner, which calls Log.TakeCut or DeclineCut on its own goroutine soon. nil ends that.
func (s *Store) SetCutTaker(take func(*Log)) {
	if take == nil {
		s.checkpoints.taker.Store(nil)
		return
	}
	s.checkpoints.taker.Store(&take)
}

// SetRoundDone has done called by the committer goroutine after the last Append.Done of each round: for what a caller wants to do once
// a round, and not once for each log. The next round begins when done returns; done may call Submit. nil ends that. It is set before
// the first Submit.
func (s *Store) SetRoundDone(done func(Pace)) { s.commits.done = done }

// Pressure says whether more data should be accepted.
//
// What no cut covers of the journal is held in memory by whoever replays it, so that a start needs about as much as what is let in
// here: no more than the cache, however long a checkpoint takes, and however much of the journal has been flushed meanwhile, of which
// the journal does not know.
func (s *Store) Pressure() Pressure {
	switch {
	case s.space.full.Load():
		return PressureNoSpace
	case s.memory.held() > s.o.CacheBytes+s.o.CacheBytes/8 || s.checkpoints.uncut.Load() > min(4*s.o.CheckpointBytes, s.o.CacheBytes):
		return PressureThrottle
	}
	return PressureNone
}
