package wal

import (
	"container/list"
	"errors"
	"io/fs"
	"path"
	"sync"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// files keeps the files of segments open, the least recently used ones are closed. There are never more than most of them, unless all
// are in use: nobody waits for a file that another one holds.
type files struct {
	s    *Store
	most int // segments with open files, two each

	mu      sync.Mutex
	open    map[*seg]*openSeg
	opening int       // segments that somebody is about to insert
	lru     list.List // of *openSeg without references, the oldest first
}

// openSeg is a segment whose files are in use. log and index stay valid until release.
type openSeg struct {
	sg    *seg
	refs  int           // guarded by files.mu
	elem  *list.Element // in lru when refs is 0
	gone  bool          // forgotten: close at the last release
	log   disk.File
	index disk.File
}

// acquire opens the files of a segment, or returns the open ones.
func (f *files) acquire(l *Log, sg *seg) (*openSeg, error) {
	f.mu.Lock()
	if o := f.open[sg]; o != nil {
		f.take(o)
		f.mu.Unlock()
		return o, nil
	}
	f.mu.Unlock()
	dir := path.Join(f.s.logsDir, l.dir)
	f.makeRoom()
	defer f.roomTaken()
	log, err := f.s.fs.Open(path.Join(dir, sg.key.Log()))
	if err != nil {
		return nil, err
	}
	index, err := f.s.fs.Open(path.Join(dir, sg.key.Index()))
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return f.insert(sg, log, index), nil
}

// makeRoom closes files so that those of one more segment may be opened. It comes before the opening: the limit of the process is
// there while files are opened, too. roomTaken follows when they are inserted, or will not be.
func (f *files) makeRoom() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opening++
	for len(f.open)+f.opening > f.most && f.lru.Len() > 0 {
		f.close(f.lru.Front().Value.(*openSeg))
	}
}

func (f *files) roomTaken() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opening--
}

// insert adds files that were just opened or created, with one reference.
func (f *files) insert(sg *seg, log, index disk.File) *openSeg {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o := f.open[sg]; o != nil { // another goroutine was faster
		f.take(o)
		_, _ = log.Close(), index.Close()
		return o
	}
	o := &openSeg{sg: sg, refs: 1, log: log, index: index, gone: sg.dropped.Load()}
	if f.open == nil {
		f.open = make(map[*seg]*openSeg)
	}
	f.open[sg] = o
	return o
}

func (f *files) take(o *openSeg) {
	if o.elem != nil {
		f.lru.Remove(o.elem)
		o.elem = nil
	}
	o.refs++
}

func (f *files) release(o *openSeg) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if o.refs--; o.refs > 0 {
		return
	}
	if o.gone {
		f.close(o)
		return
	}
	if len(f.open)+f.opening > f.most { // it was opened while all were in use
		f.close(o)
		return
	}
	o.elem = f.lru.PushBack(o)
}

// forget closes the files of a segment as soon as nobody uses them.
func (f *files) forget(sg *seg) {
	sg.dropped.Store(true)
	f.s.rows.forget(sg)
	f.mu.Lock()
	defer f.mu.Unlock()
	if o := f.open[sg]; o != nil {
		if o.gone = true; o.refs == 0 {
			f.close(o)
		}
	}
}

func (f *files) close(o *openSeg) {
	if o.elem != nil {
		f.lru.Remove(o.elem)
		o.elem = nil
	}
	if f.open[o.sg] == o {
		delete(f.open, o.sg)
	}
	_, _ = o.log.Close(), o.index.Close() // all that matters was synced
}

// closeIdle closes the files of up to n segments that nobody uses, the least recently used ones. It returns how many.
func (f *files) closeIdle(n int) (closed int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for ; closed < n && f.lru.Len() > 0; closed++ {
		f.close(f.lru.Front().Value.(*openSeg))
	}
	return closed
}

func (f *files) closeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, o := range f.open {
		f.close(o)
	}
}

func (f *files) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.open)
}

// Space for a segment is taken in steps that double what it has, within these bounds: a small partition does not take what a busy
// one needs, and a busy one seldom waits for the file system.
const (
	smallestStep = mib
	largestStep  = 64 * mib
)

