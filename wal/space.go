package wal

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// What happens when the disk is full.
//
// A full disk is no failure. The store stays up: it votes, reads, deletes, checkpoints and starts for as long as the disk is full, takes
// no entries from producers, and goes on by itself when there is space. The policy has four parts.
//
// The reserve is a file. <Dir>/ballast has its blocks allocated while there is space, so that others cannot take them, and is cut
// shorter for whoever must have space to keep the store up: Pebble; the journal, when it has no spare file; recovery, for its fresh
// journal file; bytes and rows that were accepted and have no space in their segment, the blocks they need and no step ahead; the
// new name of a directory that is deleted. It grows again by itself. Its size is what these may take on a full disk: see
// Options.ballastBytes. Options.ReserveBytes is at least that; what it is above is free space that is merely left alone.
//
// The store is full from a shortage on, or from when what is free and the ballast together are below ReserveBytes, until the ballast is
// whole, as much as the headroom is free beside the reserve, and no shortage was seen for a moment. While it is full Pressure says so,
// nothing takes space ahead of need, no log is created but the metadata's, and a checkpoint leaves alone what it has no space for.
//
// Nobody sees "no space" who cannot handle it. The files of a segment and new files of the journal can wait: whoever makes them gets the
// error and tries again later. What Pebble writes, and what a round writes into space that it has already (some file systems need
// space for that too), cannot: the call waits, here, until there is space. See relief.go and relief_pebble.go.
//
// Only the end is different. A store that is closed, or a start that is given up, while somebody waits, counts as failed: nothing is
// written any more, Close says what was not stored, and everything that was acknowledged is there for the next start.
type space struct {
	s       *Store
	fs      disk.FS // without relief
	ballast ballast
	whole   int64 // of the ballast
	reserve int64
	// headroom is what must be free beside the reserve before the store counts as not full again.
	headroom int64

	full  atomic.Bool
	short atomic.Int64  // when the last shortage was, or the ballast was given up, in nanoseconds since begin
	begin time.Time     // for monotonic time in short
	wake  chan struct{} // capacity 1: look now

	free, missing atomic.Int64 // as of the last look: see Store.Space
	low           atomic.Bool  // said that it will be full soon

	mu sync.Mutex // held to change the ballast
}

const (
	spaceInterval = 250 * time.Millisecond // between two looks at the disk
	spacePoll     = 50 * time.Millisecond  // between two tries of one who waits
	spaceCalm     = time.Second            // without a shortage before the ballast grows, and the store counts as not full
	leastFree     = mib                    // what the ballast leaves to others when it grows
	growthStep    = 32 * mib               // of the ballast: making room for somebody else must not wait long
	leastGiven    = 64 * kib               // of the ballast: names and the like have no size
)

// errReserve says that what is free on the disk is kept for votes, hard states and Pebble.
var errReserve = reserveError{}

type reserveError struct{}

func (reserveError) Error() string { return "wal: free disk space is below the reserve" }
func (reserveError) Unwrap() error { return disk.ErrNoSpace }

