package wal

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"slices"

	"github.com/quorumlog/quorumlog/wal/id"
)

// ent is an entry of the model. Two of the same group, replica, index and term are the same.
type ent struct {
	Entry
	offset, next id.Offset // of its first record, and of the record after its last
}

// logState is what a log is after some number of its submissions: what recovery may give back.
type logState struct {
	start Start
	ents  []*ent
	term  id.Term
	vote  id.Replica
}

func (s *logState) last() id.Index { return s.start.Index + id.Index(len(s.ents)) }

func (s *logState) lastTerm() id.Term {
	if n := len(s.ents); n > 0 {
		return s.ents[n-1].Term
	}
	return s.start.Term
}

func (s *logState) nextOffset() id.Offset {
	if n := len(s.ents); n > 0 {
		return s.ents[n-1].next
	}
	return s.start.Offset
}

// at returns the entry of an index, nil if there is none.
func (s *logState) at(i id.Index) *ent {
	if i <= s.start.Index || i > s.last() {
		return nil
	}
	return s.ents[i-s.start.Index-1]
}

// from is the log when its start has moved; false: it cannot have moved there.
func (s *logState) from(start Start) (logState, bool) {
	t := *s
	if start == s.start {
		return t, true
	}
	e := s.at(start.Index)
	if e == nil || e.Term != start.Term || e.next != start.Offset {
		return t, false
	}
	t.start, t.ents = start, s.ents[start.Index-s.start.Index:]
	return t, true
}

// upTo is the log with the entries from index i on cut off.
func (s *logState) upTo(i id.Index) logState {
	t := *s
	t.ents = slices.Clip(s.ents[:i-s.start.Index-1])
	return t
}

// submission is the effect of one Append.
type submission struct {
	reset *Reset
	ents  []*ent
	hs    *HardState
}

// apply returns the state after a submission; s stays as it is.
func (s *logState) apply(sub *submission) logState {
	t := *s
	if sub.reset != nil {
		t.start, t.ents = sub.reset.Start, nil
	}
	if len(sub.ents) > 0 {
		t = t.upTo(sub.ents[0].Index)
		t.ents = append(t.ents, sub.ents...)
	}
	if sub.hs != nil {
		t.term, t.vote = sub.hs.Term, sub.hs.Vote
	}
	return t
}

// sameLog tells whether two states have the same entries, by identity of what the model handed out.
func (s *logState) sameLog(t *logState) bool {
	return s.start == t.start && slices.EqualFunc(s.ents, t.ents, func(a, b *ent) bool {
		return a == b || a.Index == b.Index && a.Term == b.Term && a.Kind == b.Kind && bytes.Equal(a.Data, b.Data)
	})
}

// replica is the model of one incarnation of a log.
type replica struct {
	group   id.Group
	replica id.Replica
	name    string
	spec    Spec

	// base is what is certain: the state that was created or last recovered. subs are the submissions since, of which the
	// first done have completed.
	base logState
	subs []submission
	done int
	cur  logState // base and all subs

	// The cluster: what is committed, for ever. Of entries up to snap's the log may know nothing.
	committed map[id.Index]*ent
	views     map[id.Index]uint64 // hash over everything committed up to an index
	commit    id.Index            // of the cluster
	told      id.Index            // the highest commit index that the log was told since it was opened
	snap      Reset
	applied   id.Index // of the last cut
	stuck     bool     // never commits anything
	trim      id.Offset
	floor     Start   // the highest start that the owner acted on: the log never begins before it again
	maxTerm   id.Term // the highest term that ever was
	fresh     bool    // recovered: entries of its term may have been lost, so the next ones are of a new one

	created  bool // Create returned
	deleting bool // Delete was called
	deleted  bool // Delete returned
	// buried is the index of the metadata's log up to which this disk had it, applied, when the deletion began: what decided it may be
	// there. 0: it is not known.
	buried id.Index
}

func newReplica(spec Spec) *replica {
	m := &replica{
		group: spec.Group, replica: spec.Replica, name: spec.Name, spec: spec,
		base:      logState{start: spec.Start, term: spec.HardState.Term, vote: spec.HardState.Vote},
		committed: make(map[id.Index]*ent), views: make(map[id.Index]uint64),
		commit: spec.Start.Index, told: spec.Start.Index, applied: spec.Start.Index,
	}
	m.snap = Reset{Start: spec.Start, State: m.spec.State}
	m.cur = m.base
	m.views[spec.Start.Index] = m.seedView(spec.Start)
	return m
}

