package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"

	"github.com/quorumlog/quorumlog/wal/id"
)

// Seq is the sequence of a frame. It grows by one a frame and by a little more across a restart, and none is used twice.
// 0 is no sequence.
type Seq uint64

// MaxSeq is above every sequence.
const MaxSeq Seq = math.MaxUint64

// MaxFrameBytes bounds a frame, headers and padding included. The owner keeps its rounds well below it: a frame is built in
// memory, and read in one piece at recovery.
const MaxFrameBytes = 256 << 20

// Kind says what a record is. The journal does not look at it.
type Kind uint8

// The kinds of records.
const (
	KindEntry     Kind = 1 + iota // a Raft entry with its bytes
	KindReference                 // index rows of entries whose bytes are in a segment
	KindHardState                 // term, vote, commit
	KindReset                     // the log became empty at some point
	KindTombstone                 // the replica is gone
)

// Record is what a group wrote in a round. Its payload is the owner's business.
type Record struct {
	Kind    Kind
	Group   id.Group
	Replica id.Replica
	Payload []byte
}

// RecordKey names a record whose payload is lost.
type RecordKey struct {
	Kind    Kind
	Group   id.Group
	Replica id.Replica
}

// FileInfo is what the owner keeps in Pebble about each live file, under its Name: storing one replaces the one with the
// same name.
type FileInfo struct {
	Name   string
	Number uint64 // live files in the order of their numbers are the journal
	// Epoch is in every frame of the file. It is random and secret: who knows it could forge frames inside a batch.
	Epoch uint64
	Bytes int64 // length. A file that is found shorter is damaged
	// First is the sequence that the first frame has or will have; 0: it follows the last one of the file before.
	First Seq
	// End is the position after the last frame, known once a recovery has put the file behind it; -1 before. A bad frame below
	// it is damage; beyond it nothing is read. Last is the sequence of the last frame below it.
	End  int64
	Last Seq
}

// String leaves the epoch out.
func (i FileInfo) String() string {
	return fmt.Sprintf("%s (number %d, %d bytes, first %d, end %d)", i.Name, i.Number, i.Bytes, i.First, i.End)
}

const fileInfoVersion = 1

// Append appends the encoding of i, which ParseFileInfo reads:
//
//	version 1 byte | number 8 | epoch 8 | bytes 8 | first 8 | end 8 | last 8 | name | CRC32C of all before 4      (little-endian)
func (i FileInfo) Append(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, fileInfoVersion)
	dst = binary.LittleEndian.AppendUint64(dst, i.Number)
	dst = binary.LittleEndian.AppendUint64(dst, i.Epoch)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(i.Bytes))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(i.First))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(i.End))
	dst = binary.LittleEndian.AppendUint64(dst, uint64(i.Last))
	dst = append(dst, i.Name...)
	return binary.LittleEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// ParseFileInfo reads what FileInfo.Append wrote; b is not kept.
