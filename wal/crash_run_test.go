package wal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/quorumlog/quorumlog/wal/batch"
	"github.com/quorumlog/quorumlog/wal/disk"
	"github.com/quorumlog/quorumlog/wal/disk/disksim"
	"github.com/quorumlog/quorumlog/wal/id"
)

// metadataName is the partition whose log says which of the others is deleted.
const metadataName = "metadata-0"

// patience bounds every wait of the crash test. It is long: several tests may share few cores.
const patience = 60 * time.Second

// crashConfig varies what a run does.
type crashConfig struct {
	seed  uint64
	boots int
	ops   int // a boot
	off   rules
	tune  func(*Options) // last word on the options
	// fault, when not nil, is asked for an error to inject into each operation; the run then expects the store to fail.
	fault func(disksim.Op) error
	full  bool // the disk runs full now and then
	slow  int  // of a hundred writes and syncs of segments, how many take long
	trace bool
}

// crashRun is one machine's life: it boots, works, crashes and recovers, and what it said is checked each time.
type crashRun struct {
	crashConfig
	rng   *rand.Rand
	opts  Options
	disk  *disksim.Disk
	store *Store
	clean bool                // the last boot ended with a Close that says that all is durable
	names map[string]*replica // by name of the partition
	old   []*replica          // incarnations that are gone, or should be
	kv    map[string][]string // values that a key may have; "" is none
	ids   id.Replica
	buf   batch.Builder
	watch watcher
	logMu sync.Mutex
	lines []string // of logf

	mu     sync.Mutex
	cond   sync.Cond
	logs   map[*replica]*Log
	cuts   []*Log
	shown  map[*Log]logState // what readers may see: the committed part of logs
	fatal  error
	broken error // the first violation
}

func newCrashRun(c crashConfig) *crashRun {
	r := &crashRun{crashConfig: c, rng: rand.New(rand.NewPCG(c.seed, 77)), names: make(map[string]*replica), kv: make(map[string][]string)}
	r.cond.L = &r.mu
	r.watch.r = r
	pick := func(v ...int64) int64 { return v[r.rng.IntN(len(v))] }
	r.opts = Options{
		Dir: "/data", CacheBytes: pick(128<<10, 512<<10, 4<<20), DirectAppendBytes: pick(1, 6<<10, 16<<10, 16<<10, 1<<40),
		JournalFileBytes: pick(64<<10, 128<<10, 512<<10), CheckpointBytes: pick(32<<10, 128<<10, 512<<10),
		CheckpointInterval: time.Duration(pick(int64(time.Minute), int64(3*time.Millisecond))),
		SegmentBytes:       pick(16<<10, 64<<10, 256<<10), ReserveBytes: 1, off: c.off, trimInterval: time.Nanosecond,
		OnFatal: r.onFatal,
	}
	r.disk = disksim.New(disksim.Options{Seed: c.seed, Direct: c.seed%2 == 0, Hook: r.watch.before, After: r.watch.after})
	if c.tune != nil {
		c.tune(&r.opts)
	}
	if r.slow == 0 && r.rng.IntN(3) == 0 {
		r.slow = 20
	}
	r.watch.rng = rand.New(rand.NewPCG(c.seed, 78))
	r.names[metadataName] = r.newReplica(id.MetadataGroup, metadataName)
	for i := range 2 + r.rng.IntN(4) {
		name := fmt.Sprintf("topic-%d", i)
		r.names[name] = r.newReplica(id.Group(10+i), name)
	}
	return r
}

func (r *crashRun) newReplica(g id.Group, name string) *replica {
	r.ids++
	start := Start{}
	if r.rng.IntN(2) == 0 {
		start = Start{Index: id.Index(r.rng.IntN(1000)), Offset: id.Offset(r.rng.IntN(1000)), Term: id.Term(1 + r.rng.IntN(5))}
	}
	m := newReplica(Spec{
		Group: g, Replica: r.ids, Name: name, Start: start, HardState: HardState{Term: start.Term, Commit: start.Index},
	})
	m.spec.State = m.stateAt(start.Index)
	m.snap.State = m.spec.State
	m.stuck = r.rng.IntN(5) == 0
	return m
}

