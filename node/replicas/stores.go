package replicas

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Stores are those of a node, one for each of its data directories. A replica lives in one of them for life; that of the metadata lives in
// the first. The host of the groups sees one store: its disk is as bad as the worst of those that have not failed.
//
// Each store has a journal and a committer of its own. What fails in one says nothing about another: after a failed write or sync its
// replicas take part in nothing until the node is started again, and those of the others go on.
type Stores struct {
	list    []*wal.Store
	missing []string // data directories that are listed and not here
	slow    atomic.Pointer[wal.Store]
	beside  id.Group // what is in the other directories is below it; 0: not read yet. Of the goroutine that calls Create
}

var _ raftgroup.LogStore = (*Stores)(nil)

// NewStores returns the stores as one. The first is closed last.
func NewStores(first *wal.Store, more ...*wal.Store) *Stores {
	for _, store := range more {
		store.FollowMetadata(first)
	}
	return &Stores{list: append([]*wal.Store{first}, more...)}
}

// Miss says which data directories the node lists and goes on without. It is called before anything else.
func (s *Stores) Miss(dirs ...string) { s.missing = dirs }

// Missing names the directories that are missing, all in one; empty: none.
func (s *Stores) Missing() string { return strings.Join(s.missing, ", ") }

// errMayBeMissing is a replica that is in no store, and may be in one that is missing.
var errMayBeMissing = errors.New("it may be in a data directory that is missing")

// besideKey is, in the first store, a bound for the groups of which the other directories may have replicas. It is durable before there is one
// in any of them: groups are numbered in the order in which the metadata makes them, so what is at or above it was made after a directory
// went missing, and may be made here. What is below it may have voted there, and never is. Without a record nothing was ever made there.
const besideKey = "node/groups-beside"

func (s *Stores) loadBeside() error {
	if s.beside != 0 {
		return nil
	}
	value, err := s.First().Get(besideKey)
	switch {
	case errors.Is(err, wal.ErrNotFound):
		s.beside = 1
		return nil
	case err != nil:
		return fmt.Errorf("cannot read what the other data directories may hold: %w", err)
	}
	bound, err := strconv.ParseUint(string(value), 10, 64)
	if err != nil || bound == 0 {
		return fmt.Errorf("what the other data directories may hold is not a number: %q", value)
	}
	s.beside = id.Group(bound)
	return nil
}

// noteBeside makes the bound durable for a group of which a replica is to be made beside the first store.
func (s *Stores) noteBeside(g id.Group) error {
	if g < s.beside {
		return nil
	}
	if err := s.First().Set(besideKey, strconv.AppendUint(nil, uint64(g)+1, 10)); err != nil {
		return fmt.Errorf("cannot note that another data directory has a replica: %w", err)
	}
	s.beside = g + 1
	return nil
}

// First returns the store of the metadata.
func (s *Stores) First() *wal.Store { return s.list[0] }

// Working returns those that have not failed.
func (s *Stores) Working() []*wal.Store {
	return slices.DeleteFunc(slices.Clone(s.list), func(store *wal.Store) bool { return store.Err() != nil })
}

// Logs returns the logs of all stores, in no order.
func (s *Stores) Logs() (logs []*wal.Log) {
	for _, store := range s.list {
		logs = append(logs, store.Logs()...)
	}
	return logs
}

// Refused returns the refused replicas of all stores.
func (s *Stores) Refused() (refused []wal.Refusal) {
	for _, store := range s.list {
		refused = append(refused, store.Refused()...)
	}
	return refused
}

