package wal

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"time"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// verify compares everything that was recovered with the model. A disk that halts meanwhile ends it.
func (r *crashRun) verify() {
	for _, ref := range r.store.Refused() {
		r.broke("group %d, replica %d is refused: %s", ref.Group, ref.Replica, ref.Reason)
	}
	found := make(map[id.Replica]*Log)
	for _, l := range r.store.Logs() {
		if found[l.Replica()] != nil {
			r.broke("replica %d is there twice", l.Replica())
		}
		found[l.Replica()] = l
	}
	r.verifyTombstones(found)
	for _, name := range slices.Sorted(maps.Keys(r.names)) {
		m := r.names[name]
		l := found[m.replica]
		switch {
		case m.deleting:
			r.verifyGone(m, found)
		case l == nil && m.created:
			r.broke("group %d, replica %d is not there", m.group, m.replica)
		case l != nil:
			delete(found, m.replica)
			r.verifyLog(m, l)
		}
	}
	for _, m := range r.old { // the metadata's log is known by now, which says what it is that is deleted
		r.verifyGone(m, found)
	}
	for _, l := range found {
		r.broke("%v was never created", l)
	}
	r.checkValues()
	if !r.over() {
		r.checkFiles()
	}
}

// verifyTombstones creates again what was deleted, as a node does whose metadata is as old as its last cut: it must not succeed.
func (r *crashRun) verifyTombstones(found map[id.Replica]*Log) {
	applied := id.Index(0)
	for _, l := range found {
		if l.Group() == id.MetadataGroup {
			applied = l.State().Applied
		}
	}
	for _, m := range append(slices.Collect(maps.Values(r.names)), r.old...) {
		if m.buried <= applied || found[m.replica] != nil {
			continue
		}
		var err error
		r.within("Create of what was deleted", func() error {
			_, err = r.store.Create(context.Background(), m.spec)
			return nil
		})
		if !r.over() && !errors.Is(err, ErrDeleted) && !(r.full && isNoSpace(err)) {
			r.broke("group %d, replica %d was deleted when the metadata was at %d, and is created now that its state is of %d: %v",
				m.group, m.replica, m.buried, applied, err)
			return
		}
	}
}

// checkFiles looks for files that belong to nothing.
func (r *crashRun) checkFiles() {
	wanted := make(map[string]bool)
	for _, l := range r.store.Logs() {
		l.mu.Lock()
		wanted[l.dir] = true
		for _, sg := range l.segs {
			wanted[path.Join(l.dir, sg.key.Log())] = true
			wanted[path.Join(l.dir, sg.key.Index())] = true
		}
		l.mu.Unlock()
	}
	const logs = "/data/logs"
	dirs, err := r.disk.List(logs)
	for _, dir := range dirs {
		if !wanted[dir] {
			r.broke("%s belongs to no log", dir)
		}
		var names []string
		names, err = r.disk.List(path.Join(logs, dir))
		for _, name := range names {
			if !wanted[path.Join(dir, name)] && r.fault == nil { // one whose unlinking fails stays until the next start
				r.broke("%s/%s belongs to no segment", dir, name)
			}
		}
	}
	if err != nil && !r.over() {
		r.broke("%v", err)
	}
}

// verifyGone deletes what was left by a Create or Delete that did not come to its end.
func (r *crashRun) verifyGone(m *replica, found map[id.Replica]*Log) {
	l := found[m.replica]
	if l == nil {
		return
	}
	delete(found, m.replica)
	if m.deleted {
		r.broke("group %d, replica %d was deleted and is there again", m.group, m.replica)
		return
	}
	if r.over() {
		return
	}
	if got, err := r.read(l); err == nil {
		if err := m.accept(got); err != nil {
			r.broke("%v", err)
		}
	} else if !r.over() {
		r.broke("%v", err)
	}
	r.delete(m, l)
}

func (r *crashRun) verifyLog(m *replica, l *Log) {
	if l.Group() != m.group || l.Name() != m.name {
		r.broke("%v is not %s of group %d", l, m.name, m.group)
	}
	got, err := r.read(l)
	if err == nil {
		err = m.accept(got)
	}
	if err != nil {
		if !r.over() {
			r.broke("%v", err)
		}
		return
	}
	r.mu.Lock()
	r.logs[m] = l
	r.mu.Unlock()
	r.logf("  %d/%d: recovered (%d, %d], commit %d, term %d", m.group, m.replica, got.start.Index, got.last(), got.commit, got.term)
	if err := r.checkReads(m, l); err != nil && !r.over() {
		r.broke("%v after recovery: %w", l, err)
	}
}

