package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/journal"
	"github.com/quorumlog/quorumlog/wal/segment"
)

const (
	cutWait        = 2 * time.Second // how long owners may take to give their cuts; then the last state is cut with
	checkpointTick = time.Second
	flushers       = 4
	longestTail    = mib // of a cut
	cutRounds      = 4   // of a checkpoint, for logs whose producers are faster than their flush
)

// checkpointer flushes, cuts and retires, in its own goroutine.
type checkpointer struct {
	s     *Store
	wake  chan struct{} // capacity 1
	given chan struct{} // capacity 1: a cut was given or declined
	taker atomic.Pointer[func(*Log)]

	starting bool     // in first, when there is nobody else
	metadata id.Index // the Applied of the metadata's last cut, 0: none. The checkpointer's

	uncut  atomic.Int64 // journal bytes since the last checkpoint
	forced atomic.Bool
	trims  atomic.Bool // there may be logs whose start can move
	much   atomic.Bool // and one of them lets go of much by it

	mu    sync.Mutex
	left  []*Log        // with files before their start
	done  chan struct{} // closed and replaced after each checkpoint
	count uint64
}

// wrote counts journal bytes.
func (c *checkpointer) wrote(n int64) {
	if c.uncut.Add(n) >= c.s.o.CheckpointBytes {
		c.kick()
	}
}

// roundDone is called by the committer after each round.
func (c *checkpointer) roundDone() {
	s := c.s
	if s.memory.held() > s.o.CacheBytes {
		if !s.evict(s.evictTo(), evictAtOnce) && c.uncut.Load() > 0 {
			c.force()
		}
	}
}

func (c *checkpointer) kick() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *checkpointer) force() {
	c.forced.Store(true)
	c.kick()
}

// waitForSpace waits for a checkpoint, or a moment; false when the store closes or failed.
func (c *checkpointer) waitForSpace() bool {
	c.mu.Lock()
	done := c.done
	c.mu.Unlock()
	c.force()
	timer := time.NewTimer(spacePoll)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-c.s.failure:
		return false
	}
	return true
}

// run is the checkpointer's goroutine.
func (c *checkpointer) run() {
	tick := time.NewTicker(checkpointTick)
	defer tick.Stop()
	last, short := time.Now(), false     // the last checkpoint; whether it found too little space
	trimmed := last.Add(-checkpointTick) // when the last pass of trims began; the first one comes with the first tick, or who is killed often has none
	for {
		select {
		case <-c.s.closing:
			return
		case <-c.s.failure:
			return
		case <-c.wake:
		case <-tick.C:
		}
		if short && time.Since(last) < checkpointTick {
			continue // what it freed meanwhile is not worth the next look at everything
		}
		due := c.uncut.Load() >= c.s.o.CheckpointBytes || c.forced.Swap(false)
		if due || c.uncut.Load() > 0 && time.Since(last) >= c.s.o.CheckpointInterval {
			err := c.checkpoint()
			c.s.noteError(err)
			last, short = time.Now(), isNoSpace(err)
		}
		wait := c.s.o.trimInterval * 9 / 10 // a tick may come a little early after the one before
		if c.much.Load() {
			wait = c.s.o.trimInterval / 10
		}
		if now := time.Now(); now.Sub(trimmed) >= wait {
			if c.much.Store(false); c.trims.Swap(false) {
				trimmed = now
				c.s.noteError(c.trim())
			}
			tick.Reset(checkpointTick)
		} else if c.much.Load() {
			tick.Reset(min(max(wait, time.Millisecond), checkpointTick))
		}
		if err := c.relieve(); err != nil {
			c.s.noteError(err)
		}
	}
}

// relieve frees memory if there is too much of it in use. What only the journal holds cannot be evicted, nor the rows that no index
// has. A checkpoint leaves both where a log has little of them, and does not look at logs that were not written to since; ten thousand
// logs with little are a lot. So these are flushed now, those with more of it first: each costs a sync or two.
func (c *checkpointer) relieve() error {
	s := c.s
	if s.memory.held() <= s.o.CacheBytes {
		return nil
	}
	for _, worthy := range [...]int64{flushWorthy, disk.BlockSize} {
		if s.evict(s.evictTo(), evictAll) {
			return nil
		}
		if err := c.flushAll(s.Logs(), worthy); err != nil {
			return err
		}
	}
	s.evict(s.evictTo(), evictAll)
	return nil
}