// step returns how much more space to take for a segment that has allocated bytes of it.
func step(allocated int64) int64 { return min(max(allocated, smallestStep), largestStep) }

// spacious tells whether a segment has space for some time to come: half of what the next step would add. A step must leave it
// spacious, or each look at it would take the next one at once. Called with the log's mu.
func (sg *seg) spacious() bool {
	return int64(sg.end) <= sg.allocated && sg.allocated-int64(sg.end) >= step(sg.allocated)/2
}

// preparers is how many goroutines create files, take space and catch up.
const preparers = 4

// preparer creates segment files and takes their space, off the path of rounds: until it is done the partition uses the
// journal. It also flushes logs that piled up so much in the journal meanwhile that rounds cannot take it along.
type preparer struct {
	mu    sync.Mutex
	queue []prepareJob
	wake  chan struct{}
}

type prepareJob struct {
	l  *Log
	sg *seg // nil: flush the log
}

// prepare asks for files and space of a segment when they are missing or about to be. Called with the log's mu.
func (s *Store) prepare(l *Log, sg *seg) {
	if sg.preparing || s.space.full.Load() || sg.names != namesReady && l.Condemned() == CondemnedWrites {
		return
	}
	full := sg.allocated >= l.segmentBytes && int64(sg.end) <= sg.allocated // it rolls before it needs more
	if sg.names == namesReady && (sg.spacious() || full) {
		return
	}
	sg.preparing = true
	l.preparing++
	s.preparer.add(prepareJob{l, sg})
}

// catchUp asks for a flush of a log. Called with its mu.
func (s *Store) catchUp(l *Log) {
	if l.doing(catchUpWork) || s.space.full.Load() {
		return
	}
	l.begin(catchUpWork)
	l.preparing++
	s.preparer.add(prepareJob{l, nil})
}

func (p *preparer) add(j prepareJob) {
	p.mu.Lock()
	p.queue = append(p.queue, j)
	p.mu.Unlock()
	p.kick()
}

func (p *preparer) kick() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// next takes a job from the queue, and sees to it that another goroutine takes the one behind.
func (p *preparer) next() (j prepareJob, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return j, false
	}
	j, p.queue = p.queue[0], p.queue[1:]
	if len(p.queue) > 0 {
		p.kick()
	}
	return j, true
}

// runPreparer is one of the preparer's goroutines.
func (s *Store) runPreparer() {
	p := &s.preparer
	defer p.drop()
	for {
		select {
		case <-s.closing:
			return
		case <-s.failure:
			return
		case <-p.wake:
		}
		for j, ok := p.next(); ok; j, ok = p.next() {
			var err error
			if j.sg == nil {
				err = s.flush(j.l, false)
			} else {
				err = s.prepareFiles(j.l, j.sg, 0)
			}
			j.done()
			if !s.condemnPath(j.l, err) {
				s.noteError(err)
			}
		}
	}
}

// done lets the segment be prepared again.
func (j prepareJob) done() {
	j.l.mu.Lock()
	if j.sg == nil {
		j.l.end(catchUpWork)
	} else {
		j.sg.preparing = false
	}
	j.l.preparing--
	j.l.idle.Broadcast()
	j.l.mu.Unlock()
}

// drop gives up what is queued.
func (p *preparer) drop() {
	p.mu.Lock()
	jobs := p.queue
	p.queue = nil
	p.mu.Unlock()
	for _, j := range jobs {
		j.done()
	}
}

// noteError takes an error of work beside the rounds: no space is waited out, all else ends the store.
func (s *Store) noteError(err error) {
	switch {
	case err == nil || errors.Is(err, ErrDeleted): // a dropped segment needs no files
	case isNoSpace(err):
		s.space.shortage(err)
	default:
		s.fail(shortage(err))
	}
}

// prepareNow is prepare for one who can wait: it returns when the segment has files and space up to position to. The caller
// is at work on the log.
func (s *Store) prepareNow(l *Log, sg *seg, to int64) error {
	l.mu.Lock()
	for sg.preparing && !s.failed() {
		l.idle.Wait()
	}
	if sg.names == namesReady && sg.allocated >= to {
		l.mu.Unlock()
		return nil
	}
	sg.preparing = true
	l.preparing++
	l.mu.Unlock()
	err := s.prepareFiles(l, sg, to)
	prepareJob{l, sg}.done()
	return err
}

