package partition

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/node/envelope"
	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/raftgroup/command"
	"github.com/quorumlog/quorumlog/wal/id"
)

// The log start is the first offset that readers see. It is a view: a leader decides that it moves, for whatever reason, and says so in the
// log, so that all replicas have the same one, and a new leader never shows an older one. Kafka moves it on each replica by itself when time
// or size are the reason: a consumer who was told to begin at 500 may be shown 300 later.
//
// A new leader has all committed commands in its log, but may not have applied the last of them, nor know which are committed, until a
// first entry of its own is: perhaps not for long, where disks are full. Of what lies below the largest start that they name nothing is said
// before a majority has confirmed the leader, which commits them. Above it everything goes on.
//
// It is an offset between any two records. What the log has on its disk begins at a segment's boundary at or below it, on each replica at
// another one: see wal.Log.Trim.
//
// It is never above the high watermark: who proposes takes a committed offset, and the command stands behind that in the log.

const (
	sectionLogStart envelope.Kind = 2 // body: the offset, as a uvarint
	logStartVersion uint16        = 1

	commandTrim command.Kind = 2 // body: the reason, one byte; the offset, as a uvarint
	trimVersion uint8        = 1
)

// TrimReason is why the log start moves. It changes nothing about how, and is kept for people.
type TrimReason uint8

// The reasons. They are stored.
const (
	TrimRecords TrimReason = 1 // DeleteRecords
	TrimTime    TrimReason = 2 // retention.ms
	TrimSize    TrimReason = 3 // retention.bytes
)

// ErrInternalTopic refuses to delete records of a topic that the system needs.
var ErrInternalTopic = errors.New("records of the system's own topics are not deleted")

// logStartView is the log start as one of a partition's views.
type logStartView struct {
	start id.Offset
	shown atomic.Int64 // to readers: it never goes back, not even for as long as another replica's view takes this one's place
	// named is the largest start that a command named which this replica had in its log, and had not applied, when it began to lead: if it is
	// above what is shown, it may have been shown by a leader before, or may never be.
	named atomic.Int64
}

func (v *logStartView) section() (kind envelope.Kind, version uint16) {
	return sectionLogStart, logStartVersion
}

func (v *logStartView) encode() []byte {
	if v.start == 0 {
		return nil
	}
	return binary.AppendUvarint(nil, uint64(v.start))
}

func (v *logStartView) restore(version uint16, body []byte) error {
	if version != logStartVersion {
		return unknownSection(sectionLogStart, version)
	}
	start, n := binary.Uvarint(body)
	if n != len(body) || n == 0 || start == 0 || start > math.MaxInt64 {
		return fmt.Errorf("%w: log start %x", ErrBadView, body)
	}
	v.start = id.Offset(start)
	v.show(v.start)
	return nil
}

func (v *logStartView) clear() { v.start = 0 }

// show has readers see no older start from now on than one that is committed.
func (v *logStartView) show(start id.Offset) {
	for shown := v.shown.Load(); int64(start) > shown && !v.shown.CompareAndSwap(shown, int64(start)); {
		shown = v.shown.Load()
	}
}

// doubt notes the start up to which only a majority knows.
func (v *logStartView) doubt(named id.Offset) { v.named.Store(int64(named)) }

func (v *logStartView) doubtful() id.Offset { return id.Offset(v.named.Load()) }

func (v *logStartView) commands() []command.Kind { return []command.Kind{commandTrim} }

// command returns the log start as it is afterwards.
func (v *logStartView) command(_ id.Index, c command.Command) (any, error) {
	to, err := parseTrim(c)
	if err != nil {
		return nil, err
	}
	v.start = max(v.start, to)
	v.show(v.start)
	return v.start, nil
}

// trim is the entry by which the log start moves.
func trim(to id.Offset, reason TrimReason) []byte {
	body := binary.AppendUvarint([]byte{byte(reason)}, uint64(to))
	return command.Command{Kind: commandTrim, Version: trimVersion, Body: body}.Append(nil)
}

