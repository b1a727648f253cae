package journal

import (
	"log/slog"

	"github.com/quorumlog/quorumlog/wal/disk"
)

// Options configure a journal. Register is required.
type Options struct {
	// FileBytes is the length of a file, a multiple of disk.BlockSize; default 64 MiB. A frame that is larger gets a file of
	// its own size. Files of another length, from before the option was changed, are used up and then deleted.
	FileBytes int64
	// SpareFiles is how many files are kept registered and ready ahead of the current one; default 2. They are what is left
	// to write to on a full disk.
	SpareFiles int
	// PooledFiles is how many retired files are kept for recycling; default 6. The rest is deleted.
	PooledFiles int
	// Register stores a FileInfo in Pebble, synced, before the first frame goes into the file. It is called from a goroutine
	// of the journal and, for frames larger than a file, from inside Write; it must not call the journal. An error that
	// wraps disk.ErrNoSpace is tried again later, any other fails the journal.
	Register func(FileInfo) error
	Logger   *slog.Logger // default: discards
}

// Recovery is a journal that is being opened. Its methods are called in the order Replay, Restart, Start, by one goroutine.
type Recovery struct{}

// Open looks at the directory and the live files, which Pebble knows, and makes the directory if there is none. It changes
// nothing else.
func Open(fs disk.FS, dir string, live []FileInfo, opts Options) (*Recovery, error) {
	return nil, ErrClosed
}

// Replay reads the live files and calls visit for each vouched frame, in order, and for each Damage in its place. completed
// is the last sequence that Pebble vouches for. The records passed to visit alias a buffer and are valid until it returns; an
// error of visit ends Replay. A read error of the disk is returned as it is, not taken for a torn frame.
func (r *Recovery) Replay(completed Seq, visit func(*StoredFrame) error) (Replayed, error) {
	return Replayed{}, ErrClosed
}

// Restart takes a fresh file, writes f to it (what is kept of Replayed.Unvouched; nil or without records: nothing), and
// syncs it. All older files end before the first unvouched frame. This counts once the owner has stored the result.
func (r *Recovery) Restart(f *Frame) (Restarted, error) { return Restarted{}, ErrClosed }

// Start returns the journal. The owner has stored what Restart returned.
func (r *Recovery) Start() (*Journal, error) { return nil, ErrClosed }

// Close gives up a recovery that was not started.
func (r *Recovery) Close() error { return nil }

// Journal takes rounds. Write and Sync are called by the one committer (from any goroutine, but one call at a time), the
// other methods by anyone.
type Journal struct{}

// Write writes a frame. prevDurable is the last sequence whose round is complete: the frame synced, and what its references
// name. The frame is durable after the next Sync; until then it may be lost, also if later frames are not.
//
// It may wait for the next file to be prepared. If there is no space for one, the error wraps disk.ErrNoSpace, nothing was
// written and the journal goes on: watch Room. Any other error is final.
func (j *Journal) Write(f *Frame, prevDurable Seq) (Written, error) { return Written{}, ErrClosed }

// Sync makes all written frames durable. An error is final.
func (j *Journal) Sync() error { return ErrClosed }

// Room is the number of bytes that can be written for certain, that is to say into files that are there already: what is
// left of the current file, and the spare ones.
func (j *Journal) Room() int64 { return 0 }

// Files returns the live files that have been written to, oldest first.
func (j *Journal) Files() []FileState { return nil }

// Retirable returns the oldest files in which no frame is above covered. The current file is never among them.
func (j *Journal) Retirable(covered Seq) Retirement { return Retirement{} }

// Retire takes files out of use, after the owner stored that they are retired. They are recycled or deleted.
func (j *Journal) Retire(r Retirement) error { return ErrClosed }

// Metrics returns counters and gauges.
func (j *Journal) Metrics() Metrics { return Metrics{} }

// Close waits for the goroutine and closes the files. It syncs nothing.
func (j *Journal) Close() error { return nil }
