package raftgrouptest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/raftgroup"
	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Store is what a cluster's node keeps its logs in.
type Store interface {
	raftgroup.LogStore
	Create(ctx context.Context, spec wal.Spec) (raftgroup.Log, error)
	Logs() []raftgroup.Log
	Close() error
}

// Disk is what survives a node's process.
type Disk interface {
	// Open recovers the store.
	Open() (Store, error)
	// Halt cuts the power: nothing that is submitted to the open store becomes durable any more, nothing completes.
	Halt()
	// Crash follows Halt when nobody uses the store any more: what Open finds next is decided.
	Crash()
}

// MemDisk keeps logs in memory. What was submitted becomes durable a while later; at a crash any prefix of what was not is
// kept, drawn by lot for each log.
type MemDisk struct {
	// Delay returns how long the next commit round takes. nil: no time.
	Delay func() time.Duration
	// Pressure is what the store says of itself. nil: none.
	Pressure func() wal.Pressure
	// Condemned says which logs are condemned. nil: none.
	Condemned func(g id.Group) wal.Condemnation
	// Refuse is called before a refusal is stored, which fails if it does. nil: none fails.
	Refuse func(g id.Group) error
	// Resident is how many of the last entries of a log are in memory; what is older must be read. 0: all.
	Resident int
	// Poison overwrites what Entries returned when the log is released, and what Submit made of an append when its loan ends, as an unlucky
	// reuse of memory would.
	Poison bool
	// LoseAll keeps nothing at a crash that was not durable.
	LoseAll bool

	rng   *rand.Rand
	saved map[id.Group]*memSaved
	open  *memStore
}

// NewMemDisk returns an empty disk.
func NewMemDisk(seed uint64) *MemDisk {
	return &MemDisk{rng: rand.New(rand.NewPCG(seed, ^seed)), saved: make(map[id.Group]*memSaved)}
}

// memSaved is a log as it is on the disk.
type memSaved struct {
	spec    wal.Spec
	entries []wal.Entry
	hs      wal.HardState
	state   wal.State
	refused string // why; empty: it is not
}

func (s *memSaved) append(a *memAppend) {
	if a.reset != nil {
		s.spec.Start, s.state, s.entries = a.reset.Start, a.reset.State, nil
		s.hs.Commit = a.reset.Start.Index
	}
	if len(a.entries) > 0 {
		keep := a.entries[0].Index - s.spec.Start.Index - 1
		s.entries = append(slices.Clip(s.entries[:keep]), a.entries...)
	}
	if a.hs != nil {
		s.hs = *a.hs
	}
}

type memAppend struct {
	log     *memLog
	entries []wal.Entry
	hs      *wal.HardState
	reset   *wal.Reset
	append  *wal.Append
}

// Open implements Disk.
func (d *MemDisk) Open() (Store, error) {
	s := &memStore{disk: d, logs: make(map[id.Group]*memLog), wake: make(chan struct{}, 1), done: make(chan struct{})}
	for g, saved := range d.saved {
		if saved.refused == "" {
			s.logs[g] = newMemLog(s, saved)
		}
	}
	d.open = s
	go s.commit()
	return s, nil
}

// Halt implements Disk.
func (d *MemDisk) Halt() { d.open.stop() }

// Crash implements Disk.
func (d *MemDisk) Crash() {
	s := d.open
	s.mu.Lock()
	defer s.mu.Unlock()
	if d.LoseAll {
		s.queue = nil
	}
	kept := make(map[*memLog]int)
	for _, a := range s.queue {
		if n, ok := kept[a.log]; !ok {
			kept[a.log] = d.rng.IntN(4) // so many more; most often not all
		} else if n == 0 {
			continue
		}
		if kept[a.log] > 0 {
			kept[a.log]--
			a.log.saved.append(a)
		}
	}
	s.queue = nil
}

type memStore struct {
	disk      *MemDisk
	wake      chan struct{}
	done      chan struct{}
	roundDone func(wal.Pace)

	mu      sync.Mutex
	logs    map[id.Group]*memLog
	queue   []*memAppend // submitted, not durable
	began   time.Time    // of the round under way; zero: there is none
	stopped bool
	cuts    func(*wal.Log)
}

