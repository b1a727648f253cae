package wal

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// extend appends large or small entries at the end.
func (r *crashRun) extend(m *replica, big bool) submission {
	return r.entriesAt(m, m.cur.last()+1, m.cur.nextOffset(), m.cur.term, big)
}

// work does random things until the boot is over or enough is done.
func (r *crashRun) work() {
	for range r.ops {
		if r.over() {
			return
		}
		r.serve()
		if r.full && r.rng.IntN(8) == 0 {
			r.fillOrFree()
		}
		switch n := r.rng.IntN(100); {
		case n < 60:
			r.submit()
		case n < 71:
			r.advance()
		case n < 75:
			r.trim()
		case n < 85:
			r.settle()
		case n < 92:
			r.readSome()
		case n < 95:
			r.setValue()
		case n < 97:
			r.create()
		case n < 98:
			r.remove()
		default:
			r.create()
			r.settle()
		}
	}
}

// fillOrFree leaves little space on the disk, or much.
func (r *crashRun) fillOrFree() {
	r.disk.SetCapacity(0)
	switch r.rng.IntN(4) {
	case 0:
		r.disk.SetCapacity(r.disk.Used())
	case 1:
		r.disk.SetCapacity(r.disk.Used() + 1 + r.rng.Int64N(2<<20))
	}
}

// live returns the replicas that have an open log, in the order of their names.
func (r *crashRun) live() []*replica {
	var all []*replica
	for _, name := range slices.Sorted(maps.Keys(r.names)) {
		if m := r.names[name]; r.logs[m] != nil && !m.deleting {
			all = append(all, m)
		}
	}
	return all
}

func (r *crashRun) anyLive() *replica {
	all := r.live()
	if len(all) == 0 {
		return nil
	}
	return all[r.rng.IntN(len(all))]
}

// create makes the logs that are missing.
func (r *crashRun) create() {
	for _, name := range slices.Sorted(maps.Keys(r.names)) {
		m := r.names[name]
		if r.logs[m] != nil || r.over() {
			continue
		}
		if m.deleting || m.created {
			r.old = append(r.old, m)
			m = r.newReplica(m.group, name)
			r.names[name] = m
		}
		m.created = true // it may be there from now on, in part or whole
		var l *Log
		ok := r.within("Create", func() (err error) {
			l, err = r.store.Create(context.Background(), m.spec)
			return err
		})
		if !ok || r.over() {
			m.deleting = true // no promise was made
			return
		}
		r.mu.Lock()
		r.logs[m] = l
		r.mu.Unlock()
	}
}

// remove deletes a log.
func (r *crashRun) remove() {
	m := r.anyLive()
	if m == nil || m.group == id.MetadataGroup {
		return
	}
	l := r.logs[m]
	m.deleting = true
	r.mu.Lock()
	delete(r.shown, l)
	r.mu.Unlock()
	if !r.tryDelete(m, l) && !r.over() && r.rng.IntN(2) == 0 { // else it is left to the next start
		r.delete(m, l)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.logs, m)
}

// delete has the store delete a log as a node does: when an error comes in between, again. Nothing of the log may be left then.
func (r *crashRun) delete(m *replica, l *Log) {
	r.poll("a deletion", func() bool { return r.tryDelete(m, l) })
}

func (r *crashRun) tryDelete(m *replica, l *Log) bool {
	r.mu.Lock()
	if meta := r.names[metadataName]; r.logs[meta] != nil {
		m.buried = meta.applicable()
	}
	r.mu.Unlock()
	ok := r.within("Delete", func() error { return r.store.Delete(context.Background(), l) })
	m.deleted = ok && !r.over()
	return ok
}

func (r *crashRun) setValue() {
	key := fmt.Sprintf("key%d", r.rng.IntN(3))
	value := fmt.Sprintf("value%d", r.rng.IntN(1000))
	if len(r.kv[key]) == 0 {
		r.kv[key] = []string{""}
	}
	r.kv[key] = append(r.kv[key], value)
	if r.within("Set", func() error { return r.store.Set(key, []byte(value)) }) && !r.over() {
		r.kv[key] = []string{value}
	}
}

func (r *crashRun) checkValues() {
	for _, key := range slices.Sorted(maps.Keys(r.kv)) {
		v, err := r.store.Get(key)
		if r.over() {
			return
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			r.broke("Get: %v", err)
			return
		}
		if !slices.Contains(r.kv[key], string(v)) {
			r.broke("%s holds %q, not one of %q", key, v, r.kv[key])
			return
		}
		r.kv[key] = []string{string(v)}
	}
}

