package journal

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// Options configure a journal. Register is required.
type Options struct {
	// FileBytes is the length of a file, a multiple of disk.BlockSize; default 64 MiB. A frame that is larger gets a file of
	// its own size. Files of another length, from before the option was changed, are used up and then deleted.
	FileBytes int64
	// SpareFiles is how many files are kept registered and ready ahead of the current one; default 2. They are what is left
	// to write to on a full disk. A start takes one of them until files are retired, if something was written since the last.
	SpareFiles int
	// PooledFiles is how many retired files are kept for recycling; default 6. The rest is deleted.
	PooledFiles int
	// Register stores a FileInfo in Pebble, synced, before the first frame goes into the file. It is called from a goroutine
	// of the journal and, for frames larger than a file, from inside Write; one call at a time. It must not call the
	// journal. An error that wraps disk.ErrNoSpace is tried again later, any other fails the journal.
	Register func(FileInfo) error
	// MakeRoom, unless it is nil, is asked to make room for so many bytes when there is no space for a file that a round or a start
	// waits for. true: it is worth another try.
	MakeRoom func(bytes int64) bool
	Logger   *slog.Logger // default: discards
}

// Journal takes rounds. Write and Sync are called by the one committer (from any goroutine, but one call at a time), the
// other methods by anyone.
type Journal struct {
	opts Options
	dir  *directory

	// The committer's. Invariant: prevDurable <= durable <= seq.
	cur         *file
	end         int64 // position after the last frame in cur
	seq         Seq   // of the last frame
	prevDurable Seq   // as in the last frame
	dirty       []*file

	durable atomic.Uint64 // last sequence that was synced
	failure atomic.Pointer[error]
	frames  atomic.Uint64
	bytes   atomic.Uint64
	syncs   atomic.Uint64

	// registering makes numbers grow in the order in which files are registered and used. Lock order: registering, mu.
	registering sync.Mutex

	mu struct {
		sync.Mutex // held for no I/O
		live       []*liveFile
		ready      []*file // registered, in the order of their numbers
		number     uint64  // of the last registered file
		attempts   uint64  // to add a ready file
		noSpace    error   // result of the last attempt
		closed     bool
	}
	changed sync.Cond     // ready, attempts, closed or failure changed
	wake    chan struct{} // tells the preparer to look
	stop    chan struct{}
	done    chan struct{} // the preparer is gone
}

// liveFile is a file that holds frames, or is about to.
type liveFile struct {
	info FileInfo
	file *file // nil if it is not open: it was written before the start
	last Seq
	used int64
}