func (r *crashRun) onFatal(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fatal = err
	r.cond.Broadcast()
}

// broke notes a violation; the first one counts.
func (r *crashRun) broke(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.broken == nil {
		r.broken = fmt.Errorf(format, args...)
		r.cond.Broadcast()
	}
}

// logf keeps a line for the case that the run fails.
func (r *crashRun) logf(format string, args ...any) {
	if !r.trace {
		return
	}
	r.logMu.Lock()
	defer r.logMu.Unlock()
	r.lines = append(r.lines, fmt.Sprintf(format, args...))
}

// failure returns the first violation.
func (r *crashRun) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.broken
}

// over tells whether this boot can do no more.
func (r *crashRun) over() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.disk.Halted() || r.fatal != nil || r.broken != nil
}

// run lives all boots and returns the first violation.
func (r *crashRun) run() (err error) {
	r.logf("options %+v", r.opts)
	for boot := range r.boots {
		r.planCrash()
		if r.open(boot) {
			r.verify()
			if !r.over() {
				stop := r.readBeside()
				r.work()
				stop()
			}
		}
		r.end()
		if err := r.failure(); err != nil {
			return err
		}
		r.crash(boot)
	}
	return nil
}

// planCrash picks where the boot ends: after so many steps, at an operation of a rare kind, or when the work is done.
func (r *crashRun) planCrash() {
	r.watch.aim(aim{})
	switch r.rng.IntN(9) {
	case 0, 1, 2:
		r.disk.CrashAt(1 + r.rng.Int64N(80))
	case 3, 4, 5:
		r.disk.CrashAt(1 + r.rng.Int64N(700))
	case 6, 7:
		kinds := []disksim.OpKind{disksim.OpRemove, disksim.OpRename, disksim.OpTruncate, disksim.OpPreallocate, disksim.OpCreate, disksim.OpSyncDir}
		r.watch.aim(aim{kind: kinds[r.rng.IntN(len(kinds))], count: 1 + r.rng.IntN(8), after: r.rng.IntN(2) == 0})
	}
}

// open recovers the store; false: the boot is over.
func (r *crashRun) open(boot int) bool {
	r.mu.Lock()
	r.logs, r.cuts, r.fatal, r.shown = make(map[*replica]*Log), nil, nil, make(map[*Log]logState)
	r.mu.Unlock()
	r.store = nil
	o := r.opts
	o.FS, o.PebbleFS = r.disk, r.disk.Pebble()
	ok := r.within("Open", func() error {
		s, err := Open(context.Background(), o)
		r.store = s
		return err
	})
	r.logf("boot %d: open: %v, halted %v", boot, ok, r.disk.Halted())
	if !ok {
		return false
	}
	r.store.SetCutTaker(func(l *Log) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.cuts = append(r.cuts, l)
		r.cond.Broadcast()
	})
	return true
}

// within runs call on another goroutine, serving cuts meanwhile. It tells whether call succeeded; a failure on a disk that
// is well is a violation, as is a call that does not return.
func (r *crashRun) within(what string, call func() error) bool {
	result := make(chan error, 1)
	go func() {
		err := call()
		r.mu.Lock()
		defer r.mu.Unlock()
		result <- err
		r.cond.Broadcast()
	}()
	r.await(what, func() bool { return len(result) > 0 })
	select {
	case err := <-result:
		if err != nil && !r.disk.Halted() && r.fault == nil && !(r.full && isNoSpace(err)) {
			r.broke("%s: %v", what, err)
		}
		return err == nil
	default:
		return false
	}
}

// freeNowAndThen gives a disk space from time to time, until it is told to end.
func freeNowAndThen(d *disksim.Disk) (end func()) {
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		tick := time.NewTicker(500 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				d.SetCapacity(0)
			case <-stop:
				return
			}
		}
	})
	return func() {
		close(stop)
		running.Wait()
	}
}

