package wal

import (
	"fmt"
	"sort"
	"sync"
	"sync/atomic"

	"github.com/quorumlog/quorumlog/wal/id"
	"github.com/quorumlog/quorumlog/wal/journal"
	"github.com/quorumlog/quorumlog/wal/segment"
)

// Log is the log of one replica. Methods that say "owner" are called by the one goroutine that submits to it; all others by
// anyone.
type Log struct {
	s            *Store
	group        id.Group
	replica      id.Replica
	name, dir    string // dir is relative to the store's logs directory
	topic        id.Topic
	segmentBytes int64 // guarded by mu

	// What readers ask for all the time, beside the lock. Written with mu.
	first, last, committed atomic.Uint64
	startOffset, next      atomic.Int64

	mu     sync.Mutex
	idle   sync.Cond // on mu: some work ended
	start  Start
	epochs []epoch // written by the owner with mu, read by it without
	segs   []*seg  // ascending; the last one is written to
	// controls are the payloads of control entries that have one, ascending, from the log start on.
	controls []control
	// dropped is, for each base offset of a segment that a truncation or reset dropped, the largest id it had.
	dropped map[id.Offset]uint32
	garbage []segment.Key // dropped, and their files not yet unlinked
	hs      HardState     // as submitted
	state   State
	stateAt id.Index // index of the reset that state must not be older than
	// mark is what cuts say of state.View, viewNumber grows with each state, viewStored is the number of the one that Pebble has.
	mark                   viewMark
	viewNumber, viewStored uint64
	since                  int64    // bytes of rows and batches that were added since state was set; what a truncation took still counts
	lent                   []*chunk // of Entries, until Release

	// The durable log: what the last completed round left. Written by the committer. While blocked is not 0 its end is not comparable with
	// what was submitted.
	doneIndex id.Index
	doneEnd   id.Position // end of entry doneIndex in its segment
	doneHS    HardState
	doneSeq   journal.Seq // of the last completed round with records of the log
	// dirty is the first sequence that may have records of the log which no stored cut covers; 0: there is none.
	dirty journal.Seq

	life      life
	work      work
	blocked   int // truncations and resets submitted whose round is not complete: no direct write, no flush, no cut
	preparing int // jobs of the preparer for the log, also for dropped segments

	condemned atomic.Uint32 // a Condemnation
	refused   bool          // durably: no later start reads what journal and cut have of it

	trim     id.Offset // below which nobody reads
	settled  id.Index  // what the owner has done with: less than state.Applied where the state is ahead of the log
	moved    Start     // of the stored cut, if the owner has not taken it over: see start.go
	gone     []segment.Key
	rollNext bool

	needs need
	given *markedState // of TakeCut, for the next cut, or a later one when entries up to it are durable; nil: none

	round *roundLog // of the round being planned or in flight; the committer's own
}

// epoch says that the entries from first on are of a term, up to the next epoch's first.
type epoch struct {
	first id.Index
	term  id.Term
}

// control is the payload of a control entry.
type control struct {
	index id.Index
	data  []byte
}

// seg is a segment of a log. The log's lock guards it.
type seg struct {
	key   segment.Key
	first id.Index    // of its first entry
	end   id.Position // of the bytes submitted
	// w is the watermark: all bytes below are in the file and synced, all from it on are in journal or cut, and in the tail.
	// A multiple of 4 KiB, but for a sealed segment, where it is end.
	w     id.Position
	stage stage
	// indexed: rows of entries below are in whole, synced blocks of the .index (in a sealed segment: all rows). Those are
	// committed.
	indexed id.Index
	rows    []segment.Row // from index rowBase on; rowBase <= indexed
	rowBase id.Index
	counted int // capacity of rows that the store's memory counts
	// maxTime is the running maximum of the timestamps, timeBefore what it was before the first of rows.
	maxTime, timeBefore int64
	created, appended   int64 // when the first entry and the last record came, milliseconds of this node's clock
	tail                tail

	dropped   atomic.Bool // by a truncation, reset or deletion: its files are not kept open. Read without mu, too
	names     names
	preparing bool  // the preparer has it in its queue
	allocated int64 // bytes of the .log that have their space
}

func newLog(s *Store, spec *Spec, dir string) *Log {
	l := &Log{s: s, group: spec.Group, replica: spec.Replica, name: spec.Name, dir: dir, topic: spec.Topic, segmentBytes: spec.SegmentBytes}
	l.idle.L = &l.mu
	if l.segmentBytes == 0 {
		l.segmentBytes = s.o.SegmentBytes
	}
	return l
}

// SetSegmentBytes changes the size at which segments roll, from the next batch on; 0 takes Options.SegmentBytes. It comes back with the
// log if a cut was stored since, so whoever has another source says it again after a start.
func (l *Log) SetSegmentBytes(n int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.segmentBytes = n; n == 0 {
		l.segmentBytes = l.s.o.SegmentBytes
	}
}

