package raftgrouptest

import (
	"encoding/binary"
	"fmt"
	"hash/crc64"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

var table = crc64.MakeTable(crc64.ECMA)

// Witness sees what all replicas of all groups do and remembers every contradiction:
//
//   - equal (index, term) with other bytes
//   - replicas that apply another sequence of entries: their hash chains differ
//   - an entry applied twice, or left out, in one incarnation of the view
//   - an acknowledged entry that is not the one applied at its index
//   - two leaders in one term
//   - a high watermark that goes back within one incarnation
type Witness struct {
	mu       sync.Mutex
	groups   map[id.Group]*testimony
	Problems []string // read it when nothing runs any more; Take is for before
}

type entryID struct {
	index id.Index
	term  id.Term
}

type testimony struct {
	bytes   map[entryID]uint64
	chain   map[id.Index]link // as first applied
	acked   map[id.Index]entryID
	leaders map[id.Term]id.Replica
	last    id.Index // highest applied
	// restored counts the views that came from other replicas.
	restored int
}

type link struct {
	term  id.Term
	chain uint64
}

// NewWitness returns a Witness that has seen nothing.
func NewWitness() *Witness { return &Witness{groups: make(map[id.Group]*testimony)} }

func (w *Witness) group(g id.Group) *testimony {
	t := w.groups[g]
	if t == nil {
		t = &testimony{
			bytes: make(map[entryID]uint64), chain: make(map[id.Index]link),
			acked: make(map[id.Index]entryID), leaders: make(map[id.Term]id.Replica),
		}
		w.groups[g] = t
	}
	return t
}

// Problem notes a contradiction that was found elsewhere.
func (w *Witness) Problem(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.problem(format, args...)
}

// Take returns the contradictions so far and forgets them.
func (w *Witness) Take() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.Problems
	w.Problems = nil
	return p
}

func (w *Witness) problem(format string, args ...any) {
	if len(w.Problems) < 20 {
		w.Problems = append(w.Problems, fmt.Sprintf(format, args...))
	}
}

// entry notes the bytes of an entry in some log.
func (w *Witness) entry(who string, g id.Group, index id.Index, term id.Term, data []byte) {
	sum := crc64.Checksum(data, table)
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.group(g)
	if old, ok := t.bytes[entryID{index, term}]; ok && old != sum {
		w.problem("%s: entry %d of term %d has other bytes than elsewhere", who, index, term)
	}
	t.bytes[entryID{index, term}] = sum
}

// applied notes an applied entry and returns the hash chain up to it.
func (w *Witness) applied(who string, g id.Group, index id.Index, term id.Term, kind wal.EntryKind, data []byte, chain uint64) uint64 {
	var head [24]byte
	binary.LittleEndian.PutUint64(head[:], chain)
	binary.LittleEndian.PutUint64(head[8:], uint64(index))
	binary.LittleEndian.PutUint64(head[16:], uint64(term)<<8|uint64(kind))
	next := crc64.Update(crc64.Checksum(head[:], table), table, data)
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.group(g)
	if old, ok := t.chain[index]; !ok {
		t.chain[index] = link{term, next}
	} else if old != (link{term, next}) {
		w.problem("%s: applied entry %d of term %d, and the log before it, differ from elsewhere (term %d)", who, index, term, old.term)
	}
	if ack, ok := t.acked[index]; ok && ack.term != term {
		w.problem("%s: applied entry %d of term %d, but that of term %d was acknowledged", who, index, term, ack.term)
	}
	t.last = max(t.last, index)
	return next
}

// restored compares a view that came from another replica with what is known of the log.
func (w *Witness) restored(who string, g id.Group, at id.Index, chain uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.group(g)
	t.restored++
	if known, ok := t.chain[at]; !ok {
		w.problem("%s: the view of entry %d was restored, which nobody has applied", who, at)
	} else if known.chain != chain {
		w.problem("%s: the view that was restored is not that of the log up to entry %d", who, at)
	}
}

// Restored returns how often a view that came from another replica was restored.
func (w *Witness) Restored(g id.Group) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.group(g).restored
}

