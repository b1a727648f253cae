package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/journal"
)

// recovery is the start of a store: the cuts, then the journal in order, then the last round made durable, and only then
// anybody may step. One goroutine.
//
// It writes to no segment. A block that the journal holds now may be one that a reference further on took along, which makes
// the segment its only holder: writing it would put acknowledged bytes at risk. So the tails hold all that is replayed, which
// Store.Pressure bounds, and the first checkpoint afterwards flushes it, before anybody steps if it is much.
type recovery struct {
	s         *Store
	ctx       context.Context
	logs      map[logKey]*replaying
	live      []journal.FileInfo
	completed journal.Seq
	covered   journal.Seq // by all logs' cuts
	stopped   bool        // the last process stopped in order: nothing is to be replayed
	last      journal.Seq // which it used, if it did
	refusals  map[logKey]string
	rec       runRecord // scratch
}

// replaying is a log under recovery.
type replaying struct {
	l       *Log
	covered journal.Seq // by its cut
	refused string      // why it cannot be vouched for
	lost    bool        // refused because what it has in files cannot be had
	dropped bool        // a record of the unvouched rounds was bad: the rest of them is not applied
	torn    bool        // its records of the unvouched rounds were dropped
	// unreadable: its cut does not check, so that not even the name of its directory is known.
	unreadable bool
}

// recover does everything of §4 of the durability rules.
func (s *Store) recover(ctx context.Context) error {
	r := &recovery{s: s, ctx: ctx, logs: make(map[logKey]*replaying), refusals: make(map[logKey]string)}
	if err := r.load(); err != nil {
		return err
	}
	if err := r.finishDeletions(); err != nil {
		return err
	}
	jr, err := journal.Open(s.fs, path.Join(s.o.Dir, "journal"), r.live, journal.Options{
		FileBytes: s.o.JournalFileBytes, Logger: s.o.Logger,
		Register: func(f journal.FileInfo) error { return s.metaSet(journalKey(f.Name), f.Append(nil)) },
		MakeRoom: s.space.makeRoom,
	})
	if err != nil {
		return shortage(err)
	}
	started := false
	defer func() {
		if !started {
			_ = jr.Close()
		}
	}()
	var res journal.Replayed
	if r.stopped {
		err = jr.Skip(r.last)
	} else {
		res, err = jr.Replay(r.completed, r.visit)
	}
	if err != nil {
		return shortage(err)
	}
	s.checkpoints.uncut.Store(res.Bytes)
	s.metrics.replayed = res.Bytes
	if err := r.restart(jr, &res); err != nil {
		return err
	}
	if s.journal, err = jr.Start(); err != nil {
		return err
	}
	started = true
	return r.finish()
}

// load reads what Pebble holds.
func (r *recovery) load() error {
	s := r.s
	if err := s.checkFormat(); err != nil {
		return err
	}
	it, err := s.meta.NewIter(nil)
	if err != nil {
		return s.damagedRecords(err)
	}
	for ok := it.First(); ok; ok = it.Next() {
		if err := r.loadOne(it.Key(), it.Value()); err != nil {
			return s.damagedRecords(errors.Join(err, it.Close()))
		}
	}
	if err := it.Close(); err != nil {
		return s.damagedRecords(err)
	}
	r.checkViews()
	for k, reason := range r.refusals {
		if p := r.logs[k]; p != nil {
			p.refuse(reason)
		}
	}
	return r.findUnreadable()
}