func newJournal(opts Options, dir *directory) *Journal {
	j := &Journal{opts: opts, dir: dir, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	j.changed.L = &j.mu.Mutex
	return j
}

// begin makes f, which holds frames up to end, the current file. seq is the last sequence; all frames are durable.
func (j *Journal) begin(f *file, end int64, seq Seq) {
	j.cur, j.end, j.seq = f, end, seq
	j.durable.Store(uint64(seq))
	l := &liveFile{info: f.info, file: f, used: end}
	if end > 0 {
		l.last = seq
	}
	j.mu.live = append(j.mu.live, l)
	j.mu.number = f.info.Number
}

// WriteSync is Write followed by Sync, with one call to the disk where there is nothing else to sync.
func (j *Journal) WriteSync(f *Frame, prevDurable Seq) (Written, error) {
	w, err := j.write(f, prevDurable, len(j.dirty) == 0)
	if err != nil || len(j.dirty) == 0 {
		return w, err
	}
	return w, j.Sync()
}

// Write writes a frame. prevDurable is the last sequence whose round is complete: the frame synced, and what its references
// name. The frame is durable after the next Sync; until then it may be lost, also if later frames are not.
//
// It may wait for the next file to be prepared. If there is no space for one, the error wraps disk.ErrNoSpace, nothing was
// written and the journal goes on: watch Room. So it does after ErrFrameTooLarge. Any other error is final.
func (j *Journal) Write(f *Frame, prevDurable Seq) (Written, error) {
	return j.write(f, prevDurable, false)
}

func (j *Journal) write(f *Frame, prevDurable Seq, sync bool) (Written, error) {
	if err := j.err(); err != nil {
		return Written{}, err
	}
	if prevDurable > Seq(j.durable.Load()) || prevDurable < j.prevDurable {
		return Written{}, fmt.Errorf("%w: prevDurable %d: the last one was %d, and frames up to %d are synced",
			ErrInvalid, prevDurable, j.prevDurable, j.durable.Load())
	}
	if err := f.Build(); err != nil {
		return Written{}, err
	}
	if j.end+f.Size() > j.cur.info.Bytes {
		if err := j.roll(f.Size()); err != nil {
			return Written{}, err
		}
	}
	b := f.finish(j.cur.info.Epoch, j.seq+1, prevDurable)
	if err := j.put(b, sync); err != nil {
		return Written{}, j.fail(fmt.Errorf("write %s: %w", j.cur.info.Name, err))
	}
	j.seq++
	j.end += int64(len(b))
	j.prevDurable = prevDurable
	j.frames.Add(1)
	j.bytes.Add(uint64(len(b)))
	if sync {
		j.synced()
	}

	j.mu.Lock()
	l := j.mu.live[len(j.mu.live)-1]
	l.last, l.used = j.seq, j.end
	j.mu.Unlock()
	return Written{Seq: j.seq, File: j.cur.info.Number, Bytes: len(b)}, nil
}

// put writes b at the end, durably or to be synced later.
func (j *Journal) put(b []byte, sync bool) error {
	if sync {
		_, err := j.cur.WriteSyncAt(b, j.end)
		return err
	}
	if len(j.dirty) == 0 || j.dirty[len(j.dirty)-1] != j.cur {
		j.dirty = append(j.dirty, j.cur)
	}
	_, err := j.cur.WriteAt(b, j.end)
	return err
}

// Sync makes all written frames durable. An error is final.
func (j *Journal) Sync() error {
	if err := j.err(); err != nil {
		return err
	}
	for _, f := range j.dirty {
		if err := f.Sync(); err != nil {
			return j.fail(fmt.Errorf("sync %s: %w", f.info.Name, err))
		}
	}
	clear(j.dirty)
	j.dirty = j.dirty[:0]
	j.synced()
	return nil
}

func (j *Journal) synced() {
	j.durable.Store(uint64(j.seq))
	j.syncs.Add(1)
}

// roll makes another file with room for a frame the current one.
func (j *Journal) roll(frame int64) error {
	var next *file
	var err error
	if frame <= j.opts.FileBytes {
		next, err = j.awaitReady()
	} else {
		next, err = j.oversize(frame)
	}
	if err != nil {
		return err
	}
	next.info.First = j.seq + 1
	j.cur, j.end = next, 0
	j.mu.Lock()
	j.mu.live = append(j.mu.live, &liveFile{info: next.info, file: next})
	j.mu.Unlock()
	j.kick()
	return nil
}

// awaitReady takes the next ready file. If there is none it waits for the preparer to add one or to have tried and failed.
func (j *Journal) awaitReady() (*file, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for attempts := j.mu.attempts; len(j.mu.ready) == 0; {
		if j.mu.closed {
			return nil, ErrClosed
		}
		if err := j.failed(); err != nil {
			return nil, err
		}
		if j.mu.noSpace != nil && j.mu.attempts > attempts {
			return nil, j.mu.noSpace
		}
		j.kick()
		j.changed.Wait()
	}
	f := j.mu.ready[0]
	j.mu.ready = j.mu.ready[1:]
	return f, nil
}

// oversize makes a file for one large frame. Its number must be the next one, so the files that are ready go back to the
// pool; they will be registered anew.
func (j *Journal) oversize(frame int64) (*file, error) {
	f, err := j.dir.create(frame, j.hurriedly)
	if j.opts.madeRoom(err, frame) {
		f, err = j.dir.create(frame, j.hurriedly)
	}
	if err != nil {
		return nil, j.noSpaceOrFail(err)
	}
	j.registering.Lock()
	defer j.registering.Unlock()
	j.mu.Lock()
	unready := j.mu.ready
	j.mu.ready = nil
	j.mu.Unlock()
	for _, r := range unready {
		err = errors.Join(err, r.Close())
		j.dir.put(r.info.Name, r.info.Bytes)
	}
	if err == nil {
		err = j.register(f)
	}
	if err != nil {
		f.Close()
		j.dir.put(f.info.Name, f.info.Bytes)
		return nil, j.noSpaceOrFail(err)
	}
	return f, nil
}

// register gives f the next number and has the owner record it. j.registering is held.
func (j *Journal) register(f *file) error {
	j.mu.Lock()
	j.mu.number++
	f.info.Number = j.mu.number
	j.mu.Unlock()
	if err := j.opts.Register(f.info); err != nil {
		return fmt.Errorf("register %s: %w", f.info.Name, err)
	}
	return nil
}

// Last returns the sequence of the last frame that was written. The committer's, like Write.
func (j *Journal) Last() Seq { return j.seq }

// Room is the number of bytes that can be written for certain, that is to say into files that are there already: what is
// left of the current file, and the spare ones. It is a lower bound while a round is being written.
func (j *Journal) Room() int64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	room := int64(len(j.mu.ready)) * j.opts.FileBytes
	if n := len(j.mu.live); n > 0 {
		room += j.mu.live[n-1].info.Bytes - j.mu.live[n-1].used
	}
	return room
}

