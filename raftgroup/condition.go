package raftgroup

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"

	"github.com/quorumlog/quorumlog/wal"
	"github.com/quorumlog/quorumlog/wal/id"
)

// Condition is what the disk of a node allows its replicas to do. A leader in any other than Good keeps its followers quiet by heartbeats,
// for which it needs no disk, and takes nothing: so it hands over, to whoever can take records.
type Condition uint8

// The conditions, from the best to the worst.
const (
	Good Condition = iota
	// Full has no space for batches. Votes are stored, and vital groups work.
	Full
	// Stalled has a commit round under way that does not end: nothing becomes durable, votes neither.
	Stalled
)

// String names the condition.
func (c Condition) String() string {
	switch c {
	case Good:
		return "good"
	case Full:
		return "full"
	case Stalled:
		return "stalled"
	}
	return fmt.Sprintf("Condition(%d)", uint8(c))
}

const (
	// yieldRetry is how long after one attempt to hand over the next one follows, and how long an attempt may take: proposals wait for it.
	yieldRetry = time.Second
	// slowClock is how many times slower the election clock of a stalled replica runs. It must not campaign as long as somebody else may:
	// it can win with the others' votes, and would only have to hand over again. It must not wait for ever either, or where all disks are
	// slow a leader that dies has no successor.
	slowClock = 10
	// A stalled follower is sent no more than stalledBytes with each stalledEvery by each worker: a disk that is slow takes part as far as
	// it can, and one that hangs is not sent the same again and again, a message a group with each heartbeat.
	stalledBytes = 4 * mib
	stalledEvery = time.Second
	// fullAllowance bounds the batches that a host takes all the same from when its space ends until it has some again. See Group.trim.
	fullAllowance = 16 * mib
)

// condition is a host's own, and what it was told of others. Worker 0 judges, all read.
type condition struct {
	current atomic.Uint32 // a Condition
	slow    bool
	slowAt  time.Time    // when a round was last seen to take too long
	allowed atomic.Int64 // what of fullAllowance was used

	mu     sync.Mutex // held while workers are told, so that all hear the same last
	others map[id.Node]Condition
}

// Condition returns what the host's disk allows, as of the last tick.
func (h *Host) Condition() Condition { return Condition(h.condition.current.Load()) }

// judge looks at the store, in worker 0's ticks. Without space is as long as the store says so; stalled is left when no round took too long
// for a while, or a disk that hangs now and then would have leaderships come and go.
func (h *Host) judge(now time.Time) {
	c := &h.condition
	if h.o.Store.Stalled() > h.o.StallAfter {
		c.slow, c.slowAt = true, now
	} else if c.slow && now.Sub(c.slowAt) >= h.o.StallClears {
		c.slow = false
	}
	found, full := Good, h.o.Store.Pressure() == wal.PressureNoSpace
	switch {
	case c.slow:
		found = Stalled
	case full:
		found = Full
	}
	if !full {
		c.allowed.Store(0)
	}
	c.current.Store(uint32(found))
}

// NodeCondition tells what another node says of its disk. It costs nothing to be told again.
func (h *Host) NodeCondition(n id.Node, c Condition) {
	h.condition.mu.Lock()
	defer h.condition.mu.Unlock()
	if n == h.o.Node || h.condition.others[n] == c {
		return
	}
	if h.condition.others == nil {
		h.condition.others = make(map[id.Node]Condition)
	}
	h.condition.others[n] = c
	for _, w := range h.workers {
		w.post(event{kind: evCall, call: func(w *worker) { w.noteCondition(n, c) }})
	}
}

// ConditionOf returns what is known of a node's disk: Good, where nobody said otherwise.
func (h *Host) ConditionOf(n id.Node) Condition {
	if n == h.o.Node {
		return h.Condition()
	}
	h.condition.mu.Lock()
	defer h.condition.mu.Unlock()
	return h.condition.others[n]
}

// peerCondition is that of a node whose disk is not Good.
type peerCondition struct {
	condition Condition
	budget    int64 // what it may be sent, while it is stalled
	since     time.Time
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
		w.h.judge(w.now)
	}
	c := w.h.Condition()
	if c == w.condition {
		return
	}
	w.condition = c
	for _, g := range w.groups {
		g.yieldAt = time.Time{}
	}
}

// conditionOf returns what the node of a member can do for the group.
func (g *Group) conditionOf(r id.Replica) Condition {
	c := g.w.condition
	if r != g.replica {
		p := g.w.conditions[g.nodeOf(r)]
		if p == nil {
			return Good
		}
		c = p.condition
	}
	if c == Full && g.vital {
		return Good
	}
	return c
}

// clockRuns tells whether a tick counts for the replica's election clock. It does not for a candidate that still has good reason to wait for
// votes: when the clock rings Raft gives up those that it has.
func (g *Group) clockRuns() bool {
	if g.role == Candidate && g.race.Patient(g.w.now) {
		return false
	}
	return g.w.condition != Stalled || g.role == Leader || g.w.ticks%slowClock == 0
}

// doubtLeader is called with each tick that does not count. By its election clock Raft also measures how long it denies others a vote for
// the sake of a leader that it does not hear from: that must not take ten times as long.
func (g *Group) doubtLeader() {
	if g.leader == id.NoReplica {
		return
	}
	if g.silent++; g.silent >= g.h.o.ElectionTicks {
		g.silent = 0
		g.forgetLeader()
		g.touch()
	}
}

// heard is called with each message that only a leader sends.
func (g *Group) heard(from id.Replica, term id.Term) {
	if from == g.leader {
		g.silent = 0
	}
	if term >= g.term {
		g.heardAt = g.w.now
	}
}

