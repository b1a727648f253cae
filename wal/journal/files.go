package journal

import (
	"errors"
	"fmt"
	"time"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// retryNoSpace is how often the preparer looks whether a full disk has space again.
const retryNoSpace = time.Second

// prepare keeps SpareFiles files ready until the journal is closed or fails.
func (j *Journal) prepare() {
	defer close(j.done)
	if err := j.dir.clean(); err != nil {
		j.opts.Logger.Warn("journal: cannot remove files that are not used", "error", err)
	}
	for {
		var retry <-chan time.Time
		if j.lacksFiles() {
			err := j.addReady()
			if err == nil {
				continue
			}
			if !errors.Is(err, disk.ErrNoSpace) {
				return
			}
			retry = time.After(retryNoSpace)
		}
		select {
		case <-j.stop:
			return
		case <-j.wake:
		case <-retry:
		}
	}
}

func (j *Journal) lacksFiles() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.mu.ready) < j.opts.SpareFiles && !j.mu.closed && j.failed() == nil
}

// addReady makes one more file ready and tells who waits about the outcome.
func (j *Journal) addReady() error {
	err := j.tryAddReady()
	if err != nil {
		err = j.noSpaceOrFail(err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err != nil && j.mu.noSpace == nil && !j.mu.closed { // the first of a row; closing interrupts the making of a file
		j.opts.Logger.Warn("journal: cannot prepare the next file", "error", err, "ready", len(j.mu.ready))
	}
	j.mu.attempts++
	j.mu.noSpace = err
	j.changed.Broadcast()
	return err
}

func (j *Journal) tryAddReady() error {
	f, err := j.dir.take(j.opts.FileBytes, j.gently)
	if j.nothingReady() && j.opts.madeRoom(err, j.opts.FileBytes) {
		f, err = j.dir.take(j.opts.FileBytes, j.gently)
	}
	if err != nil {
		return err
	}
	j.registering.Lock()
	defer j.registering.Unlock()
	if err := j.register(f); err != nil {
		j.dir.put(f.info.Name, f.info.Bytes)
		return errors.Join(err, f.Close())
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.mu.ready = append(j.mu.ready, f)
	return nil
}

// madeRoom tells whether there is room now for a file of which err says that there was none.
func (o *Options) madeRoom(err error, bytes int64) bool {
	return errors.Is(err, disk.ErrNoSpace) && o.MakeRoom != nil && o.MakeRoom(bytes)
}

// restAfter is how many times as long as a step of zero-filling took the preparer rests after it: rounds wait for the same disk, and
// tens of megabytes at full speed are a stall for each of them.
const (
	restAfter   = 4
	longestRest = 50 * time.Millisecond
)

// gently is the preparer's pace. When nothing is ready any more, it hurries, also in the middle of a rest.
func (j *Journal) gently(took time.Duration) bool {
	timer := time.NewTimer(min(restAfter*took, longestRest))
	defer timer.Stop()
	for !j.nothingReady() {
		select {
		case <-timer.C:
			return true
		case <-j.wake:
			defer j.kick() // it is for the preparer's own loop, too
		case <-j.stop:
			return false
		}
	}
	return j.hurriedly(took)
}

func (j *Journal) nothingReady() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.mu.ready) == 0
}

// hurriedly is the pace of one for whom a round waits.
func (j *Journal) hurriedly(time.Duration) bool {
	select {
	case <-j.stop:
		return false
	default:
		return true
	}
}

// kick makes the preparer look at what is lacking.
func (j *Journal) kick() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Files returns the live files that have been written to, oldest first.
func (j *Journal) Files() []FileState {
	j.mu.Lock()
	defer j.mu.Unlock()
	states := make([]FileState, 0, len(j.mu.live))
	for i, l := range j.mu.live {
		states = append(states, FileState{FileInfo: l.info, Newest: l.last, Used: l.used, Current: i == len(j.mu.live)-1})
	}
	return states
}

// Retirable returns the oldest files in which no frame is above covered. Neither the current file is among them, nor one that
// is not synced.
func (j *Journal) Retirable(covered Seq) Retirement {
	covered = min(covered, Seq(j.durable.Load()))
	j.mu.Lock()
	defer j.mu.Unlock()
	n := 0
	for n < len(j.mu.live)-1 && j.mu.live[n].last <= covered {
		n++
	}
	var r Retirement
	for _, l := range j.mu.live[:n] {
		r.Remove = append(r.Remove, l.info)
	}
	if n > 0 {
		r.Put = append(r.Put, j.mu.live[n].info)
	}
	return r
}

// Retire takes files out of use, after the owner stored that they are retired. They are recycled or deleted.
func (j *Journal) Retire(r Retirement) error {
	if err := j.err(); err != nil {
		return err
	}
	retired, err := j.unlist(r)
	if err != nil {
		return err
	}
	for _, l := range retired {
		if l.file != nil {
			err = errors.Join(err, l.file.Close())
		}
		size := l.info.Bytes
		if j.dir.pooled() >= j.opts.PooledFiles {
			size = 0
		}
		j.dir.put(l.info.Name, size)
	}
	j.kick()
	if err = errors.Join(err, j.dir.clean()); err != nil {
		return fmt.Errorf("journal: retire files: %w", err)
	}
	return nil
}

// unlist removes the files from the live ones.
func (j *Journal) unlist(r Retirement) ([]*liveFile, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	n := len(r.Remove)
	if n >= len(j.mu.live) {
		return nil, fmt.Errorf("%w: retirement of %d of %d live files", ErrInvalid, n, len(j.mu.live))
	}
	for i, info := range r.Remove {
		if j.mu.live[i].info.Name != info.Name {
			return nil, fmt.Errorf("%w: retirement of %v, which is not the oldest live file", ErrInvalid, info)
		}
	}
	retired := j.mu.live[:n:n]
	j.mu.live = j.mu.live[n:]
	return retired, nil
}