// advance commits some of what a log has.
func (r *crashRun) advance() {
	m := r.anyLive()
	if m == nil || m.stuck {
		return
	}
	if _, reset := m.diverges(); reset || !r.agrees(m) {
		return
	}
	last := m.cur.last()
	if last > m.commit && r.rng.IntN(3) != 0 {
		m.commitTo(m.commit + 1 + id.Index(r.rng.Uint64N(uint64(last-m.commit))))
	}
	m.told = max(m.told, min(m.commit, last))
	r.logs[m].SetCommit(m.told)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.shown[r.logs[m]] = m.cur.upTo(m.told + 1)
}

// agrees tells whether the log is an extension of what the cluster has committed.
func (r *crashRun) agrees(m *replica) bool {
	i, _ := m.diverges()
	return i == 0 && m.cur.last() >= m.commit
}

// submit gives the store one or more appends to some of the logs.
func (r *crashRun) submit() {
	all := r.live()
	if len(all) == 0 {
		r.create()
		return
	}
	var appends []*Append
	for range 1 + r.rng.IntN(4) {
		m := all[r.rng.IntN(len(all))]
		sub, ok := r.nextSubmission(m)
		if !ok {
			continue
		}
		a := r.makeAppend(m, sub)
		for i := range a.Entries {
			a.Entries[i].Roll = r.rng.IntN(40) == 0
		}
		appends = append(appends, a)
	}
	if len(appends) == 0 {
		return
	}
	r.store.Submit(appends)
	for m, l := range r.logs {
		r.observe(m, l)
	}
	for _, a := range appends { // the data may be used again
		for i := range a.Entries {
			for j := range a.Entries[i].Data {
				a.Entries[i].Data[j] = 0xAA
			}
		}
	}
}

// makeAppend records a submission in the model and makes the Append of it.
func (r *crashRun) makeAppend(m *replica, sub submission) *Append {
	a := &Append{Log: r.logs[m], Reset: sub.reset, HardState: sub.hs}
	for _, e := range sub.ents {
		c := e.Entry
		c.Data = slices.Clone(c.Data)
		a.Entries = append(a.Entries, c)
	}
	m.submit(sub)
	number := len(m.subs)
	r.logf("  %d/%d: submission %d: %s", m.group, m.replica, number, sub.String())
	d := r.disk
	a.Done = func(a *Append) {
		r.mu.Lock()
		defer r.mu.Unlock()
		if d.Halted() {
			return // it came too late
		}
		if number != m.done+1 && r.broken == nil {
			r.broken = fmt.Errorf("group %d: submission %d completed after %d", m.group, number, m.done)
		}
		if r.fatal != nil && r.broken == nil {
			r.broken = fmt.Errorf("group %d: submission %d completed after the store had failed: %w", m.group, number, r.fatal)
		}
		m.done = number
		r.cond.Broadcast()
	}
	return a
}

func (s *submission) String() string {
	str := ""
	if s.reset != nil {
		str += fmt.Sprintf("reset %+v ", s.reset.Start)
	}
	if n := len(s.ents); n > 0 {
		str += fmt.Sprintf("entries %d..%d term %d ", s.ents[0].Index, s.ents[n-1].Index, s.ents[n-1].Term)
	}
	if s.hs != nil {
		str += fmt.Sprintf("hs %+v", *s.hs)
	}
	return str
}

// nextSubmission makes up what Raft might do next.
func (r *crashRun) nextSubmission(m *replica) (sub submission, ok bool) {
	i, reset := m.diverges()
	if reset {
		return r.resetTo(m, m.snap), true
	}
	if i == 0 && m.cur.last() < m.commit {
		i = m.cur.last() + 1
	}
	if i > 0 { // the leader sends what was committed
		for n := r.rng.IntN(8); n >= 0 && i <= m.commit; n-- {
			sub.ents = append(sub.ents, m.committed[i])
			i++
		}
		return r.withTerm(m, sub), true
	}
	switch n := r.rng.IntN(100); {
	case n < 8: // vote
		return submission{hs: r.newTerm(m)}, true
	case n < 11: // commit only
		return submission{hs: &HardState{Term: m.cur.term, Vote: m.cur.vote, Commit: m.told}}, true
	case n < 14: // nothing: an acknowledgement waits for what is in flight
		return submission{}, true
	case n < 16:
		skip := id.Index(1 + r.rng.IntN(20))
		snap := Reset{Start: Start{
			Index: m.cur.last() + skip, Term: max(m.cur.term, 1), Offset: m.cur.nextOffset() + id.Offset(r.rng.IntN(30)),
		}}
		snap.State = r.stateAhead(m, snap.Start)
		return r.resetTo(m, snap), true
	}
	if r.store.Pressure() != PressureNone && r.rng.IntN(4) != 0 {
		return sub, false
	}
	return r.newEntries(m), true
}

