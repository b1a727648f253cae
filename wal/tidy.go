package wal

import (
	"errors"
	"io/fs"
	"path"
	"slices"
	"sync"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
)

// After an orderly stop each .log is as long as what it holds, and holds all of it, so that other programs can read it: Kafka's
// kafka-dump-log does not get over the zeros of space that was taken ahead, and knows nothing of what stands in journal and cut alone.
//
// No rule of recovery changes for that. The watermark stays where it is, at a whole block, in memory and in the stored cut; what the cut has
// above it is what the next start goes on with. All that is written here lies above the watermark, in bytes that journal or cut hold, which
// recovery does not read: what an end of the process or of the power leaves of it, half a block or none, the old length or the new one, is
// as good as the zeros before. The length never gets below the watermark. Blocks below it are not touched, since the write begins there.
// No reference of the journal needs what is overwritten: rounds are complete, so the watermark is at or above the end of each reference
// that counts, and a truncation whose round is not complete keeps its log out of this (blocked).
//
// So nothing is synced either, which for ten thousand logs would take longer than a service manager waits. The next start finds no space
// above the last whole block, and writes nothing there before it has taken some and synced the file: see candidate, flushOnce and
// prepareFiles. That sync also ends the life of the page that shortening a file to less than a block leaves dirty in the cache, beside which
// direct writes must not go.

// tidy cuts the .log of all segments that are not sealed to their length. It comes last, when the cuts are stored and so is the mark of
// the stop: whatever it does or fails to do costs nothing but the convenience of others.
func (s *Store) tidy() {
	var wg sync.WaitGroup
	work := make(chan *Log)
	for range flushers {
		wg.Go(func() {
			for l := range work {
				if err := s.tidyLog(l); err != nil && !s.failed() {
					s.o.Logger.Warn("the newest file of a log was not cut to its length: other programs may stumble over its end", "log", l.String(), "error", err)
				}
			}
		})
	}
	for _, l := range s.Logs() {
		work <- l
	}
	close(work)
	wg.Wait()
}

// tidyLog works without the log's lock: nobody else changes anything any more, and readers who are late only look. But for an owner who
// is late: he may move the start to that of the last cut, and sealed segments before it are gone then.
func (s *Store) tidyLog(l *Log) error {
	l.mu.Lock()
	segs := l.segs
	if l.blocked > 0 || l.life != alive || l.refused || l.Condemned() != 0 || l.busy() {
		segs = nil
	}
	l.mu.Unlock()
	var failed error
	for _, sg := range segs {
		l.mu.Lock()
		k := slices.Index(l.segs, sg)
		if k < 0 {
			l.mu.Unlock()
			continue
		}
		w, end := sg.w, l.durableEnd(k)
		pieces, ok := sg.tail.pieces(nil, int64(w), int64(end))
		wanted := sg.stage != segSealed && end >= w && (end > 0 || sg.names == namesReady)
		l.mu.Unlock()
		if wanted && !ok {
			failed = errors.Join(failed, s.broken(l, "the tail does not hold what is above the watermark"))
		} else if wanted {
			failed = errors.Join(failed, s.tidySegment(l, sg, pieces, w, end))
		}
		release(pieces, 0)
	}
	return failed
}

// tidySegment writes what is above the watermark, and nothing behind it. A segment that has no files yet, for little was written to it, gets
// a .log, whose name is not synced: nothing counts on a file that has no byte below a watermark.
func (s *Store) tidySegment(l *Log, sg *seg, pieces []piece, w, end id.Position) (err error) {
	f, err := s.openForTidying(l, sg)
	if errors.Is(err, fs.ErrNotExist) && s.space.full.Load() {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := s.writeEnd(f, pieces, w, end); err != nil {
		return errors.Join(err, f.Truncate(int64(w))) // what is missing is better than zeros
	}
	return nil
}

func (s *Store) openForTidying(l *Log, sg *seg) (disk.File, error) {
	s.files.makeRoom()
	defer s.files.roomTaken()
	dir := path.Join(s.logsDir, l.dir)
	name := path.Join(dir, sg.key.Log())
	// On a full disk what little space there is belongs to the next start. What an earlier stop left of a segment without files has its
	// blocks: a power failure may have made anything of it since, and it is put in order.
	if sg.names == namesReady || s.space.full.Load() {
		return s.fs.Open(name)
	}
	if err := s.fs.MkdirAll(dir); err != nil {
		return nil, err
	}
	return s.createFile(name, sg.names)
}
