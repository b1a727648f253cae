package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	io          workers
	metrics     counters

	completed atomic.Uint64 // sequence of the last completed round

	mu      sync.Mutex
	logs    map[logKey]*Log
	dirs    map[string]bool // directories in use
	refused map[logKey]*refusedLog

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

// counters are the parts of Metrics that are counted as they happen.
type counters struct {
	rounds, appends, appendedBytes, journalBytes, segmentBytes, directBytes, indexBytes, checkpoints, readDisk, condemned atomic.Uint64

	replayed, replayHeld int64 // written by Open
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
		logs: make(map[logKey]*Log), dirs: make(map[string]bool), refused: make(map[logKey]*refusedLog),
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

// Create makes a log. It is durable, with its first cut, when Create returns. ErrExists when the replica exists, refused
// ones included; disk.ErrNoSpace while the disk is full, but for the metadata's.
func (s *Store) Create(ctx context.Context, spec Spec) (*Log, error) {
	if spec.Name == "" || path.Base(spec.Name) != spec.Name || spec.Replica == id.NoReplica {
		return nil, fmt.Errorf("wal: %q is no name for a log of replica %d", spec.Name, spec.Replica)
	}
	if s.space.full.Load() && spec.Group != id.MetadataGroup {
		return nil, fmt.Errorf("wal: create %s (group %d, replica %d): %w", spec.Name, spec.Group, spec.Replica, errReserve)
	}
	key := logKey{spec.Group, spec.Replica}
	dir := dirName(spec.Name, spec.Replica)
	if err := s.reserve(key, dir); err != nil {
		return nil, fmt.Errorf("wal: create %s: %w", spec.Name, err)
	}
	l := newLog(s, &spec, dir)
	l.resetTo(spec.Start)
	l.hs, l.doneHS = spec.HardState, spec.HardState
	l.hs.Commit = max(min(l.hs.Commit, spec.Start.Index), spec.Start.Index)
	l.doneHS.Commit = l.hs.Commit
	l.state, l.doneIndex = spec.State, spec.Start.Index
	err := ctx.Err()
	if err == nil {
		err = s.storeFirstCut(l)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		delete(s.dirs, dir)
		delete(s.logs, key)
		return nil, fmt.Errorf("wal: create %v: %w", l, err)
	}
	s.logs[key] = l
	s.shareMemory()
	return l, nil
}

// shareMemory lets the chunks of tails be so large that all logs together, each with a last chunk that is nearly empty, stay well
// inside the cache. Called with mu.
func (s *Store) shareMemory() {
	s.memory.largest.Store(min(max(s.o.CacheBytes/int64(16*max(len(s.logs), 1)), smallestShare), largestChunk))
}

// reserve takes a replica and its directory for a new log. Nothing on the disk may have the directory's name yet: see dirName.
func (s *Store) reserve(key logKey, dir string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, open := s.logs[key]
	if _, refused := s.refused[key]; open || refused || s.dirs[dir] {
		return fmt.Errorf("%w: group %d, replica %d (%s)", ErrExists, key.group, key.replica, dir)
	}
	for _, name := range [...]string{dir, deletedName(dir)} {
		name = path.Join(s.logsDir, name)
		if _, err := s.fs.Stat(name); err == nil {
			return fmt.Errorf("%w: no log knows of the directory %s, and a replica id is used once only: look at what it holds, and move it away", ErrExists, name)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	s.dirs[dir] = true
	s.logs[key] = nil // reserved; it shows once it is durable
	return nil
}

// storeFirstCut makes a new log durable. What is completed by then can have nothing of it.
func (s *Store) storeFirstCut(l *Log) error {
	c, _, _, err := l.takeCut(journal.Seq(s.completed.Load()), longestTail)
	if err != nil {
		return err
	}
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	return s.metaSet(cutKey(l.group, l.replica), c.append(nil))
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

// The keys in Pebble.
//
//	'a'                             sequence up to which the stored cuts cover all records of all logs, uint64
//	'c' group replica (big endian)  the replica's cut
//	'f'                             format version, uint32
//	'g'                             generation and digest of everything else: see guard
//	'j' name                        a journal file: journal.FileInfo
//	'q'                             sequence up to which all rounds are complete, uint64
//	'r' group replica               why the replica is refused: it stays so until it is deleted
//	's'                             after an orderly stop only: the last sequence that was used, uint64. The cuts cover all
//	'u' key                         a value of Set
var (
	coveredKey   = []byte("a")
	formatKey    = []byte("f")
	completedKey = []byte("q")
	stoppedKey   = []byte("s")
)

const formatVersion = 2

func cutKey(g id.Group, r id.Replica) []byte     { return replicaKey('c', g, r) }
func refusalKey(g id.Group, r id.Replica) []byte { return replicaKey('r', g, r) }

func replicaKey(kind byte, g id.Group, r id.Replica) []byte {
	b := append(make([]byte, 0, 17), kind)
	b = binary.BigEndian.AppendUint64(b, uint64(g))
	return binary.BigEndian.AppendUint64(b, uint64(r))
}

func journalKey(name string) []byte { return append([]byte{'j'}, name...) }
func userKey(key string) []byte     { return append([]byte{'u'}, key...) }

func appendSeq(dst []byte, s journal.Seq) []byte {
	return binary.LittleEndian.AppendUint64(dst, uint64(s))
}

// Get returns a small value stored under key, or ErrNotFound.
func (s *Store) Get(key string) ([]byte, error) {
	return s.metaGet(userKey(key))
}

// Set stores a small value under key, durably.
func (s *Store) Set(key string, value []byte) error {
	return s.metaSet(userKey(key), value)
}

func (s *Store) metaGet(key []byte) ([]byte, error) {
	v, closer, err := s.meta.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, fmt.Errorf("%w: %q", ErrNotFound, key[1:])
	}
	if err != nil {
		return nil, err
	}
	v = append([]byte{}, v...)
	return v, closer.Close()
}

// Metrics returns the store's counters.
func (s *Store) Metrics() Metrics {
	c := &s.metrics
	s.mu.Lock()
	logs, refused := len(s.logs), len(s.refused)
	s.mu.Unlock()
	return Metrics{
		Rounds: c.rounds.Load(), Appends: c.appends.Load(), AppendedBytes: c.appendedBytes.Load(),
		JournalBytes: c.journalBytes.Load(), SegmentBytes: c.segmentBytes.Load(), DirectBytes: c.directBytes.Load(),
		IndexBytes: c.indexBytes.Load(), Checkpoints: c.checkpoints.Load(), ReadDiskBytes: c.readDisk.Load(),
		TailBytes: s.memory.used.Load(), RowBytes: s.memory.rows.Load(), JournalFiles: s.journal.Metrics().LiveFiles, OpenFiles: s.files.count(),
		Logs: logs, UncutBytes: s.checkpoints.uncut.Load(), Refused: refused, Condemned: c.condemned.Load(),
		ReplayedBytes: c.replayed, ReplayHeldBytes: c.replayHeld,
	}
}

// Metrics are the counters of a store since it was opened.
type Metrics struct {
	Rounds        uint64 // commit rounds that wrote something
	Appends       uint64 // appends completed
	AppendedBytes uint64 // bytes of entries submitted
	JournalBytes  uint64 // bytes written to the journal, padding included
	SegmentBytes  uint64 // bytes written to segments, by rounds and flushes
	DirectBytes   uint64 // of SegmentBytes: by rounds
	IndexBytes    uint64 // bytes written to indexes
	Checkpoints   uint64 // checkpoints completed
	ReadDiskBytes uint64 // bytes read from segments
	TailBytes     int64  // memory of all tails now
	RowBytes      int64  // memory of index rows now
	JournalFiles  int    // live journal files now
	OpenFiles     int    // segments with open files now
	Logs          int    // open logs now
	UncutBytes    int64  // bytes in the journal since the last checkpoint
	Refused       int    // replicas that are out for good now
	Condemned     uint64 // logs whose stored bytes, or files, turned out bad

	ReplayedBytes   int64 // bytes of the journal that Open read
	ReplayHeldBytes int64 // the largest memory of tails and rows meanwhile
}
