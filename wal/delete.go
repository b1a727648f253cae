package wal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/quorumlog/quorumlog/wal/id"
)

// How the directory of a log is named.
//
//	orders-0.17          the partition, and the replica whose log it is
//	orders-0.17-delete   the same, doomed
//
// A replica's id is used once, in the whole cluster, and so is the name: whatever still unlinks, or comes back after a power loss, by
// a path of a log that is gone hits no other log. The partition's name is there for people. A topic may have a name that fills a
// file's by itself, and so the middle of a long one is left out; the id keeps such names apart, too.
const (
	maxFileName  = 255 // of every file system that matters, in bytes
	deleteSuffix = "-delete"
	maxDirStem   = maxFileName - len(deleteSuffix) - len(".18446744073709551615")
	keptEnd      = len("-2147483647") // of a long name: the partition's number
)

// dirName returns the name of the directory of a replica's log.
func dirName(partition string, replica id.Replica) string {
	if len(partition) > maxDirStem {
		head := maxDirStem - len("~") - keptEnd
		partition = partition[:head] + "~" + partition[len(partition)-keptEnd:] // no topic has a ~ in its name
		partition = strings.ToValidUTF8(partition, "_")
	}
	return partition + "." + strconv.FormatUint(uint64(replica), 10)
}

// deletedName is the name of a log's directory from when it is to be deleted.
func deletedName(dir string) string { return dir + deleteSuffix }

// Delete removes a log and its files. The caller has stopped submitting to it; Done may not be called for submissions in
// flight. It waits for whoever is at work on the files. After an error, which the end of ctx is as well, it may be called again.
func (s *Store) Delete(ctx context.Context, l *Log) error {
	if err := s.delete(ctx, l); err != nil {
		return fmt.Errorf("wal: delete %v: %w", l, err)
	}
	return nil
}

func (s *Store) delete(ctx context.Context, l *Log) error {
	segs, err := l.quiet(ctx)
	if err != nil {
		return err
	}
	for _, sg := range segs {
		s.files.forget(sg)
	}
	key := logKey{l.group, l.replica}
	if err := s.removeReplica(key, l.dir, l); err != nil {
		return err
	}
	l.mu.Lock()
	for _, sg := range l.segs {
		sg.tail.clear()
		l.dropRows(sg)
	}
	l.mu.Unlock()
	s.lru.forget(l)
	l.Release()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.logs, key)
	delete(s.refused, key)
	delete(s.dirs, l.dir)
	s.shareMemory()
	return nil
}

// quiet marks a log as deleted, so that nobody begins to write or unlink files of it, and waits for those who do. What a store that
// failed has left is for the next start, which finds the log as it was.
func (l *Log) quiet(ctx context.Context) ([]*seg, error) {
	stop := context.AfterFunc(ctx, l.wake)
	defer stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.life = max(l.life, ending)
	l.s.checkpoints.answered() // nobody gives a cut of it any more
	for l.busy() && !l.s.failed() && ctx.Err() == nil {
		l.idle.Wait()
	}
	if err := l.s.cause(); err != nil {
		return nil, err
	}
	return l.segs, ctx.Err()
}

// wake has everybody look again who waits for the log to be idle.
func (l *Log) wake() {
	l.mu.Lock()
	l.idle.Broadcast()
	l.mu.Unlock()
}

