package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/journal"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// restart takes the unvouched rounds: what checks is applied, and made durable before anybody steps. What was read may have
// come from a cache and may never have been synced; and what is dropped now must not come back, vouched for by later frames.
func (r *recovery) restart(jr *journal.Recovery, res *journal.Replayed) error {
	s := r.s
	var frame journal.Frame
	if err := r.settle(&frame, res); err != nil {
		return err
	}
	if err := r.oneCause(); err != nil {
		return err
	}
	if s.o.off.recoveryCopy {
		frame.Reset()
	}
	done, err := jr.Restart(&frame)
	if err != nil {
		return shortage(err)
	}
	if frame.Count() > 0 {
		s.checkpoints.uncut.Add(frame.Size())
	}
	b := s.meta.NewBatch()
	defer func() { _ = b.Close() }()
	for _, f := range done.Dropped {
		if err := b.Delete(journalKey(f.Name), nil); err != nil {
			return err
		}
	}
	for _, f := range done.Live {
		if err := b.Set(journalKey(f.Name), f.Append(nil), nil); err != nil {
			return err
		}
	}
	if err := b.Set(completedKey, appendSeq(nil, done.Completed), nil); err != nil {
		return err
	}
	if !s.o.off.stopMark {
		if err := b.Delete(stoppedKey, nil); err != nil {
			return err
		}
	}
	for k, p := range r.logs { // once the journal goes on nothing else will say so
		if p.refused != "" {
			if err := b.Set(refusalKey(k.group, k.replica), []byte(p.refused), nil); err != nil {
				return err
			}
		}
	}
	if err := s.metaCommit(b, pebble.Sync); err != nil {
		return err
	}
	s.completed.Store(uint64(done.Completed))
	for _, p := range r.logs { // the copy stands at a later sequence than the records had
		if p.torn {
			p.l.doneSeq = done.Completed
			if p.l.dirty == 0 {
				p.l.dirty = done.Completed
			}
		}
	}
	return nil
}

// settle applies what checks of the unvouched rounds, and puts it into a frame. It writes nothing.
func (r *recovery) settle(frame *journal.Frame, res *journal.Replayed) error {
	for i := range res.Unvouched {
		f := &res.Unvouched[i]
		if err := r.checkReferences(f); err != nil {
			return err
		}
		for j := range f.Records {
			r.keep(frame, f.Seq, &f.Records[j])
		}
	}
	return nil
}

// checkReferences reads what a frame's references name and puts entries with their bytes into the references' places. A bad
// reference drops its log's records of this frame and of those after it. One whose bytes cannot be had at all is another matter: the round
// may have been acknowledged, and the disk would have kept it; that replica is refused.
//
// The bytes that a reference names are the only copy, in blocks that nobody vouches for: they may be in a cache and not on the
// disk, and writing them again where they are would put them at risk of that very write. In the journal they are safe, and the
// watermark stays below them, so that an ordinary flush can bring them to the segment. For the same reason it suffices to check
// the reference's own rows: whatever else its write covered is still in the journal or in the cut.
func (r *recovery) checkReferences(f *journal.StoredFrame) error {
	for i := range f.Records {
		rec := &f.Records[i]
		p := r.logs[logKey{rec.Group, rec.Replica}]
		if p == nil || p.refused != "" || p.dropped || rec.Kind != journal.KindReference || f.Seq <= p.covered {
			continue
		}
		if err := r.rec.parse(rec.Payload, formReference); err != nil {
			p.refuse(fmt.Sprintf("round %d of the journal: %v", f.Seq, err))
			continue
		}
		if r.s.o.off.recoverySync {
			continue
		}
		payload, err := r.s.dereference(p.l, &r.rec)
		if err != nil && rotten(err) {
			p.refuse(fmt.Sprintf("what round %d of the journal refers to cannot be read: %v", f.Seq, err))
			p.lost = true
			continue
		}
		if err != nil {
			return fmt.Errorf("wal: check the last round of %v: %w", p.l, shortage(err))
		}
		if p.dropped = payload == nil; !p.dropped {
			rec.Kind, rec.Payload = journal.KindEntry, payload
		}
	}
	return nil
}