// yield has a leader that can take nothing hand over, to somebody who can. It is called every tick.
func (g *Group) yield() {
	if g.conditionOf(g.replica) == Good {
		return
	}
	if t := g.transfer; t != nil {
		if g.conditionOf(t.to) == Good {
			return
		}
		g.abortTransfer(fmt.Errorf("%w: the disk of replica %d is %v", ErrTransferFailed, t.to, g.conditionOf(t.to)))
	}
	if g.w.now.Before(g.yieldAt) {
		return
	}
	g.yieldAt = g.w.now.Add(yieldRetry)
	g.refreshInSync()
	if !g.canElect() {
		return
	}
	m := g.member(g.bestSuccessor(nil))
	if m == nil || !m.inSync || g.conditionOf(m.replica) != Good {
		return // nobody takes it: somebody has to lead, for those who read
	}
	g.startTransfer(m.replica, nil, make(chan error, 1))
	if g.transfer != nil {
		g.transfer.until = g.w.now.Add(yieldRetry)
		g.w.n.yields.Add(1)
	}
}

// canElect tells whether a majority can store votes. Without one nobody would lead after a transfer, and nobody could read.
func (g *Group) canElect() bool {
	var in, inCan, out, outCan int
	for i := range g.members {
		m := &g.members[i]
		can := one(g.alive(m) && g.conditionOf(m.replica) != Stalled)
		if m.incoming {
			in++
			inCan += can
		}
		if m.outgoing {
			out++
			outCan += can
		}
	}
	return inCan > in/2 && (out == 0 || outCan > out/2)
}

// shuts tells whether a MsgApp has to stay outside: this is the door at which a follower's store is asked for room. What is dropped here is
// lost on the way as far as Raft can tell, and comes again. Entries without batches always pass, they weigh nothing: a new leader's first
// entry has to commit before anybody reads. Where the store is behind, each group has room for one message, or those that wait in the
// caches of all groups would keep out the entry that commits them.
func (g *Group) shuts(m *raftpb.Message) bool {
	p := g.h.o.Store.Pressure()
	if p == wal.PressureNone && g.w.condition != Stalled {
		return false
	}
	if batchBytes(m) == 0 {
		return false
	}
	if p == wal.PressureNoSpace && !g.vital {
		return !g.trim(m)
	}
	if g.inFlight > 0 || g.takes {
		g.w.n.droppedBehind.Add(1)
		return true
	}
	g.takes = true
	return false
}

// trim cuts a MsgApp down to the entries that a store without space takes, and tells whether any are left. Raft acknowledges what it is
// shown; the rest comes again.
//
// Batches of an earlier term are what its leader needs to commit its first entry, if none of those which it can reach has more space than
// this one: without them nobody can read until there is space. A leader that has done so does not send them. Its own batches stand behind
// that entry, perhaps in the same message, so the message is cut rather than dropped. What the log has already takes no space.
func (g *Group) trim(m *raftpb.Message) bool {
	entries := m.GetEntries()
	keep, weightless, bytes := 0, 0, int64(0)
	for _, e := range entries {
		if walKind(e) == wal.KindBatch && !g.has(e) {
			if e.GetTerm() >= m.GetTerm() {
				break
			}
			bytes += int64(len(e.GetData()))
		}
		keep++
		if bytes == 0 {
			weightless = keep
		}
	}
	if bytes > 0 && !g.h.condition.allow(bytes) {
		keep = weightless
	}
	if keep < len(entries) {
		g.w.n.droppedNoSpace.Add(1)
		m.Entries = entries[:keep:keep]
	}
	return keep > 0
}

// has tells whether the log has this very entry.
func (g *Group) has(e *raftpb.Entry) bool {
	t, ok := g.log.Term(id.Index(e.GetIndex()))
	return ok && t == id.Term(e.GetTerm())
}

// allow takes bytes out of what is left of fullAllowance, if they are left.
func (c *condition) allow(bytes int64) bool {
	if c.allowed.Add(bytes) <= fullAllowance {
		return true
	}
	c.allowed.Add(-bytes)
	return false
}

// batchBytes returns what the batches of a MsgApp weigh.
func batchBytes(m *raftpb.Message) (bytes int64) {
	for _, e := range m.GetEntries() {
		if walKind(e) == wal.KindBatch {
			bytes += int64(len(e.GetData()))
		}
	}
	return bytes
}

// holdsBack tells whether a MsgApp is not sent, because the disk of whom it is for would not take it.
func (g *Group) holdsBack(m *raftpb.Message) bool {
	if len(g.w.conditions) == 0 || g.vital {
		return false
	}
	p := g.w.conditions[g.nodeOf(id.Replica(m.GetTo()))]
	if p == nil {
		return false
	}
	bytes := batchBytes(m)
	if bytes == 0 || p.condition == Full && !g.confirmed() {
		return false
	}
	if p.condition == Stalled {
		if g.w.now.Sub(p.since) >= stalledEvery {
			p.since, p.budget = g.w.now, stalledBytes
		}
		if p.budget > 0 {
			p.budget -= bytes
			return false
		}
	}
	g.w.n.heldBack.Add(1)
	return true
}

// confirmed tells whether the leader has committed an entry of its own term.
func (g *Group) confirmed() bool {
	t, ok := g.log.Term(g.commit)
	return ok && t == g.term
}

// abortTransfer ends a transfer that has no outcome. Raft aborts one when it is asked for another, to the leader itself for instance.
func (g *Group) abortTransfer(err error) {
	t := g.transfer
	g.transfer = nil
	if g.role == Leader && g.term == t.term && g.rn.BasicStatus().LeadTransferee != raft.None {
		g.guard(func() { g.rn.TransferLeader(uint64(g.replica)) })
	}
	t.result <- err
}