// read takes down what a log says, and checks that its ways of saying it agree (invariant 5).
func (r *crashRun) read(l *Log) (*recovered, error) {
	hs := l.HardState()
	got := &recovered{commit: hs.Commit, state: l.State()}
	got.start, got.term, got.vote = l.Start(), hs.Term, hs.Vote
	last := l.LastIndex()
	offset := got.start.Offset
	for i := got.start.Index + 1; i <= last; {
		hi := min(last+1, i+1+id.Index(r.rng.IntN(40)))
		entries, err := l.ReadEntries(i, hi, 1<<uint(8+r.rng.IntN(12)))
		if err != nil {
			return nil, fmt.Errorf("%v: entries [%d, %d): %w", l, i, hi, err)
		}
		if len(entries) == 0 || entries[0].Index != i || len(entries) > int(hi-i) {
			return nil, fmt.Errorf("%v: entries [%d, %d): got %d", l, i, hi, len(entries))
		}
		for _, e := range entries {
			n := &ent{Entry: e, offset: offset, next: offset}
			if e.Index != i {
				return nil, fmt.Errorf("%v: entry %d in place of %d", l, e.Index, i)
			}
			if term, ok := l.Term(i); !ok || term != e.Term {
				return nil, fmt.Errorf("%v: entry %d is of term %d, Term says %d, %v", l, i, e.Term, term, ok)
			}
			if e.Kind == KindBatch {
				b := batch.Batch(e.Data)
				if err := batch.Check(b); err != nil {
					return nil, fmt.Errorf("%v: entry %d: %w", l, i, err)
				}
				if b.BaseOffset() != offset || b.Epoch() != id.EpochOf(e.Term) {
					return nil, fmt.Errorf("%v: entry %d of term %d: %v, want offset %d", l, i, e.Term, b, offset)
				}
				n.next = b.NextOffset()
			}
			got.ents = append(got.ents, n)
			i, offset = i+1, n.next
		}
	}
	if l.NextOffset() != offset || l.FirstIndex() != got.start.Index+1 || l.StartOffset() != got.start.Offset {
		return nil, fmt.Errorf("%v: next offset %d, first index %d, start offset %d; the entries say %d, %d, %d",
			l, l.NextOffset(), l.FirstIndex(), l.StartOffset(), offset, got.start.Index+1, got.start.Offset)
	}
	if term, ok := l.Term(got.start.Index); !ok || term != got.start.Term {
		return nil, fmt.Errorf("%v: the start is %+v, Term says %d, %v", l, got.start, term, ok)
	}
	return got, nil
}

// readSome checks what a log serves while it is written to.
func (r *crashRun) readSome() {
	m := r.anyLive()
	if m == nil {
		return
	}
	if err := r.checkReads(m, r.logs[m]); err != nil && !r.over() {
		r.broke("%v: %w\n%s", r.logs[m], err, m.describe(&recovered{logState: m.cur}))
	}
}

// checkReads compares reads by index and by offset with the model.
func (r *crashRun) checkReads(m *replica, l *Log) error {
	now, ok := m.cur.from(l.Start())
	if !ok {
		return fmt.Errorf("the start is %+v, of a log that began with %+v", l.Start(), m.cur.start)
	}
	cur := &now
	if l.LastIndex() != cur.last() || l.NextOffset() != cur.nextOffset() {
		return fmt.Errorf("last index %d, next offset %d; want %d, %d", l.LastIndex(), l.NextOffset(), cur.last(), cur.nextOffset())
	}
	if n := len(cur.ents); n > 0 {
		lo := cur.start.Index + 1 + id.Index(r.rng.IntN(n))
		hi := lo + 1 + id.Index(r.rng.Uint64N(uint64(cur.last()-lo+1)))
		entries, err := l.ReadEntries(lo, hi, 1<<30)
		if err != nil {
			return err
		}
		if err := sameEntries(cur, lo, hi, entries); err != nil {
			return fmt.Errorf("ReadEntries: %w", err)
		}
		if entries, ok := l.Entries(nil, lo, hi, 1<<30); ok { // as many as are in memory
			if err := sameEntries(cur, lo, lo+id.Index(max(len(entries), 1)), entries); err != nil {
				return fmt.Errorf("Entries: %w", err)
			}
			l.Release()
		}
		if e := cur.at(lo); l.OffsetAt(lo) != e.offset {
			return fmt.Errorf("OffsetAt(%d) is %d, want %d", lo, l.OffsetAt(lo), e.offset)
		}
	}
	if at := l.OffsetAt(cur.last() + 1); at != cur.nextOffset() {
		return fmt.Errorf("OffsetAt(%d) is %d, want %d", cur.last()+1, at, cur.nextOffset())
	}
	return r.checkOffsets(m, cur, l)
}

func sameEntries(s *logState, lo, hi id.Index, entries []Entry) error {
	if len(entries) != int(hi-lo) {
		return fmt.Errorf("%d entries for [%d, %d)", len(entries), lo, hi)
	}
	for i, e := range entries {
		if want := s.at(lo + id.Index(i)); e.Index != want.Index || e.Term != want.Term || e.Kind != want.Kind || !bytes.Equal(e.Data, want.Data) {
			return fmt.Errorf("entry %d is not what was submitted: %d, term %d, %v, %d bytes; want term %d, %v, %d bytes", want.Index,
				e.Index, e.Term, e.Kind, len(e.Data), want.Term, want.Kind, len(want.Data))
		}
	}
	return nil
}