// seedView is the hash that a snapshot begins with.
func (m *replica) seedView(s Start) uint64 {
	return uint64(s.Index)<<32 ^ uint64(s.Offset) ^ uint64(m.replica)
}

// stateAt is the state that the owner of the log derives from everything up to an index that the cluster has committed.
func (m *replica) stateAt(i id.Index) State { return makeState(m.group, m.replica, i, m.views[i]) }

func makeState(g id.Group, r id.Replica, i id.Index, view uint64) State {
	st := State{Applied: i, ConfState: fmt.Appendf(nil, "conf of %d/%d at %d", g, r, i)}
	if large := view % 7; large > 0 { // some are empty, others larger than what the log grows by between two checkpoints
		st.View = append(fmt.Appendf(nil, "view %x", view), make([]byte, (view>>8)%(1<<(2*large)))...)
	}
	return st
}

// submit records a submission before it is made.
func (m *replica) submit(sub submission) {
	m.subs = append(m.subs, sub)
	m.cur = m.cur.apply(&sub)
	if sub.reset != nil {
		m.snap = *sub.reset
		m.commit = max(m.commit, sub.reset.Start.Index)
		m.told, m.applied = sub.reset.Start.Index, sub.reset.State.Applied
	}
}

// observe notes where the log begins for its owner, who answers others by that from now on. The start of a reset that is in flight is not
// durable yet, and nobody is told of it.
func (m *replica) observe(start Start) error {
	if start.Index < m.floor.Index || start.Offset < m.floor.Offset {
		return fmt.Errorf("group %d, replica %d: the log begins with %+v, and began with %+v before", m.group, m.replica, start, m.floor)
	}
	if !slices.ContainsFunc(m.subs[m.done:], func(s submission) bool { return s.reset != nil && s.reset.Start == start }) {
		m.floor = start
	}
	return nil
}

// applicable is the last entry that the owner may have applied: one that was told to be committed, and is durable here.
func (m *replica) applicable() id.Index {
	durable := m.base
	for i := range m.subs[:m.done] {
		durable = durable.apply(&m.subs[i])
	}
	i := min(m.told, durable.last())
	if e, c := durable.at(i), m.committed[i]; e != nil && c != nil && e.Term == c.Term {
		return i
	}
	return 0
}

// commitTo commits in the cluster what the log has up to i.
func (m *replica) commitTo(i id.Index) {
	for m.commit < i {
		m.commitNext(m.cur.at(m.commit + 1))
	}
	m.told = max(m.told, i)
}

func (m *replica) commitNext(e *ent) {
	h := fnv.New64a()
	h.Write(binary.LittleEndian.AppendUint64(nil, m.views[m.commit]))
	h.Write(e.Data)
	m.commit++
	m.committed[m.commit], m.views[m.commit] = e, h.Sum64()
}

// diverges returns the first index at which the log has not what the cluster committed, 0 if there is none; reset says that
// only a snapshot can repair it.
func (m *replica) diverges() (i id.Index, reset bool) {
	if m.cur.start.Index < m.snap.Start.Index { // the reset was lost
		return m.snap.Start.Index, true
	}
	for i := m.cur.start.Index + 1; i <= m.commit; i++ {
		if e := m.cur.at(i); e == nil || e.Term != m.committed[i].Term {
			return i, false
		}
	}
	return 0, false
}

// recovered is what a log says after Open.
type recovered struct {
	logState
	commit id.Index
	state  State
}

// accept checks what was recovered against the submissions, and goes on from there.
func (m *replica) accept(got *recovered) error {
	if err := m.check(got); err != nil {
		return fmt.Errorf("group %d, replica %d: %w\n%s", m.group, m.replica, err, m.describe(got))
	}
	m.base, m.subs, m.done = got.logState, nil, 0
	m.cur, m.floor = m.base, got.start
	m.told, m.applied = got.commit, got.state.Applied
	m.fresh = true
	return nil
}