// first is the checkpoint of a start that replayed much: half of what starts one while the store runs, or more files than that many
// bytes need, for each start takes a fresh one. It is over before Open returns. Otherwise a process that is killed soon after each of
// its starts, by want of memory for one thing, would never get to its first checkpoint, and have more to replay each time. So a start
// finds at most what the one before left and what was written since, however often they follow each other.
//
// So does every start on a full disk, as far as there is space: however many there are, they take one file of the journal in turns. Too
// little space does not keep a store from starting.
func (c *checkpointer) first() error {
	s := c.s
	files := int64(s.journal.Metrics().LiveFiles) - 2 // the fresh one, and one that is partly filled
	little := c.uncut.Load() < s.o.CheckpointBytes/2 && files*s.o.JournalFileBytes <= s.o.CheckpointBytes
	if little && !s.space.full.Load() {
		return nil
	}
	c.starting = true
	defer func() { c.starting = false }()
	err := c.checkpoint()
	if err == nil {
		c.forced.Store(false)
		err = c.relieve()
	}
	if isNoSpace(err) {
		s.noteError(err)
		err = nil
	}
	return errors.Join(err, s.cause())
}

// checkpoint flushes, takes the cuts of all logs with journal records that no cut covers, and retires the journal files that
// no log needs any more.
//
// A log whose tail is too long for a cut is flushed again and cut later: its producers were faster than the flush. On a full disk it is
// left alone, and its journal files stay: each checkpoint would write all of it to Pebble once more, until nothing is left for votes.
func (c *checkpointer) checkpoint() error {
	begun := c.uncut.Load()
	logs := c.s.dirtyLogs()
	if err := c.flushAll(logs, flushWorthy); err != nil {
		return err
	}
	if err := c.storable(logs); err != nil {
		return err
	}
	c.askCuts(logs)
	logs, err := c.cutInRounds(logs)
	if err != nil {
		return err
	}
	if len(logs) > 0 && !c.s.space.full.Load() {
		c.forced.Store(true) // the next tick's
	}
	c.uncut.Add(-begun)
	c.s.metrics.checkpoints.Add(1)
	c.mu.Lock()
	close(c.done)
	c.done = make(chan struct{})
	c.count++
	c.mu.Unlock()
	return nil
}

// cutInRounds takes the cuts of logs, and returns those of which it took none. Those whose producers were faster than the flush, and whose tails
// are too long for a cut, are flushed again: each time they have less, since each flush takes less time than the one before.
func (c *checkpointer) cutInRounds(logs []*Log) (left []*Log, err error) {
	for range cutRounds {
		if left, err = c.cutAll(logs); err != nil || len(left) == 0 || c.s.space.full.Load() {
			return left, err
		}
		if err := c.flushAll(left, flushWorthy); err != nil {
			return left, err
		}
		logs = left
	}
	return left, nil
}

// storable says whether there is room for the cuts of logs. Half of a checkpoint is of no use, and what it takes is missing afterwards.
func (c *checkpointer) storable(logs []*Log) error {
	s := c.s
	if !s.space.full.Load() {
		return nil
	}
	need := 2 * s.o.memTableBytes()
	for _, l := range logs {
		need += 2 * l.cutBytes(s.longestTail()) // in Pebble's log, and in a table
	}
	if s.space.room() < need {
		return fmt.Errorf("%w: a checkpoint needs %d bytes", errReserve, need)
	}
	return nil
}

// flushAll flushes the logs that have so many bytes to flush, or bytes of rows, a few at a time.
func (c *checkpointer) flushAll(logs []*Log, worthy int64) error {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed error
	work := make(chan *Log)
	for range min(flushers, len(logs)) {
		wg.Go(func() {
			for l := range work {
				if err := c.flushLog(l, worthy); err != nil {
					mu.Lock()
					failed = errors.Join(failed, err)
					mu.Unlock()
				}
			}
		})
	}
	for _, l := range logs {
		work <- l
	}
	close(work)
	wg.Wait()
	return failed
}