// readBeside reads what is committed on another goroutine until it is stopped, as consumers do: no flush, eviction, seal,
// truncation or recycling may show.
func (r *crashRun) readBeside() (stop func()) {
	stopped, done := make(chan struct{}), make(chan struct{})
	rng := rand.New(rand.NewPCG(r.seed, 79))
	go func() {
		defer close(done)
		for {
			select {
			case <-stopped:
				return
			case <-r.disk.Done():
				return
			case <-time.After(time.Duration(rng.IntN(500)) * time.Microsecond):
			}
			r.mu.Lock()
			var logs []*Log
			for l := range r.shown {
				logs = append(logs, l)
			}
			if len(logs) == 0 {
				r.mu.Unlock()
				continue
			}
			l := logs[rng.IntN(len(logs))]
			state := r.shown[l]
			r.mu.Unlock()
			if err := readShown(rng, l, &state); err != nil && !r.over() && r.isShown(l) {
				r.broke("%v: a reader beside: %w", l, err)
			}
		}
	}()
	return func() {
		close(stopped)
		<-done
	}
}

// isShown tells whether a log is still there to be read.
func (r *crashRun) isShown(l *Log) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	_, ok := r.shown[l]
	return ok
}

func readShown(rng *rand.Rand, l *Log, s *logState) error {
	hw := s.nextOffset()
	if hw == s.start.Offset {
		return nil
	}
	from := s.start.Offset + id.Offset(rng.Int64N(int64(hw-s.start.Offset)))
	if rng.IntN(2) == 0 { // near the head
		from = max(from, hw-8)
	}
	b, err := l.Read(nil, from, hw, 1<<uint(rng.IntN(18)))
	if l.StartOffset() > from {
		return nil // reset meanwhile
	}
	if err != nil {
		return err
	}
	i, _ := slices.BinarySearchFunc(s.ents, from, func(e *ent, from id.Offset) int {
		return cmp.Compare(e.next-1, from)
	})
	n := len(b)
	for i < len(s.ents) && len(b) > 0 {
		e := s.ents[i]
		i++
		if e.Kind != KindBatch {
			continue
		}
		if len(b) < len(e.Data) || !bytes.Equal(b[:len(e.Data)], e.Data) {
			return fmt.Errorf("Read(%d) below %d: entry %d is not what was committed", from, hw, e.Index)
		}
		b = b[len(e.Data):]
	}
	if n == 0 || len(b) > 0 {
		return fmt.Errorf("Read(%d) below %d: %d bytes, %d too many", from, hw, n, len(b))
	}
	return nil
}

// checkOffsets reads from a random offset below the high watermark on.
func (r *crashRun) checkOffsets(m *replica, cur *logState, l *Log) error {
	hw := l.OffsetAt(m.told + 1)
	if want := cur.offsetAt(m.told + 1); hw != want {
		return fmt.Errorf("the high watermark is %d, want %d", hw, want)
	}
	if _, err := l.Read(nil, cur.nextOffset()+1, hw, 1); !errors.Is(err, ErrOutOfRange) {
		return fmt.Errorf("reading beyond the end says %v", err)
	}
	if _, err := l.Read(nil, cur.start.Offset-1, hw, 1); cur.start.Offset > 0 && !errors.Is(err, ErrOutOfRange) {
		return fmt.Errorf("reading before the start says %v", err)
	}
	if hw == cur.start.Offset {
		return nil
	}
	from := cur.start.Offset + id.Offset(r.rng.Int64N(int64(hw-cur.start.Offset)))
	maxBytes := 1 << uint(r.rng.IntN(18))
	b, err := l.Read(nil, from, hw, maxBytes)
	if err != nil {
		return fmt.Errorf("Read(%d): %w", from, err)
	}
	var want []byte
	for _, e := range cur.ents {
		if e.next <= from || e.offset >= hw || e.Kind != KindBatch {
			continue
		}
		if len(want) > 0 && len(want)+len(e.Data) > len(b) {
			break
		}
		want = append(want, e.Data...)
	}
	if !bytes.Equal(b, want) {
		return fmt.Errorf("Read(%d, %d, %d): %d bytes, want %d", from, hw, maxBytes, len(b), len(want))
	}
	if len(b) > maxBytes && batch.Batch(b).NextOffset() <= from {
		return fmt.Errorf("Read(%d, %d, %d): %d bytes", from, hw, maxBytes, len(b))
	}
	return nil
}

// offsetAt is the offset of the first record at or after entry i.
func (s *logState) offsetAt(i id.Index) id.Offset {
	if e := s.at(i); e != nil {
		return e.offset
	}
	return s.nextOffset()
}
