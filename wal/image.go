package wal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/journal"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// Image is what a store that nobody has open would come back with: its cuts and its journal put together as a start does it, by the same
// code, but without writing a byte. Nothing of the segments' files is looked at, but for what the last round refers to.
type Image struct {
	Logs []ImageLog // by name and replica
	// Stopped: the store was stopped in order, and its next start does not look at the journal.
	Stopped            bool
	Completed, Covered journal.Seq
	Files              []journal.FileInfo // that are live
	Frames             int                // of the journal, vouched and whole
	FrameBytes         int64
	Unvouched          int             // frames of the last round: of these a crash may have left any part
	Torn               bool            // and did
	JournalDamage      []string        // frames that somebody vouches for, and that are not as they were written
	Dirs               map[string]bool // directories that belong to a log
}

// ImageLog is a log as the next start finds it.
type ImageLog struct {
	Group                 id.Group
	Replica               id.Replica
	Name, Dir             string
	Topic                 id.Topic
	Start                 Start
	HardState             HardState
	Applied, Last, Commit id.Index
	Next                  id.Offset
	Covered               journal.Seq
	Refused               string // why the next start refuses it; "" if it does not
	Deleting              bool   // the next start completes its deletion
	Epochs                []ImageEpoch
	Segments              []ImageSegment

	controls map[id.Index][]byte
}

// ImageEpoch says that the entries from First on are of a term.
type ImageEpoch struct {
	First id.Index
	Term  id.Term
}

// ImageSegment is a segment of a log. Its bytes below Watermark are in the .log, those from there on are Tail; the rows of entries below
// Indexed are in the .index, the others are Rows.
type ImageSegment struct {
	Key            segment.Key
	Sealed         bool
	First, Last    id.Index
	Watermark, End id.Position
	Indexed        id.Index
	Rows           []segment.Row
	Tail           []byte
}

// Control returns the payload of a control entry.
func (l *ImageLog) Control(i id.Index) []byte { return l.controls[i] }

// ReadImage reads the store in dir. nil file systems are the machine's. It holds in memory what a start would.
func ReadImage(ctx context.Context, dir string, fsys disk.FS, pebbleFS vfs.FS) (_ *Image, err error) {
	if fsys == nil {
		fsys = disk.NewBuffered()
	}
	o := Options{Dir: dir, FS: disk.ReadOnly(fsys), PebbleFS: pebbleFS}.withDefaults()
	if _, err := o.PebbleFS.Stat(path.Join(dir, "meta")); err != nil {
		return nil, fmt.Errorf("wal: there is no store in %s: %w", dir, err)
	}
	s := newStore(o)
	r := &recovery{s: s, ctx: ctx, logs: make(map[logKey]*replaying), refusals: make(map[logKey]string)}
	defer func() {
		for _, p := range r.logs {
			for _, sg := range p.l.segs {
				sg.tail.clear()
			}
		}
		if s.meta != nil {
			err = errors.Join(err, s.meta.Close())
		}
		err = errors.Join(err, s.guard.close())
		s.memory.close()
	}()
	if err := s.guard.open(); err != nil {
		return nil, err
	}
	s.meta, err = s.tryPebble(&pebble.Options{
		FS: readOnlyPebble{o.PebbleFS}, ReadOnly: true, ErrorIfNotExists: true, Logger: pebbleLogger{s},
		FormatMajorVersion: pebble.FormatValueSeparation,
	})
	if err != nil {
		return nil, s.openError(err)
	}
	if err := r.load(); err != nil {
		return nil, err
	}
	m := &Image{Stopped: r.stopped, Completed: r.completed, Covered: r.covered, Files: r.live, Dirs: s.dirs}
	if err := m.replay(r); err != nil {
		return nil, err
	}
	for k, p := range r.logs {
		l, err := p.image(k)
		if err != nil {
			return nil, err
		}
		m.Logs = append(m.Logs, l)
	}
	slices.SortFunc(m.Logs, func(a, b ImageLog) int {
		if c := strings.Compare(a.Name, b.Name); c != 0 {
			return c
		}
		return int(min(max(int64(a.Replica-b.Replica), -1), 1))
	})
	return m, nil
}

// replay puts the journal on top of the cuts. After an orderly stop it is only looked at.
func (m *Image) replay(r *recovery) error {
	jr, err := journal.Open(r.s.fs, path.Join(r.s.o.Dir, "journal"), r.live, journal.Options{
		Register: func(journal.FileInfo) error { return disk.ErrReadOnly },
	})
	if err != nil {
		if m.Stopped && errors.Is(err, fs.ErrNotExist) {
			m.JournalDamage = append(m.JournalDamage, err.Error())
			return nil
		}
		return err
	}
	defer func() { _ = jr.Close() }()
	visit := r.visit
	if m.Stopped {
		visit = func(*journal.StoredFrame) error { return r.ctx.Err() }
	}
	res, err := jr.Replay(r.completed, visit)
	if err != nil {
		if m.Stopped && r.ctx.Err() == nil {
			m.JournalDamage = append(m.JournalDamage, err.Error())
			return nil
		}
		return err
	}
	m.Frames, m.FrameBytes, m.Unvouched, m.Torn = res.Frames, res.Bytes, len(res.Unvouched), res.Torn
	for _, d := range res.Damage {
		m.JournalDamage = append(m.JournalDamage, d.String())
	}
	if m.Stopped {
		return nil
	}
	return r.settle(new(journal.Frame), &res)
}