// Refused returns why the log of a group is refused; empty: it is not.
func (d *MemDisk) Refused(g id.Group) string {
	d.open.mu.Lock()
	defer d.open.mu.Unlock()
	if saved := d.saved[g]; saved != nil {
		return saved.refused
	}
	return ""
}

// Create implements Store.
func (s *memStore) Create(_ context.Context, spec wal.Spec) (raftgroup.Log, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.disk.saved[spec.Group] != nil { // refused ones too
		return nil, wal.ErrExists
	}
	saved := &memSaved{spec: spec, hs: spec.HardState, state: spec.State}
	s.disk.saved[spec.Group] = saved
	s.logs[spec.Group] = newMemLog(s, saved)
	return s.logs[spec.Group], nil
}

// Logs implements Store.
func (s *memStore) Logs() []raftgroup.Log {
	s.mu.Lock()
	defer s.mu.Unlock()
	var logs []raftgroup.Log
	for _, l := range s.logs {
		logs = append(logs, l)
	}
	return logs
}

// SetRoundDone implements raftgroup.LogStore. It is called before the first Submit.
func (s *memStore) SetRoundDone(done func(wal.Pace)) { s.roundDone = done }

// SetCutTaker implements raftgroup.LogStore.
func (s *memStore) SetCutTaker(take func(*wal.Log)) { s.cuts = take }

// Submit implements raftgroup.LogStore.
func (s *memStore) Submit(appends []*wal.Append) {
	queued := make([]*memAppend, len(appends))
	for i, a := range appends {
		target := raftgroup.TargetOf(a)
		if w, ok := target.(interface{ Unwrap() raftgroup.Log }); ok {
			target = w.Unwrap()
		}
		l := target.(*memLog)
		q := &memAppend{log: l, append: a, reset: a.Reset}
		if a.HardState != nil {
			hs := *a.HardState
			q.hs = &hs
		}
		for i, e := range a.Entries {
			e.Data = slices.Clone(e.Data)
			q.entries = append(q.entries, e)
			if a.Loan != nil {
				a.Entries[i].Data = e.Data
			}
		}
		if a.Loan != nil && s.disk.Poison {
			lend(a)
		}
		l.reset(a.Reset)
		l.submit(q.entries)
		queued[i] = q
	}
	s.mu.Lock()
	s.queue = append(s.queue, queued...)
	s.mu.Unlock()
	s.signal()
}

// lend gives an append copies of its batches that last as long as its loan.
func lend(a *wal.Append) {
	lent := make([][]byte, len(a.Entries))
	for i := range a.Entries {
		lent[i] = slices.Clone(a.Entries[i].Data)
		a.Entries[i].Data = lent[i]
	}
	a.Loan.AtEnd(func() {
		for _, b := range lent {
			for i := range b {
				b[i] ^= 0xa5
			}
		}
	})
}

func (s *memStore) begin(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.began = at
}

// Stalled implements raftgroup.LogStore.
func (s *memStore) Stalled() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.began.IsZero() {
		return 0
	}
	return time.Since(s.began)
}

// Pressure implements raftgroup.LogStore.
func (s *memStore) Pressure() wal.Pressure {
	if s.disk.Pressure == nil {
		return wal.PressureNone
	}
	return s.disk.Pressure()
}

func (s *memStore) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// commit is the committer's goroutine, joined by stop.
func (s *memStore) commit() {
	defer close(s.done)
	for range s.wake {
		s.mu.Lock()
		round := len(s.queue)
		s.mu.Unlock()
		if s.disk.Delay != nil && round > 0 {
			s.begin(time.Now())
			time.Sleep(s.disk.Delay())
			s.begin(time.Time{})
		}
		s.mu.Lock()
		if s.stopped {
			s.mu.Unlock()
			return
		}
		done := slices.Clone(s.queue[:round])
		s.queue = slices.Delete(s.queue, 0, round)
		for _, a := range done {
			a.log.saved.append(a)
		}
		s.mu.Unlock()
		for _, a := range done {
			a.append.Done(a.append)
		}
		s.mu.Lock()
		pace := wal.PaceBusy
		if len(s.queue) == 0 {
			pace = wal.PaceLeisurely
		}
		s.mu.Unlock()
		s.roundDone(pace)
	}
}