// prepareFiles creates the files of a segment if it has none, and takes the next step of space. Bytes up to position need were
// accepted already: for these the ballast is given up. The caller has set sg.preparing.
func (s *Store) prepareFiles(l *Log, sg *seg, need int64) error {
	l.mu.Lock()
	known, allocated, end, gone := sg.names, sg.allocated, int64(sg.end), l.life != alive
	whole := disk.RoundUp(l.segmentBytes)
	l.mu.Unlock()
	if gone || sg.dropped.Load() {
		return ErrDeleted
	}
	target, err := s.targetOf(allocated, end, need, whole)
	if err != nil {
		return err
	}
	var o *openSeg
	open := func() (err error) {
		if known == namesReady {
			o, err = s.files.acquire(l, sg)
		} else {
			o, err = s.createFiles(l, sg, known)
		}
		return err
	}
	take := func() error { return o.log.Preallocate(target) }
	if need == 0 {
		err = open()
	} else {
		err = s.space.must(leastGiven, open)
	}
	if err != nil {
		return err
	}
	defer s.files.release(o)
	if need == 0 {
		err = take()
	} else {
		err = s.space.must(target-allocated, take)
	}
	if err != nil {
		return err
	}
	if err := o.log.Sync(); err != nil {
		return err
	}
	if known != namesReady && !s.o.off.nameSync {
		if err := o.index.Sync(); err != nil {
			return err
		}
		if err := s.fs.SyncDir(path.Join(s.logsDir, l.dir)); err != nil {
			return err
		}
	}
	l.mu.Lock()
	sg.names, sg.allocated = namesReady, max(sg.allocated, target)
	l.mu.Unlock()
	return nil
}

// targetOf returns up to where a segment should have its space: more than it has, also so that the length is dirty. On a full disk
// that is what is needed and no more. Nor is it more than a whole segment takes, unless one batch is larger: a partition that keeps little
// does not keep space for much. One that has as much already, as after a start, which does not know what is synced, gets a block.
func (s *Store) targetOf(allocated, end, need, whole int64) (int64, error) {
	for _, target := range [...]int64{disk.RoundUp(max(allocated, end) + step(allocated)), disk.RoundUp(max(allocated, end) + mib)} {
		if max(end, need) <= whole {
			target = min(target, max(whole, allocated+disk.BlockSize))
		}
		if ok, err := s.space.allows(target - allocated); ok || err != nil {
			return target, err
		}
	}
	if need == 0 {
		return 0, errReserve
	}
	return max(disk.RoundUp(need), allocated+disk.BlockSize), nil
}

// createFiles makes the files of a segment, and its directory durably if there is none.
func (s *Store) createFiles(l *Log, sg *seg, known names) (*openSeg, error) {
	dir := path.Join(s.logsDir, l.dir)
	if _, err := s.fs.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := s.fs.MkdirAll(dir); err != nil {
			return nil, err
		}
	} else if err != nil {
		return nil, err
	}
	if !s.o.off.nameSync {
		if err := s.fs.SyncDir(s.logsDir); err != nil {
			return nil, err
		}
	}
	s.files.makeRoom()
	defer s.files.roomTaken()
	log, err := s.createFile(path.Join(dir, sg.key.Log()), known)
	if err != nil {
		return nil, err
	}
	index, err := s.createFile(path.Join(dir, sg.key.Index()), known)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	l.mu.Lock()
	sg.names = namesOwn // should taking the space fail, these very files are to be used next time
	l.mu.Unlock()
	return s.files.insert(sg, log, index), nil
}

// createFile makes a file. Where one is there already it is this very segment's own, or else what a start before this one left
// behind, never named by journal or cut.
func (s *Store) createFile(name string, known names) (disk.File, error) {
	f, err := s.fs.Create(name)
	if !errors.Is(err, fs.ErrExist) {
		return f, err
	}
	if known == namesOwn {
		return s.fs.Open(name)
	}
	if err := s.fs.Remove(name); err != nil {
		return nil, err
	}
	return s.fs.Create(name)
}
