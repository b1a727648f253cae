package raftgroup

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/quorumlog/quorumlog/wal/id"
)

// worker owns the groups whose id falls to it. What follows turns is touched by nobody but who has claimed the turn.
type worker struct {
	turn   // under way, or of which the last one left something
	env    *env
	number int // of the host's workers
	in     inbox
	wake   chan struct{} // capacity 1: passes a claimed turn on to run
	stop   chan struct{} // closed by Host.Close
	done   chan struct{} // closed when the worker has ended

	ticked, rang atomic.Bool // the next turn is told so
	closing      atomic.Bool // the next turn is run's, and its last
	turns        turns

	alarm  *time.Timer
	armed  time.Time // what alarm is set to; zero: nothing
	heavy  time.Time // of the last turn with much to do
	groups []*group  // open ones, failed ones included; g.slot is the position
	spare  []*group  // the other half of dirty's double buffer
	got    delivery
}

// turnBudget bounds the bytes that are proposed in one turn, and with it how long heartbeats may wait for the turn's end.
const turnBudget = 8 * mib

func newWorker(e *env, number int) *worker {
	w := &worker{
		env: e, number: number, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{}),
		alarm: time.NewTimer(time.Hour),
	}
	w.now, w.down = time.Now(), make(map[id.Node]int64)
	w.condition, w.conditions = e.disk.condition(), make(map[id.Node]*peerCondition)
	w.in.maxBytes = e.o.MaxInboxBytes
	return w
}

// arm sets the alarm to when the worker wants to be woken, unless it rings earlier anyway.
func (w *worker) arm() {
	if next := w.nextAlarm(); !next.IsZero() && (w.armed.IsZero() || next.Before(w.armed)) {
		w.armed = next
		w.alarm.Reset(max(0, next.Sub(w.now)))
	}
}

// nextAlarm is when the worker wants to be woken; zero: not.
func (w *worker) nextAlarm() time.Time {
	next := w.alarms.Next()
	if due := w.noticesDue; !due.IsZero() && (next.IsZero() || due.Before(next)) {
		return due
	}
	return next
}

// takeTurn does everything that waits.
func (w *worker) takeTurn() {
	w.now = time.Now()
	w.n.turns.Add(1)
	tick, ring := w.ticked.Swap(false), w.rang.Swap(false)
	bytes, more := w.in.take(&w.got)
	if bytes > lightBytes {
		w.heavy = w.now
	}
	if tick {
		w.tick()
	}
	if ring {
		w.armed = time.Time{}
	}
	for i := range w.got.urgent {
		w.handle(&w.got.urgent[i])
	}
	for i := range w.got.bulk {
		w.handle(&w.got.bulk[i])
	}
	if ring || tick {
		w.fireTimers() // after the messages: one of them may be the new leader's
	}
	for _, b := range w.got.proposals {
		b.group.enqueue(b.proposal)
	}
	w.budget = turnBudget
	for _, g := range w.waiting {
		g.touch()
	}
	clear(w.waiting)
	w.waiting = w.waiting[:0]
	w.settle()
	w.sendNotices()
	w.flush()
	w.env.o.TurnDone()
	w.arm()
	if len(w.waiting) > 0 || more {
		w.turns.ask()
	}
}

func (w *worker) handle(ev *event) {
	switch ev.kind {
	case evMessage:
		ev.group.receive(ev.from, ev.message)
		if ev.data != nil {
			w.held = append(w.held, ev.data)
		}
	case evAppended:
		ev.group.appended(ev.job)
	case evRead:
		ev.group.readDone(ev.read)
	case evCall:
		ev.call()
	case evCut:
		ev.group.takeCut()
	}
}

// settle works until no touched group has anything left to do. Each round takes one Ready of each and submits once: what a
// group's log must have before its commit index may pass it is handled after the submission.
func (w *worker) settle() {
	for len(w.dirty) > 0 {
		list := w.dirty
		w.dirty = w.spare[:0]
		for _, g := range list {
			g.dirty = false
			g.work()
		}
		w.submitAll()
		w.sendPosts()
		w.failBroken()
		w.flush()
		for _, g := range w.after {
			g.commitSubmitted()
		}
		clear(w.after)
		w.after = w.after[:0]
		for _, g := range list {
			if g.more() {
				g.touch()
			}
		}
		clear(list)
		w.spare = list
	}
	w.flush()
	for _, g := range w.lent { // Raft holds no message and no Ready any more that shares their data
		g.lent = false
		g.log.Release()
	}
	clear(w.lent)
	w.lent = w.lent[:0]
	for i, data := range w.held { // whatever Raft took of it has the log's memory for its data now
		w.held[i] = nil
		data.Release()
	}
	w.held = w.held[:0]
}

func (w *worker) flush() {
	if w.sent {
		w.sent = false
		w.env.o.Transport.Flush()
	}
}