// ShortOfSpace tells whether the last attempt to make a spare file found no space. Little Room alone says no such thing: writers may be
// ahead of the preparer for a while.
func (j *Journal) ShortOfSpace() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.mu.noSpace != nil
}

// Err returns why the journal failed, nil as long as it has not.
func (j *Journal) Err() error { return j.failed() }

func (j *Journal) err() error {
	if err := j.failed(); err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.mu.closed {
		return ErrClosed
	}
	return nil
}

func (j *Journal) failed() error {
	if err := j.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// fail is final: the first failure is what every later call returns.
func (j *Journal) fail(err error) error {
	err = fmt.Errorf("%w: %w", ErrFailed, err)
	if j.failure.CompareAndSwap(nil, &err) {
		j.opts.Logger.Error("journal failed", "error", err)
	}
	return j.failed()
}

// noSpaceOrFail lets errors through that leave the journal as it was.
func (j *Journal) noSpaceOrFail(err error) error {
	if errors.Is(err, disk.ErrNoSpace) || errors.Is(err, ErrClosed) {
		return err
	}
	return j.fail(err)
}

// Metrics returns counters and gauges.
func (j *Journal) Metrics() Metrics {
	m := Metrics{Frames: j.frames.Load(), Bytes: j.bytes.Load(), Syncs: j.syncs.Load(), PooledFiles: j.dir.pooled()}
	j.mu.Lock()
	defer j.mu.Unlock()
	m.LiveFiles, m.SpareFiles = len(j.mu.live), len(j.mu.ready)
	for _, l := range j.mu.live {
		m.LiveBytes += l.used
	}
	return m
}

// Close waits for the preparer and closes the files. It syncs nothing. Write and Sync must not be running, except for a
// Write that waits for a file.
func (j *Journal) Close() error {
	j.mu.Lock()
	if j.mu.closed {
		j.mu.Unlock()
		return nil
	}
	j.mu.closed = true
	close(j.stop)
	j.changed.Broadcast()
	j.mu.Unlock()
	<-j.done

	j.mu.Lock()
	files := j.mu.ready
	for _, l := range j.mu.live {
		if l.file != nil {
			files = append(files, l.file)
			l.file = nil
		}
	}
	j.mu.ready = nil
	j.mu.Unlock()
	var err error
	for _, f := range files {
		err = errors.Join(err, f.Close())
	}
	return err
}