func (s *memStore) stop() {
	s.mu.Lock()
	s.stopped = true
	s.mu.Unlock()
	s.signal()
	<-s.done
}

// Close implements Store. Everything submitted is durable then.
func (s *memStore) Close() error {
	s.stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.queue {
		a.log.saved.append(a)
	}
	s.queue = nil
	return nil
}

// memLog is a log of a memStore. mu guards what readers share with the owner.
type memLog struct {
	store *memStore
	saved *memSaved // guarded by store.mu

	mu      sync.Mutex
	entries []wal.Entry
	offsets []id.Offset // of each entry: that of its first record, or of the next one
	next    id.Offset
	commit  id.Index
	lent    [][]byte // what Entries returned since the last Release
	start   wal.Start
	below   id.Offset // of Trim
}

func newMemLog(s *memStore, saved *memSaved) *memLog {
	l := &memLog{store: s, saved: saved, start: saved.spec.Start, next: saved.spec.Start.Offset}
	l.submit(saved.entries)
	return l
}

// reset empties the log at a point; nil: it does not.
func (l *memLog) reset(r *wal.Reset) {
	if r == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Start.Index <= l.commit {
		panic(fmt.Sprintf("raftgrouptest: reset at %d, but entries up to %d are committed", r.Start.Index, l.commit))
	}
	l.start, l.next, l.commit, l.entries, l.offsets = r.Start, r.Start.Offset, r.Start.Index, nil, nil
}

func (l *memLog) at(i id.Index) int { return int(i - l.start.Index - 1) }

func (l *memLog) submit(entries []wal.Entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(entries) == 0 {
		return
	}
	if at := l.at(entries[0].Index); at < len(l.entries) {
		if entries[0].Index <= l.commit {
			panic(fmt.Sprintf("raftgrouptest: entry %d replaces a committed one (commit %d)", entries[0].Index, l.commit))
		}
		l.next = l.offsets[at]
		l.entries, l.offsets = slices.Clip(l.entries[:at]), slices.Clip(l.offsets[:at])
	} else if at > len(l.entries) {
		panic(fmt.Sprintf("raftgrouptest: entry %d leaves a gap", entries[0].Index))
	}
	for _, e := range entries {
		l.entries = append(l.entries, e)
		l.offsets = append(l.offsets, l.next)
		if e.Kind == wal.KindBatch {
			b := batch.Batch(e.Data)
			if b.BaseOffset() != l.next {
				panic(fmt.Sprintf("raftgrouptest: entry %d at offset %d, expected %d", e.Index, b.BaseOffset(), l.next))
			}
			l.next = b.NextOffset()
		}
	}
}

// The methods of raftgroup.Log.
func (l *memLog) Group() id.Group          { return l.saved.spec.Group }
func (l *memLog) Replica() id.Replica      { return l.saved.spec.Replica }
func (l *memLog) FirstIndex() id.Index     { return l.Start().Index + 1 }
func (l *memLog) HardState() wal.HardState { return l.saved.hs }

func (l *memLog) Start() wal.Start {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.start
}

func (l *memLog) State() wal.State {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	return l.saved.state
}

func (l *memLog) LastIndex() id.Index {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.start.Index + id.Index(len(l.entries))
}

func (l *memLog) Term(i id.Index) (id.Term, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i == l.start.Index {
		return l.start.Term, true
	}
	if i < l.start.Index || l.at(i) >= len(l.entries) {
		return 0, false
	}
	return l.entries[l.at(i)].Term, true
}