// CheckUnique returns an error if a replica is in two directories: one of them is a copy from another time, which may have forgotten what
// the replica voted for.
func (s *Stores) CheckUnique() error {
	type replica struct {
		group   id.Group
		replica id.Replica
	}
	seen := make(map[replica]string)
	note := func(store *wal.Store, r replica, name string) error {
		if at, ok := seen[r]; ok {
			return fmt.Errorf("replica %d of %s is in %s and in %s: one of them was copied: restore both directories as they were, "+
				"or start this node with empty ones and an unused node id", r.replica, name, at, store.Dir())
		}
		seen[r] = store.Dir()
		return nil
	}
	for _, store := range s.list {
		for _, l := range store.Logs() {
			if err := note(store, replica{l.Group(), l.Replica()}, l.Name()); err != nil {
				return err
			}
		}
		for _, r := range store.Refused() {
			if err := note(store, replica{r.Group, r.Replica}, r.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// Create makes a new replica's log where most is free, and of those where as much is, where the fewest logs are.
func (s *Stores) Create(ctx context.Context, spec wal.Spec) (*wal.Log, error) {
	for _, store := range s.list { // also one that failed: it voted
		if store.Deleted(spec.Group, spec.Replica) {
			return nil, fmt.Errorf("%w: replica %d of %s, in %s", wal.ErrDeleted, spec.Replica, spec.Name, store.Dir())
		}
	}
	if len(s.list) > 1 || len(s.missing) > 0 {
		if err := s.loadBeside(); err != nil {
			return nil, err
		}
	}
	if len(s.missing) > 0 && spec.Group < s.beside {
		return nil, errMayBeMissing
	}
	store := s.roomiest()
	if store != s.First() {
		if err := s.noteBeside(spec.Group); err != nil {
			return nil, err
		}
	}
	return store.Create(ctx, spec)
}

func (s *Stores) roomiest() *wal.Store {
	if len(s.list) == 1 {
		return s.list[0]
	}
	best, most, fewest := s.list[0], int64(0), 0
	for i, store := range s.Working() {
		room, err := store.Room()
		if err != nil {
			continue
		}
		if logs := len(store.Logs()); i == 0 || room > most || room == most && logs < fewest {
			best, most, fewest = store, room, logs
		}
	}
	return best
}

// Submit implements raftgroup.LogStore. What is for the same store stays in its order.
func (s *Stores) Submit(appends []*wal.Append) {
	if len(s.list) == 1 {
		s.list[0].Submit(appends)
		return
	}
	slices.SortStableFunc(appends, func(a, b *wal.Append) int { return s.position(a) - s.position(b) })
	for len(appends) > 0 {
		store, n := appends[0].Log.Store(), 1
		for n < len(appends) && appends[n].Log.Store() == store {
			n++
		}
		store.Submit(appends[:n])
		appends = appends[n:]
	}
}

func (s *Stores) position(a *wal.Append) int { return slices.Index(s.list, a.Log.Store()) }

// SetCutTaker implements raftgroup.LogStore.
func (s *Stores) SetCutTaker(take func(*wal.Log)) {
	for _, store := range s.list {
		store.SetCutTaker(take)
	}
}

// SetRoundDone implements raftgroup.LogStore: done is called by the committers of all stores, several at the same time.
func (s *Stores) SetRoundDone(done func(wal.Pace)) {
	for _, store := range s.list {
		store.SetRoundDone(done)
	}
}

// Pressure implements raftgroup.LogStore.
func (s *Stores) Pressure() wal.Pressure {
	worst := wal.PressureNone
	for _, store := range s.list {
		if p := store.Pressure(); p > worst && store.Err() == nil {
			worst = p
		}
	}
	return worst
}

// slowRound is how long a commit round takes before Slow tells where that was: less than the host lets pass before it counts as stalled.
const slowRound = time.Second

// Stalled implements raftgroup.LogStore.
func (s *Stores) Stalled() time.Duration {
	longest, slowest := time.Duration(0), s.list[0]
	for _, store := range s.list {
		if d := store.Stalled(); d > longest && store.Err() == nil {
			longest, slowest = d, store
		}
	}
	if longest >= slowRound {
		s.slow.Store(slowest)
	}
	return longest
}

// Slow returns the directory in which a commit round was last seen to take a second, and for how long the one there has been under way; 0 if it
// has not been for that long.
func (s *Stores) Slow() (dir string, waiting time.Duration) {
	_ = s.Stalled()
	store := s.slow.Load()
	if store == nil {
		store = s.list[0]
	}
	if d := store.Stalled(); d >= slowRound {
		waiting = d
	}
	return store.Dir(), waiting
}

// Space returns that of the disk which is worst off.
func (s *Stores) Space() wal.Space {
	worst, found := s.list[0].Space(), false
	for _, store := range s.Working() {
		space := store.Space()
		if !found || space.Missing > worst.Missing || space.Missing == worst.Missing && space.Free < worst.Free {
			worst, found = space, true
		}
	}
	return worst
}

// StopWaiting is that of each store.
func (s *Stores) StopWaiting() {
	for _, store := range s.list {
		store.StopWaiting()
	}
}

// Metrics returns the sums of the stores' counters. The last scrub is the earliest of the stores': all was read since then.
func (s *Stores) Metrics() wal.Metrics {
	sum := s.list[0].Metrics()
	scrubbed := sum.LastScrub
	for _, store := range s.list[1:] {
		m := store.Metrics()
		scrubbed = min(scrubbed, m.LastScrub)
		to, from := reflect.ValueOf(&sum).Elem(), reflect.ValueOf(m)
		for i := range to.NumField() {
			if f := to.Field(i); f.CanUint() {
				f.SetUint(f.Uint() + from.Field(i).Uint())
			} else {
				f.SetInt(f.Int() + from.Field(i).Int())
			}
		}
	}
	sum.LastScrub = scrubbed
	return sum
}
