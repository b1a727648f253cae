package wal

import (
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk"
)

// Options configure a Store. The zero value of each field but Dir takes its default.
type Options struct {
	// Dir is the data directory: journal/, logs/ and meta/ (Pebble) are below it.
	Dir string
	// FS is what the journal and the segments are written through; nil takes disk.NewOS(Dir).
	FS disk.FS
	// PebbleFS is what Pebble is written through; nil takes the operating system's.
	PebbleFS vfs.FS
	// Fsync says whether what is complete is synced. Whoever opens a store with FsyncNone must remember it until Close has
	// returned nil: after any other end nothing that the store said before can be relied on.
	Fsync FsyncClass
	// Logger takes few lines: what was recovered, refused, or failed. nil drops them.
	Logger *slog.Logger

	// CacheBytes bounds the memory of all tails and of the index rows that are in memory. Flushed, committed and oldest bytes are
	// dropped to keep it, and rows that are in the index. Less than a block of each stays: 4 KiB a log. Default 512 MiB.
	CacheBytes int64
	// DirectAppendBytes is the number of new bytes of a log in one round from which they are written to the segment at once.
	// Default 48 KiB.
	DirectAppendBytes int64
	// JournalFileBytes is the size of a journal file. Default 64 MiB.
	JournalFileBytes int64
	// CheckpointBytes is how many bytes in the journal start a checkpoint. They are what recovery replays and holds in
	// memory. Default 4 journal files. It is never more than half of CacheBytes: see Store.Pressure.
	CheckpointBytes int64
	// CheckpointInterval is the longest time between checkpoints of a store that is written to. Default 60 s.
	CheckpointInterval time.Duration
	// SegmentBytes is the size at which segments roll. Default 1 GiB.
	SegmentBytes int64
	// ReserveBytes of disk are kept for votes, hard states and Pebble: when less is free producers are to be refused. It is at least
	// what journal and Pebble may take on a full disk, some 180 MiB with journal files of 64 MiB; less is raised to that. Default
	// 256 MiB.
	ReserveBytes int64

	// ScrubRate is how many bytes a second are read in the background, to find rot that nobody reads: see scrubber. 0: none.
	ScrubRate  int64
	scrubFirst time.Duration // when, after the start

	// MaxOpenFiles is how many files the store has open at once, at least LeastOpenFiles: two for each segment that was used lately,
	// and those of journal and Pebble. It may be a few more while all are in use. Default 4376, for 2048 segments.
	MaxOpenFiles int

	// OnFatal is called once, when a write or a sync failed: nothing is acknowledged from then on, and the process must exit.
	OnFatal func(error)
	// OnCondemned is told, once, of each log whose stored bytes turned out bad, or whose files cannot be made. It is called by a
	// goroutine of the store, one call at a time, and may block, but not until the store is closed. Whoever is told calls
	// Store.Refuse when the replica can be spared; nil does so at once.
	OnCondemned func(*Log, Condemnation, Refusal)

	// Clock says what time it is, for Segments; nil takes time.Now.
	Clock func() time.Time
	// trimInterval is how often starts are moved, at most. Default checkpointTick.
	trimInterval time.Duration
	// lookupLimit is how many bytes one lookup by time may read. Default batch.LookupLimit.
	lookupLimit int64

	// off switches rules of durability off, so that tests can show that each is needed.
	off rules
}