// image describes a log.
func (p *replaying) image(k logKey) (ImageLog, error) {
	l := p.l
	m := ImageLog{
		Group: k.group, Replica: k.replica, Name: l.name, Dir: l.dir, Topic: l.topic, Start: l.start, HardState: l.hs, Applied: l.state.Applied,
		Last: l.LastIndex(), Next: l.NextOffset(), Commit: l.commit(), Covered: p.covered, Refused: p.refused,
		controls: make(map[id.Index][]byte, len(l.controls)),
	}
	_, err := l.s.fs.Stat(path.Join(l.s.logsDir, deletedName(l.dir)))
	m.Deleting = err == nil
	for _, e := range l.epochs {
		m.Epochs = append(m.Epochs, ImageEpoch{e.first, e.term})
	}
	for _, c := range l.controls {
		m.controls[c.index] = c.data
	}
	for k, sg := range l.segs {
		is := ImageSegment{
			Key: sg.key, Sealed: sg.stage == segSealed, First: sg.first, Last: l.lastOf(k), Watermark: sg.w, End: sg.end, Indexed: sg.indexed, Rows: sg.rows,
		}
		if int(sg.indexed-sg.rowBase) <= len(sg.rows) {
			is.Rows = sg.rows[sg.indexed-sg.rowBase:]
		}
		pieces, ok := sg.tail.pieces(nil, int64(sg.w), int64(sg.end))
		if !ok && p.refused == "" {
			return m, l.s.broken(l, "the tail does not hold what is above the watermark")
		}
		for _, piece := range pieces {
			is.Tail = append(is.Tail, piece.bytes()...)
		}
		release(pieces, 0)
		m.Segments = append(m.Segments, is)
	}
	return m, nil
}

// readOnlyPebble keeps Pebble from writing, whatever it means to do: opened for reading only it still takes its lock, by making a file.
type readOnlyPebble struct{ vfs.FS }

func (readOnlyPebble) Create(string, vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, disk.ErrReadOnly
}

func (readOnlyPebble) OpenReadWrite(string, vfs.DiskWriteCategory, ...vfs.OpenOption) (vfs.File, error) {
	return nil, disk.ErrReadOnly
}

func (readOnlyPebble) ReuseForWrite(string, string, vfs.DiskWriteCategory) (vfs.File, error) {
	return nil, disk.ErrReadOnly
}

func (readOnlyPebble) Link(string, string) error          { return disk.ErrReadOnly }
func (readOnlyPebble) Remove(string) error                { return disk.ErrReadOnly }
func (readOnlyPebble) RemoveAll(string) error             { return disk.ErrReadOnly }
func (readOnlyPebble) Rename(string, string) error        { return disk.ErrReadOnly }
func (readOnlyPebble) MkdirAll(string, os.FileMode) error { return nil }
func (readOnlyPebble) Lock(string) (io.Closer, error)     { return io.NopCloser(nil), nil }
func (r readOnlyPebble) Unwrap() vfs.FS                   { return r.FS }

// DescribeRecord says what a record of the journal holds.
func DescribeRecord(r *journal.Record) string {
	var run runRecord
	switch r.Kind {
	case journal.KindEntry, journal.KindReference:
		form, what := formEntries, "entries"
		if r.Kind == journal.KindReference {
			form, what = formReference, "reference"
		}
		if err := run.parse(r.Payload, form); err != nil {
			return fmt.Sprintf("%s: %v", what, err)
		}
		first, last := &run.rows[0], &run.rows[len(run.rows)-1]
		text := fmt.Sprintf("%s: index: %d-%d term: %d offsets: [%d, %d) segment: %v position: %d-%d commit: %d",
			what, first.Index, last.Index, last.Term, first.Offset, last.NextOffset(), run.key, first.Position, last.End(), run.commit)
		if form == formReference {
			text += fmt.Sprintf(" written: [%d, %d)", run.from, run.to)
		}
		return text
	case journal.KindHardState:
		hs, err := parseHardState(r.Payload)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("hard state: term: %d vote: %d commit: %d", hs.Term, hs.Vote, hs.Commit)
	case journal.KindReset:
		reset, err := parseReset(r.Payload)
		if err != nil {
			return err.Error()
		}
		return fmt.Sprintf("reset: index: %d term: %d offset: %d applied: %d", reset.Start.Index, reset.Start.Term, reset.Start.Offset, reset.State.Applied)
	}
	return fmt.Sprintf("kind %d", r.Kind)
}