func (m *replica) check(got *recovered) error {
	states := []logState{m.base}
	for i := range m.subs {
		states = append(states, states[i].apply(&m.subs[i]))
	}
	k := m.done
	for ; k < len(states); k++ {
		if s, ok := states[k].from(got.start); ok && s.sameLog(&got.logState) {
			break
		}
	}
	if k == len(states) {
		return fmt.Errorf("the log is none of those after submissions %d to %d", m.done, len(m.subs))
	}
	if got.start.Index < m.floor.Index {
		return fmt.Errorf("the log begins with %+v again; its owner has acted on %+v", got.start, m.floor)
	}
	if !slices.ContainsFunc(states[:k+1], func(s logState) bool { return s.start == got.start }) && got.start.Offset > m.trim {
		return fmt.Errorf("the log begins with offset %d, only what is below %d is not read any more", got.start.Offset, m.trim)
	}
	if !slices.ContainsFunc(states[k:], func(s logState) bool { return s.term == got.term && s.vote == got.vote }) {
		return fmt.Errorf("term %d and vote %d are of no submission from %d on", got.term, got.vote, k)
	}
	if got.lastTerm() > got.term {
		return fmt.Errorf("the last entry is of term %d, the hard state of %d", got.lastTerm(), got.term)
	}
	if got.commit > got.last() || got.commit < got.start.Index {
		return fmt.Errorf("commit is %d, the log is (%d, %d]", got.commit, got.start.Index, got.last())
	}
	for i := got.start.Index + 1; i <= got.commit; i++ {
		if c := m.committed[i]; c == nil || got.at(i).Term != c.Term {
			return fmt.Errorf("commit is %d, but entry %d is not what was committed", got.commit, i)
		}
	}
	return m.checkState(got)
}

func (m *replica) checkState(got *recovered) error {
	a := got.state.Applied
	if a > max(got.commit, m.snap.State.Applied) || a < got.start.Index {
		return fmt.Errorf("applied is %d, the log is (%d, %d], committed up to %d", a, got.start.Index, got.last(), got.commit)
	}
	want := m.stateAt(a)
	if _, ok := m.views[a]; !ok || !bytes.Equal(got.state.ConfState, want.ConfState) || !bytes.Equal(got.state.View, want.View) {
		return fmt.Errorf("state at %d is %q, %q, want %q, %q", a, got.state.ConfState, got.state.View, want.ConfState, want.View)
	}
	return nil
}

// describe tells what was submitted and what was found, in a form that shows where they part.
func (m *replica) describe(got *recovered) string {
	var b bytes.Buffer
	state := func(s *logState) {
		fmt.Fprintf(&b, "start %+v, last %d, offset %d, term %d, vote %d, terms", s.start, s.last(), s.nextOffset(), s.term, s.vote)
		for i, e := range s.ents {
			if i == 0 || e.Term != s.ents[i-1].Term {
				fmt.Fprintf(&b, " %d from %d", e.Term, e.Index)
			}
		}
		b.WriteByte('\n')
	}
	fmt.Fprintf(&b, "cluster: commit %d, snapshot at %+v\n", m.commit, m.snap.Start)
	b.WriteString("base: ")
	state(&m.base)
	s := m.base
	for i := range m.subs {
		sub := &m.subs[i]
		s = s.apply(sub)
		fmt.Fprintf(&b, "%3d ", i+1)
		if i < m.done {
			b.WriteString("done ")
		}
		if sub.reset != nil {
			fmt.Fprintf(&b, "reset %+v ", sub.reset.Start)
		}
		if n := len(sub.ents); n > 0 {
			bytes := 0
			for _, e := range sub.ents {
				bytes += len(e.Data)
			}
			fmt.Fprintf(&b, "entries %d..%d of term %d, %d bytes ", sub.ents[0].Index, sub.ents[n-1].Index, sub.ents[n-1].Term, bytes)
		}
		if sub.hs != nil {
			fmt.Fprintf(&b, "hard state %+v ", *sub.hs)
		}
		b.WriteString("-> ")
		state(&s)
	}
	fmt.Fprintf(&b, "found: commit %d, applied %d, ", got.commit, got.state.Applied)
	state(&got.logState)
	return b.String()
}