func isNoSpace(err error) bool {
	return errors.Is(err, disk.ErrNoSpace) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// ballastBytes is what the store may have to write while the disk is full:
//   - a file of the journal, for the copy of the last round, larger where that round was one large append, and for the votes after it;
//   - Pebble's logs and tables: a few memtables;
//   - one more round, which was accepted before anybody knew and has no space in segments yet.
func (o *Options) ballastBytes() int64 {
	return disk.RoundUp(o.JournalFileBytes + copyExtra + pebbleShare*o.memTableBytes() + o.roundBytes())
}

const (
	copyExtra   = 2 * mib // of a round that is larger than half a file because of one large append
	pebbleShare = 8       // memtables: three logs in use and being flushed, as many tables, and room for a compaction
)

// headroomBytes is how much more than the reserve must be free for the store to count as not full again.
func (o *Options) headroomBytes() int64 { return max(o.ballastBytes()/8, smallestStep) }

// leastReserve is the least that ReserveBytes can be.
func (o *Options) leastReserve() int64 { return o.ballastBytes() + o.headroomBytes() }

// roundBytes bounds a round. The copy that recovery makes of the last one must fit into any file of the journal, for the disk may be
// full then.
func (o *Options) roundBytes() int64 { return min(maxRoundBytes, o.JournalFileBytes/2) }

// memTableBytes is the size of Pebble's memtables, and of a checkpoint's batches. It goes with the journal's files: a small store has a
// small reserve.
func (o *Options) memTableBytes() int64 { return min(max(o.JournalFileBytes/8, 256*kib), 8*mib) }

// init is called before anything is opened.
func (sp *space) init(s *Store) {
	o := &s.o
	sp.s, sp.fs, sp.ballast = s, s.fs, ballastIn(s.fs, o.Dir)
	sp.whole, sp.headroom = o.ballastBytes(), o.headroomBytes()
	sp.begin, sp.wake = time.Now(), make(chan struct{}, 1)
	sp.short.Store(-int64(spaceCalm))
	if least := o.leastReserve(); o.ReserveBytes < least {
		o.Logger.Warn("the reserve is raised to what journal and Pebble may take on a full disk", "dir", o.Dir,
			"asked bytes", o.ReserveBytes, "reserve bytes", least)
		o.ReserveBytes = least
	}
	sp.reserve = o.ReserveBytes
}

// run looks at the disk from time to time, and removes what logs have let go of. It is a goroutine of the store, and never waits for space.
func (sp *space) run() {
	tick := time.NewTicker(spaceInterval)
	defer tick.Stop()
	for {
		sp.s.checkpoints.unlinkLeft()
		sp.grow()
		sp.look()
		select {
		case <-sp.s.closing:
			return
		case <-sp.s.failure:
			return
		case <-tick.C:
		case <-sp.wake:
		}
	}
}

// look decides whether the disk is full.
func (sp *space) look() {
	free, err := sp.fs.FreeBytes(sp.s.o.Dir)
	if err != nil {
		return // whoever writes will learn more
	}
	have, j := sp.ballast.size(), sp.s.journal
	sp.measured(free, have)
	sp.warn(free + have)
	short := j != nil && j.ShortOfSpace() && j.Room() < sp.s.o.JournalFileBytes/2
	switch {
	case free+have < sp.reserve || short:
		sp.setFull(errReserve)
	case sp.calm() && have >= sp.whole && free+have >= sp.reserve+sp.headroom:
		sp.clear(free)
	}
}

// warn says once that the disk will be full soon: while less than as much again as the reserve is left beside it.
func (sp *space) warn(left int64) {
	switch low := left < 2*sp.reserve; {
	case !low && left >= 2*sp.reserve+sp.headroom:
		sp.low.Store(false)
	case low && !sp.full.Load() && !sp.low.Swap(true):
		sp.s.o.Logger.Warn("the disk is nearly full: producers will be refused below the reserve", "dir", sp.s.o.Dir,
			"left bytes", left-sp.reserve, "reserve bytes", sp.reserve)
	}
}

// Space says how much space the store's disk has, as of a moment ago.
type Space struct {
	Dir     string
	Free    int64
	Missing int64 // how much more must be free before a store that is full takes records again
}

// Space returns what the disk has. It costs nothing.
func (s *Store) Space() Space { return Space{s.o.Dir, s.space.free.Load(), s.space.missing.Load()} }

// String says it for people.
func (s Space) String() string {
	if s.Missing == 0 { // somebody found too little a moment ago
		return fmt.Sprintf("%d MiB are free in %s, which may be enough in a moment", s.Free>>20, s.Dir)
	}
	return fmt.Sprintf("%d MiB are free in %s, and %d MiB more are needed", s.Free>>20, s.Dir, (s.Missing+mib-1)>>20)
}

// calm tells whether nobody has found too little space for a moment. What was given up for somebody must not be taken from under him.
func (sp *space) calm() bool { return int64(time.Since(sp.begin))-sp.short.Load() >= int64(spaceCalm) }

// grow makes the ballast whole as far as there is space. One that a store with larger files left is too large, and made smaller.
func (sp *space) grow() {
	for more := sp.calm(); more; {
		sp.mu.Lock()
		free, err := sp.fs.FreeBytes(sp.s.o.Dir)
		have := sp.ballast.size()
		if have > sp.whole {
			_ = sp.ballast.shrink(sp.whole) // else the next look does
		}
		n := min(sp.whole-have, disk.RoundDown(free-leastFree), growthStep)
		more = err == nil && n > 0 && sp.ballast.grow(have+n) == nil
		sp.mu.Unlock()
	}
}

// measured notes what whoever is refused is told.
func (sp *space) measured(free, ballast int64) {
	sp.free.Store(free)
	sp.missing.Store(max(sp.reserve+sp.headroom-free-ballast, 0))
}

func (sp *space) setFull(err error) {
	if sp.full.Load() {
		return
	}
	free, _ := sp.fs.FreeBytes(sp.s.o.Dir)
	sp.measured(free, sp.ballast.size()) // before anybody is refused
	if sp.full.Swap(true) {
		return
	}
	sp.s.o.Logger.Warn("the disk is full, or nearly so: producers are refused until space is freed", "dir", sp.s.o.Dir,
		"free bytes", free, "ballast bytes", sp.ballast.size(), "reserve bytes", sp.reserve, "error", err)
}

func (sp *space) clear(free int64) {
	if !sp.full.Swap(false) {
		return
	}
	sp.s.o.Logger.Info("the disk has space again", "dir", sp.s.o.Dir, "free bytes", free)
	sp.s.commits.kick()
	sp.s.checkpoints.force() // of what it left alone
}

// shortage notes that somebody found no space.
func (sp *space) shortage(err error) {
	sp.noted()
	sp.setFull(err)
	sp.lookNow()
}

// lookNow has the next look at the disk come at once.
func (sp *space) lookNow() {
	select {
	case sp.wake <- struct{}{}:
	default:
	}
}

func (sp *space) noted() { sp.short.Store(int64(time.Since(sp.begin))) }

// allows tells whether bytes may be taken ahead of need.
func (sp *space) allows(bytes int64) (bool, error) {
	free, err := sp.fs.FreeBytes(sp.s.o.Dir)
	return free+sp.ballast.size()-bytes >= sp.reserve, err
}

// room is how many bytes there is room for at all, if the ballast is given up.
func (sp *space) room() int64 {
	free, err := sp.fs.FreeBytes(sp.s.o.Dir)
	if err != nil {
		return 0
	}
	return free + sp.ballast.size()
}

// makeRoom gives up as much of the ballast as a file of so many bytes needs, if that is enough for it.
func (sp *space) makeRoom(bytes int64) bool {
	free, err := sp.fs.FreeBytes(sp.s.o.Dir)
	if bytes += leastGiven; err != nil || free+sp.ballast.size() < bytes {
		return false
	}
	return free >= bytes || sp.give(bytes-free)
}

// give gives up some of the ballast; false: there is none.
func (sp *space) give(bytes int64) bool {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.noted()
	return sp.ballast.giveUp(bytes)
}

// must runs an operation that has to succeed if it can: the ballast is given up for it. What it does is done again after a shortage. It
// may still find no space.
func (sp *space) must(bytes int64, op func() error) error {
	for {
		err := op()
		if !isNoSpace(err) {
			return err
		}
		sp.shortage(err)
		if !sp.give(bytes) {
			return err
		}
	}
}

// insist runs an operation that nobody can do without: it waits for space. It returns an error of another kind, or the shortage when the
// store ends.
func (sp *space) insist(what string, bytes int64, op func() error) error {
	for waiting := false; ; waiting = true {
		err := sp.must(bytes, op)
		if !isNoSpace(err) {
			return err
		}
		if !waiting {
			sp.s.o.Logger.Warn("waiting for disk space", "dir", sp.s.o.Dir, "for", what, "error", err)
		}
		if !sp.s.pause(spacePoll) {
			return fmt.Errorf("wal: the disk is full: %s: %w", what, err)
		}
	}
}

// pause waits; false: the store has failed, or is ending, and there is nothing to wait for.
func (s *Store) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-s.failure:
	case <-s.stopping:
	}
	return false
}

// StopWaiting ends all waiting for space, for good: see space. Close does so too. It is for an owner that closes before the store whoever
// uses it: Create, Delete, Refuse and Set may be what waits, whatever becomes of their contexts, for Pebble cannot give up a commit.
func (s *Store) StopWaiting() { s.stop() }

// stop ends all waiting for space.
func (s *Store) stop() { s.stopOnce.Do(func() { close(s.stopping) }) }

func (s *Store) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}
