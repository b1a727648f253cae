package wal

import (
	"fmt"
	"slices"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// appendPlan is what Submit captured of an append for the committer: everything it needs even if later submissions truncate
// the log again. It belongs to the submitter until Submit returns, then to the committer until Done.
type appendPlan struct {
	sync   bool     // entries, term, vote or a reset: the round must be synced for it
	blocks bool     // truncates or resets: counted in Log.blocked until the round is complete
	commit id.Index // of the log when it was submitted, so that it speaks of the log as it was then

	hs    HardState
	hasHS bool
	voted bool  // term or vote changed
	start Start // of the reset
	reset bool

	cutAt *seg        // the segment that a truncation cut, nil if none
	cutW  id.Position // its watermark must not be above this when the round is complete

	runs     []run
	rows     []segment.Row
	pieces   []piece // with references
	controls [][]byte
	bytes    int64 // of entries
}

// run is the part of an append's entries that lies in one segment.
type run struct {
	sg           *seg
	rows, pieces span // of plan.rows, plan.pieces
	controls     span // of plan.controls
	fragment     piece
	hasFragment  bool
	from, to     id.Position
	last         id.Index
}

// span is the range [lo, hi) of a slice.
type span struct{ lo, hi int }

func (p *appendPlan) clear() {
	release(p.pieces, 0)
	for i := range p.runs {
		if p.runs[i].hasFragment {
			p.runs[i].fragment.c.release()
		}
	}
	clear(p.runs)
	clear(p.controls)
	*p = appendPlan{runs: p.runs[:0], rows: p.rows[:0], pieces: p.pieces[:0], controls: p.controls[:0]}
}

// Submit makes the entries of each append visible in the tail of its log and queues all of them for one commit round. It
// is called by the owner of each of the logs, in Raft's order, and does no I/O.
func (s *Store) Submit(appends []*Append) {
	if len(appends) == 0 {
		return
	}
	n := int64(0)
	for _, a := range appends {
		a.Log.stage(a)
		n += a.plan.bytes
	}
	s.metrics.appendedBytes.Add(uint64(n))
	s.commits.add(appends)
}

// stage does the part of Submit that is in memory.
func (l *Log) stage(a *Append) {
	p := &a.plan
	p.clear()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.life != alive {
		return
	}
	l.advance()
	if a.Reset != nil {
		l.stageReset(p, a.Reset)
	}
	if len(a.Entries) > 0 {
		l.stageEntries(p, a)
	}
	if a.HardState != nil {
		p.hs, p.hasHS = *a.HardState, true
		p.voted = p.hs.Term != l.hs.Term || p.hs.Vote != l.hs.Vote
		p.sync = p.sync || p.voted
		l.hs = p.hs
		l.SetCommit(p.hs.Commit)
	}
	p.commit = l.commit()
	if p.blocks {
		l.blocked++
	}
}

func (l *Log) stageReset(p *appendPlan, r *Reset) {
	l.resetTo(r.Start)
	l.setState(r.State, markOf(r.State.View))
	l.stateAt = max(r.Start.Index, r.State.Applied)
	l.given = nil
	l.hs.Commit = r.Start.Index
	p.reset, p.start = true, r.Start
	p.sync, p.blocks = true, true
	p.bytes += int64(len(r.State.ConfState) + len(r.State.View))
}

func (l *Log) stageEntries(p *appendPlan, a *Append) {
	p.sync = true
	entries := a.Entries
	first, last := entries[0].Index, l.LastIndex()
	if first > last+1 || first <= l.start.Index {
		panic(fmt.Sprintf("wal: %v: entry %d appended to a log that has (%d, %d]", l, first, l.start.Index, last))
	}
	var cur *run
	if first <= last {
		if first <= l.commit() {
			panic(fmt.Sprintf("wal: %v: truncation at index %d, but entries up to %d are committed", l, first, l.commit()))
		}
		sg, frag := l.truncate(first)
		p.cutAt, p.cutW, p.blocks = sg, id.Position(disk.RoundDown(int64(sg.end))), true
		l.rollNext = l.rollNext || entries[0].Roll // it goes to sg: see segmentFor
		cur = p.begin(sg)
		if frag.c != nil && !l.s.o.off.truncateFragment {
			frag.c.retain()
			cur.fragment, cur.hasFragment = frag, true
		}
	}
	p.rows = slices.Grow(p.rows, len(entries))
	now := l.s.now()
	for i := range entries {
		e := &entries[i]
		if e.Index != first+id.Index(i) {
			panic(fmt.Sprintf("wal: %v: entry %d follows entry %d", l, e.Index, first+id.Index(i)-1))
		}
		sg := p.cutAt
		if i > 0 || sg == nil {
			sg = l.segmentFor(e)
		}
		if cur == nil || cur.sg != sg {
			cur = p.begin(sg)
		}
		l.stageEntry(p, cur, e, a.Loan)
		if e.Kind == KindBatch { // commands, of which there is one for each start that moves, must not keep records young
			sg.appended = now
		}
	}
	// Space is asked for as soon as a log outgrows what it has, also one that goes through the journal: a full disk must find as little
	// as possible that was accepted and has none.
	if sg := l.active(); int64(sg.end) > sg.allocated && sg.end-sg.w >= flushWorthy {
		l.s.prepare(l, sg)
	}
}

// begin starts a run in a segment.
func (p *appendPlan) begin(sg *seg) *run {
	p.runs = append(p.runs, run{
		sg: sg, rows: span{len(p.rows), len(p.rows)}, pieces: span{len(p.pieces), len(p.pieces)},
		controls: span{len(p.controls), len(p.controls)}, from: sg.end, to: sg.end,
	})
	return &p.runs[len(p.runs)-1]
}

// segmentFor returns the segment that the next entry goes to. It is not asked for the first entry after a truncation, which
// never rolls: its record must speak of the segment that was cut.
func (l *Log) segmentFor(e *Entry) *seg {
	sg := l.active()
	if sg == nil || l.rolls(sg, e) {
		return l.roll(l.nextKey())
	}
	return sg
}

// stageEntry adds an entry to the tail. If it is to be lent, e.Data is the tail's from then on.
func (l *Log) stageEntry(p *appendPlan, r *run, e *Entry, loan *Loan) {
	sg := r.sg
	row := segment.Row{
		Offset: l.NextOffset(), Position: sg.end, Index: e.Index, Term: e.Term, MaxTimestamp: sg.maxTime,
		Kind: uint8(e.Kind), Checksum: checksumOf(e.Kind, e.Data),
	}
	if e.Kind == KindBatch {
		b := batch.Batch(e.Data)
		if b.BaseOffset() != row.Offset {
			panic(fmt.Sprintf("wal: %v: entry %d has offset %d, the log is at %d", l, e.Index, b.BaseOffset(), row.Offset))
		}
		row.Length, row.Records = uint32(len(b)), uint32(b.NextOffset()-row.Offset)
		row.MaxTimestamp = max(row.MaxTimestamp, b.MaxTimestamp())
		at := sg.tail.append(&l.s.memory, int64(sg.end), e.Data)
		p.addPiece(r, at)
		if loan != nil {
			loan.add(at.c)
			e.Data = at.bytes()
		}
	} else {
		data := clone(e.Data)
		l.addControl(e.Index, data)
		p.controls = append(p.controls, data)
	}
	p.rows = append(p.rows, row)
	p.bytes += int64(len(e.Data))
	l.push(sg, row)
	l.tellEvictor(sg)
	r.rows.hi, r.pieces.hi, r.controls.hi = len(p.rows), len(p.pieces), len(p.controls)
	r.to, r.last = sg.end, e.Index
}

// addPiece adds a batch's place to a run, as part of the piece before where they adjoin.
func (p *appendPlan) addPiece(r *run, at piece) {
	if n := len(p.pieces); n > r.pieces.lo && p.pieces[n-1].c == at.c && p.pieces[n-1].hi == at.lo {
		p.pieces[n-1].hi = at.hi
		return
	}
	at.c.retain()
	p.pieces = append(p.pieces, at)
}