func parseTrim(c command.Command) (to id.Offset, err error) {
	if c.Version != trimVersion {
		return 0, unknownCommand(c)
	}
	if len(c.Body) == 0 {
		return 0, fmt.Errorf("%w: a log start without a reason", command.ErrInvalid)
	}
	v, n := binary.Uvarint(c.Body[1:])
	if n != len(c.Body)-1 || n == 0 || v > math.MaxInt64 {
		return 0, fmt.Errorf("%w: log start: %x", command.ErrInvalid, c.Body)
	}
	return id.Offset(v), nil
}

// Rolls implements raftgroup.Machine: what lets go of the whole log begins a segment, for only whole segments that are written to the end
// can go.
func (p *Partition) Rolls(data []byte, next id.Offset) bool {
	c, err := command.Parse(data)
	if err != nil || c.Kind != commandTrim {
		return false
	}
	to, err := parseTrim(c)
	return err == nil && to >= next
}

// LogStart returns the first offset that readers see, as far as this replica knows.
func (p *Partition) LogStart() id.Offset {
	return max(id.Offset(p.start.shown.Load()), p.log.StartOffset())
}

// ShownStart returns the log start for those who are told of it beside something else: id.NoOffset while a leader before may have shown a
// later one. See ConfirmedHighWatermark.
func (p *Partition) ShownStart() id.Offset {
	start := p.LogStart()
	if p.start.doubtful() > start {
		return id.NoOffset
	}
	return start
}

// ErrUnsettled refuses to read what a leader before may have deleted. It ends with the next ConfirmedHighWatermark.
var ErrUnsettled = errors.New("a new leader does not know yet whether the records are deleted")

// namedStart returns the largest start that a command names which is in the log and not applied; 0: there is none. Called in a turn.
func (p *Partition) namedStart() (largest id.Offset) {
	for _, data := range p.log.Controls(p.applied) {
		if c, err := command.Parse(data); err == nil && c.Kind == commandTrim {
			to, _ := parseTrim(c)
			largest = max(largest, to)
		}
	}
	return largest
}

// trimLog has the log let go of what is below the log start. Called in the turn of the log's owner, or before it has one.
func (p *Partition) trimLog() {
	if p.log != nil {
		p.log.Trim(p.start.start)
	}
}

// DeleteRecords moves the log start to offset, -1 meaning the high watermark, and returns where it is when that is committed and readers
// here see it: where it was if offset is below. Only the leader does so. Repeating it is harmless; after an error other than ErrOutOfRange,
// which is about the offset, the log start may or may not move, and it should be repeated.
func (p *Partition) DeleteRecords(ctx context.Context, offset id.Offset) (start id.Offset, err error) {
	if p.internal() {
		return 0, fmt.Errorf("%w: %s", ErrInternalTopic, p.TopicPartition.Topic)
	}
	if err := p.mayTrim(); err != nil {
		return 0, err
	}
	if !p.Leads() {
		_, node, _ := p.group.Leader()
		return 0, &raftgroup.NotLeaderError{Leader: node}
	}
	hw, err := p.ConfirmedHighWatermark(ctx)
	switch {
	case err != nil:
		return 0, err
	case offset == -1:
		offset = hw
	case offset < 0 || offset > hw:
		return 0, &ErrOutOfRange{Offset: offset, Start: p.LogStart(), End: hw}
	}
	return p.moveStart(ctx, offset)
}

// internal tells whether the partition is the system's own.
func (p *Partition) internal() bool {
	return p.limits.Internal != nil && p.limits.Internal(p.TopicPartition.Topic)
}

// mayTrim tells whether all nodes know the command, the section of the view, and what a replica behind a start gets. The start of the log on
// the disk asks nobody: it follows the view, which follows a command that was allowed.
func (p *Partition) mayTrim() error {
	if p.limits.MayTrim == nil {
		return nil
	}
	return p.limits.MayTrim()
}