// resetTo makes the log empty at a point. Called with mu.
func (l *Log) resetTo(start Start) {
	for _, sg := range l.segs {
		l.drop(sg)
	}
	l.segs = l.segs[:0]
	l.start, l.settled = start, start.Index
	l.epochs = append(l.epochs[:0], epoch{start.Index, start.Term})
	l.controls = nil
	l.first.Store(uint64(start.Index + 1))
	l.last.Store(uint64(start.Index))
	l.committed.Store(uint64(start.Index))
	l.startOffset.Store(int64(start.Offset))
	l.next.Store(int64(start.Offset))
}

// drop forgets a segment that a truncation or reset passed over. Its files stay until the round is complete and a cut that
// does not name them is stored. Called with mu.
func (l *Log) drop(sg *seg) {
	if l.dropped == nil {
		l.dropped = make(map[id.Offset]uint32)
	}
	l.dropped[sg.key.Base] = max(l.dropped[sg.key.Base], sg.key.ID)
	l.garbage = append(l.garbage, sg.key)
	sg.tail.clear()
	l.dropRows(sg)
	l.s.files.forget(sg)
}

// dropRows forgets the rows of a segment that nobody reads any more. Called with mu.
func (l *Log) dropRows(sg *seg) {
	sg.rows = nil
	l.s.memory.countRows(sg)
}

// Group returns the log's Raft group.
func (l *Log) Group() id.Group { return l.group }

// Replica returns the replica whose log it is.
func (l *Log) Replica() id.Replica { return l.replica }

// StoreDir returns the directory of the store that the log is in.
func (l *Log) StoreDir() string { return l.s.o.Dir }

// Name returns the partition's name.
func (l *Log) Name() string { return l.name }

// owner is what the rows of the log's indexes carry.
func (l *Log) owner() segment.Owner { return segment.OwnerOf(l.group, l.replica) }

// Topic returns the id of the topic.
func (l *Log) Topic() id.Topic { return l.topic }

// FirstIndex returns the index of the first entry that the log has or will have.
func (l *Log) FirstIndex() id.Index { return id.Index(l.first.Load()) }

// LastIndex returns the index of the last entry submitted, or Start().Index when there is none.
func (l *Log) LastIndex() id.Index { return id.Index(l.last.Load()) }

// NextOffset returns the offset after the last record submitted: the LEO.
func (l *Log) NextOffset() id.Offset { return id.Offset(l.next.Load()) }

// StartOffset returns the offset of the first record that the log has or will have.
func (l *Log) StartOffset() id.Offset { return id.Offset(l.startOffset.Load()) }

// Term returns the term of an entry; false when i is not in [Start().Index, LastIndex()]. Owner.
func (l *Log) Term(i id.Index) (id.Term, bool) {
	if i > l.LastIndex() || i+1 < l.FirstIndex() {
		return 0, false
	}
	e := l.epochs // only the owner changes it
	if n := len(e); n > 0 && e[n-1].first <= i {
		return e[n-1].term, true
	}
	k := sort.Search(len(e), func(k int) bool { return e[k].first > i })
	if k == 0 {
		return 0, false
	}
	return e[k-1].term, true
}

// Start returns the point before the first entry.
func (l *Log) Start() Start {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.start
}

// HardState returns the hard state last submitted, or as recovered or created.
func (l *Log) HardState() HardState {
	l.mu.Lock()
	defer l.mu.Unlock()
	hs := l.hs
	hs.Commit = max(hs.Commit, id.Index(l.committed.Load()))
	return hs
}

// State returns the state of the last cut or reset, or as recovered or created. Its slices must not be changed.
func (l *Log) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// SetCommit says that entries up to i are committed. Owner. Lower values than before are ignored.
func (l *Log) SetCommit(i id.Index) {
	i = min(i, l.LastIndex())
	if uint64(i) > l.committed.Load() {
		l.committed.Store(uint64(i))
	}
}

// commit returns the commit index as far as it is known here.
func (l *Log) commit() id.Index { return id.Index(l.committed.Load()) }

// active returns the segment that is written to, or nil. Called with mu.
func (l *Log) active() *seg {
	if n := len(l.segs); n > 0 {
		return l.segs[n-1]
	}
	return nil
}

// segOf returns the position in segs of the segment that has entry i, or -1. Called with mu.
func (l *Log) segOf(i id.Index) int {
	return sort.Search(len(l.segs), func(k int) bool { return l.segs[k].first > i }) - 1
}

// lastOf returns the index of the last entry of segs[k]; one less than its first when it has none. Called with mu.
func (l *Log) lastOf(k int) id.Index {
	if k+1 < len(l.segs) {
		return l.segs[k+1].first - 1
	}
	return l.LastIndex()
}

// row returns the row of entry i if it is in memory, else nil.
func (sg *seg) row(i id.Index) *segment.Row {
	if i < sg.rowBase || i >= sg.rowBase+id.Index(len(sg.rows)) {
		return nil
	}
	return &sg.rows[i-sg.rowBase]
}