func (l *memLog) NextOffset() id.Offset {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

func (l *memLog) OffsetAt(i id.Index) id.Offset {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch at := l.at(i); {
	case at < 0:
		return l.start.Offset
	case at < len(l.offsets):
		return l.offsets[at]
	}
	return l.next
}

func (l *memLog) Entries(dst []wal.Entry, lo, hi id.Index, maxBytes int) ([]wal.Entry, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	resident := l.store.disk.Resident
	if lo <= l.start.Index || l.at(lo) >= len(l.entries) || resident > 0 && lo <= l.commit && l.at(lo) < len(l.entries)-resident {
		return dst, false
	}
	bytes := 0
	for n, e := range l.entries[l.at(lo):min(l.at(hi), len(l.entries))] {
		if bytes += len(e.Data); n > 0 && bytes > maxBytes {
			break
		}
		if l.store.disk.Poison {
			e.Data = slices.Clone(e.Data)
			l.lent = append(l.lent, e.Data)
		}
		dst = append(dst, e)
	}
	return dst, true
}

func (l *memLog) Release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range l.lent {
		for i := range b {
			b[i] ^= 0xa5
		}
	}
	l.lent = l.lent[:0]
}

func (l *memLog) ReadEntries(lo, hi id.Index, maxBytes int) ([]wal.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if lo <= l.start.Index {
		return nil, wal.ErrCompacted
	}
	if l.at(lo) >= len(l.entries) {
		return nil, wal.ErrUnavailable
	}
	var out []wal.Entry
	bytes := 0
	for n, e := range l.entries[l.at(lo):min(l.at(hi), len(l.entries))] {
		if bytes += len(e.Data); n > 0 && bytes > maxBytes {
			break
		}
		e.Data = slices.Clone(e.Data)
		out = append(out, e)
	}
	return out, nil
}

func (l *memLog) SetCommit(i id.Index) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i > l.start.Index+id.Index(len(l.entries)) {
		panic(fmt.Sprintf("raftgrouptest: commit %d of a log of %d entries", i, len(l.entries)))
	}
	l.commit = max(l.commit, i)
}

func (l *memLog) TakeCut(st wal.State) {
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.store.stopped {
		return
	}
	for _, a := range l.store.queue {
		if a.log == l && a.reset != nil {
			return // of the log before
		}
	}
	l.saved.state = st
	l.advance(min(st.Applied, l.saved.spec.Start.Index+id.Index(len(l.saved.entries))))
}

// advance moves the start as far as Trim said, over entries up to a durable one. Any entry is a boundary. store.mu is held.
func (l *memLog) advance(to id.Index) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for l.start.Index+id.Index(n) < to && n+1 < len(l.offsets) && l.offsets[n+1] <= l.below {
		n++
	}
	if n == 0 {
		return
	}
	l.start = wal.Start{Index: l.start.Index + id.Index(n), Term: l.entries[n-1].Term, Offset: l.offsets[n]}
	l.entries, l.offsets = slices.Clone(l.entries[n:]), slices.Clone(l.offsets[n:])
	l.saved.entries = slices.Clone(l.saved.entries[l.start.Index-l.saved.spec.Start.Index:])
	l.saved.spec.Start = l.start
}

// Trim and Roll are those of wal.Log. There are no segments.
func (l *memLog) Trim(below id.Offset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.below = max(l.below, below)
}

// TrimBefore is that of wal.Log.
func (l *memLog) TrimBefore(i id.Index) { l.Trim(l.OffsetAt(i)) }

// Roll does nothing.
func (l *memLog) Roll() {}

// DeclineCut keeps the state that was saved last.
func (l *memLog) DeclineCut() {}

// Condemned implements raftgroup.Log.
func (l *memLog) Condemned() wal.Condemnation {
	if f := l.store.disk.Condemned; f != nil {
		return f(l.Group())
	}
	return 0
}

// Refuse implements raftgroup.Log.
func (l *memLog) Refuse(_ context.Context, reason string) error {
	if f := l.store.disk.Refuse; f != nil {
		if err := f(l.Group()); err != nil {
			return err
		}
	}
	l.store.mu.Lock()
	defer l.store.mu.Unlock()
	if l.store.stopped {
		return wal.ErrClosed
	}
	l.saved.refused = reason
	return nil
}