// Acked notes an acknowledged entry.
func (w *Witness) Acked(g id.Group, index id.Index, term id.Term) {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.group(g)
	if old, ok := t.acked[index]; ok && old.term != term {
		w.problem("group %d: entry %d was acknowledged in terms %d and %d", g, index, old.term, term)
	}
	t.acked[index] = entryID{index, term}
	if l, ok := t.chain[index]; ok && l.term != term {
		w.problem("group %d: entry %d of term %d acknowledged, but that of term %d was applied", g, index, term, l.term)
	}
}

// AckedCount returns how many entries of a group were acknowledged.
func (w *Witness) AckedCount(g id.Group) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.group(g).acked)
}

// LastAcked returns the highest index that was acknowledged.
func (w *Witness) LastAcked(g id.Group) id.Index {
	w.mu.Lock()
	defer w.mu.Unlock()
	var last id.Index
	for i := range w.group(g).acked {
		last = max(last, i)
	}
	return last
}

// LastApplied returns the highest index that any replica applied.
func (w *Witness) LastApplied(g id.Group) id.Index {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.group(g).last
}

// AllAckedApplied notes a problem for each acknowledged entry that no replica has applied: to be asked when all are caught up.
func (w *Witness) AllAckedApplied() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.unapplied(func(g id.Group, index id.Index, term id.Term) {
		w.problem("group %d: entry %d of term %d was acknowledged and is lost", g, index, term)
	})
}

// CaughtUp tells whether every acknowledged entry was applied by some replica. It may take a moment: the leader answers when two others
// have stored an entry, and applies it when it has itself.
func (w *Witness) CaughtUp() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	up := true
	w.unapplied(func(id.Group, id.Index, id.Term) { up = false })
	return up
}

func (w *Witness) unapplied(f func(id.Group, id.Index, id.Term)) {
	for g, t := range w.groups {
		for index, ack := range t.acked {
			if l, ok := t.chain[index]; !ok || l.term != ack.term {
				f(g, index, ack.term)
			}
		}
	}
}

func (w *Witness) leader(who string, g id.Group, l raftgroup.LeaderChange) {
	if l.Role != raftgroup.Leader {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	t := w.group(g)
	if old, ok := t.leaders[l.Term]; ok && old != l.Leader {
		w.problem("%s: leads in term %d, in which replica %d led", who, l.Term, old)
	}
	t.leaders[l.Term] = l.Leader
}

// Machine is a raftgroup.Machine that reports everything to a Witness. Its view is the hash chain of what was applied.
type Machine struct {
	witness *Witness
	who     string
	group   id.Group

	log     raftgroup.Log
	below   atomic.Int64 // what the log is to let go of: see Trim
	applied id.Index
	chain   uint64
	overlay map[id.Index]id.Term // entries in the log above applied
	hw      id.Offset

	// Decide, when not nil, is asked about batches before they are admitted.
	Decide func(index id.Index, term id.Term, b batch.Batch) raftgroup.Admission
	// Knows, when not nil, is shown the values of each batch that is to be applied. Its error is Apply's.
	Knows func(value []byte) error
	// Padding is how many bytes the view has more than it needs.
	Padding int
	// Reads, when not nil, is shown the views of other replicas. Its error is CheckView's.
	Reads func(view []byte) error

	mu     sync.Mutex
	leader raftgroup.LeaderChange
	inSync []raftgroup.InSync
}

// NewMachine returns the machine of a replica whose log has this state.
func NewMachine(w *Witness, who string, g id.Group, start wal.Start, st wal.State) *Machine {
	m := &Machine{witness: w, who: who, group: g, applied: start.Index, overlay: make(map[id.Index]id.Term)}
	if len(st.View) >= 16 {
		m.applied = id.Index(binary.LittleEndian.Uint64(st.View))
		m.chain = binary.LittleEndian.Uint64(st.View[8:])
	}
	if m.applied != max(st.Applied, start.Index) {
		w.Problem("%s: view of entry %d recovered with applied index %d", who, m.applied, st.Applied)
	}
	return m
}

// Admit implements raftgroup.Machine.
func (m *Machine) Admit(index id.Index, term id.Term, b batch.Batch) raftgroup.Admission {
	if m.Decide != nil {
		if a := m.Decide(index, term, b); a != raftgroup.Accept() {
			return a
		}
	}
	m.note("admitted", index, term, b)
	return raftgroup.Accept()
}

// Append implements raftgroup.Machine.
func (m *Machine) Append(index id.Index, term id.Term, b batch.Batch) {
	m.note("appended", index, term, b)
}

func (m *Machine) note(what string, index id.Index, term id.Term, b batch.Batch) {
	if _, ok := m.overlay[index]; ok || index <= m.applied {
		m.witness.Problem("%s: entry %d %s twice", m.who, index, what)
	}
	m.overlay[index] = term
	m.witness.entry(m.who, m.group, index, term, b)
}

// Truncate implements raftgroup.Machine.
func (m *Machine) Truncate(from id.Index) {
	if from <= m.applied {
		m.witness.Problem("%s: truncated at %d, applied up to %d", m.who, from, m.applied)
	}
	for i := range m.overlay {
		if i >= from {
			delete(m.overlay, i)
		}
	}
}

// Apply implements raftgroup.Machine.
func (m *Machine) Apply(index id.Index, term id.Term, kind wal.EntryKind, data []byte) (any, error) {
	if index != m.applied+1 {
		m.witness.Problem("%s: applied %d after %d", m.who, index, m.applied)
	}
	if kind == wal.KindBatch && m.overlay[index] != term {
		m.witness.Problem("%s: applied entry %d of term %d, known in term %d", m.who, index, term, m.overlay[index])
	}
	if m.Knows != nil && kind == wal.KindBatch {
		r := batch.Batch(data).Records()
		for _, record := range r.All() {
			if err := m.Knows(record.Value); err != nil {
				return nil, err
			}
		}
	}
	delete(m.overlay, index)
	m.applied = index
	m.chain = m.witness.applied(m.who, m.group, index, term, kind, data, m.chain)
	return index, nil
}

// Committed implements raftgroup.Machine.
func (m *Machine) Committed(hw id.Offset) {
	if hw < m.hw {
		m.witness.Problem("%s: high watermark went from %d to %d", m.who, m.hw, hw)
	}
	m.hw = hw
}

// Elected implements raftgroup.Machine.
func (m *Machine) Elected() {}

// Leader implements raftgroup.Machine.
func (m *Machine) Leader(l raftgroup.LeaderChange) {
	m.mu.Lock()
	m.leader = l
	m.mu.Unlock()
	m.witness.leader(m.who, m.group, l)
}

// InSync implements raftgroup.Machine.
func (m *Machine) InSync(s raftgroup.InSync) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.inSync = append(m.inSync, s)
}

