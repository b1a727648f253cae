package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// Recovery is a journal that is being opened. Its methods are called in the order Replay or Skip, Restart, Start, by one goroutine.
type Recovery struct {
	opts     Options
	dir      *directory
	files    []*storedFile
	step     step
	res      Replayed
	highest  Seq // of all sequences that were seen or vouched for
	restart  Restarted
	fresh    *file
	freshEnd int64
	last     Seq // sequence of the frame that Restart wrote, or the one before the first of the fresh file
}

type step int

const (
	stepOpened step = iota
	stepReplayed
	stepRestarted
	stepOver
)

// Open looks at the directory and the live files, which Pebble knows, and makes the directory if there is none. It changes
// nothing else.
func Open(fs disk.FS, dir string, live []FileInfo, opts Options) (*Recovery, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Recovery{opts: opts}
	live = slices.Clone(live)
	slices.SortFunc(live, func(a, b FileInfo) int {
		if a.Number < b.Number {
			return -1
		}
		return 1
	})
	names := map[string]bool{}
	for i, info := range live {
		if err := info.check(); err != nil {
			return nil, err
		}
		if names[info.Name] || i > 0 && live[i-1].Number == info.Number {
			return nil, fmt.Errorf("%w: two live files have the name or number of %v", ErrInvalid, info)
		}
		names[info.Name] = true
		r.files = append(r.files, &storedFile{info: info})
	}
	if r.dir, err = openDirectory(fs, dir, names, opts.FileBytes); err != nil {
		return nil, err
	}
	return r, nil
}