func (r *recovery) loadOne(key, value []byte) error {
	switch key[0] {
	case 'c':
		k, err := parseReplicaKey(key)
		if err != nil {
			return err
		}
		c, err := parseCut(value)
		if err != nil {
			r.refuseUnreadable(k, err)
			return nil
		}
		l := c.open(r.s, k)
		r.s.dirs[l.dir] = true
		r.logs[k] = &replaying{l: l, covered: c.covered}
	case 'd':
		k, err := parseReplicaKey(key)
		if err != nil {
			return err
		}
		r.s.bury(k)
	case 'j':
		f, err := journal.ParseFileInfo(value)
		if err != nil {
			return fmt.Errorf("wal: journal file %q: %w", key[1:], err)
		}
		r.live = append(r.live, f)
	case 'r':
		k, err := parseReplicaKey(key)
		if err != nil {
			return err
		}
		r.refusals[k] = string(value)
	case 'q':
		return parseSeq(value, &r.completed)
	case 'a':
		return parseSeq(value, &r.covered)
	case 'v':
		k, err := parseReplicaKey(key)
		if err != nil {
			return err
		}
		r.loadView(k, value)
	case 's':
		r.stopped = true
		return parseSeq(value, &r.last)
	}
	return nil
}

func parseSeq(b []byte, s *journal.Seq) error {
	if len(b) != 8 {
		return fmt.Errorf("wal: a stored sequence has %d bytes", len(b))
	}
	*s = journal.Seq(binary.LittleEndian.Uint64(b))
	return nil
}

func parseReplicaKey(key []byte) (logKey, error) {
	if len(key) != 17 {
		return logKey{}, fmt.Errorf("wal: %x is no key of a replica", key)
	}
	return logKey{id.Group(binary.BigEndian.Uint64(key[1:])), id.Replica(binary.BigEndian.Uint64(key[9:]))}, nil
}

// refuseUnreadable takes out the one replica whose cut does not check: the others on the disk must not suffer for it. Its name and
// directory are in the cut, so it gets names that nothing else has; see findUnreadable.
func (r *recovery) refuseUnreadable(k logKey, cause error) {
	name := fmt.Sprintf("unreadable-%d-%d", k.group, k.replica)
	l := newLog(r.s, &Spec{Group: k.group, Replica: k.replica, Name: name}, name)
	l.resetTo(Start{})
	r.logs[k] = &replaying{l: l, refused: cause.Error(), unreadable: true}
}

// findUnreadable finds the directories of replicas whose cuts do not check, so that they can be deleted: the one that no other log has
// and whose name ends in the replica's id, which is never given twice.
func (r *recovery) findUnreadable() error {
	for k, p := range r.logs {
		if !p.unreadable {
			continue
		}
		names, err := r.s.fs.List(r.s.logsDir)
		if err != nil {
			return fmt.Errorf("wal: %w", shortage(err))
		}
		suffix := fmt.Sprintf(".%d", k.replica)
		for _, name := range names {
			if strings.HasSuffix(name, suffix) && !r.s.dirs[name] {
				p.l.name, p.l.dir = strings.TrimSuffix(name, suffix), name
				r.s.dirs[name] = true
			}
		}
	}
	return nil
}

// checkFormat refuses what another version of the program wrote, and what is not all that this one wrote.
func (s *Store) checkFormat() error {
	v, err := s.metaGet(formatKey)
	if errors.Is(err, ErrNotFound) {
		if err := s.guard.check(); err != nil {
			return err
		}
		return s.metaSet(formatKey, binary.LittleEndian.AppendUint32(nil, formatVersion))
	}
	if err != nil {
		return s.damagedRecords(err)
	}
	if len(v) != 4 {
		return s.damagedRecords(fmt.Errorf("the version of the format is %x", v))
	}
	if n := binary.LittleEndian.Uint32(v); n != formatVersion {
		return fmt.Errorf("wal: %s has data of format %d, this program reads format %d: use the program that wrote it, or another directory", s.o.Dir, n, formatVersion)
	}
	return s.guard.check()
}