func (c *checkpointer) flushLog(l *Log, worthy int64) error {
	bytes, rows := l.unflushed()
	if bytes < worthy && int64(rows)*segment.RowSize < worthy && !l.sealable() {
		return nil
	}
	var err error
	if bytes >= worthy || l.sealable() {
		if err = c.s.flush(l, true); c.s.condemnPath(l, err) {
			return nil // its journal files stay, until the replica is out
		}
	}
	if err == nil || isNoSpace(err) {
		err = errors.Join(err, c.s.flushIndex(l))
	}
	if isNoSpace(err) || errors.Is(err, ErrDeleted) {
		c.s.noteError(err) // what is few goes into the cut instead
		return nil
	}
	return err
}

// sealable tells whether the log has segments behind a roll that are not sealed yet.
func (l *Log) sealable() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.segs) > 1 && l.segs[len(l.segs)-2].stage != segSealed
}

// retire takes the journal files out of use in which no log has a record that its stored cut does not cover.
func (c *checkpointer) retire(completed journal.Seq) error {
	s := c.s
	r := s.journal.Retirable(s.coveredSeq(completed))
	if len(r.Remove) == 0 {
		return nil
	}
	b := s.meta.NewBatch()
	defer func() { _ = b.Close() }()
	for _, f := range r.Remove {
		if err := b.Delete(journalKey(f.Name), nil); err != nil {
			return err
		}
	}
	for _, f := range r.Put {
		if err := b.Set(journalKey(f.Name), f.Append(nil), nil); err != nil {
			return err
		}
	}
	if err := s.metaCommit(b, pebble.Sync); err != nil {
		return err
	}
	return s.journal.Retire(r)
}

// coveredSeq is the last sequence up to which every log's records are covered by its stored cut. A log that is being deleted
// counts until that is durable: a crash may bring it back. One that was refused, durably, does not: a start ignores its records, and if its
// files cannot be made it may never be cut again, however long it waits for its deletion.
func (s *Store) coveredSeq(completed journal.Seq) journal.Seq {
	if s.o.off.retireCovered {
		return completed
	}
	return s.coveredBut(completed, nil)
}

// coveredBut is coveredSeq for the moment in which the given cuts, which cover everything completed, are stored.
func (s *Store) coveredBut(completed journal.Seq, taken []takenCut) journal.Seq {
	stored := make(map[*Log]bool, len(taken))
	for _, t := range taken {
		stored[t.l] = true
	}
	low := completed
	for _, l := range s.Logs() {
		l.mu.Lock()
		if l.dirty != 0 && !stored[l] && !l.refused {
			low = min(low, l.dirty-1)
		}
		l.mu.Unlock()
	}
	return low
}

// markStopped notes, as the last thing that a store does, that nobody will need the journal: whatever becomes of its files until the next
// start, nothing is lost. That start takes the mark away in the batch that makes the first file live which frames are written to.
func (s *Store) markStopped() error {
	completed := journal.Seq(s.completed.Load())
	if s.coveredSeq(completed) < completed { // a log that is half deleted has no cut
		return nil
	}
	err := s.metaSet(stoppedKey, appendSeq(nil, s.journal.Last()))
	if errors.Is(err, disk.ErrNoSpace) {
		return nil // the next start replays
	}
	return err
}

// dirtyLogs returns the logs with something that no stored cut covers.
func (s *Store) dirtyLogs() []*Log {
	var dirty []*Log
	for _, l := range s.Logs() {
		l.mu.Lock()
		if (l.dirty != 0 || l.needs&(cutChanged|cutState) != 0) && l.life == alive && !l.refused {
			dirty = append(dirty, l)
		}
		l.mu.Unlock()
	}
	return dirty
}

// unlinkDropped removes files that no stored cut and no later record of the journal names. A deletion waits for it, or takes them
// along.
func (s *Store) unlinkDropped(l *Log, keys []segment.Key) {
	if len(keys) == 0 {
		return
	}
	l.mu.Lock()
	for l.doing(unlinkWork) { // the checkpointer, or the goroutine that looks after space
		l.idle.Wait()
	}
	if l.life != alive {
		l.mu.Unlock()
		return
	}
	l.begin(unlinkWork)
	l.mu.Unlock()
	for _, k := range keys {
		for _, name := range []string{k.Log(), k.Index()} {
			err := s.fs.Remove(path.Join(s.logsDir, l.dir, name))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				s.metrics.unremoved.Add(1)
				s.o.Logger.Warn("a dropped segment was not removed; the next start tries again", "log", l.String(), "file", name, "error", err)
			}
		}
	}
	l.mu.Lock()
	l.end(unlinkWork)
	l.mu.Unlock()
}
