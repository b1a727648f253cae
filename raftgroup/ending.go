package raftgroup

import (
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
		g.breakDown(fmt.Errorf("panic in raft: %v\n%s", p, debug.Stack()))
	}
}

// breakDown notes that the replica cannot go on; work finishes it off.
func (g *Group) breakDown(cause error) {
	if g.broken == nil {
		g.broken = cause
		if g.rn != nil {
			g.touch()
		}
	}
}

// errLostEntries says that a leader counts on entries that the replica does not have.
type errLostEntries struct{ commit, last id.Index }

// Error implements error.
func (e errLostEntries) Error() string {
	return fmt.Sprintf("the leader knows entry %d to be stored here, but the log ends at %d: acknowledged data was lost", e.commit, e.last)
}

// fail stops the replica for good. It stays in the worker's list so that cuts of its log can still be taken: without them the
// journal could not let go of what it holds for it.
func (g *Group) fail(cause error) {
	if g.closed || g.failed.Load() {
		return
	}
	g.breakDown(cause)
	g.failed.Store(true)
	g.w.n.failed.Add(1)
	err := &FailedError{Group: g.id, Replica: g.replica, Cause: cause}
	g.h.o.Logger.Error("replica stopped", "group", uint64(g.id), "replica", uint64(g.replica), "error", cause)
	g.endWaiting(0, err)
	g.failPending(err)
	g.answerUnwaiting()
	g.endRequests(err)
	g.setLeader(LeaderChange{Term: g.term, Node: id.NoNode})
	g.h.o.OnGroupFailed(g, err)
}

// Failed tells whether the replica was stopped for good, or closed: it knows nothing of its group any more.
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