// keep applies an unvouched record, and puts it into the frame that stands for it from now on.
func (r *recovery) keep(frame *journal.Frame, seq journal.Seq, rec *journal.Record) {
	p := r.logs[logKey{rec.Group, rec.Replica}]
	if p == nil || seq <= p.covered {
		return
	}
	p.torn = true
	if !p.dropped {
		if p.refused == "" {
			r.apply(p, seq, rec)
		}
		frame.Add(rec.Kind, rec.Group, rec.Replica, rec.Payload)
		return
	}
	if rec.Kind != journal.KindHardState || r.s.o.off.droppedTerm {
		return
	}
	hs, err := parseHardState(rec.Payload)
	if err != nil {
		p.refuse(err.Error())
		return
	}
	hs.Commit = 0 // it may speak of entries that were dropped; term and vote were promised to others
	p.l.replayHardState(hs)
	b := frame.Scratch(hardStateBytes)
	putHardState(b, hs)
	frame.Add(journal.KindHardState, rec.Group, rec.Replica, b)
}

// dereference returns a reference as a run of entries with the bytes that are in the segment; nil when these are not what the
// rows say.
func (s *Store) dereference(l *Log, rec *runRecord) (payload []byte, err error) {
	data, err := s.referencedBytes(path.Join(s.logsDir, l.dir, rec.key.Log()), rec)
	if err != nil {
		return nil, err
	}
	for at, i := data, 0; i < len(rec.rows); i++ {
		row := &rec.rows[i]
		if row.Length > 0 && !intact(row, at[:row.Length]) && !s.o.off.referenceCheck {
			return nil, nil
		}
		at = at[row.Length:]
	}
	control := 0
	for _, c := range rec.controls {
		control += 4 + len(c)
	}
	entries := runRecord{key: rec.key, commit: rec.commit, rows: rec.rows}
	payload = make([]byte, runHeaderBytes+segment.RowSize*len(rec.rows), runHeaderBytes+segment.RowSize*len(rec.rows)+control+len(data))
	putRunHeader(payload, &entries, 0, control, len(data))
	for _, c := range rec.controls {
		payload = binary.LittleEndian.AppendUint32(payload, uint32(len(c)))
		payload = append(payload, c...)
	}
	return append(payload, data...), nil
}