func ParseFileInfo(b []byte) (FileInfo, error) {
	const fixed = 1 + 6*8
	if len(b) < fixed+4 || b[0] != fileInfoVersion {
		return FileInfo{}, fmt.Errorf("%w: %d bytes are no record of a journal file", ErrInvalid, len(b))
	}
	body, sum := b[:len(b)-4], binary.LittleEndian.Uint32(b[len(b)-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return FileInfo{}, fmt.Errorf("%w: checksum of the record of a journal file", ErrInvalid)
	}
	le := binary.LittleEndian
	i := FileInfo{
		Number: le.Uint64(b[1:]), Epoch: le.Uint64(b[9:]), Bytes: int64(le.Uint64(b[17:])),
		First: Seq(le.Uint64(b[25:])), End: int64(le.Uint64(b[33:])), Last: Seq(le.Uint64(b[41:])), Name: string(body[fixed:]),
	}
	return i, i.check()
}

// Errors.
var (
	// ErrInvalid says that arguments or what Pebble holds about the journal make no sense.
	ErrInvalid = errors.New("journal: invalid")
	// ErrFrameTooLarge says that a frame is larger than MaxFrameBytes: make smaller rounds.
	ErrFrameTooLarge = errors.New("journal: frame too large")
	// ErrClosed says that the journal was closed.
	ErrClosed = errors.New("journal: closed")
	// ErrFailed says that a write or sync failed: what is on the disk is unknown, nothing may be acknowledged any more and
	// the process must exit. Every later call fails with it too. A write that found no space for a new file wraps
	// disk.ErrNoSpace instead: nothing was written, and it may be tried again.
	ErrFailed = errors.New("journal: a write or sync failed, the process must exit")
)

// Damage says which acknowledged frames, or records of one, are lost.
type Damage struct {
	// First and Last bound the sequences of the damaged frames. Last is MaxSeq when nothing readable follows. A group is
	// touched unless its cut covers Last.
	First, Last Seq
	// All says that the record headers are lost too: any group may be touched. Otherwise Records names what is lost.
	All     bool
	Records []RecordKey
	File    string
	Offset  int64
	Reason  string
}

func (d *Damage) String() string {
	what := fmt.Sprintf("%d records", len(d.Records))
	if d.All {
		what = "all records"
	}
	return fmt.Sprintf("%s of frames %d to %d in %s at %d: %s", what, d.First, d.Last, d.File, d.Offset, d.Reason)
}

// StoredFrame is a frame as it was found at recovery.
type StoredFrame struct {
	Seq  Seq    // of damage: the first sequence of it
	File uint64 // number of its file
	// Records are those that are intact, in the order in which they were added.
	Records []Record
	Damage  *Damage // nil if everything is there
}

// Replayed is the result of Recovery.Replay.
type Replayed struct {
	Last   Seq // the last vouched sequence, 0 if there is none
	Frames int // vouched and intact
	Bytes  int64
	// Unvouched are the intact frames after Last: the last round, and frames before it that were not synced. Nobody vouches
	// that their round completed, in particular not for what they reference. The payloads are valid until Restart returns.
	Unvouched []StoredFrame
	Torn      bool // an unvouched frame was torn, and dropped
	Damage    []*Damage
}

// Restarted is what Recovery.Restart did. The owner stores it in one Pebble batch, synced, before it calls Start.
type Restarted struct {
	Live    []FileInfo // all live files, with their ends; the last one is the fresh one
	Dropped []FileInfo // files that are live no longer, because they hold nothing
	// Completed is the sequence of the frame that Restart wrote, or else the last vouched one: everything up to it is durable.
	Completed Seq
}

// Written tells where a frame went.
type Written struct {
	Seq   Seq
	File  uint64
	Bytes int // of the journal, headers and padding included
}

// FileState describes a live file.
type FileState struct {
	FileInfo
	Newest  Seq   // sequence of its last frame, 0 if it has none
	Used    int64 // bytes of frames
	Current bool  // frames are written to it
}

// Retirement is a set of files, the oldest ones, that are no longer needed. The owner deletes Remove from and stores Put in
// Pebble, in the batch that makes them superfluous, and then calls Retire.
type Retirement struct {
	Remove []FileInfo
	Put    []FileInfo // the oldest remaining file, which from now on says which sequence it starts with
}

// Metrics are counters since Start and gauges.
type Metrics struct {
	Frames, Bytes, Syncs uint64
	LiveBytes            int64 // of frames in live files
	LiveFiles            int   // without the spare ones
	SpareFiles           int   // registered, ready to be written
	PooledFiles          int   // retired, kept for recycling
}

func (i FileInfo) check() error {
	switch {
	case i.Name == "" || i.Epoch == 0 || i.Number == 0:
		return fmt.Errorf("%w: file %v lacks a name, number or epoch", ErrInvalid, i)
	case i.Bytes <= 0 || i.Bytes%4096 != 0 || i.End > i.Bytes || i.End < -1 || i.End > 0 && i.End%4096 != 0:
		return fmt.Errorf("%w: file %v has impossible lengths", ErrInvalid, i)
	case i.End > 0 && (i.Last == 0 || i.Last < i.First) || i.End < 0 && i.Last != 0:
		return fmt.Errorf("%w: file %v has impossible sequences", ErrInvalid, i)
	}
	return nil
}