// Judged returns what the machine was told of members in sync, in order.
func (m *Machine) Judged() []raftgroup.InSync {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.inSync)
}

// Led returns the last LeaderChange.
func (m *Machine) Led() raftgroup.LeaderChange {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leader
}

// Trim has the log let go of what is below an offset: with its next cut it is told, in a turn of its owner, as machines tell it when they
// apply a command. It may be called by anybody.
func (m *Machine) Trim(below id.Offset) { m.below.Store(int64(below)) }

// View implements raftgroup.Machine.
func (m *Machine) View() []byte {
	if below := id.Offset(m.below.Load()); below > 0 {
		m.log.(interface{ Trim(below id.Offset) }).Trim(below)
	}
	v := binary.LittleEndian.AppendUint64(make([]byte, 0, 16+m.Padding), uint64(m.applied))
	v = binary.LittleEndian.AppendUint64(v, m.chain)
	return v[:16+m.Padding]
}

// CheckView implements raftgroup.Machine.
func (m *Machine) CheckView(view []byte) error {
	if len(view) < 16 {
		return fmt.Errorf("a view of %d bytes", len(view))
	}
	if m.Reads != nil {
		return m.Reads(view)
	}
	return nil
}

// Restore implements raftgroup.Machine.
func (m *Machine) Restore(view []byte, applied id.Index) error {
	at, chain := id.Index(binary.LittleEndian.Uint64(view)), binary.LittleEndian.Uint64(view[8:])
	if at != applied || applied <= m.applied {
		m.witness.Problem("%s: view of entry %d restored as of %d, applied up to %d", m.who, at, applied, m.applied)
	}
	m.witness.restored(m.who, m.group, applied, chain)
	clear(m.overlay)
	m.applied, m.chain = applied, chain
	return nil
}

// Rolls implements raftgroup.Machine: every command begins a segment.
func (m *Machine) Rolls([]byte, id.Offset) bool { return true }