// await serves cuts until done, which is called with r.mu held, says so. Nothing that is awaited depends on the disk being
// well: even a failed store returns from its calls.
func (r *crashRun) await(what string, done func() bool) {
	late := false
	if r.full { // what waits for space gets it in the end, also if a try of the one who waits is when the rest is taken once more
		defer freeNowAndThen(r.disk)()
	}
	timer := time.AfterFunc(patience, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		late = true
		r.cond.Broadcast()
	})
	defer timer.Stop()
	r.mu.Lock()
	defer r.mu.Unlock()
	for !done() {
		if late {
			buf := make([]byte, 1<<20)
			r.broken = errors.Join(r.broken, fmt.Errorf("%s: no end after %v\n%s", what, patience, buf[:runtime.Stack(buf, true)]))
			return
		}
		if len(r.cuts) > 0 {
			cuts := r.cuts
			r.cuts = nil
			r.mu.Unlock()
			r.takeCuts(cuts)
			r.mu.Lock()
			continue
		}
		r.cond.Wait()
	}
}

func (r *crashRun) takeCuts(cuts []*Log) {
	for _, l := range cuts {
		for m, have := range r.logs {
			if have == l && !m.deleting {
				if m.told > m.applied && r.rng.IntN(4) != 0 {
					m.applied += 1 + id.Index(r.rng.Uint64N(uint64(m.told-m.applied)))
				}
				l.TakeCut(m.stateAt(m.applied))
				r.observe(m, l)
			}
		}
	}
}

// observe has the owner of a log look where it begins. What is seen on a disk that halted is no promise to anybody.
func (r *crashRun) observe(m *replica, l *Log) {
	start := l.Start()
	if r.over() {
		return
	}
	r.mu.Lock()
	err := m.observe(start)
	r.mu.Unlock()
	if err != nil {
		r.broke("%w", err)
	}
}

// serve takes the cuts that were asked for.
func (r *crashRun) serve() {
	r.mu.Lock()
	cuts := r.cuts
	r.cuts = nil
	r.mu.Unlock()
	r.takeCuts(cuts)
}

// poll serves cuts until cond says so, for what nobody announces.
func (r *crashRun) poll(what string, cond func() bool) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	late := time.After(patience)
	for !cond() && !r.over() {
		r.serve()
		select {
		case <-tick.C:
		case <-late:
			r.broke("%s: not within %v", what, patience)
		}
	}
}

// settle waits until everything submitted is complete, or will never be.
func (r *crashRun) settle() {
	if r.full {
		r.disk.SetCapacity(0) // what waits for space gets it
	}
	halted := r.disk.Done()
	r.await("completion of what was submitted", func() bool {
		select {
		case <-halted: // the store learns it when it touches the disk next
			return true
		default:
			return r.incomplete() == nil || r.fatal != nil || r.broken != nil
		}
	})
}

// incomplete returns a replica with submissions whose Done was not called, nil if there is none. Called with r.mu.
func (r *crashRun) incomplete() *replica {
	for m := range r.logs {
		if m.done < len(m.subs) && !m.deleting {
			return m
		}
	}
	return nil
}

// end takes the process down: cleanly, if nothing has happened.
func (r *crashRun) end() {
	r.clean = false
	if r.store == nil {
		r.disk.Halt()
		return
	}
	clean := !r.over() && r.rng.IntN(4) == 0
	if !clean {
		r.disk.Halt()
	}
	ok := r.within("Close", r.store.Close)
	if r.clean = clean && ok && !r.disk.Halted(); r.clean {
		r.mu.Lock()
		if m := r.incomplete(); m != nil {
			r.broken = errors.Join(r.broken, fmt.Errorf("Close left submissions incomplete: %d of %d of group %d", len(m.subs)-m.done, len(m.subs), m.group))
		}
		r.mu.Unlock()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.fatal != nil && !r.disk.Halted() && r.fault == nil && r.broken == nil {
		r.broken = fmt.Errorf("the store failed on a disk that is well: %w", r.fatal)
	}
}

func (r *crashRun) crash(boot int) {
	kind := r.rng.IntN(4)
	if r.opts.Fsync == FsyncNone && !r.clean {
		kind = 0 // nothing is promised of the others
	}
	switch kind {
	case 0:
		r.disk = r.disk.Crash(disksim.Kill)
	case 1:
		r.disk = r.disk.Crash(disksim.Kill).Crash(disksim.PowerLoss)
	default:
		r.disk = r.disk.Crash(disksim.PowerLoss)
	}
	r.logf("boot %d ended after step %d", boot, r.disk.Steps())
}

// watcher sees every operation on the disk and checks invariant 7 and 18: no write below a segment's watermark, one write in
// flight a segment, and no read at or above the watermark.
type watcher struct {
	r      *crashRun
	mu     sync.Mutex
	writes map[string]int
	rng    *rand.Rand
	target aim
}

// aim is an operation at which the disk halts: the count-th of its kind from now, before or after it is done.
type aim struct {
	kind  disksim.OpKind
	count int
	after bool
}

func (w *watcher) aim(at aim) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.target = at
}

