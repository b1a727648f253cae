package wal

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/journal"
	"github.com/quorumlog/quorumlog/wal/segment"
)

const (
	maxRoundBytes = 32 * mib  // of entries in one round; also no more than half a journal file has
	maxDirect     = 128       // segments written by one round: as long as the same bytes would take in the journal
	maxDirectGap  = 256 * kib // of earlier bytes that a direct write takes along, or twice the new ones if these are more
	flushWorthy   = 16 * kib  // less than this is not flushed but goes into the cut
)

// round is a commit round: one frame of the journal, and the segments that are written with it. The committer owns it.
type round struct {
	s       *Store
	appends []*Append
	logs    []*roundLog
	spare   []*roundLog
	direct  []*roundLog // those that write to their segments
	frame   journal.Frame
	sync    bool // something must be durable before anybody is answered

	bufs  [][]byte // scratch
	bytes int64
}

// roundLog is the part of a round that belongs to one log.
type roundLog struct {
	l       *Log
	appends []*Append
	records bool // the frame has records of the log

	sg       *seg        // the segment that is written directly, or nil
	fresh    int64       // new bytes for sg in this round
	from, to id.Position // the write
	end      id.Position // of the entries for sg in this round
	pieces   []piece
	bufs     [][]byte
	err      error
}

// add takes an append into the round.
func (r *round) add(a *Append) {
	l := a.Log
	rl := l.round
	if rl == nil {
		if n := len(r.spare); n > 0 {
			rl, r.spare = r.spare[n-1], r.spare[:n-1]
		} else {
			rl = &roundLog{}
		}
		rl.l, l.round = l, rl
		r.logs = append(r.logs, rl)
	}
	rl.appends = append(rl.appends, a)
	r.appends = append(r.appends, a)
	r.bytes += a.plan.bytes
	r.sync = r.sync || a.plan.sync
}

// release gives up the memory of appends that were not completed, because the store failed.
func (r *round) release() {
	for _, a := range r.appends {
		if a != nil {
			a.plan.clear()
		}
	}
}

// clear makes the round ready for the next.
func (r *round) clear() {
	for _, rl := range r.logs {
		rl.l.round = nil
		clear(rl.appends)
		clear(rl.bufs)
		*rl = roundLog{appends: rl.appends[:0], pieces: rl.pieces[:0], bufs: rl.bufs[:0]}
	}
	r.spare = append(r.spare, r.logs...)
	r.logs = r.logs[:0]
	clear(r.appends)
	r.appends, r.direct = r.appends[:0], r.direct[:0]
	r.frame.Reset()
	r.sync, r.bytes = false, 0
}

// plan decides which segments the round writes to. The largest come first when there are too many.
func (r *round) plan() {
	for _, rl := range r.logs {
		if rl.candidate(r.s.o.DirectAppendBytes) {
			r.direct = append(r.direct, rl)
		}
	}
	if len(r.direct) > maxDirect {
		slices.SortFunc(r.direct, func(a, b *roundLog) int { return cmp.Compare(b.fresh, a.fresh) })
		for _, rl := range r.direct[maxDirect:] {
			rl.abandon()
		}
		r.direct = r.direct[:maxDirect]
	}
	for _, rl := range r.direct {
		rl.bufs = rl.bufs[:0]
		for _, p := range rl.pieces {
			rl.bufs = append(rl.bufs, p.bytes())
		}
	}
}

