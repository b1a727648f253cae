package wal

import (
	"maps"
	"math"
	"slices"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/wal/id"
)

// tombstones are the replicas that were deleted, and that a node may still ask for.
//
// Nodes hold what the metadata says, as far as they have applied it, and a start applies it anew from the state of the metadata's last
// cut, for as far as it knows that it is committed. So a start may see a replica again that was deleted: the table of that time wants it.
// Made anew, empty, under its old id, it would vote and acknowledge with others who take it for the one that has its log and its votes: a
// majority of those who remember nothing elects a leader without what was acknowledged. So Create refuses a replica that has a tombstone,
// which is stored with the deletion.
//
// It stands until the stored state of the metadata is past the deletion: no start sees the table of before then. What decided the deletion
// was applied on this node, and Raft applies what this disk has (the metadata takes no snapshots, whose state is ahead of the log); so it
// is at or below the last index of the metadata's log at that moment, and at each later start. That index is the tombstone's date, which is in
// memory alone: a start gives all of them its own. So a deletion that a start completes, of which nothing but the doomed directory is left,
// has a date as well.
//
// A cut of the metadata whose state has the date takes the tombstone along. So there are as many as replicas were deleted since, however
// many come and go; without metadata they stay. Where the metadata is in another store, of the same node, that one tells: see elsewhere.
type tombstones map[logKey]id.Index

// undated is the date of tombstones while there is no metadata.
const undated = id.Index(math.MaxUint64)

// elsewhere is how a store that does not have the metadata knows how far that is: another has it, and tells.
type elsewhere struct {
	home      *Store        // nil: the metadata is here, if it is anywhere. Set once, with mu
	followers []*Store      // of home: those that it tells. With mu
	applied   atomic.Uint64 // the Applied of home's stored state, an id.Index. Durable
}

// FollowMetadata says that the metadata's log is in home, which has no home itself and is closed after this store. It is called once, before
// anything is created here or deleted. Without it the tombstones stay for ever.
func (s *Store) FollowMetadata(home *Store) {
	s.mu.Lock()
	s.elsewhere.home = home
	found := slices.Collect(maps.Keys(s.deleted))
	s.mu.Unlock()
	home.mu.Lock()
	home.elsewhere.followers = append(home.elsewhere.followers, s)
	home.mu.Unlock()
	s.bury(found...)
}

// tellFollowers tells the stores that follow that the metadata's state of applied is durable. Those with tombstones that it ends make a
// checkpoint, which takes them along. A store that did not hear of it before a crash hears of the next.
func (s *Store) tellFollowers(applied id.Index) {
	if applied == 0 { // it has not been cut yet
		return
	}
	s.mu.Lock()
	followers := s.elsewhere.followers
	s.mu.Unlock()
	for _, f := range followers {
		f.elsewhere.applied.Store(uint64(applied))
		if len(f.outlived(applied)) > 0 {
			f.checkpoints.force()
		}
	}
}

// bury notes tombstones that are stored, with the date that they have now.
func (s *Store) bury(keys ...logKey) {
	if len(keys) == 0 {
		return
	}
	s.mu.Lock()
	home := s.elsewhere.home
	s.mu.Unlock()
	if home == nil {
		home = s
	}
	date := undated
	metadata := home.metadataBut(keys)
	if metadata != nil {
		date = metadata.LastIndex()
	}
	s.mu.Lock()
	for _, k := range keys {
		s.deleted[k] = date
	}
	s.mu.Unlock()
	if metadata != nil {
		metadata.wantState() // its last cut may cover the date, with a state from before it
	}
}

// metadataBut returns the metadata's log, unless it is one of those.
func (s *Store) metadataBut(keys []logKey) *Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, l := range s.logs {
		if k.group == id.MetadataGroup && l != nil && !slices.Contains(keys, k) {
			return l
		}
	}
	return nil
}

// outlived returns the tombstones that nobody needs when a cut of the metadata is stored whose state is that of applied.
func (s *Store) outlived(applied id.Index) (keys []logKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, date := range s.deleted {
		if applied >= date || s.o.off.tombstonesStand {
			keys = append(keys, k)
		}
	}
	return keys
}

// outlivedElsewhere returns those that nobody needs by what the metadata's store told.
func (s *Store) outlivedElsewhere() []logKey {
	if applied := s.elsewhere.applied.Load(); applied != 0 {
		return s.outlived(id.Index(applied))
	}
	return nil
}

// exhume forgets tombstones whose end is stored.
func (s *Store) exhume(keys []logKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		delete(s.deleted, k)
	}
}