// rules are the switches of Options.off. All false in every store but those of tests.
type rules struct {
	truncateFragment bool // §2.4: journal the kept bytes of the block that a truncation cuts
	truncateWaits    bool // §2.4: truncate only after writes and flushes of the log returned
	recoverySync     bool // §4.3: make what the unvouched frame references safe
	recoveryCopy     bool // §4.3: copy the unvouched frame to a fresh file
	cutUncommitted   bool // §3: a cut holds uncommitted entries too
	cutWaits         bool // §3: no cut while a truncation is in flight
	directSync       bool // §2.1: a round is complete when its segments are synced too
	flushSync        bool // §2.3: the watermark moves when what is below is synced
	unlinkWaits      bool // §2.4: what a truncation dropped is unlinked when its round is complete and no cut names it
	evictWaits       bool // §2.4: the watermark says nothing while a truncation is in flight
	freshNames       bool // §2.5: a new segment has a name that none had before
	sealCommitted    bool // §2.5: only a segment whose bytes are all committed is sealed
	nameSync         bool // §2.6: the names of new files are synced before the first round that uses them
	retireCovered    bool // §3: a journal file is live until cuts cover all records in it
	replayCovered    bool // §4.1: records that the cut covers are skipped
	referenceCheck   bool // §4.2: the last round's references are checked
	droppedTerm      bool // §4.2: term and vote of dropped records stay
	stopMark         bool // §4: the mark of an orderly stop goes before the first frame is written
	deletionSync     bool // §4.4: the directory's new name is synced before the tombstone
	viewWaits        bool // §3: an owner is asked for its state only when the log has grown by as much as the view takes
	tombstones       bool // §4.4: a deleted replica leaves a tombstone
	trimApplied      bool // §3: the start moves over nothing that the cut's state does not have
	startStored      bool // §3: files go when a stored cut has the start behind them
	startTold        bool // §3: the owner hears of a start when the cut with it is stored
	tombstonesStand  bool // §4.4: until the metadata's stored state is past the deletion
}

const (
	kib = 1 << 10
	mib = 1 << 20

	// DefaultCacheBytes is the default of Options.CacheBytes.
	DefaultCacheBytes = 512 * mib
)

// How the files of MaxOpenFiles are shared. The journal has its live files open, seldom more than ten; Pebble insists on 64 tables, and
// has ten other files. What is left is for segments: at least as many as the committer's workers write to at once.
const (
	journalFiles      = 24
	leastPebbleFiles  = 74
	mostPebbleFiles   = 256
	leastSegmentFiles = 2 * ioWorkers
	defaultSegments   = 2048

	// LeastOpenFiles is the smallest Options.MaxOpenFiles.
	LeastOpenFiles = journalFiles + leastPebbleFiles + leastSegmentFiles
)

// pebbleFiles is Pebble's share of MaxOpenFiles.
func (o *Options) pebbleFiles() int {
	return min(max(o.MaxOpenFiles/8, leastPebbleFiles), mostPebbleFiles)
}

// openSegments is how many segments may have open files.
func (o *Options) openSegments() int { return (o.MaxOpenFiles - journalFiles - o.pebbleFiles()) / 2 }

func (o Options) withDefaults() Options {
	set := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	if o.PebbleFS == nil {
		o.PebbleFS = vfs.Default
	}
	set(&o.CacheBytes, DefaultCacheBytes)
	set(&o.DirectAppendBytes, 48*kib)
	set(&o.JournalFileBytes, 64*mib)
	set(&o.CheckpointBytes, 4*o.JournalFileBytes)
	o.CheckpointBytes = min(o.CheckpointBytes, o.CacheBytes/2)
	set(&o.SegmentBytes, 1<<30)
	set(&o.ReserveBytes, max(256*mib, o.leastReserve()))
	if o.MaxOpenFiles == 0 {
		o.MaxOpenFiles = journalFiles + mostPebbleFiles + 2*defaultSegments
	}
	if o.scrubFirst == 0 {
		o.scrubFirst = scrubFirst
	}
	if o.CheckpointInterval == 0 {
		o.CheckpointInterval = time.Minute
	}
	if o.lookupLimit == 0 {
		o.lookupLimit = batch.LookupLimit
	}
	if o.trimInterval == 0 {
		o.trimInterval = checkpointTick
	}
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.OnFatal == nil {
		o.OnFatal = func(error) {}
	}
	return o
}