// referencedBytes returns the bytes of a reference's rows: those below rec.to from the file, the others from the record. The file had
// its name and its space, durably, before the round began.
func (s *Store) referencedBytes(name string, rec *runRecord) (data []byte, err error) {
	from, to := int64(rec.rows[0].Position), int64(rec.to)
	if from >= to { // the write took earlier bytes along, and none of these
		return rec.data[from-to:], nil
	}
	f, err := s.fs.OpenRead(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	start := disk.RoundDown(from)
	image := disk.AlignedBytes(int(to - start))
	n, err := f.ReadAt(image, start)
	if err != nil && err != io.EOF {
		return nil, err
	}
	if n < len(image) {
		return nil, fmt.Errorf("%w: %s ends at %d instead of %d", ErrCorrupt, name, start+int64(n), to)
	}
	return append(image[from-start:], rec.data...), nil
}

// finish looks at the files of the recovered logs and opens the logs, now that the recovery is durable.
func (r *recovery) finish() error {
	s := r.s
	var found []logKey
	for k, p := range r.logs {
		if p.refused != "" {
			continue
		}
		reason, err := p.l.openFiles()
		if err != nil && rotten(err) { // it is about these files: the other logs of the node do not suffer for it
			reason, err = fmt.Sprintf("its files cannot be read: %v", err), nil
		}
		if err != nil {
			return fmt.Errorf("wal: open %v: %w", p.l, shortage(err))
		}
		if reason != "" {
			p.refuse(reason)
			p.lost, found = true, append(found, k)
		}
	}
	if err := r.oneCause(); err != nil {
		return err
	}
	for _, k := range found {
		if err := s.metaSet(refusalKey(k.group, k.replica), []byte(r.logs[k].refused)); err != nil {
			return err
		}
	}
	for k, p := range r.logs {
		if p.refused != "" {
			s.o.Logger.Error("a replica is refused: it cannot vouch for its log and must be replaced by a new one",
				"log", p.l.String(), "reason", p.refused)
			s.refused[k] = &refusedLog{Refusal{k.group, k.replica, p.l.name, p.refused}, p.l.dir}
			p.l.resetTo(Start{})
			continue
		}
		s.logs[k] = p.l
	}
	s.bury(slices.Collect(maps.Keys(s.deleted))...)
	if s.checkpoints.uncut.Load() > 0 {
		s.checkpoints.force() // it frees the memory and the files of what was replayed
	}
	return nil
}

// fewLogs is how many logs may have lost files before a start asks whether it is about files at all.
const fewLogs = 3

// oneCause returns an error when most logs, and not just a few, or all of several, have files that cannot be had: then it is the disk that
// does not answer, or is not there. A refusal is for good, and for all of them it would be so for a cable or a mount that comes back. None
// is stored yet.
//
// The last round may have found out about a few logs, and nobody has looked at the others yet: so it looks.
func (r *recovery) oneCause() error {
	var example *replaying
	for _, p := range r.logs {
		if p.lost {
			example = p
		}
	}
	if example == nil {
		return nil
	}
	lost, all := 0, 0
	for _, p := range r.logs {
		if p.refused != "" && !p.lost {
			continue
		}
		if has, err := p.l.probe(); has || p.lost { // who has nothing in files cannot lose it
			all++
			if p.lost || rotten(err) {
				lost++
			}
		}
	}
	few := lost <= fewLogs && lost < all || 2*lost <= all
	if few || lost == 1 {
		return nil
	}
	return fmt.Errorf("wal: %d of %d logs below %s cannot be had, as %v: %s: that is more than bad files: see whether all is mounted, "+
		"and the disk answers, and start again: no replica was refused for it; if they are lost, start with an empty data directory and an unused node id",
		lost, all, r.s.logsDir, example.l, example.refused)
}

// probe reads a block of the newest file that has to be there, if there is one.
func (l *Log) probe() (has bool, err error) {
	for _, sg := range slices.Backward(l.segs) {
		if sg.w == 0 {
			continue
		}
		f, err := l.s.fs.OpenRead(path.Join(l.s.logsDir, l.dir, sg.key.Log()))
		if err != nil {
			return true, err
		}
		_, err = f.ReadAt(disk.AlignedBytes(disk.BlockSize), 0)
		return true, errors.Join(err, f.Close())
	}
	return false, nil
}

// openFiles checks that the files hold what the log needs of them, removes those that it does not name, and reads
// uncommitted bytes into the tail, where a truncation needs them. It returns why the log has to be refused, or nothing.
func (l *Log) openFiles() (refused string, err error) {
	s := l.s
	l.hs.Commit = l.commit()
	l.doneHS, l.doneIndex = l.hs, l.LastIndex()
	l.settled = min(l.state.Applied, l.LastIndex())
	if sg := l.active(); sg != nil {
		l.doneEnd = sg.end
	}
	dir := path.Join(s.logsDir, l.dir)
	names, err := s.fs.List(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	found := make(map[string]bool, len(names))
	for _, name := range names {
		found[name] = true
	}
	wanted := make(map[segment.Key]bool, len(l.segs))
	for _, sg := range l.segs {
		wanted[sg.key] = true
		if refused, err = l.openSegment(dir, sg, found); refused != "" || err != nil {
			return refused, err
		}
	}
	for _, name := range names {
		if key, ok := segment.ParseName(name); ok && !wanted[key] {
			// One that stays does no harm: a new segment of that name removes it.
			if err := s.fs.Remove(path.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				s.o.Logger.Warn("a file that no segment has was not removed; the next start tries again", "log", l.String(), "file", name, "error", err)
			}
		}
	}
	l.garbage = nil
	return l.loadUncommitted()
}

// openSegment checks the files of a segment.
func (l *Log) openSegment(dir string, sg *seg, found map[string]bool) (refused string, err error) {
	both := found[sg.key.Log()] && found[sg.key.Index()]
	if !both {
		if sg.w > 0 || sg.indexed > sg.first || sg.stage == segSealed {
			return fmt.Sprintf("segment %v has %d bytes and %d rows on disk, but its files are missing", sg.key, sg.w, sg.indexed-sg.first), nil
		}
		return "", nil
	}
	info, err := l.s.fs.Stat(path.Join(dir, sg.key.Log()))
	if err != nil {
		return "", err
	}
	index, err := l.s.fs.Stat(path.Join(dir, sg.key.Index()))
	if err != nil {
		return "", err
	}
	rows := int64(sg.indexed-sg.first) * segment.RowSize
	if info.Size < int64(sg.w) || index.Size < rows {
		return fmt.Sprintf("segment %v has %d bytes and %d of index, it must have %d and %d", sg.key, info.Size, index.Size, sg.w, rows), nil
	}
	// Files that nothing vouches for may have names that were never synced: they are prepared as new ones are.
	if sg.w > 0 || sg.indexed > sg.first {
		sg.names = namesReady
	}
	sg.allocated = disk.RoundDown(info.Size)
	return "", nil
}

// loadUncommitted makes the tails of unsealed segments hold whole batches: everything from the block on in which the
// committed bytes end, and from the batch on that the watermark divides.
func (l *Log) loadUncommitted() (refused string, err error) {
	for k, sg := range l.segs {
		start := min(id.Position(disk.RoundDown(int64(l.committedEnd(k)))), sg.w)
		for i := len(sg.rows) - 1; i >= 0 && sg.rows[i].End() > start; i-- {
			if sg.rows[i].Position < start {
				start = id.Position(disk.RoundDown(int64(sg.rows[i].Position)))
				break
			}
		}
		if sg.stage == segSealed || start >= sg.w {
			continue
		}
		if refused, err = l.loadTail(sg, start); refused != "" || err != nil {
			return refused, err
		}
	}
	return "", nil
}

// loadTail replaces a tail, which begins at the watermark, by one that begins at start, a multiple of 4 KiB.
func (l *Log) loadTail(sg *seg, start id.Position) (refused string, err error) {
	o, err := l.s.files.acquire(l, sg)
	if err != nil {
		return "", err
	}
	defer l.s.files.release(o)
	image := disk.AlignedBytes(int(disk.RoundUp(int64(sg.end - start))))
	if n, err := o.log.ReadAt(image[:sg.w-start], int64(start)); err != nil && err != io.EOF {
		return "", err
	} else if n < int(sg.w-start) {
		return fmt.Sprintf("segment %v ends at %d instead of %d", sg.key, int64(start)+int64(n), sg.w), nil
	}
	pieces, ok := sg.tail.pieces(nil, int64(sg.w), int64(sg.end))
	if !ok {
		return "", l.s.broken(l, "the recovered tail does not hold what is above the watermark")
	}
	n := int(sg.w - start)
	for _, p := range pieces {
		n += copy(image[n:], p.bytes())
	}
	release(pieces, 0)
	sg.tail.clear()
	at := start
	for i := range sg.rows {
		row := &sg.rows[i]
		if row.Length == 0 || row.Position < start {
			continue
		}
		if at < row.Position { // the end of a batch whose beginning is not loaded
			sg.tail.append(&l.s.memory, int64(at), image[at-start:row.Position-start])
		}
		b := image[row.Position-start : row.End()-start]
		if !intact(row, b) {
			return fmt.Sprintf("segment %v: entry %d does not match its checksum", sg.key, row.Index), nil
		}
		sg.tail.append(&l.s.memory, int64(row.Position), b)
		at = row.End()
	}
	if at < sg.end {
		sg.tail.append(&l.s.memory, int64(at), image[at-start:sg.end-start])
	}
	l.tellEvictor(sg)
	return "", nil
}