// open makes the log that a cut describes.
func (c *cut) open(s *Store, k logKey) *Log {
	l := newLog(s, &Spec{Group: k.group, Replica: k.replica, Name: c.name, Topic: c.topic, SegmentBytes: c.segmentBytes}, c.dir)
	l.resetTo(c.start)
	l.hs, l.state, l.mark = c.hs, c.state, c.view
	if len(c.epochs) > 0 {
		l.epochs = c.epochs
	}
	l.controls = c.controls
	last := c.start.Index
	for i := range c.segs {
		cs := &c.segs[i]
		sg := &seg{
			key: cs.key, first: cs.first, end: cs.end, w: cs.w, indexed: cs.indexed,
			rows: cs.rows, rowBase: cs.indexed, maxTime: cs.maxTime, timeBefore: cs.maxTime, names: namesOwn,
			created: cs.created, appended: cs.appended,
		}
		if cs.sealed {
			sg.stage = segSealed
		}
		if len(cs.tail) > 0 {
			sg.tail.append(&s.memory, int64(cs.w), cs.tail)
		}
		if n := len(cs.rows); n > 0 {
			sg.maxTime = cs.rows[n-1].MaxTimestamp
		}
		s.memory.countRows(sg)
		last = cs.indexed + id.Index(len(cs.rows)) - 1
		l.segs = append(l.segs, sg)
	}
	l.since = c.since
	l.last.Store(uint64(max(last, c.start.Index)))
	l.next.Store(int64(c.next))
	l.committed.Store(uint64(min(c.hs.Commit, l.LastIndex())))
	l.doneSeq = c.covered
	return l
}

// visit takes a vouched frame of the journal.
func (r *recovery) visit(f *journal.StoredFrame) error {
	if err := r.ctx.Err(); err != nil {
		return err
	}
	if f.Damage != nil {
		r.damaged(f.Damage)
	}
	for i := range f.Records {
		rec := &f.Records[i]
		p := r.logs[logKey{rec.Group, rec.Replica}]
		if p == nil || p.refused != "" || f.Seq <= p.covered && !r.s.o.off.replayCovered {
			continue
		}
		r.apply(p, f.Seq, rec)
	}
	r.s.metrics.replayHeld = max(r.s.metrics.replayHeld, r.s.memory.held())
	return nil
}

// damaged refuses the logs that an unreadable but vouched frame touched: those that may have had records in it which no cut covers. A
// log without records for a long time has an old cut, and lost nothing that all logs' cuts together cover.
func (r *recovery) damaged(d *journal.Damage) {
	touched := func(p *replaying) {
		if p != nil && max(p.covered, r.covered) < d.Last {
			p.refuse("acknowledged entries are lost: " + d.String())
		}
	}
	if d.All {
		for _, p := range r.logs {
			touched(p)
		}
	}
	for _, k := range d.Records {
		touched(r.logs[logKey{k.Group, k.Replica}])
	}
}

func (p *replaying) refuse(reason string) {
	if p.refused == "" {
		p.refused = reason
	}
}

// apply replays one record.
func (r *recovery) apply(p *replaying, seq journal.Seq, rec *journal.Record) {
	l := p.l
	var err error
	switch rec.Kind {
	case journal.KindEntry:
		if err = r.rec.parse(rec.Payload, formEntries); err == nil {
			err = l.replayRun(&r.rec, formEntries)
		}
	case journal.KindReference:
		if err = r.rec.parse(rec.Payload, formReference); err == nil {
			err = l.replayRun(&r.rec, formReference)
		}
	case journal.KindHardState:
		var hs HardState
		if hs, err = parseHardState(rec.Payload); err == nil {
			l.replayHardState(hs)
		}
	case journal.KindReset:
		var reset Reset
		if reset, err = parseReset(rec.Payload); err == nil {
			l.resetTo(reset.Start)
			l.setState(reset.State, markOf(reset.State.View))
			l.stateAt = max(reset.Start.Index, reset.State.Applied)
		}
	default:
		err = fmt.Errorf("%w: kind %d", errBadRecord, rec.Kind)
	}
	if err != nil {
		p.refuse(fmt.Sprintf("round %d of the journal: %v", seq, err))
		return
	}
	l.doneSeq = seq
	if l.dirty == 0 {
		l.dirty = seq
	}
}