// hit tells whether to halt at an operation that begins, or ended.
func (w *watcher) hit(op disksim.Op, after bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.target.count == 0 || op.Pebble || op.Kind != w.target.kind || after != w.target.after {
		return false
	}
	w.target.count--
	return w.target.count == 0
}

func (w *watcher) before(op disksim.Op) error {
	if isSegment(op) {
		w.check(op)
		w.dawdle()
	}
	if w.hit(op, false) {
		w.r.disk.Halt()
	}
	if w.r.full && op.Kind <= disksim.OpSyncDir && w.dice(200) == 0 {
		w.r.disk.SetCapacity(w.r.disk.Used() + int64(w.dice(3))*disk.BlockSize) // somebody else took the rest
	}
	if w.r.fault != nil {
		return w.r.fault(op)
	}
	return nil
}

func (w *watcher) dice(n int) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rng.IntN(n)
}

// dawdle lets other goroutines overtake a write to a segment.
func (w *watcher) dawdle() {
	w.mu.Lock()
	wait := w.rng.IntN(100) < w.r.slow
	long := time.Duration(w.rng.IntN(2000)) * time.Microsecond
	w.mu.Unlock()
	if wait {
		<-time.After(long)
	}
}

func (w *watcher) after(op disksim.Op, err error) {
	if w.hit(op, true) {
		w.r.disk.Halt()
	}
	if op.Kind != disksim.OpRead && op.Kind != disksim.OpOpen {
		w.r.logf("      %v: %v", op, err)
	}
	if isSegment(op) && op.Kind == disksim.OpWrite {
		w.mu.Lock()
		w.writes[op.Name]--
		w.mu.Unlock()
	}
}

func isSegment(op disksim.Op) bool {
	return !op.Pebble && strings.HasSuffix(op.Name, ".log") && (op.Kind == disksim.OpWrite || op.Kind == disksim.OpRead)
}

func (w *watcher) check(op disksim.Op) {
	if op.Kind == disksim.OpWrite {
		w.mu.Lock()
		if w.writes == nil {
			w.writes = make(map[string]int)
		}
		w.writes[op.Name]++
		n := w.writes[op.Name]
		w.mu.Unlock()
		if n > 1 {
			w.r.broke("%d writes in flight: %v", n, op)
		}
	}
	l := w.r.logOf(path.Base(path.Dir(op.Name)))
	if l == nil {
		return // in recovery, or deleted
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, sg := range l.segs {
		if sg.key.Log() != path.Base(op.Name) || path.Base(l.dir) != path.Base(path.Dir(op.Name)) {
			continue
		}
		if op.Kind == disksim.OpWrite && (op.Offset < int64(sg.w) || sg.stage == segSealed) {
			w.r.broke("%v: the watermark is %d, sealed %v", op, sg.w, sg.stage == segSealed)
		}
		if op.Kind == disksim.OpRead && op.Offset+op.Bytes > (int64(sg.w)+4095)&^4095 {
			w.r.broke("%v: the watermark is %d", op, sg.w)
		}
	}
}

func (r *crashRun) logOf(dir string) *Log {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.logs {
		if path.Base(l.dir) == dir {
			return l
		}
	}
	return nil
}