// candidate tells whether the log's new bytes may go straight into its segment, and if so takes the segment for writing.
// Only the segment of the round's first entry is looked at: what comes behind a roll goes into the journal.
func (rl *roundLog) candidate(threshold int64) bool {
	l := rl.l
	var pos id.Position
	for _, a := range rl.appends {
		for i := range a.plan.runs {
			run := &a.plan.runs[i]
			if rl.sg == nil {
				rl.sg, pos = run.sg, run.from
			}
			if run.sg == rl.sg {
				rl.fresh += int64(run.to - run.from)
				rl.end = run.to
			}
		}
	}
	sg := rl.sg
	if sg == nil || rl.fresh < threshold {
		rl.sg = nil
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	rl.from, rl.to = sg.w, id.Position(disk.RoundDown(int64(rl.end)))
	ok := l.writable() && sg.stage != segSealed && rl.to > rl.from
	if ok {
		l.s.prepare(l, sg)
		ok = sg.names == namesReady && int64(rl.to) <= sg.allocated
	}
	if ok && int64(pos-rl.from) > max(maxDirectGap, 2*rl.fresh) {
		l.s.catchUp(l)
		ok = false
	}
	if ok {
		rl.pieces, ok = sg.tail.pieces(rl.pieces[:0], int64(rl.from), int64(rl.end))
	}
	if !ok {
		rl.sg = nil
		return false
	}
	l.begin(roundWork)
	return true
}

// abandon gives the segment back without having written.
func (rl *roundLog) abandon() {
	rl.l.mu.Lock()
	rl.l.end(roundWork)
	rl.l.mu.Unlock()
	rl.pieces = release(rl.pieces, 0)
	rl.sg = nil
}

// write writes and syncs the whole blocks. A worker of the store calls it.
func (rl *roundLog) write(s *Store) error {
	f, err := s.files.acquire(rl.l, rl.sg)
	if err != nil {
		return err
	}
	defer s.files.release(f)
	// The last piece reaches beyond the last whole block; that part is in the frame.
	n := len(rl.bufs)
	whole := rl.bufs
	if extra := int(rl.end - rl.to); extra > 0 {
		last := whole[n-1]
		if whole[n-1] = last[:len(last)-extra]; len(whole[n-1]) == 0 {
			whole = whole[:n-1]
		}
	}
	if err := s.writeTaken(f.log, whole, rl.from, rl.to); err != nil {
		return err
	}
	s.metrics.segmentBytes.Add(uint64(rl.to - rl.from))
	s.metrics.directBytes.Add(uint64(rl.to - rl.from))
	if s.o.off.directSync {
		return nil
	}
	return f.log.Sync()
}

// writeTaken writes blocks of a segment that have their space. On file systems that never write in place they need more: the round
// waits for it.
func (s *Store) writeTaken(f disk.File, bufs [][]byte, from, to id.Position) error {
	err := f.WritevAt(bufs, int64(from))
	if err == nil || !isNoSpace(err) {
		return err
	}
	return s.space.insist("write a round to a segment", int64(to-from), func() error { return f.WritevAt(bufs, int64(from)) })
}

// build fills the frame.
func (r *round) build() error {
	for _, rl := range r.logs {
		if rl.sg != nil {
			r.addReference(rl)
		}
		var hs *appendPlan
		voted, runs := false, 0
		for _, a := range rl.appends {
			p := &a.plan
			if p.reset {
				r.addReset(rl, a)
			}
			for i := range p.runs {
				if run := &p.runs[i]; run.sg != rl.sg {
					r.addEntries(rl, p, run)
				}
			}
			if p.hasHS {
				hs = p
			}
			voted, runs = voted || p.voted, runs+len(p.runs)
		}
		if hs != nil && (voted || runs == 0) { // else the commit index in the run's header says all
			b := r.frame.Scratch(hardStateBytes)
			putHardState(b, hs.hs)
			r.put(rl, journal.KindHardState, b)
		}
	}
	err := r.frame.Build()
	clear(r.bufs)
	return err
}

func (r *round) put(rl *roundLog, kind journal.Kind, pieces ...[]byte) {
	r.frame.Add(kind, rl.l.group, rl.l.replica, pieces...)
	rl.records = true
}

func (r *round) addReset(rl *roundLog, a *Append) {
	reset := Reset{Start: a.plan.start, State: a.Reset.State}
	b := r.frame.Scratch(resetFixedBytes)
	putReset(b, &reset)
	r.put(rl, journal.KindReset, b, reset.State.ConfState, reset.State.View)
}

// addEntries adds a run with its bytes.
func (r *round) addEntries(rl *roundLog, p *appendPlan, run *run) {
	rec := runRecord{key: run.sg.key, commit: p.commit, rows: p.rows[run.rows.lo:run.rows.hi]}
	bufs := append(r.bufs[:0], nil)
	fragment := 0
	if run.hasFragment {
		b := run.fragment.bytes()
		bufs, fragment = append(bufs, b), len(b)
	}
	bufs, control := r.appendControls(bufs, p.controls[run.controls.lo:run.controls.hi])
	for _, piece := range p.pieces[run.pieces.lo:run.pieces.hi] {
		bufs = append(bufs, piece.bytes())
	}
	head := r.frame.Scratch(runHeaderBytes + segment.RowSize*len(rec.rows))
	putRunHeader(head, &rec, fragment, control, int(run.to-run.from))
	bufs[0] = head
	r.put(rl, journal.KindEntry, bufs...)
	r.bufs = bufs
}

// appendControls adds the payloads of control entries, each behind its length.
func (r *round) appendControls(bufs [][]byte, controls [][]byte) ([][]byte, int) {
	n := 0
	for _, c := range controls {
		b := r.frame.Scratch(4)
		binary.LittleEndian.PutUint32(b, uint32(len(c)))
		bufs = append(bufs, b, c)
		n += 4 + len(c)
	}
	return bufs, n
}

// addReference adds the rows of all runs that the direct write covers, and the bytes behind its last whole block.
func (r *round) addReference(rl *roundLog) {
	rows, at := 0, runHeaderBytes
	bufs, control := append(r.bufs[:0], nil), 0
	rec := runRecord{key: rl.sg.key, from: rl.from, to: rl.to}
	for _, a := range rl.appends {
		for i := range a.plan.runs {
			if run := &a.plan.runs[i]; run.sg == rl.sg {
				rows += run.rows.hi - run.rows.lo
				var n int
				bufs, n = r.appendControls(bufs, a.plan.controls[run.controls.lo:run.controls.hi])
				control += n
				rec.commit = a.plan.commit
			}
		}
	}
	extra := int(rl.end - rl.to)
	if extra > 0 {
		last := rl.bufs[len(rl.bufs)-1]
		bufs = append(bufs, last[len(last)-extra:])
	}
	head := r.frame.Scratch(runHeaderBytes + segment.RowSize*rows)
	putRunHeader(head, &rec, 0, control, extra)
	binary.LittleEndian.PutUint32(head[40:], uint32(rows))
	for _, a := range rl.appends {
		for i := range a.plan.runs {
			if run := &a.plan.runs[i]; run.sg == rl.sg {
				for j := run.rows.lo; j < run.rows.hi; j++ {
					a.plan.rows[j].Put(head[at:])
					at += segment.RowSize
				}
			}
		}
	}
	bufs[0] = head
	r.put(rl, journal.KindReference, bufs...)
	r.bufs = bufs
}
