package wal

import (
	"sync/atomic"
)

// counters are the parts of Metrics that are counted as they happen.
type counters struct {
	rounds, appends, appendedBytes, journalBytes, segmentBytes, directBytes, indexBytes, viewBytes, checkpoints, readDisk, condemned atomic.Uint64
	trimmedSegments, trimmedBytes, unremoved                                                                                         atomic.Uint64

	replayed, replayHeld int64 // written by Open
}

// Metrics returns the store's counters.
func (s *Store) Metrics() Metrics {
	c := &s.metrics
	s.mu.Lock()
	logs, refused := len(s.logs), len(s.refused)
	s.mu.Unlock()
	return Metrics{
		Rounds: c.rounds.Load(), Appends: c.appends.Load(), AppendedBytes: c.appendedBytes.Load(),
		JournalBytes: c.journalBytes.Load(), SegmentBytes: c.segmentBytes.Load(), DirectBytes: c.directBytes.Load(),
		IndexBytes: c.indexBytes.Load(), ViewBytes: c.viewBytes.Load(), Checkpoints: c.checkpoints.Load(), ReadDiskBytes: c.readDisk.Load(),
		TailBytes: s.memory.used.Load(), RowBytes: s.memory.rows.Load(), JournalFiles: s.journal.Metrics().LiveFiles, OpenFiles: s.files.count(),
		Logs: logs, UncutBytes: s.checkpoints.uncut.Load(), Refused: refused, Condemned: c.condemned.Load(),
		TrimmedSegments: c.trimmedSegments.Load(), TrimmedBytes: c.trimmedBytes.Load(), Unremoved: c.unremoved.Load(),
		ScrubbedBytes: s.scrub.bytes.Load(), ScrubPasses: s.scrub.passes.Load(), ScrubErrors: s.scrub.errors.Load(), LastScrub: s.scrub.last.Load(),
		ReplayedBytes: c.replayed, ReplayHeldBytes: c.replayHeld,
	}
}

// Metrics are the counters of a store since it was opened.
type Metrics struct {
	Rounds        uint64 // commit rounds that wrote something
	Appends       uint64 // appends completed
	AppendedBytes uint64 // bytes of entries submitted
	JournalBytes  uint64 // bytes written to the journal, padding included
	SegmentBytes  uint64 // bytes written to segments, by rounds and flushes
	DirectBytes   uint64 // of SegmentBytes: by rounds
	IndexBytes    uint64 // bytes written to indexes
	ViewBytes     uint64 // bytes of views written to Pebble by checkpoints
	Checkpoints   uint64 // checkpoints completed
	ReadDiskBytes uint64 // bytes read from segments
	TailBytes     int64  // memory of all tails now
	RowBytes      int64  // memory of index rows now
	JournalFiles  int    // live journal files now
	OpenFiles     int    // segments with open files now
	Logs          int    // open logs now
	UncutBytes    int64  // bytes in the journal since the last checkpoint
	Refused       int    // replicas that are out for good now
	Condemned     uint64 // logs whose stored bytes, or files, turned out bad

	TrimmedSegments uint64 // segments that were before a start which has moved
	TrimmedBytes    uint64 // bytes of batches in these
	Unremoved       uint64 // files of dropped segments that were not removed: the next start tries again

	ScrubbedBytes uint64 // bytes read in the background
	ScrubPasses   uint64 // times that all logs were read through
	ScrubErrors   uint64 // logs that were condemned for what that found
	LastScrub     int64  // when the last pass ended, ms since 1970; 0: none has since the start

	ReplayedBytes   int64 // bytes of the journal that Open read
	ReplayHeldBytes int64 // the largest memory of tails and rows meanwhile
}