func (o Options) withDefaults() (Options, error) {
	if o.FileBytes == 0 {
		o.FileBytes = 64 << 20
	}
	if o.SpareFiles == 0 {
		o.SpareFiles = 2
	}
	if o.PooledFiles == 0 {
		o.PooledFiles = 6
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	switch {
	case o.FileBytes < disk.BlockSize || o.FileBytes%disk.BlockSize != 0:
		return o, fmt.Errorf("%w: file length %d is no multiple of %d", ErrInvalid, o.FileBytes, disk.BlockSize)
	case o.SpareFiles < 1 || o.PooledFiles < 0:
		return o, fmt.Errorf("%w: %d spare and %d pooled files: at least 1 spare one is needed", ErrInvalid, o.SpareFiles, o.PooledFiles)
	case o.Register == nil:
		return o, fmt.Errorf("%w: Options.Register is missing", ErrInvalid)
	}
	return o, nil
}

func (r *Recovery) enter(from step, what string) error {
	if r.step != from {
		return fmt.Errorf("%w: %s out of order: Replay, Restart and Start are called once each", ErrInvalid, what)
	}
	r.step = stepOver // unless it succeeds
	return nil
}

// Replay reads the live files and calls visit for each vouched frame, in order, and for each Damage in its place. completed
// is the last sequence that Pebble vouches for. The records passed to visit alias a buffer and are valid until it returns; an
// error of visit ends Replay. A block that the disk does not give is taken for a bad one; any other error of reading is returned as it is,
// and not taken for a torn frame.
func (r *Recovery) Replay(completed Seq, visit func(*StoredFrame) error) (Replayed, error) {
	if err := r.enter(stepOpened, "Replay"); err != nil {
		return Replayed{}, err
	}
	if completed > 0 && len(r.files) == 0 {
		return Replayed{}, fmt.Errorf("%w: frames up to %d were complete, but no file is live", ErrInvalid, completed)
	}
	s := scan{fs: r.dir.fs, dir: r.dir.name, files: r.files, visit: visit, completed: completed, vouched: completed}
	if err := s.run(); err != nil {
		return Replayed{}, err
	}
	r.res, r.highest = s.res, max(s.highest, s.res.Last)
	for _, f := range r.files {
		r.highest = max(r.highest, f.info.First)
	}
	r.step = stepReplayed
	return r.res, nil
}

// Skip takes the place of Replay when the owner knows that nothing in the live files is needed any more and that last is the last
// sequence that was used: they are not even looked at, whatever has become of them.
func (r *Recovery) Skip(last Seq) error {
	if err := r.enter(stepOpened, "Skip"); err != nil {
		return err
	}
	r.highest, r.res.Last = last, last
	for _, f := range r.files {
		r.highest = max(r.highest, f.info.First)
		if info, err := r.dir.fs.Stat(path.Join(r.dir.name, f.info.Name)); err == nil {
			f.size = info.Size
		}
		f.info.End, f.info.Last = -1, 0 // it holds nothing: see endFiles
	}
	r.step = stepReplayed
	return nil
}

// Restart takes a fresh file, writes f to it (what is kept of Replayed.Unvouched; nil or without records: nothing), and
// syncs it. All older files end before the first unvouched frame. This counts once the owner has stored the result.
func (r *Recovery) Restart(f *Frame) (Restarted, error) {
	if err := r.enter(stepReplayed, "Restart"); err != nil {
		return Restarted{}, err
	}
	size := int64(0)
	if f != nil && f.Count() > 0 {
		if err := f.Build(); err != nil {
			return Restarted{}, err
		}
		size = f.Size()
	}
	next := r.nextSeq()
	if err := r.takeFresh(size, next); err != nil {
		return Restarted{}, err
	}
	r.restart.Completed, r.last = r.res.Last, next-1
	if size > 0 {
		// As a round's: where blocks that are there need space again, its WriteSyncAt is the one that waits for it.
		if _, err := r.fresh.WriteSyncAt(f.finish(r.fresh.info.Epoch, next, r.res.Last), 0); err != nil {
			return Restarted{}, fmt.Errorf("journal: write %s: %w", r.fresh.info.Name, err)
		}
		r.restart.Completed, r.last, r.freshEnd = next, next, size
	}
	if err := r.fresh.Sync(); err != nil {
		return Restarted{}, fmt.Errorf("journal: sync %s: %w", r.fresh.info.Name, err)
	}
	r.endFiles(next)
	r.res.Unvouched = nil
	r.step = stepRestarted
	return r.restart, nil
}

// nextSeq is above every sequence that was ever used: the ones that were seen, and all that the live files have room for,
// of which torn or lost frames may have been.
func (r *Recovery) nextSeq() Seq {
	blocks := int64(1)
	for _, f := range r.files {
		blocks += f.info.Bytes / disk.BlockSize
	}
	return r.highest + Seq(blocks)
}

// takeFresh opens the fresh file. Files that nothing was found in are as good as those of the pool: if the process ends
// before the owner has stored the result they still hold nothing of their recorded epoch. So a full disk does not prevent a
// restart; if not even such a file is there, a small one will do for now.
//
// What earlier starts left that is of no use goes first: each of several that ended while they made a file left the space that it had
// taken, of a reserve that nothing could fill up again.
func (r *Recovery) takeFresh(frame int64, next Seq) (err error) {
	if err := r.dir.clean(); err != nil {
		r.opts.Logger.Warn("journal: cannot remove files that are not used", "error", err)
	}
	number := uint64(1)
	for _, f := range r.files {
		number = max(number, f.info.Number+1)
		if !f.used && f.end == 0 && !f.ended() && f.size == f.info.Bytes {
			r.dir.put(f.info.Name, f.size)
			f.pooled = true
		}
	}
	size := max(frame, r.opts.FileBytes)
	if r.fresh, err = r.dir.take(size, nil); r.opts.madeRoom(err, size) {
		r.fresh, err = r.dir.take(size, nil)
	}
	if errors.Is(err, disk.ErrNoSpace) {
		size = max(frame, disk.BlockSize)
		if r.fresh, err = r.dir.create(size, nil); r.opts.madeRoom(err, size) {
			r.fresh, err = r.dir.create(size, nil)
		}
	}
	if err != nil {
		return fmt.Errorf("journal: fresh file for recovery: %w", err)
	}
	r.fresh.info.Number, r.fresh.info.First = number, next
	return r.dir.fs.SyncDir(r.dir.name) // names of pooled files may not have been
}

// endFiles computes what the owner has to store.
func (r *Recovery) endFiles(next Seq) {
	for _, f := range r.files {
		if f.info.Name == r.fresh.info.Name {
			continue
		}
		if f.info.First == 0 {
			f.info.First = f.first
		}
		if f.last == MaxSeq {
			f.last = next - 1
		}
		if !f.ended() {
			f.info.End, f.info.Last = f.end, f.last
		}
		if f.info.End == 0 {
			r.restart.Dropped = append(r.restart.Dropped, f.info)
			continue
		}
		r.restart.Live = append(r.restart.Live, f.info)
	}
	r.restart.Live = append(r.restart.Live, r.fresh.info)
}

// Start returns the journal. The owner has stored what Restart returned.
func (r *Recovery) Start() (*Journal, error) {
	if err := r.enter(stepRestarted, "Start"); err != nil {
		return nil, err
	}
	live := map[string]bool{}
	for _, info := range r.restart.Live {
		live[info.Name] = true
	}
	j := newJournal(r.opts, r.dir)
	for _, f := range r.files {
		switch {
		case f.info.Name == r.fresh.info.Name || f.pooled:
		case live[f.info.Name]:
			j.mu.live = append(j.mu.live, &liveFile{info: f.info, last: f.last, used: f.info.End})
		default:
			r.dir.put(f.info.Name, f.size)
		}
	}
	j.begin(r.fresh, r.freshEnd, r.last)
	r.fresh = nil
	go j.prepare()
	return j, nil
}

// Close gives up a recovery that was not started.
func (r *Recovery) Close() error {
	r.step = stepOver
	if r.fresh == nil {
		return nil
	}
	f := r.fresh
	r.fresh = nil
	return f.Close()
}

// newEpoch returns a random number but 0.
func newEpoch() uint64 {
	var b [8]byte
	for {
		rand.Read(b[:]) // does not fail: the runtime ends the process instead
		if e := binary.LittleEndian.Uint64(b[:]); e != 0 {
			return e
		}
	}
}

// makeDir makes the directory of the journal if there is none. Its name is synced in any case: an earlier process may have
// been killed between making and syncing it.
func makeDir(fs disk.FS, dir string) error {
	if err := fs.MkdirAll(dir); err != nil {
		return err
	}
	return fs.SyncDir(path.Dir(dir))
}
