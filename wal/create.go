package wal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"github.com/cockroachdb/pebble/v2"

	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/journal"
)

// Create makes a log. It is durable, with its first cut, when Create returns. ErrExists when the replica exists, refused
// ones included; ErrDeleted when it did exist, as long as there is a tombstone; disk.ErrNoSpace while the disk is full, but for the
// metadata's.
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
	l.setState(spec.State, markOf(spec.State.View))
	l.doneIndex = spec.Start.Index
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
	if _, deleted := s.deleted[key]; deleted {
		return fmt.Errorf("%w: group %d, replica %d was here, and what it voted for is forgotten: it needs another replica id",
			ErrDeleted, key.group, key.replica)
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
	b := s.meta.NewBatch()
	defer func() { _ = b.Close() }()
	if err := errors.Join(b.Set(cutKey(l.group, l.replica), c.append(nil), nil), putView(b, l, l.state.View)); err != nil {
		return err
	}
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	if err := s.metaCommit(b, pebble.Sync); err != nil {
		return err
	}
	l.viewStored = l.viewNumber
	return nil
}
