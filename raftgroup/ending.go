package raftgroup

import (
	"errors"

	"github.com/quorumlog/quorumlog/wal/id"
)

// stop is called for a replica that broke, after the submission of what it did before. One that lost entries fails when it is refused,
// durably: its votes and acknowledgements must not come back with a restart.
func (g *group) stop() {
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
	g.env.refuse(g, g.broken)
}

// fail reports the replica as stopped or refused. It stays in the worker's list so that cuts of its log can still be taken: without them
// the journal could not let go of what it holds for it.
func (g *group) fail(s Standing, cause error) {
	if g.closed || g.failed.Load() {
		return
	}
	g.breakDown(cause)
	g.failed.Store(true)
	g.turn.n.failed.Add(1)
	err := &FailedError{Group: g.id, Replica: g.replica, Refused: s == Refused, Cause: cause}
	g.stands(s, err)
	g.env.o.Logger.Error("replica "+s.String(), "group", uint64(g.id), "replica", uint64(g.replica), "error", cause)
	g.endAll(err)
	g.report(err)
}

// endAll ends what waits, once.
func (g *group) endAll(err error) {
	if g.ended {
		return
	}
	g.ended = true
	g.endWaiting(0, err)
	g.failPending(err)
	g.answerUnwaiting()
	g.endRequests(err)
	g.dropAssembly()
	g.setLeader(LeaderChange{Term: g.term, Node: id.NoNode})
}

// close ends the group's life on its worker.
func (g *group) close(err error) {
	if g.closed {
		return
	}
	g.closed = true
	g.failed.Store(true)
	if g.role == Leader {
		g.turn.n.leading.Add(-1)
		g.role = Follower
	}
	if g.halted != nil {
		g.turn.n.halted.Add(-1)
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
	g.dropWindows()
	g.endOffers()
	g.dropAssembly()
	if g.inFlight == 0 {
		close(g.idle)
	} else {
		g.turn.draining.Add(1)
	}
}