func (w *worker) submitAll() {
	if len(w.submit) == 0 {
		return
	}
	w.n.submissions.Add(1)
	w.n.appends.Add(uint64(len(w.submit)))
	w.env.o.Store.Submit(w.submit)
	for i, a := range w.submit {
		j := a.Owner.(*appendJob)
		j.group.submitted(j)
		w.submit[i] = nil
	}
	w.submit = w.submit[:0]
}

// failBroken stops the replicas that broke.
func (w *worker) failBroken() {
	for i, g := range w.failing {
		w.failing[i] = nil
		g.stop()
	}
	w.failing = w.failing[:0]
}

// sendPosts sends what waited for the submission, with the loan of the entries where these are the ones just submitted.
func (w *worker) sendPosts() {
	for i, p := range w.posts {
		w.posts[i] = post{}
		if p.group.sound(p.message) && !p.group.holdsBack(p.message) && p.group.send(p.message, p.group.loanFor(p.message)) {
			w.sent = true
		}
	}
	w.posts = w.posts[:0]
}

// add takes over a group that was booted by Host.Open.
func (w *worker) add(g *group, hint CampaignHint) {
	g.slot = len(w.groups)
	w.groups = append(w.groups, g)
	g.start(hint)
	g.touch()
}

// remove gives a group up.
func (w *worker) remove(g *group) {
	if g.closed {
		return
	}
	if g.slot < len(w.groups) && w.groups[g.slot] == g {
		last := w.groups[len(w.groups)-1]
		w.groups[g.slot], last.slot = last, g.slot
		w.groups[len(w.groups)-1] = nil
		w.groups = w.groups[:len(w.groups)-1]
	}
	w.close(g)
}

// close ends a group. It stays known to its appends in flight.
func (w *worker) close(g *group) {
	g.close(ErrClosed)
	if g.inFlight > 0 && w.in.waiting.Load() { // perhaps the last completion, by a round that ended before it could know
		w.turns.ask()
	}
}

// tick is called every TickInterval.
func (w *worker) tick() {
	w.ticks++
	w.checkCondition()
	for i := 0; i < len(w.groups); i++ { // a failing group stays in the list
		w.groups[i].tick()
	}
}

// end closes everything, when the host closes.
func (w *worker) end() {
	w.in.close()
	w.in.take(&w.got)
	for i := range w.got.urgent {
		if ev := &w.got.urgent[i]; ev.kind == evCall || ev.kind == evCut {
			w.handle(ev)
		}
	}
	for _, b := range w.got.proposals {
		b.group.turnAway(b.proposal, ErrClosed)
	}
	for _, g := range slices.Clone(w.groups) {
		g.takeCut()
		w.close(g)
	}
	w.groups = nil
	w.env.o.TurnDone()
}

func (w *worker) noteCondition(n id.Node, c Condition) {
	switch p := w.conditions[n]; {
	case c == Good:
		delete(w.conditions, n)
	case p == nil:
		w.conditions[n] = &peerCondition{condition: c}
	default:
		p.condition = c
	}
}

// checkCondition is called with each tick, before the groups'.
func (w *worker) checkCondition() {
	if w.number == 0 {
		w.env.disk.judge(&w.env.o, w.now)
	}
	c := w.env.disk.condition()
	if c == w.condition {
		return
	}
	w.condition = c
	for _, g := range w.groups {
		g.yieldAt = time.Time{}
	}
}

// sendNotices sends what has waited long enough.
func (w *worker) sendNotices() {
	if w.noticesDue.IsZero() || w.now.Before(w.noticesDue) {
		return
	}
	w.noticesDue = time.Time{}
	for i, g := range w.noticing {
		w.noticing[i] = nil
		for j, m := range g.notices {
			g.notices[j] = nil
			if !g.closed && g.broken == nil && g.send(m, nil) {
				w.sent = true
			}
		}
		g.notices = g.notices[:0]
	}
	w.noticing = w.noticing[:0]
}

// nodeDown has every group that may have lost its leader elect another.
func (w *worker) nodeDown(n id.Node) {
	if n == w.env.o.Node {
		return
	}
	w.down[n] = w.now.UnixNano()
	for i := 0; i < len(w.groups); i++ {
		w.groups[i].nodeDown(n)
	}
}

func (w *worker) nodeUp(n id.Node) {
	delete(w.down, n)
	for i := 0; i < len(w.groups); i++ {
		w.groups[i].nodeUp(n)
	}
}

func (w *worker) snapshotsLost(n id.Node) {
	for i := 0; i < len(w.groups); i++ {
		w.groups[i].snapshotsLost(n)
	}
}

func (w *worker) fireTimers() {
	for next := w.alarms.Next(); !next.IsZero() && !next.After(w.now); next = w.alarms.Next() {
		t := w.alarms.Pop()
		if !t.At.Before(t.Who.alarm) {
			t.Who.alarm = time.Time{}
		}
		t.Who.ring()
	}
}