// truncate drops the entries from index i on, which is above the log start and not above the last index. It returns the
// segment that goes on and the bytes [floor(p), p) before the cut. Called with mu.
func (l *Log) truncate(i id.Index) (*seg, piece) {
	k := l.segOf(i)
	for _, sg := range l.segs[k+1:] {
		l.drop(sg)
	}
	l.segs = l.segs[:k+1]
	sg := l.segs[k]
	row := sg.row(i)
	if row == nil || sg.stage == segSealed {
		panic(fmt.Sprintf("wal: %v: truncation at index %d, whose entry is not in memory: it was committed", l, i))
	}
	p, offset := row.Position, row.Offset
	frag, ok := sg.tail.truncate(&l.s.memory, int64(p))
	if !ok {
		panic(fmt.Sprintf("wal: %v: truncation at index %d, whose bytes are not in memory: it was committed", l, i))
	}
	sg.cutRows(i)
	sg.end = p
	l.forgetFrom(i)
	l.next.Store(int64(offset))
	l.last.Store(uint64(i - 1))
	return sg, frag
}

// cutRows drops the rows from index i on.
func (sg *seg) cutRows(i id.Index) {
	n := int(i - sg.rowBase)
	// A fresh array would be safer against readers of rows, but rows are only read with the lock.
	sg.rows = sg.rows[:n]
	sg.maxTime = sg.timeBefore
	if n > 0 {
		sg.maxTime = sg.rows[n-1].MaxTimestamp
	}
}

// forgetFrom drops epochs and control entries from index i on. Called with mu.
func (l *Log) forgetFrom(i id.Index) {
	n := len(l.epochs)
	for n > 1 && l.epochs[n-1].first >= i {
		n--
	}
	l.epochs = l.epochs[:n]
	n = len(l.controls)
	for n > 0 && l.controls[n-1].index >= i {
		n--
	}
	l.controls = l.controls[:n:n]
}

// roll begins a segment with the next entry. Called with mu.
func (l *Log) roll(key segment.Key) *seg {
	first, now := l.LastIndex()+1, l.s.now()
	sg := &seg{key: key, first: first, rowBase: first, indexed: first, maxTime: -1, timeBefore: -1, created: now, appended: now}
	l.rollNext = false
	l.segs = append(l.segs, sg)
	return sg
}

// nextKey returns a key for a new segment. Called with mu.
func (l *Log) nextKey() segment.Key {
	base := l.NextOffset()
	key := segment.Key{Base: base}
	if last, ok := l.dropped[base]; ok && !l.s.o.off.freshNames {
		key.ID = last + 1
	}
	for _, sg := range l.segs { // segments of nothing but control entries have the base of the next
		if sg.key.Base == base {
			key.ID = max(key.ID, sg.key.ID+1)
		}
	}
	return key
}

// push adds the row of the next entry. Called with mu.
func (l *Log) push(sg *seg, row segment.Row) {
	if n := len(l.epochs); n == 0 || l.epochs[n-1].term != row.Term {
		l.epochs = append(l.epochs, epoch{row.Index, row.Term})
	}
	sg.rows = append(sg.rows, row)
	l.s.memory.countRows(sg)
	l.grown(&row)
	sg.end = row.End()
	sg.maxTime = row.MaxTimestamp
	l.last.Store(uint64(row.Index))
	l.next.Store(int64(row.NextOffset()))
}

// addControl keeps the payload of a control entry. Called with mu. data is kept.
func (l *Log) addControl(i id.Index, data []byte) {
	if len(data) > 0 {
		l.controls = append(l.controls, control{i, data})
	}
}

// controlData returns the payload of a control entry. Called with mu. It must not be changed.
func (l *Log) controlData(i id.Index) []byte {
	k := sort.Search(len(l.controls), func(k int) bool { return l.controls[k].index >= i })
	if k < len(l.controls) && l.controls[k].index == i {
		return l.controls[k].data
	}
	return nil
}

// Controls returns the payloads of the control entries after one, in order. They must not be changed.
func (l *Log) Controls(after id.Index) [][]byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list [][]byte
	for k := sort.Search(len(l.controls), func(k int) bool { return l.controls[k].index > after }); k < len(l.controls); k++ {
		list = append(list, l.controls[k].data)
	}
	return list
}

// committedEnd is the position in segs[k] up to which bytes are committed. Called with mu.
func (l *Log) committedEnd(k int) id.Position {
	sg, commit := l.segs[k], l.commit()
	switch {
	case commit >= l.lastOf(k):
		return sg.end
	case commit < sg.first:
		return 0
	}
	if row := sg.row(commit); row != nil {
		return row.End()
	}
	if len(sg.rows) > 0 { // all rows before those in memory are committed
		return sg.rows[0].Position
	}
	return 0
}

// durableEnd is the position in segs[k] up to which bytes are durable. Called with mu, when blocked is 0.
func (l *Log) durableEnd(k int) id.Position {
	sg := l.segs[k]
	switch {
	case l.doneIndex < sg.first:
		return 0
	case l.doneIndex >= l.lastOf(k):
		return sg.end
	}
	return l.doneEnd
}

// String names the log in messages.
func (l *Log) String() string {
	return fmt.Sprintf("%s (group %d, replica %d)", l.name, l.group, l.replica)
}
