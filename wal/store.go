package wal

import (
	"context"
	"errors"
)

var errBoot = errors.New("wal: not yet")

type appendPlan struct{}

// Store is a node's logs on one disk.
type Store struct{}

// Open opens the store in o.Dir, creating it when there is none, and recovers every log. Work is proportional to the
// journal, not to the data. Everything that is acknowledged after it returns, or was before, survives any crash.
func Open(ctx context.Context, o Options) (*Store, error) { return nil, errBoot }

// Logs returns every open log, in no order.
func (s *Store) Logs() []*Log { return nil }

// Refused returns the replicas that recovery could not vouch for.
func (s *Store) Refused() []Refusal { return nil }

// Create makes a log. It is durable, with its first cut, when Create returns. ErrExists when the replica exists, refused
// ones included.
func (s *Store) Create(ctx context.Context, spec Spec) (*Log, error) { return nil, errBoot }

// Delete removes a log and its files. The caller has stopped submitting to it; submissions in flight never have Done called.
func (s *Store) Delete(ctx context.Context, l *Log) error { return errBoot }

// DeleteRefused removes what is left of a refused replica.
func (s *Store) DeleteRefused(ctx context.Context, r Refusal) error { return errBoot }

// SetCutTaker has the checkpointer ask take for a cut of a log, instead of cutting with the State it was last given. take
// must not block: it passes the request to the log's owner, which calls Log.TakeCut on its own goroutine soon.
func (s *Store) SetCutTaker(take func(*Log)) {}

// Submit makes the entries of each append visible in the tail of its log and queues all of them for one commit round. It
// is called by the owner of each of the logs, in Raft's order, and does no I/O.
func (s *Store) Submit(appends []*Append) {}

// Pressure says whether more data should be accepted.
func (s *Store) Pressure() Pressure { return PressureNone }

// Get returns a small value stored under key, or ErrNotFound.
func (s *Store) Get(key string) ([]byte, error) { return nil, errBoot }

// Set stores a small value under key, durably.
func (s *Store) Set(key string, value []byte) error { return errBoot }

// Metrics returns the store's counters.
func (s *Store) Metrics() Metrics { return Metrics{} }

// Close completes the rounds in flight, checkpoints and closes. Logs that are not idle any more must not be used.
func (s *Store) Close() error { return errBoot }

// Metrics are the counters of a store since it was opened.
type Metrics struct {
	Rounds        uint64 // commit rounds that wrote something
	Appends       uint64 // appends completed
	AppendedBytes uint64 // bytes of entries submitted
	JournalBytes  uint64 // bytes written to the journal, padding included
	SegmentBytes  uint64 // bytes written to segments, by rounds and flushes
	DirectBytes   uint64 // of SegmentBytes: by rounds
	IndexBytes    uint64 // bytes written to indexes
	Checkpoints   uint64 // checkpoints completed
	TailBytes     int64  // memory of all tails now
	JournalFiles  int    // live journal files now
	OpenFiles     int    // open segment files now
	ReadDiskBytes uint64 // bytes read from segments
	Logs          int    // open logs now
	UncutBytes    int64  // bytes in the journal since the last checkpoint
}