// stateAhead is the state of a leader of whose log a snapshot gives the start: it may have applied more than that.
func (r *crashRun) stateAhead(m *replica, start Start) State {
	m.commit, m.views[start.Index] = start.Index, m.seedView(start)
	for n, offset := r.rng.IntN(6), start.Offset; n > 0; n-- {
		e := r.newEntry(m, m.commit+1, offset, start.Term, false)
		m.commitNext(e)
		offset = e.next
	}
	return m.stateAt(m.commit)
}

// trim says what nobody reads any more, of what is committed.
func (r *crashRun) trim() {
	m := r.anyLive()
	if m == nil {
		return
	}
	l := r.logs[m]
	if r.rng.IntN(3) == 0 {
		l.Roll()
	}
	start, hw := l.StartOffset(), m.cur.offsetAt(m.told+1)
	if hw <= start {
		return
	}
	m.trim = max(m.trim, start+1+id.Offset(r.rng.Int64N(int64(hw-start))))
	l.Trim(m.trim)
	r.observe(m, l)
	r.logf("  %d/%d: trimmed below %d", m.group, m.replica, m.trim)
}

func (r *crashRun) resetTo(m *replica, snap Reset) submission {
	sub := submission{reset: &snap}
	return r.withTerm(m, sub, snap.Start.Term)
}

// withTerm adds a hard state when the terms of the entries, or those given, demand it.
func (r *crashRun) withTerm(m *replica, sub submission, terms ...id.Term) submission {
	term := m.cur.term
	for _, e := range sub.ents {
		term = max(term, e.Term)
	}
	for _, t := range terms {
		term = max(term, t)
	}
	if term > m.cur.term {
		m.maxTerm = max(m.maxTerm, term)
		sub.hs = &HardState{Term: term, Commit: m.told}
		if sub.reset != nil {
			sub.hs.Commit = sub.reset.Start.Index
		}
	}
	return sub
}

// newTerm is the hard state of a term that never was, so that there are no two entries of one index and term.
func (r *crashRun) newTerm(m *replica) *HardState {
	m.maxTerm = max(m.maxTerm, m.cur.term) + 1
	m.fresh = false
	return &HardState{Term: m.maxTerm, Vote: id.Replica(r.rng.IntN(3)), Commit: m.told}
}

// newEntries appends, at the end or, of a new term, anywhere above what is committed.
func (r *crashRun) newEntries(m *replica) (sub submission) {
	at, offset, term := m.cur.last()+1, m.cur.nextOffset(), m.cur.term
	if m.cur.last() > m.commit && r.rng.IntN(6) == 0 {
		at = m.commit + 1 + id.Index(r.rng.Uint64N(uint64(m.cur.last()-m.commit)))
		if e := m.cur.at(at); e != nil {
			offset = e.offset
		}
	}
	return r.entriesAt(m, at, offset, term, r.rng.IntN(3) == 0)
}

// entriesAt appends large or small entries, of a new term where that is needed.
func (r *crashRun) entriesAt(m *replica, at id.Index, offset id.Offset, term id.Term, big bool) (sub submission) {
	if at <= m.cur.last() || term == 0 || m.fresh || r.rng.IntN(20) == 0 {
		sub.hs = r.newTerm(m)
		term = sub.hs.Term
	}
	for n := 1 + r.rng.IntN(6); n > 0; n-- {
		e := r.newEntry(m, at, offset, term, big)
		sub.ents = append(sub.ents, e)
		at, offset = at+1, e.next
	}
	return sub
}

func (r *crashRun) newEntry(m *replica, at id.Index, offset id.Offset, term id.Term, big bool) *ent {
	e := &ent{Entry: Entry{Index: at, Term: term, Kind: KindBatch}, offset: offset, next: offset}
	switch r.rng.IntN(12) {
	case 0:
		e.Kind = KindEmpty
		return e
	case 1:
		e.Kind = KindConfChangeV2
		e.Data = fmt.Appendf(nil, "conf change of %d/%d at %d in %d", m.group, m.replica, at, term)
		return e
	}
	records, size := 1+r.rng.IntN(3), 1+r.rng.IntN(700)
	if big {
		size = 2000 + r.rng.IntN(12000)/records
	}
	r.buf.Reset()
	for i := range records {
		value := make([]byte, size)
		for j := 0; j+8 <= len(value); j += 8 {
			binary.LittleEndian.PutUint64(value[j:], r.rng.Uint64())
		}
		r.buf.Append(batch.Record{Timestamp: int64(1000 + at), Key: fmt.Appendf(nil, "%d/%d/%d/%d", m.group, m.replica, at, i), Value: value, OffsetDelta: int32(i)})
	}
	b, err := r.buf.Finish(nil, batch.Plain(0))
	if err != nil {
		panic(err)
	}
	b.Stamp(offset, id.EpochOf(term))
	e.Data, e.next = b, b.NextOffset()
	return e
}