func (l *Log) replayHardState(hs HardState) {
	switch {
	case hs.Term > l.hs.Term:
		l.hs.Term, l.hs.Vote = hs.Term, hs.Vote
	case hs.Term == l.hs.Term && hs.Vote != id.NoReplica:
		l.hs.Vote = hs.Vote
	}
	l.SetCommit(hs.Commit)
}

// replayRun applies a run of entries: log := log up to the first one's predecessor, then these.
func (l *Log) replayRun(rec *runRecord, form recordForm) error {
	first := rec.rows[0].Index
	if first <= l.start.Index || first > l.LastIndex()+1 {
		return fmt.Errorf("%w: entry %d in a log that has (%d, %d]", errBadRecord, first, l.start.Index, l.LastIndex())
	}
	if first <= l.LastIndex() {
		if err := l.replayTruncation(first, rec); err != nil {
			return err
		}
	}
	sg := l.active()
	if sg == nil || sg.key != rec.key {
		sg = l.roll(rec.key)
		sg.names = namesOwn
	}
	if rec.rows[0].Position != sg.end || rec.rows[0].Offset != l.NextOffset() || sg.stage == segSealed {
		return fmt.Errorf("%w: entry %d at position %d, offset %d of segment %v, which ends at %d, offset %d",
			errBadRecord, first, rec.rows[0].Position, rec.rows[0].Offset, sg.key, sg.end, l.NextOffset())
	}
	data, controls := rec.data, rec.controls
	for _, row := range rec.rows {
		if EntryKind(row.Kind) != KindBatch {
			l.addControl(row.Index, clone(controls[0]))
			controls = controls[1:]
		} else if form == formEntries {
			sg.tail.append(&l.s.memory, int64(row.Position), data[:row.Length])
			data = data[row.Length:]
		}
		if EntryKind(row.Kind) == KindBatch {
			sg.appended = l.s.now()
		}
		l.push(sg, row)
	}
	if form == formReference {
		if rec.to <= sg.w {
			return fmt.Errorf("%w: a write up to %d, below the watermark %d", errBadRecord, rec.to, sg.w)
		}
		sg.tail.clear()
		sg.w = rec.to
		if len(data) > 0 {
			sg.tail.append(&l.s.memory, int64(rec.to), data)
		}
	}
	l.tellEvictor(sg)
	l.SetCommit(rec.commit)
	return nil
}

// replayTruncation cuts the log before entry i. Bytes below the watermark come back above it with the record's fragment.
func (l *Log) replayTruncation(i id.Index, rec *runRecord) error {
	if i <= l.commit() {
		return fmt.Errorf("%w: truncation at index %d, but entries up to %d are committed", errBadRecord, i, l.commit())
	}
	k := l.segOf(i)
	row := l.segs[k].row(i)
	if row == nil || l.segs[k].stage == segSealed {
		return fmt.Errorf("%w: truncation at index %d, which is indexed", errBadRecord, i)
	}
	p, offset := row.Position, row.Offset
	for _, sg := range l.segs[k+1:] {
		l.drop(sg)
	}
	l.segs = l.segs[:k+1]
	sg := l.segs[k]
	floor := id.Position(disk.RoundDown(int64(p)))
	if floor < sg.w {
		if int64(len(rec.fragment)) != int64(p-floor) {
			return fmt.Errorf("%w: truncation at position %d below the watermark %d has %d bytes of the block", errBadRecord, p, sg.w, len(rec.fragment))
		}
		sg.tail.clear()
		sg.w = floor
		if len(rec.fragment) > 0 {
			sg.tail.append(&l.s.memory, int64(floor), rec.fragment)
		}
	} else if _, ok := sg.tail.truncate(&l.s.memory, int64(p)); !ok {
		return fmt.Errorf("%w: truncation at position %d, whose block is missing", errBadRecord, p)
	}
	sg.cutRows(i)
	sg.end = p
	l.forgetFrom(i)
	l.next.Store(int64(offset))
	l.last.Store(uint64(i - 1))
	return nil
}
