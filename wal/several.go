package wal

import "github.com/quorumlog/quorumlog/wal/id"

// What the owner of several stores, each on a disk of its own, asks of them.

// Store returns the store that the log is in.
func (l *Log) Store() *Store { return l.s }

// Dir returns the directory that the store is in.
func (s *Store) Dir() string { return s.o.Dir }

// Err returns why the store failed; nil: it has not. Of a store that failed nothing completes any more, in this process.
func (s *Store) Err() error { return s.cause() }

// Room returns how many bytes are free beside the reserve. It is negative when the reserve is in use.
func (s *Store) Room() (int64, error) {
	free, err := s.fs.FreeBytes(s.o.Dir)
	return free + s.space.ballast.size() - s.space.reserve, err
}

// Deleted tells whether a replica was deleted here, and must not be made again: see tombstones.
func (s *Store) Deleted(g id.Group, r id.Replica) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.deleted[logKey{g, r}]
	return ok
}