// DeleteRefused removes what is left of a refused replica.
func (s *Store) DeleteRefused(ctx context.Context, r Refusal) error {
	key := logKey{r.Group, r.Replica}
	s.mu.Lock()
	refused, open := s.refused[key], s.logs[key] != nil
	s.mu.Unlock()
	if refused == nil || open { // Delete is for what was refused since the start
		return nil
	}
	err := ctx.Err()
	if err == nil {
		err = s.removeReplica(key, refused.dir, nil)
	}
	if err != nil {
		return fmt.Errorf("wal: delete refused replica %d of %s: %w", r.Replica, r.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.refused, key)
	delete(s.dirs, refused.dir)
	return nil
}

// removeReplica deletes a replica. l is its log if it is open. After an error it may be called again. Its steps, each durable before
// the next begins, but for the second:
//
//  1. The directory gets a name that says that it is doomed.
//  2. The files in it go. Not later: the disk may be full, and the next step writes to it.
//  3. Pebble forgets the cut, and has a tombstone in its place: nobody makes the replica anew. From then on the journal's records of
//     it are an unknown one's, for a log has a cut before its first record.
//  4. The empty directory goes.
//
// A crash before 1 is durable leaves the log whole, or doomed with all its files: nothing was unlinked. After it, the doomed name is
// there until 3 is durable, and the next start (finishDeletions) does 2 to 4 before anybody looks at the log, whichever files a power
// loss brought back. Without it, a start would find a cut without its files: a replica that has lost what it acknowledged. After 3
// the directory is nobody's, with or without files, and goes at that start. A log without files has no directory; for it, all there
// is to do is 3.
func (s *Store) removeReplica(key logKey, dir string, l *Log) error {
	doomed := path.Join(s.logsDir, deletedName(dir))
	err := s.space.must(leastGiven, func() error { return s.fs.Rename(path.Join(s.logsDir, dir), doomed) })
	if errors.Is(err, fs.ErrNotExist) { // it has no files, or an attempt before this one got so far, but maybe not to the sync
		err = nil
	}
	if err == nil && !s.o.off.deletionSync {
		err = s.fs.SyncDir(s.logsDir)
	}
	if err != nil {
		return err
	}
	if err := s.removeContents(doomed); err != nil {
		return err
	}
	if err := s.forgetReplica(key, l); err != nil {
		return err
	}
	return s.fs.RemoveAll(doomed)
}

// removeContents unlinks all that a directory holds, if there is one.
func (s *Store) removeContents(dir string) error {
	names, err := s.fs.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range names {
		if err := s.fs.RemoveAll(path.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// forgetReplica removes what Pebble has of a replica, and leaves the tombstone.
func (s *Store) forgetReplica(key logKey, l *Log) error {
	b := s.meta.NewBatch()
	defer func() { _ = b.Close() }()
	err := errors.Join(b.Delete(cutKey(key.group, key.replica), nil), b.Delete(viewKey(key.group, key.replica), nil),
		b.Delete(refusalKey(key.group, key.replica), nil))
	if !s.o.off.tombstones {
		err = errors.Join(err, b.Set(tombstoneKey(key), nil, nil))
	}
	if err != nil {
		return err
	}
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	if l != nil {
		l.mu.Lock()
		l.life = forgotten
		l.mu.Unlock()
	}
	if err := s.metaCommit(b, pebble.Sync); err != nil {
		return err
	}
	s.bury(key)
	return nil
}

// finishDeletions completes what a crash interrupted: replicas whose directory is doomed, and doomed directories whose replica is
// gone. See removeReplica.
func (r *recovery) finishDeletions() error {
	s := r.s
	names, err := s.fs.List(s.logsDir)
	if err != nil {
		return err
	}
	doomed := make(map[string]bool)
	for _, name := range names {
		if strings.HasSuffix(name, deleteSuffix) {
			doomed[name] = true
		}
	}
	if len(doomed) == 0 {
		return nil
	}
	if err := s.fs.SyncDir(s.logsDir); err != nil { // the process that renamed them may have died before it did
		return err
	}
	for name := range doomed {
		if err := s.insistRemoval(name, s.removeContents); err != nil {
			return err
		}
	}
	for k, p := range r.logs {
		if doomed[deletedName(p.l.dir)] {
			if err := s.forgetReplica(k, nil); err != nil {
				return err
			}
			delete(r.logs, k)
			delete(s.dirs, p.l.dir)
			p.l.resetTo(Start{})
		}
	}
	for name := range doomed {
		if err := s.insistRemoval(name, s.fs.RemoveAll); err != nil {
			return err
		}
	}
	return nil
}

// insistRemoval removes something of a doomed directory at a start, which waits where that needs space: nothing else frees any yet.
func (s *Store) insistRemoval(name string, remove func(dir string) error) error {
	return s.space.insist("finish the deletion of "+name, leastGiven, func() error { return remove(path.Join(s.logsDir, name)) })
}
