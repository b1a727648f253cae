package raftgroup

import (
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/quorumlog/quorumlog/wal/id"
)

// guard calls into Raft, and turns a panic there into the end of this replica.
func (g *Group) guard(call func()) {
	defer g.recovered()
	call()
}

func (g *Group) recovered() {
	switch p := recover().(type) {
	case nil:
	case raftPanic:
		g.breakDown(p)
	default:
		g.h.o.Logger.Error("panic in raft", "group", uint64(g.id), "replica", uint64(g.replica), "panic", p, "stack", string(debug.Stack()))
		g.breakDown(fmt.Errorf("panic in raft: %v", p))
	}
}

// breakDown notes that the replica cannot go on; work finishes it off. From now on nothing leaves it.
func (g *Group) breakDown(cause error) {
	if g.broken == nil {
		g.broken = cause
		g.mute.Store(true)
		if g.rn != nil {
			g.touch()
		}
	}
}

// errLostEntries says that a leader counts on entries that the replica does not have. Nothing else that breaks a replica shows that its
// log is not what it acknowledged, so this alone is for good:
//
//   - Whatever Raft panics about of what is in the log, all replicas meet alike, and so does everybody whose leader sends entries that do
//     not fit. Refusing them all would be the end of the partition, and it may be the leader's log that is wrong.
//   - What is guessed or handed over wrongly in this process is found before it is stored or sent.
//
// These stop the replica as long as the process lives: the log is what it was, and its acknowledgements are true.
type errLostEntries struct{ commit, last id.Index }

// Error implements error.
func (e errLostEntries) Error() string {
	return fmt.Sprintf("the leader knows entry %d to be stored here, but the log ends at %d: acknowledged data was lost", e.commit, e.last)
}

// stop is called for a replica that broke, after the submission of what it did before. One that lost entries fails when it is refused,
// durably: its votes and acknowledgements must not come back with a restart.
func (g *Group) stop() {
	if g.closed || g.ended {
		return
	}
	var lost errLostEntries
	if !errors.As(g.broken, &lost) {
		g.fail(Stopped, g.broken)
		return
	}
	g.stands(Stopped, &FailedError{Group: g.id, Replica: g.replica, Cause: g.broken})
	g.endAll(&FailedError{Group: g.id, Replica: g.replica, Refused: true, Cause: g.broken})
	g.h.refuser.add(g, g.broken)
}

// fail reports the replica as stopped or refused. It stays in the worker's list so that cuts of its log can still be taken: without them
// the journal could not let go of what it holds for it.
func (g *Group) fail(s Standing, cause error) {
	if g.closed || g.failed.Load() {
		return
	}
	g.breakDown(cause)
	g.failed.Store(true)
	g.w.n.failed.Add(1)
	err := &FailedError{Group: g.id, Replica: g.replica, Refused: s == Refused, Cause: cause}
	g.stands(s, err)
	g.h.o.Logger.Error("replica "+s.String(), "group", uint64(g.id), "replica", uint64(g.replica), "error", cause)
	g.endAll(err)
	g.h.o.OnGroupFailed(g, err)
}

// whyBroken is what callers of a broken replica are told.
func (g *Group) whyBroken() error {
	if s, err := g.Standing(); s == Stopped || s == Refused {
		return err
	}
	return &FailedError{Group: g.id, Replica: g.replica, Cause: g.broken} // in this very turn
}

// endAll ends what waits, once.
func (g *Group) endAll(err error) {
	if g.ended {
		return
	}
	g.ended = true
	g.endWaiting(0, err)
	g.failPending(err)
	g.answerUnwaiting()
	g.endRequests(err)
	g.setLeader(LeaderChange{Term: g.term, Node: id.NoNode})
}

// Failed tells whether the replica was stopped or refused, or closed: it knows nothing of its group any more.
func (g *Group) Failed() bool { return g.failed.Load() }

// close ends the group's life on its worker.
func (g *Group) close(err error) {
	if g.closed {
		return
	}
	g.closed = true
	g.failed.Store(true)
	if g.role == Leader {
		g.w.n.leading.Add(-1)
		g.role = Follower
	}
	if g.halted != nil {
		g.w.n.halted.Add(-1)
	}
	g.lead.Store(&LeaderChange{Term: g.term, Node: id.NoNode})
	g.endWaiting(0, err)
	g.failPending(err)
	g.answerUnwaiting()
	g.endRequests(err)
	for _, l := range g.loans {
		l.data.Release()
	}
	g.loans = nil
	for i := len(g.storage.windows) - 1; i >= 0; i-- {
		if g.storage.windows[i].entries != nil {
			g.storage.drop(i)
		}
	}
	g.storage.windows = nil
	if g.inFlight == 0 {
		close(g.idle)
		return
	}
	g.w.draining.Add(1)
	if g.w.in.waiting.Load() { // perhaps the last completion, by a round that ended before it could know
		g.w.turns.ask()
	}
}
